//! A connection to the server: a request is written once, and its replies are
//! read until they are complete, all under one deadline.

use alloc::format;
use alloc::vec::Vec;
use core::mem;
use core::net::IpAddr;

use crate::transport::socket::{self, Closed, ConnectError, Connecting, MOST_UNSENT, Socket};
use crate::wasi::clock::{Deadline, MOST_READY};
use session_memory_core::error::{Error, Quoted};
use session_memory_core::exchange::{End, Exchange};
use session_memory_core::resp::{Commands, Received, ReplyReader, Scan};

/// A connection whose last exchange ended as it should.
pub struct Connection {
    socket: Socket,
    address: IpAddr,
}

/// What is known of the addresses that a name has.
#[derive(Default)]
pub struct Route {
    /// The one that the last connection was made to: it is tried first.
    worked: Option<IpAddr>,
    /// The one at which the server was silent: it is tried last.
    silent: Option<IpAddr>,
}

impl Connection {
    /// Connects to the address of `host` that answers first. They are tried 250 ms apart,
    /// or as soon as the one before has failed (Happy Eyeballs, RFC 8305).
    pub fn open(
        host: &str,
        port: u16,
        route: &mut Route,
        deadline: &Deadline,
    ) -> Result<Connection, Error> {
        if socket::close_unsent() {
            return Err(Error::Unavailable(format!(
                "{MOST_UNSENT} earlier connections have bytes that the server does not take, \
                 and there are to be no more of them"
            )));
        }
        let found = socket::resolve(host, deadline).map_err(|error| match error {
            ConnectError::Denied => Error::AccessDenied(format!(
                "{}: the host does not allow this name to be looked up",
                Quoted(host)
            )),
            error => connect_error(error, &format!("{}", Quoted(host)), deadline),
        })?;
        let connection = race(&route.order(&found), port, deadline);
        match &connection {
            Ok(connection) => route.worked = Some(connection.address),
            // It may be the one that worked that swallows everything now.
            Err(_) => route.worked = None,
        }
        connection
    }

    /// Where it leads.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether it can be used: the server has sent nothing that was not asked
    /// for, and has not closed it.
    pub fn is_usable(&self) -> bool {
        self.socket.is_quiet()
    }

    /// Sends a request and reads its replies into `reader`, until the deadline, or until
    /// no byte was taken or given for `patience` milliseconds. Only a connection that has
    /// nothing left to say is handed back; any other is closed.
    pub fn exchange(
        self,
        commands: &Commands,
        mut reader: ReplyReader,
        deadline: &Deadline,
        patience: u32,
    ) -> (Option<Connection>, Exchange) {
        let mut written = 0;
        let end = self.transfer(commands, &mut written, &mut reader, deadline, patience);
        let partial = reader.partial();
        let (received, end) = match reader.finish() {
            Ok(received) => (received, end),
            Err(error) => (Received::default(), End::Malformed(error)),
        };
        let usable = matches!(end, End::Complete);
        let exchange = Exchange {
            received,
            partial,
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
        patience: u32,
    ) -> End {
        let bytes = commands.bytes();
        let mut unsent = bytes;
        let mut more_is_there = false;
        // A host allocates as much as is asked for.
        let mut size = commands.expected().min(LARGEST_READ);
        let mut silence = deadline.min(patience);
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
                    // How much of it was sent is not told; not the last byte. The
                    // server may have said why it closed the connection.
                    Err(Closed) => {
                        *written = bytes.len() - 1;
                        unsent = &[];
                    }
                }
            }
            let to_write = !unsent.is_empty();
            if !more_is_there && self.socket.wait(to_write, &silence).is_err() {
                return match deadline.has_passed() {
                    true => End::Timeout(deadline.milliseconds),
                    false => End::Timeout(silence.milliseconds),
                };
            }
            let buffer = match reader.room(size) {
                Ok(buffer) => buffer,
                Err(error) => return End::Malformed(error),
            };
            let Ok(read) = self.socket.read(size, buffer) else {
                return End::Closed;
            };
            moved += read;
            more_is_there = read == size;
            let wanted = if more_is_there { 4 * size } else { size };
            match reader.scan() {
                Ok(Scan::Complete) => return End::Complete,
                Ok(Scan::Missing(missing)) => size = wanted.max(missing).min(LARGEST_READ),
                Err(error) => return End::Malformed(error),
            }
            // As long as more is there, nothing waits for the deadline.
            if deadline.has_passed() {
                return End::Timeout(deadline.milliseconds);
            }
            if moved > 0 {
                silence = deadline.min(patience);
            }
        }
    }
}

