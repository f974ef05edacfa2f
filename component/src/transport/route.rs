//! The way to a server: a connection to one of the addresses of its name.

use alloc::format;
use alloc::vec::Vec;
use core::mem;
use core::net::IpAddr;

use session_memory_core::error::{Error, Quoted};

use super::deadline::Deadline;
use super::endpoint::authority;
use super::socket::{MAX_UNSENT, Socket, close_unsent, has_too_many_unsent, resolve};
use crate::wasi::clock::MAX_READY;
use crate::wasi::tcp::{ConnectError, Connecting};

/// What is known of the addresses of a name.
#[derive(Default)]
pub struct Route {
    /// The address of the last connection, which is tried first.
    last_connected: Option<IpAddr>,
    /// The address at which the server was silent, which is tried last.
    last_silent: Option<IpAddr>,
}

impl Route {
    /// Connects to the address of `host` that accepts first. They are tried 250 ms apart,
    /// or as soon as an attempt fails (Happy Eyeballs, RFC 8305).
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if there are too many sockets that cannot be closed, else
    /// why no address accepts.
    pub fn connect(
        &mut self,
        host: &str,
        port: u16,
        deadline: &Deadline,
    ) -> Result<(Socket, IpAddr), Error> {
        close_unsent();
        if has_too_many_unsent() {
            return Err(Error::Unavailable(format!(
                "{MAX_UNSENT} earlier connections have bytes that the server does not accept, and no more are opened"
            )));
        }
        let found = resolve(host, deadline).map_err(|error| match error {
            ConnectError::Denied => Error::AccessDenied(format!(
                "{}: the host does not allow this name to be looked up",
                Quoted(host)
            )),
            error => connect_error(error, &format!("{}", Quoted(host)), deadline),
        })?;
        let connected = race(&self.order(&found), port, deadline);
        // If none accepts, the address that accepted before may be the silent one now.
        self.last_connected = connected.as_ref().ok().map(|(_, address)| *address);
        connected
    }

    /// Remembers that the server was silent at this address.
    pub fn was_silent(&mut self, address: IpAddr) {
        *self = Route {
            last_connected: None,
            last_silent: Some(address),
        };
    }

    /// The addresses in the order in which they are tried: alternating IPv4 and IPv6,
    /// beginning with the family that was found first (RFC 8305, section 4).
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
        if let Some(silent) = place(&order, self.last_silent) {
            order[silent..].rotate_left(1);
        }
        if let Some(worked) = place(&order, self.last_connected) {
            order[..=worked].rotate_right(1);
        }
        order.truncate(MAX_READY);
        order
    }
}

/// Connects to the address that accepts first.
fn race(addresses: &[IpAddr], port: u16, deadline: &Deadline) -> Result<(Socket, IpAddr), Error> {
    let mut rest = addresses.iter().copied();
    let mut under_way: Vec<(IpAddr, Connecting)> = Vec::new();
    let mut failures = Vec::new();
    let failure = |error, address| {
        let endpoint = authority(&format!("{address}"), port);
        connect_error(error, &endpoint, deadline)
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
        // The next attempt starts at this time.
        let delay = match rest.len() {
            0 => *deadline,
            // Each address is to be tried before the deadline.
            left => deadline.share(left + 1).min(ATTEMPT_DELAY),
        };
        let mut delay_has_passed = false;
        let mut has_failed = false;
        while !delay_has_passed && !has_failed {
            let ready: Vec<_> = under_way.iter().map(|(_, next)| next.ready()).collect();
            delay_has_passed = delay.wait_for_any(&ready).is_err();
            for (address, connecting) in mem::take(&mut under_way) {
                match connecting.finish() {
                    Ok(Ok(stream)) => return Ok((stream.into(), address)),
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

/// Returns one error for all addresses. A timeout comes first, because the address may come
/// back. Denied comes last, because nothing was tried.
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
            "{what}: no reply within {} ms",
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

/// Milliseconds between the starts of two attempts (RFC 8305, section 5).
const ATTEMPT_DELAY: u32 = 250;
