//! A connection to the server: a request is written once, and its replies are
//! read until they are complete, all under one deadline.

use alloc::format;
use alloc::vec::Vec;

use crate::clock::Deadline;
use crate::command::Commands;
use crate::error::{Error, Quoted};
use crate::pipeline::{End, Exchange};
use crate::reply::{Progress, Received, ReplyReader};
use crate::socket::{self, Closed, ConnectError, Socket};

/// A connection whose last exchange ended as it should.
pub struct Connection {
    socket: Socket,
}

impl Connection {
    /// Connects to the first address of `host` that answers.
    pub fn open(host: &str, port: u16, deadline: &Deadline) -> Result<Connection, Error> {
        let addresses = socket::resolve(host, deadline)
            .map_err(|error| connect_error(error, &format!("{}", Quoted(host)), deadline))?;
        let mut failures = Vec::new();
        let mut left = addresses.len();
        for address in addresses {
            // An address that swallows everything must leave time for the next.
            let share = deadline.share(left);
            match Socket::connect(address, port, &share) {
                Ok(socket) => return Ok(Connection { socket }),
                Err(error) => {
                    let address = socket::authority(&format!("{address}"), port);
                    failures.push(connect_error(error, &address, &share));
                }
            }
            left -= 1;
        }
        Err(all_failed(failures))
    }

    /// Whether it can be used: the server has sent nothing that was not asked
    /// for, and has not closed it.
    pub fn is_usable(&self) -> bool {
        self.socket.is_quiet()
    }

    /// Sends a request and reads its replies into `reader`. Only a connection that has
    /// nothing left to say is handed back; any other is closed. `meanwhile` is called
    /// whenever the server is about to be waited for.
    pub fn exchange(
        self,
        commands: &Commands,
        mut reader: ReplyReader,
        deadline: &Deadline,
        meanwhile: &mut dyn FnMut(),
    ) -> (Option<Connection>, Exchange) {
        let mut written = 0;
        let end = self.transfer(commands, &mut written, &mut reader, deadline, meanwhile);
        let (received, end) = match reader.finish() {
            Ok(received) => (received, end),
            Err(error) => (Received::default(), End::Unfit(error)),
        };
        let usable = matches!(end, End::Complete);
        let exchange = Exchange {
            received,
            written,
            end,
        };
        (usable.then_some(self), exchange)
    }

    /// Writes and reads by turns: a server that stops reading until its replies are
    /// read must not be waited for.
    fn transfer(
        &self,
        commands: &Commands,
        written: &mut usize,
        reader: &mut ReplyReader,
        deadline: &Deadline,
        meanwhile: &mut dyn FnMut(),
    ) -> End {
        let bytes = commands.bytes();
        let mut unsent = bytes;
        let mut more_is_there = false;
        // A host allocates as much as is asked for.
        let mut size = commands.expected().min(LARGEST_READ);
        loop {
            while !unsent.is_empty() {
                match self.socket.write(unsent) {
                    Ok(0) => break,
                    Ok(taken) => {
                        *written += taken;
                        unsent = &unsent[taken..];
                    }
                    // How much of it was sent is not told; not the last byte. The
                    // server may have said why it closed the connection.
                    Err(Closed) => {
                        *written = bytes.len() - 1;
                        unsent = &[];
                    }
                }
            }
            let to_write = !unsent.is_empty();
            if !more_is_there {
                meanwhile();
                if self.socket.wait(to_write, deadline).is_err() {
                    return End::Timeout(deadline.milliseconds);
                }
            }
            let buffer = match reader.room(size) {
                Ok(buffer) => buffer,
                Err(error) => return End::Unfit(error),
            };
            let Ok(read) = self.socket.read(size, buffer) else {
                return End::Closed;
            };
            more_is_there = read == size;
            let wanted = if more_is_there { 4 * size } else { size };
            match reader.scan() {
                Ok(Progress::Complete) => return End::Complete,
                Ok(Progress::Missing(missing)) => size = wanted.max(missing).min(LARGEST_READ),
                Err(error) => return End::Unfit(error),
            }
            // As long as more is there, nothing waits for the deadline.
            if deadline.has_passed() {
                return End::Timeout(deadline.milliseconds);
            }
        }
    }
}

/// One error for all addresses: the one that leaves the most hope, since one that
/// timed out may come back, and one that was denied was not tried.
fn all_failed(failures: Vec<Error>) -> Error {
    let texts: Vec<&str> = failures.iter().map(Error::text).collect();
    let text = texts.join("; ");
    if failures
        .iter()
        .any(|error| matches!(error, Error::Timeout(_)))
    {
        Error::Timeout(text)
    } else if failures
        .iter()
        .all(|error| matches!(error, Error::AccessDenied(_)))
    {
        Error::AccessDenied(text)
    } else {
        Error::Unavailable(text)
    }
}

fn connect_error(error: ConnectError, what: &str, deadline: &Deadline) -> Error {
    match error {
        ConnectError::Timeout => Error::Timeout(format!(
            "{what}: no answer within {} ms",
            deadline.milliseconds
        )),
        ConnectError::Denied => {
            Error::AccessDenied(format!("{what}: the host does not allow this address"))
        }
        ConnectError::Invalid => {
            Error::InvalidArgument(format!("{what}: not a name and not an IP address"))
        }
        ConnectError::Failed(reason) => Error::Unavailable(format!("{what}: {reason}")),
    }
}

/// Hosts give no more at once.
const LARGEST_READ: usize = 64 * 1024;
