//! A connection to the server: a request is written once, and its replies are
//! read until they are complete, all under one deadline.

use alloc::string::String;
use alloc::{format, vec::Vec};
use core::net::IpAddr;

use crate::clock::Deadline;
use crate::error::{Error, Quoted};
use crate::reply::{Progress, Replies, ReplyReader};
use crate::session::Request;
use crate::socket::{self, ConnectError, Socket, TransferError};

/// A connection whose last exchange ended as it should.
pub struct Connection {
    socket: Socket,
}

impl Connection {
    /// Connects to the first address of `host` that answers.
    pub fn open(host: &str, port: u16, deadline: &Deadline) -> Result<Connection, Error> {
        let addresses = socket::resolve(host, deadline)
            .map_err(|error| connect_error(error, &format!("{}", Quoted(host)), deadline))?;
        let mut failures: Vec<(IpAddr, ConnectError)> = Vec::new();
        let mut left = addresses.len();
        for address in addresses {
            // An address that swallows everything must leave time for the next.
            match Socket::connect(address, port, &deadline.share(left)) {
                Ok(socket) => return Ok(Connection { socket }),
                Err(error) => failures.push((address, error)),
            }
            left -= 1;
        }
        Err(all_failed(failures, port, deadline))
    }

    /// Whether it can be used: the server has sent nothing that was not asked
    /// for, and has not closed it.
    pub fn is_usable(&self) -> bool {
        self.socket.is_quiet()
    }

    /// Sends a request and reads its replies. Only a connection that has nothing
    /// left to say is handed back; any other is closed.
    pub fn exchange(
        self,
        request: &Request,
        max_reply_bytes: u32,
        deadline: &Deadline,
    ) -> Result<(Connection, Replies), Error> {
        match transfer(&self.socket, request, max_reply_bytes, deadline) {
            Ok(replies) => Ok((self, replies)),
            Err(error) => {
                self.socket.close();
                Err(error)
            }
        }
    }

    /// Closes a connection that is not to be used again.
    pub fn close(self) {
        self.socket.close();
    }
}

fn transfer(
    socket: &Socket,
    request: &Request,
    max_reply_bytes: u32,
    deadline: &Deadline,
) -> Result<Replies, Error> {
    let mut reader = ReplyReader::new(request.commands.count(), max_reply_bytes);
    let written = socket.write(request.commands.bytes(), deadline);
    if let Err(TransferError::Timeout) = written {
        return Err(failed(TransferError::Timeout, request, false, deadline));
    }
    // When the server has closed the connection, it may have said why before.
    let mut size = FIRST_READ;
    loop {
        let bytes = match socket.read(size, deadline) {
            Ok(bytes) => bytes,
            Err(error) => {
                let failure = || failed(error, request, written.is_ok(), deadline);
                return Err(reader.refusal().unwrap_or_else(failure));
            }
        };
        let filled = bytes.len() == size;
        match reader.push(bytes)? {
            Progress::Complete => return reader.finish(),
            // A host allocates as much as is asked for.
            Progress::Missing(missing) if filled => {
                size = (2 * size).max(missing).min(LARGEST_READ)
            }
            Progress::Missing(missing) => size = size.max(missing).min(LARGEST_READ),
        }
    }
}

/// `sent` is whether all of the request may have reached the server.
fn failed(error: TransferError, request: &Request, sent: bool, deadline: &Deadline) -> Error {
    let what = match error {
        TransferError::Timeout => format!("no answer within {} ms", deadline.milliseconds),
        TransferError::Closed => String::from("the connection was lost"),
    };
    match error {
        _ if sent && request.writes => Error::OutcomeUnknown(what + " after the request was sent"),
        TransferError::Timeout => Error::Timeout(what),
        TransferError::Closed => Error::Unavailable(what),
    }
}

fn all_failed(failures: Vec<(IpAddr, ConnectError)>, port: u16, deadline: &Deadline) -> Error {
    // One that timed out may come back, and one that was denied was not tried; so
    // the reason that leaves the most hope is the one of them all.
    let mut texts = Vec::new();
    let mut all_denied = true;
    let mut any_timeout = false;
    for (address, error) in failures {
        all_denied &= matches!(error, ConnectError::Denied);
        any_timeout |= matches!(error, ConnectError::Timeout);
        let address = socket::authority(&format!("{address}"), port);
        texts.push(text_of(&error, &address, deadline));
    }
    let text = texts.join("; ");
    if any_timeout {
        Error::Timeout(text)
    } else if all_denied {
        Error::AccessDenied(text)
    } else {
        Error::Unavailable(text)
    }
}

fn connect_error(error: ConnectError, what: &str, deadline: &Deadline) -> Error {
    let text = text_of(&error, what, deadline);
    match error {
        ConnectError::Timeout => Error::Timeout(text),
        ConnectError::Denied => Error::AccessDenied(text),
        ConnectError::Failed(_) => Error::Unavailable(text),
    }
}

fn text_of(error: &ConnectError, what: &str, deadline: &Deadline) -> String {
    match error {
        ConnectError::Timeout => format!("{what}: no answer within {} ms", deadline.milliseconds),
        ConnectError::Denied => format!("{what}: the host does not allow this address"),
        ConnectError::Failed(reason) => format!("{what}: {reason}"),
    }
}

/// Bytes asked for at first: enough for any reply but messages.
const FIRST_READ: usize = 4 * 1024;
/// Hosts give no more at once.
const LARGEST_READ: usize = 64 * 1024;
