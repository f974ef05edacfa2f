//! A connection to a server: a request is written once, and its replies are read until
//! they are complete, before one deadline.

use core::net::IpAddr;

use session_memory_core::error::Error;
use session_memory_core::exchange::{End, Exchange};
use session_memory_core::resp::{Commands, Received, ReplyReader, Scan};

use super::deadline::Deadline;
use super::route::Route;
use super::socket::Socket;
use crate::wasi::tcp::Closed;

/// A connection whose last exchange was complete.
pub struct Connection {
    socket: Socket,
    address: IpAddr,
}

impl Connection {
    /// Connects to an address of a host.
    ///
    /// # Errors
    ///
    /// The errors of [`Route::connect`].
    pub fn open(
        host: &str,
        port: u16,
        route: &mut Route,
        deadline: &Deadline,
    ) -> Result<Connection, Error> {
        let (socket, address) = route.connect(host, port, deadline)?;
        Ok(Connection { socket, address })
    }

    /// The address of the server.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether it can be used: the server has sent nothing unasked, and has not closed
    /// it.
    pub fn is_usable(&self) -> bool {
        self.socket.is_quiet()
    }

    /// Sends a request and reads its replies, until the deadline, or until no byte was
    /// sent or received for `silence_limit` milliseconds. Returns the connection if the
    /// exchange is complete, and closes it otherwise.
    pub fn exchange(
        self,
        commands: &Commands,
        mut reader: ReplyReader,
        deadline: &Deadline,
        silence_limit: u32,
    ) -> (Option<Connection>, Exchange) {
        let mut written = 0;
        let end = self.transfer(commands, &mut written, &mut reader, deadline, silence_limit);
        let partial = reader.partial();
        let (received, end) = match reader.finish() {
            Ok(received) => (received, end),
            Err(error) => (Received::default(), End::Malformed(error)),
        };
        let is_complete = matches!(end, End::Complete);
        let exchange = Exchange {
            received,
            partial,
            written,
            end,
        };
        (is_complete.then_some(self), exchange)
    }

    /// Alternates writes and reads, because a server may stop reading until its replies are
    /// read. Adds the bytes that the host has taken to `written`.
    fn transfer(
        &self,
        commands: &Commands,
        written: &mut usize,
        reader: &mut ReplyReader,
        deadline: &Deadline,
        silence_limit: u32,
    ) -> End {
        let bytes = commands.bytes();
        let mut unsent = bytes;
        let mut has_more = false;
        // A host may allocate the whole size in advance.
        let mut size = commands.expected().min(MAX_READ);
        let mut silence = deadline.min(silence_limit);
        loop {
            let mut moved = 0;
            while !unsent.is_empty() {
                match self.socket.write(unsent) {
                    Ok(0) => break,
                    Ok(taken) => {
                        *written += taken;
                        moved += taken;
                        unsent = &unsent[taken..];
                    }
                    // The host does not say how much was sent, only that the last byte was
                    // not. Reading goes on, because the server may have said why it closed
                    // the connection.
                    Err(Closed) => {
                        *written = bytes.len() - 1;
                        unsent = &[];
                    }
                }
            }
            if !has_more {
                commands.do_work();
                let waited = match unsent.is_empty() {
                    true => self.socket.wait_to_read(&silence),
                    false => self.socket.wait_to_read_or_write(&silence),
                };
                if waited.is_err() {
                    return match deadline.has_passed() {
                        true => End::Timeout(deadline.milliseconds),
                        false => End::Timeout(silence.milliseconds),
                    };
                }
            }
            let buffer = match reader.room(size) {
                Ok(buffer) => buffer,
                Err(error) => return End::Malformed(error),
            };
            let Ok(read) = self.socket.read(size, buffer) else {
                return End::Closed;
            };
            moved += read;
            has_more = read == size;
            let wanted = if has_more { 4 * size } else { size };
            match reader.scan() {
                Ok(Scan::Complete) => return End::Complete,
                Ok(Scan::Missing(missing)) => size = wanted.max(missing).min(MAX_READ),
                Err(error) => return End::Malformed(error),
            }
            // While more bytes are there, no wait checks the deadline.
            if deadline.has_passed() {
                return End::Timeout(deadline.milliseconds);
            }
            if moved > 0 {
                silence = deadline.min(silence_limit);
            }
        }
    }
}

/// The most bytes that hosts return for one read.
const MAX_READ: usize = 64 * 1024;
