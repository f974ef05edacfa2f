//! What the guest does on command.

extern crate alloc;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::Cell;
use core::mem;
use core::net::{IpAddr, SocketAddr};

use crate::bindings::contract::memory::{self, Action, GuestClient, Operation, Outcome};
use crate::bindings::contract::types::{
    Error, History, Message, NewMessage, Options, Role, ServerError,
};
use crate::bindings::wasi::cli::environment::get_environment;
use crate::bindings::wasi::clocks::monotonic_clock::{now, subscribe_duration};
use crate::bindings::wasi::random::random::get_random_bytes;
use crate::bindings::wasi::sockets::instance_network::instance_network;
use crate::bindings::wasi::sockets::ip_name_lookup::resolve_addresses;
use crate::bindings::wasi::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use crate::bindings::wasi::sockets::tcp::TcpSocket;
use crate::bindings::wasi::sockets::tcp_create_socket::create_tcp_socket;
use crate::bindings::{grow, not_utf8, out_of_bounds, overlapping, trap};

pub struct Guest;

impl memory::Guest for Guest {
    type Client = MisbehavingClient;
}

/// Counts the operations of this instance, and those of the pipeline that is running, if
/// any.
pub struct MisbehavingClient {
    calls: Cell<u32>,
    together: Cell<u32>,
}

impl GuestClient for MisbehavingClient {
    fn open(options: Options) -> Result<memory::Client, Error> {
        obey(&options.key_prefix.unwrap_or_default())?;
        Ok(memory::Client::new(MisbehavingClient {
            calls: Cell::new(0),
            together: Cell::new(0),
        }))
    }

    fn add(&self, session_id: String, _: Role, _: String, _: Option<String>) -> Result<u32, Error> {
        self.count(session_id)
    }

    fn add_all(&self, session_id: String, _: Vec<NewMessage>) -> Result<u32, Error> {
        self.count(session_id)
    }

    /// Returns a message for each line.
    fn get(&self, session_id: String, _: Option<u32>) -> Result<Vec<Message>, Error> {
        self.calls.set(self.calls.get() + 1);
        Ok(obey(&session_id)?.into_iter().map(message).collect())
    }

    fn history(&self, session_id: String, _: Option<u32>) -> Result<History, Error> {
        let messages = self.get(session_id, None)?;
        Ok(History {
            messages,
            total: self.calls.get(),
            skipped: 0,
            ttl_seconds: None,
        })
    }

    fn clear(&self, session_id: String) -> Result<(), Error> {
        self.count(session_id).map(|_| ())
    }

    fn exists(&self, session_id: String) -> Result<bool, Error> {
        self.count(session_id).map(|_| true)
    }

    fn count(&self, session_id: String) -> Result<u32, Error> {
        self.calls.set(self.calls.get() + 1);
        obey(&session_id)?;
        Ok(match session_id.as_str() {
            "together" => self.together.get(),
            _ => self.calls.get(),
        })
    }

    /// Leaves out the results of sessions called "omit", and returns another operation's
    /// result for sessions called "swap".
    fn pipeline(&self, operations: Vec<Operation>) -> Vec<Result<Outcome, Error>> {
        self.together.set(operations.len() as u32);
        let operate = |Operation { session_id, action }: Operation| match action {
            _ if session_id == "swap" => Ok(Outcome::Cleared),
            Action::Add(_) | Action::AddAll(_) | Action::Count => {
                self.count(session_id).map(Outcome::Length)
            }
            Action::Get(limit) => self.get(session_id, limit).map(Outcome::Messages),
            Action::History(limit) => self.history(session_id, limit).map(Outcome::History),
            Action::Clear => self.clear(session_id).map(|()| Outcome::Cleared),
            Action::Exists => self.exists(session_id).map(Outcome::Exists),
        };
        let obeyed = operations.into_iter().filter(|o| o.session_id != "omit");
        let results = obeyed.map(operate).collect();
        self.together.set(0);
        results
    }
}

fn message(content: String) -> Message {
    Message {
        role: Role::User,
        content,
        timestamp: String::new(),
        metadata: None,
        id: None,
    }
}