impl Route {
    /// The server was silent at this address.
    pub fn was_silent(&mut self, address: IpAddr) {
        *self = Route {
            worked: None,
            silent: Some(address),
        };
    }

    /// The addresses in the order in which they are tried: families by turns, the one
    /// that was found first in front (RFC 8305, section 4).
    fn order(&self, found: &[IpAddr]) -> Vec<IpAddr> {
        let is_first_family = |address: &&IpAddr| address.is_ipv4() == found[0].is_ipv4();
        let mut first = found.iter().filter(is_first_family);
        let mut other = found.iter().filter(|address| !is_first_family(address));
        let mut order = Vec::with_capacity(found.len());
        while order.len() < found.len() {
            order.extend(first.next());
            order.extend(other.next());
        }
        let place = |order: &[IpAddr], address| order.iter().position(|a| Some(*a) == address);
        if let Some(silent) = place(&order, self.silent) {
            order[silent..].rotate_left(1);
        }
        if let Some(worked) = place(&order, self.worked) {
            order[..=worked].rotate_right(1);
        }
        order.truncate(MOST_READY);
        order
    }
}

/// Connects to the address that answers first.
fn race(addresses: &[IpAddr], port: u16, deadline: &Deadline) -> Result<Connection, Error> {
    let mut rest = addresses.iter().copied();
    let mut under_way: Vec<(IpAddr, Connecting)> = Vec::new();
    let mut failures = Vec::new();
    let failure = |error, address| {
        let address = socket::authority(&format!("{address}"), port);
        connect_error(error, &address, deadline)
    };
    loop {
        if let Some(address) = rest.next() {
            match Connecting::start(address, port) {
                Ok(connecting) => under_way.push((address, connecting)),
                Err(error) => {
                    failures.push(failure(error, address));
                    continue;
                }
            }
        } else if under_way.is_empty() {
            return Err(all_failed(failures));
        }
        // Until the next one starts.
        let pause = match rest.len() {
            0 => *deadline,
            // Each is to be tried before the deadline.
            left => deadline.share(left + 1).min(APART),
        };
        let mut is_over = false;
        let mut has_failed = false;
        while !is_over && !has_failed {
            let ready: Vec<_> = under_way.iter().map(|(_, next)| next.ready()).collect();
            is_over = pause.wait_for_any(&ready).is_err();
            for (address, connecting) in mem::take(&mut under_way) {
                match connecting.finish() {
                    Ok(Ok(socket)) => return Ok(Connection { socket, address }),
                    Ok(Err(connecting)) => under_way.push((address, connecting)),
                    Err(error) => {
                        has_failed = true;
                        failures.push(failure(error, address));
                    }
                }
            }
        }
        if deadline.has_passed() {
            let late = under_way.iter().map(|(address, _)| *address).chain(rest);
            failures.extend(late.map(|address| failure(ConnectError::Timeout, address)));
            return Err(all_failed(failures));
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
        ConnectError::Denied => Error::AccessDenied(format!(
            "{what}: the host does not allow this address, or no TCP at all; it may also have a \
             loopback of its own"
        )),
        ConnectError::Invalid => {
            Error::InvalidArgument(format!("{what}: not a name and not an IP address"))
        }
        ConnectError::Failed(reason) => Error::Unavailable(format!("{what}: {reason}")),
    }
}

/// Hosts give no more at once.
const LARGEST_READ: usize = 64 * 1024;

/// Milliseconds between the starts of two connections (RFC 8305, section 5).
const APART: u32 = 250;
