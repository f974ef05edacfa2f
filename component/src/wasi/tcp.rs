//! `wasi:sockets`: names, and TCP connections. Nothing here waits.

use core::net::IpAddr;

use alloc::vec::Vec;

use session_memory_core::error::{LOST, REFUSED};

use super::clock::Pollable;
use crate::abi::buffers;
use crate::bindings::wasi::io::streams::{InputStream, OutputStream, StreamError};
use crate::bindings::wasi::sockets::instance_network::instance_network;
use crate::bindings::wasi::sockets::ip_name_lookup::{ResolveAddressStream, resolve_addresses};
use crate::bindings::wasi::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use crate::bindings::wasi::sockets::tcp::TcpSocket;
use crate::bindings::wasi::sockets::tcp_create_socket::create_tcp_socket;

/// Why there is no connection.
pub enum ConnectError {
    /// The deadline has passed.
    Timeout,
    /// The host does not allow it.
    Denied,
    /// It is neither a name nor an address.
    Invalid,
    /// Any other reason.
    Failed(&'static str),
}

/// The peer has closed the connection, or the connection broke.
pub struct Closed;

/// The lookup of a name.
pub struct Lookup {
    // Fields are dropped in this order, and children have to be dropped before parents.
    ready: Pollable,
    addresses: ResolveAddressStream,
}

impl Lookup {
    /// Starts to look up a name.
    pub fn start(name: &str) -> Result<Lookup, ConnectError> {
        let addresses = resolve_addresses(&instance_network(), name)?;
        Ok(Lookup {
            ready: addresses.subscribe(),
            addresses,
        })
    }

    /// A pollable that is ready when [`Lookup::find`] should be called again.
    pub fn ready(&self) -> &Pollable {
        &self.ready
    }

    /// Adds to `found` the addresses that have been found. Returns whether they are all.
    pub fn find(&self, found: &mut Vec<IpAddr>) -> Result<bool, ConnectError> {
        loop {
            match self.addresses.resolve_next_address() {
                Ok(Some(address)) => found.push(from_wasi(address)),
                Ok(None) if found.is_empty() => return Err(ErrorCode::NameUnresolvable.into()),
                Ok(None) => return Ok(true),
                Err(ErrorCode::WouldBlock) => return Ok(false),
                Err(code) => return Err(code.into()),
            }
        }
    }
}

/// A connection attempt. Dropping it abandons it.
pub struct Connecting {
    // Fields are dropped in this order, and children have to be dropped before parents.
    ready: Pollable,
    socket: TcpSocket,
}

impl Connecting {
    /// Starts to connect to an address.
    pub fn start(address: IpAddr, port: u16) -> Result<Connecting, ConnectError> {
        let (family, address) = to_wasi(address, port);
        let socket = create_tcp_socket(family)?;
        // Optional: it only notices earlier that a peer is gone, and not every host has it.
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

    /// A pollable that is ready when [`Connecting::finish`] should be called.
    pub fn ready(&self) -> &Pollable {
        &self.ready
    }

    /// Returns the connection if it is made, otherwise the attempt, which goes on.
    pub fn finish(self) -> Result<Result<TcpStream, Connecting>, ConnectError> {
        match self.socket.finish_connect() {
            Ok((input, output)) => Ok(Ok(TcpStream {
                readable: input.subscribe(),
                writable: output.subscribe(),
                input,
                output,
                _socket: self.socket,
            })),
            Err(ErrorCode::WouldBlock) => Ok(Err(self)),
            Err(code) => Err(code.into()),
        }
    }
}

/// A TCP connection.
pub struct TcpStream {
    // Fields are dropped in this order, and children have to be dropped before parents.
    readable: Pollable,
    writable: Pollable,
    input: InputStream,
    output: OutputStream,
    _socket: TcpSocket,
}

impl TcpStream {
    /// Writes as many of the bytes as the host takes at once, possibly none. Returns
    /// their number.
    pub fn write(&self, bytes: &[u8]) -> Result<usize, Closed> {
        // Writing more than permitted traps.
        let permitted = usize::try_from(self.output.check_write()?).unwrap_or(usize::MAX);
        let size = permitted.min(bytes.len());
        if size > 0 {
            self.output.write(&bytes[..size])?;
        }
        Ok(size)
    }

    /// Reads up to `size` bytes that are there, possibly none, to the end of a buffer,
    /// which has room for as many. Returns their number.
    pub fn read(&self, size: usize, buffer: &mut Vec<u8>) -> Result<usize, Closed> {
        Ok(buffers::read(&self.input, size, buffer)?)
    }

    /// A pollable that is ready when there is something to read.
    pub fn readable(&self) -> &Pollable {
        &self.readable
    }

    /// A pollable that is ready when something can be written.
    pub fn writable(&self) -> &Pollable {
        &self.writable
    }

    /// Whether nothing has arrived since the last read, not even the end.
    pub fn is_quiet(&self) -> bool {
        matches!(self.input.read(1).as_deref(), Ok([]))
    }

    /// Whether a write is under way. Dropping the stream would block until the peer has
    /// taken the bytes, which may never happen.
    pub fn is_writing(&self) -> bool {
        matches!(self.output.check_write(), Ok(0))
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

impl From<StreamError> for Closed {
    fn from(_: StreamError) -> Closed {
        Closed
    }
}

/// Nanoseconds without a byte after which the peer is probed.
const KEEP_ALIVE_IDLE: u64 = 60 * SECOND;
/// Nanoseconds between two probes.
const KEEP_ALIVE_INTERVAL: u64 = 10 * SECOND;
/// The number of probes without a reply after which the connection is lost.
const KEEP_ALIVE_COUNT: u32 = 3;
/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;
