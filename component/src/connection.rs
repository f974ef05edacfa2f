//! A connection to the server: a request is written once, and its replies are
//! read until they are complete, all under one deadline.

use alloc::string::String;
use alloc::{format, vec::Vec};

use crate::clock::Deadline;
use crate::error::{Error, Quoted};
use crate::reply::{Progress, Replies, ReplyReader};
use crate::session::{Effect, Request};
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

    /// Sends a request and reads its replies. Only a connection that has nothing
    /// left to say is handed back; any other is closed. Of a server that hangs up
    /// after an error reply, that reply is all there is.
    pub fn exchange(
        self,
        request: &Request,
        max_reply_bytes: u32,
        deadline: &Deadline,
    ) -> Result<(Option<Connection>, Replies), Error> {
        let mut reader = ReplyReader::new(request.commands.count(), max_reply_bytes);
        let written = self.socket.write(request.commands.bytes(), deadline);
        if let Err(TransferError::Timeout) = written {
            return Err(failed(TransferError::Timeout, request, false, deadline));
        }
        // When the server has closed the connection, it may have said why before.
        let mut size = FIRST_READ;
        loop {
            let bytes = match self.socket.read(size, deadline) {
                Ok(bytes) => bytes,
                Err(error) => {
                    let failure = || failed(error, request, written.is_ok(), deadline);
                    return Ok((None, reader.refusal().ok_or_else(failure)?));
                }
            };
            let filled = bytes.len() == size;
            let missing = match reader.push(bytes).map_err(|error| unfit(error, request))? {
                Progress::Complete => return Ok((Some(self), reader.finish()?)),
                Progress::Missing(missing) => missing,
            };
            // As long as more is there, nothing waits for the deadline.
            if deadline.has_passed() {
                return Err(failed(TransferError::Timeout, request, true, deadline));
            }
            // A host allocates as much as is asked for.
            let wanted = if filled { 2 * size } else { size };
            size = wanted.max(missing).min(LARGEST_READ);
        }
    }
}

/// No reply to a request that writes is large: one that is was not meant for it.
fn unfit(error: Error, request: &Request) -> Error {
    match error {
        Error::LimitExceeded(text) if request.effect != Effect::Reads => Error::Protocol(text),
        error => error,
    }
}

/// `sent` is whether all of the request may have reached the server.
fn failed(error: TransferError, request: &Request, sent: bool, deadline: &Deadline) -> Error {
    let what = match error {
        TransferError::Timeout => format!("no answer within {} ms", deadline.milliseconds),
        TransferError::Closed => String::from("the connection was lost"),
    };
    match error {
        _ if sent && request.effect != Effect::Reads => {
            Error::OutcomeUnknown(what + " after the request was sent")
        }
        TransferError::Timeout => Error::Timeout(what),
        TransferError::Closed => Error::Unavailable(what),
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

/// Bytes asked for at first: enough for any reply but messages.
const FIRST_READ: usize = 4 * 1024;
/// Hosts give no more at once.
const LARGEST_READ: usize = 64 * 1024;
