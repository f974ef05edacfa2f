//! wasi:sockets: names, and a TCP socket whose every wait has a deadline.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};

use crate::bindings;
use crate::bindings::unsent;
use crate::bindings::wasi::io::poll::Pollable;
use crate::bindings::wasi::io::streams::{InputStream, OutputStream, StreamError};
use crate::bindings::wasi::sockets::instance_network::instance_network;
use crate::bindings::wasi::sockets::ip_name_lookup::resolve_addresses;
use crate::bindings::wasi::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use crate::bindings::wasi::sockets::tcp::TcpSocket;
use crate::bindings::wasi::sockets::tcp_create_socket::create_tcp_socket;
use crate::wasi::clock::{Deadline, Passed};
use session_memory_core::error::{LOST, REFUSED};

/// Why there is no connection.
pub enum ConnectError {
    /// The deadline passed.
    Timeout,
    /// The host does not allow it.
    Denied,
    /// It is no name and no address.
    Invalid,
    /// Anything else.
    Failed(&'static str),
}

/// The peer closed the connection, or it broke.
pub struct Closed;

/// The addresses that a name has; that of an IP address is itself, and no name
/// is looked up then.
pub fn resolve(host: &str, deadline: &Deadline) -> Result<Vec<IpAddr>, ConnectError> {
    if let Ok(address) = host.parse() {
        let address: IpAddr = address;
        return Ok(Vec::from([address.to_canonical()]));
    }
    let found = resolve_addresses(&instance_network(), host)?;
    let ready = found.subscribe();
    let mut addresses = Vec::new();
    loop {
        match found.resolve_next_address() {
            Ok(Some(address)) => addresses.push(from_wasi(address)),
            Ok(None) if addresses.is_empty() => return Err(ErrorCode::NameUnresolvable.into()),
            Ok(None) => return Ok(addresses),
            Err(ErrorCode::WouldBlock) => deadline.wait(&ready)?,
            Err(code) => return Err(code.into()),
        }
    }
}

/// A connection that is being made. Dropping it gives it up.
pub struct Connecting {
    // Fields are dropped in this order, and children must go before parents.
    ready: Pollable,
    socket: TcpSocket,
}

impl Connecting {
    /// Begins to connect to an address.
    pub fn start(address: IpAddr, port: u16) -> Result<Connecting, ConnectError> {
        let (family, address) = to_wasi(address, port);
        let socket = create_tcp_socket(family)?;
        // Not every host has it, and it is no more than a way to notice earlier that a
        // peer is gone.
        let _ = socket
            .set_keep_alive_enabled(true)
            .and_then(|()| socket.set_keep_alive_idle_time(KEEP_ALIVE_IDLE))
            .and_then(|()| socket.set_keep_alive_interval(KEEP_ALIVE_INTERVAL))
            .and_then(|()| socket.set_keep_alive_count(KEEP_ALIVE_COUNT));
        socket.start_connect(&instance_network(), address)?;
        Ok(Connecting {
            ready: socket.subscribe(),
            socket,
        })
    }

    /// What is ready when there is something to [finish](Connecting::finish).
    pub fn ready(&self) -> &Pollable {
        &self.ready
    }

    /// The connection if it is made, else what goes on.
    pub fn finish(self) -> Result<Result<Socket, Connecting>, ConnectError> {
        match self.socket.finish_connect() {
            Ok((input, output)) => Ok(Ok(Socket {
                handles: Some(Handles {
                    readable: input.subscribe(),
                    writable: output.subscribe(),
                    input,
                    output,
                    _socket: self.socket,
                }),
            })),
            Err(ErrorCode::WouldBlock) => Ok(Err(self)),
            Err(code) => Err(code.into()),
        }
    }
}

/// A connected socket. Dropping it closes it, whatever state it is in; one with bytes
/// that the peer does not take is closed when it has taken them.
pub struct Socket {
    /// Taken by drop alone.
    handles: Option<Handles>,
}

/// What a connected socket consists of.
pub struct Handles {
    // Fields are dropped in this order, and children must go before parents.
    readable: Pollable,
    writable: Pollable,
    input: InputStream,
    output: OutputStream,
    _socket: TcpSocket,
}

impl Handles {
    /// Whether a write is under way. Dropping the stream blocks then until the peer takes
    /// the bytes, which may be never.
    fn is_writing(&self) -> bool {
        matches!(self.output.check_write(), Ok(0))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(handles) = self.handles.take()
            && handles.is_writing()
        {
            unsent().push(handles);
        }
    }
}

/// Closes the sockets whose peers have taken everything in the meantime, or are gone;
/// returns whether there is room for no more of the others.
pub fn close_unsent() -> bool {
    let mut unsent = unsent();
    unsent.retain(Handles::is_writing);
    unsent.len() >= MOST_UNSENT
}

impl Socket {
    /// Hands over to the host as many of the bytes as it takes at once, possibly
    /// none.
    pub fn write(&self, bytes: &[u8]) -> Result<usize, Closed> {
        let output = &self.handles().output;
        // A write beyond what is permitted traps.
        let permitted = usize::try_from(output.check_write()?).unwrap_or(usize::MAX);
        let size = permitted.min(bytes.len());
        if size > 0 {
            output.write(&bytes[..size])?;
        }
        Ok(size)
    }

