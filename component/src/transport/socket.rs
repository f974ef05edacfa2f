//! Sockets that wait until a deadline, and whose drop never blocks.

use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::Deref;

use super::deadline::{Deadline, Passed};
use crate::state::unsent;
use crate::wasi::tcp::{ConnectError, Lookup, TcpStream};

/// A connected socket.
///
/// Dropping it closes the connection. If there are bytes that the peer has not taken,
/// [`close_unsent`] closes it when they are taken.
pub struct Socket {
    /// `None` only while it is dropped.
    stream: Option<TcpStream>,
}

impl Socket {
    /// Waits until there is something to read.
    ///
    /// # Errors
    ///
    /// [`Passed`] if the deadline passes first.
    pub fn wait_to_read(&self, deadline: &Deadline) -> Result<(), Passed> {
        deadline.wait(self.readable())
    }

    /// Waits until there is something to read, or something can be written.
    ///
    /// # Errors
    ///
    /// [`Passed`] if the deadline passes first.
    pub fn wait_to_read_or_write(&self, deadline: &Deadline) -> Result<(), Passed> {
        deadline.wait_for_any(&[self.readable(), self.writable()])
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Socket {
        Socket {
            stream: Some(stream),
        }
    }
}

impl Deref for Socket {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        self.stream.as_ref().expect("only drop takes it")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take()
            && stream.is_writing()
        {
            unsent().push(stream);
        }
    }
}

/// Closes the dropped sockets whose peers have taken everything or are gone.
pub fn close_unsent() {
    unsent().retain(TcpStream::is_writing);
}

/// Returns whether [`MAX_UNSENT`] dropped sockets still have unsent bytes.
pub fn has_too_many_unsent() -> bool {
    unsent().len() >= MAX_UNSENT
}

/// Looks up the addresses of a name. An IP address is its own address.
pub fn resolve(host: &str, deadline: &Deadline) -> Result<Vec<IpAddr>, ConnectError> {
    if let Ok(address) = host.parse() {
        let address: IpAddr = address;
        return Ok(Vec::from([address.to_canonical()]));
    }
    let lookup = Lookup::start(host)?;
    let mut found = Vec::new();
    while !lookup.find(&mut found)? {
        deadline.wait(lookup.ready())?;
    }
    Ok(found)
}

impl From<Passed> for ConnectError {
    fn from(_: Passed) -> ConnectError {
        ConnectError::Timeout
    }
}

/// Number of sockets with unsent bytes at which no further connection is made.
pub const MAX_UNSENT: usize = 8;