/// Executes an order: a word, with an operand after a space for some.
fn obey(order: &str) -> Result<Vec<String>, Error> {
    let (order, operand) = order.split_once(' ').unwrap_or((order, ""));
    let lines = match order {
        "loop" => busy(),
        // The operand is in milliseconds. Without one it sleeps for ever.
        "sleep" => {
            let time = operand.parse().map_or(u64::MAX, |ms: u64| ms * 1_000_000);
            subscribe_duration(time).block();
            Vec::new()
        }
        "trap" => trap(),
        "grow" => grow(),
        // 64 GiB, of which one MiB exists.
        "flood-overlapping" => overlapping(1 << 16, 1 << 20),
        "flood-many" => (0..2 << 20).map(|_| String::new()).collect(),
        "flood-error" => return Err(Error::Other("x".repeat(128 << 20))),
        "out-of-bounds" => [out_of_bounds()].into(),
        "not-utf8" => [not_utf8()].into(),
        "pollables" => loop {
            mem::forget(subscribe_duration(u64::MAX));
        },
        "sockets" => loop {
            mem::forget(create_tcp_socket(IpAddressFamily::Ipv4).map_err(refused)?);
        },
        "random" => loop {
            get_random_bytes(operand.parse().unwrap_or(0));
        },
        "environment" => get_environment()
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
        "connect" => connect(operand).map_err(refused)?,
        "bind" => bind(operand).map(|_| Vec::new()).map_err(refused)?,
        "listen" => listen(operand).map_err(refused)?,
        "resolve" => resolve(operand).map_err(refused)?,
        // An error that claims to be a server's.
        "server-error" => {
            return Err(Error::Server(ServerError {
                code: "ERR".to_owned(),
                message: operand.to_owned(),
            }));
        }
        _ => Vec::new(),
    };
    Ok(lines)
}

/// Loops for ever, in a way that no compiler can remove.
fn busy() -> ! {
    let mut last = now();
    loop {
        for n in 0..1_000_000_u64 {
            last = core::hint::black_box(last ^ n);
        }
    }
}

fn refused(code: ErrorCode) -> Error {
    Error::Other(code.name().to_owned())
}

fn connect(address: &str) -> Result<Vec<String>, ErrorCode> {
    let (socket, address) = socket(address)?;
    socket.start_connect(&instance_network(), address)?;
    let connected = socket.subscribe();
    loop {
        match socket.finish_connect() {
            Ok(streams) => {
                drop((connected, streams));
                return Ok(["connected".to_owned()].into());
            }
            Err(ErrorCode::WouldBlock) => connected.block(),
            Err(code) => return Err(code),
        }
    }
}

fn bind(address: &str) -> Result<TcpSocket, ErrorCode> {
    let (socket, address) = socket(address)?;
    socket.start_bind(&instance_network(), address)?;
    let bound = socket.subscribe();
    while let Err(code) = socket.finish_bind() {
        match code {
            ErrorCode::WouldBlock => bound.block(),
            code => return Err(code),
        }
    }
    drop(bound);
    Ok(socket)
}

fn listen(address: &str) -> Result<Vec<String>, ErrorCode> {
    let socket = bind(address)?;
    socket.start_listen()?;
    let listening = socket.subscribe();
    while let Err(code) = socket.finish_listen() {
        match code {
            ErrorCode::WouldBlock => listening.block(),
            code => return Err(code),
        }
    }
    Ok(["listening".to_owned()].into())
}

fn resolve(name: &str) -> Result<Vec<String>, ErrorCode> {
    let found = resolve_addresses(&instance_network(), name)?;
    let ready = found.subscribe();
    let mut addresses = Vec::new();
    loop {
        match found.resolve_next_address() {
            Ok(Some(IpAddress::Ipv4((a, b, c, d)))) => {
                addresses.push(IpAddr::from([a, b, c, d]).to_string());
            }
            Ok(Some(IpAddress::Ipv6((a, b, c, d, e, f, g, h)))) => {
                addresses.push(IpAddr::from([a, b, c, d, e, f, g, h]).to_string());
            }
            Ok(None) => return Ok(addresses),
            Err(ErrorCode::WouldBlock) => ready.block(),
            Err(code) => return Err(code),
        }
    }
}

fn socket(address: &str) -> Result<(TcpSocket, IpSocketAddress), ErrorCode> {
    let address = address.parse().map_err(|_| ErrorCode::InvalidArgument)?;
    let (family, address) = match address {
        SocketAddr::V4(address) => {
            let [a, b, c, d] = address.ip().octets();
            let address = Ipv4SocketAddress {
                port: address.port(),
                address: (a, b, c, d),
            };
            (IpAddressFamily::Ipv4, IpSocketAddress::Ipv4(address))
        }
        SocketAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h] = address.ip().segments();
            let address = Ipv6SocketAddress {
                port: address.port(),
                flow_info: 0,
                address: (a, b, c, d, e, f, g, h),
                scope_id: 0,
            };
            (IpAddressFamily::Ipv6, IpSocketAddress::Ipv6(address))
        }
    };
    Ok((create_tcp_socket(family)?, address))
}