    /// Reads what is there into a buffer with room for `size` bytes more, at most so
    /// many and possibly none; answers how many.
    pub fn read(&self, size: usize, buffer: &mut Vec<u8>) -> Result<usize, Closed> {
        Ok(bindings::read(&self.handles().input, size, buffer)?)
    }

    /// Waits until there is something to read, or, if `to_write`, until something can
    /// be written.
    pub fn wait(&self, to_write: bool, deadline: &Deadline) -> Result<(), Passed> {
        let Handles {
            readable, writable, ..
        } = self.handles();
        if to_write {
            deadline.wait_for_any(&[readable, writable])
        } else {
            deadline.wait(readable)
        }
    }

    /// Whether nothing has come since the last read, not even the end.
    pub fn is_quiet(&self) -> bool {
        matches!(self.handles().input.read(1).as_deref(), Ok([]))
    }

    fn handles(&self) -> &Handles {
        self.handles.as_ref().expect("only drop takes them")
    }
}

fn to_wasi(address: IpAddr, port: u16) -> (IpAddressFamily, IpSocketAddress) {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            let address = Ipv4SocketAddress {
                port,
                address: (a, b, c, d),
            };
            (IpAddressFamily::Ipv4, IpSocketAddress::Ipv4(address))
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h] = address.segments();
            let address = Ipv6SocketAddress {
                port,
                flow_info: 0,
                address: (a, b, c, d, e, f, g, h),
                scope_id: 0,
            };
            (IpAddressFamily::Ipv6, IpSocketAddress::Ipv6(address))
        }
    }
}

fn from_wasi(address: IpAddress) -> IpAddr {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => [a, b, c, d].into(),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => [a, b, c, d, e, f, g, h].into(),
    }
}

impl From<ErrorCode> for ConnectError {
    fn from(code: ErrorCode) -> ConnectError {
        match code {
            ErrorCode::AccessDenied => ConnectError::Denied,
            ErrorCode::Timeout => ConnectError::Timeout,
            ErrorCode::InvalidArgument => ConnectError::Invalid,
            ErrorCode::ConnectionRefused => ConnectError::Failed(REFUSED),
            ErrorCode::ConnectionReset | ErrorCode::ConnectionAborted => ConnectError::Failed(LOST),
            ErrorCode::RemoteUnreachable => ConnectError::Failed("unreachable"),
            ErrorCode::NotSupported => ConnectError::Failed("address family not supported"),
            ErrorCode::NewSocketLimit => ConnectError::Failed("no socket left"),
            ErrorCode::NameUnresolvable => ConnectError::Failed("name not found"),
            ErrorCode::TemporaryResolverFailure | ErrorCode::PermanentResolverFailure => {
                ConnectError::Failed("name lookup failed")
            }
            _ => ConnectError::Failed("connection failed"),
        }
    }
}

impl From<Passed> for ConnectError {
    fn from(_: Passed) -> ConnectError {
        ConnectError::Timeout
    }
}

impl From<StreamError> for Closed {
    fn from(_: StreamError) -> Closed {
        Closed
    }
}

/// `host:port` as it is written, an IPv6 address in brackets.
pub fn authority(host: &str, port: u16) -> String {
    if host.parse::<Ipv6Addr>().is_ok() {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Sockets with bytes that their peers do not take: when there are so many, no further
/// connection is made.
pub const MOST_UNSENT: usize = 8;

/// Nanoseconds without a byte after which the peer is probed, and between two probes; and
/// how many of them it may leave unanswered.
const KEEP_ALIVE_IDLE: u64 = 60 * SECOND;
const KEEP_ALIVE_INTERVAL: u64 = 10 * SECOND;
const KEEP_ALIVE_COUNT: u32 = 3;
const SECOND: u64 = 1_000_000_000;
