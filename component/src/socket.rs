//! wasi:sockets: names, and a TCP socket whose every wait has a deadline.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};

use crate::bindings;
use crate::bindings::wasi::io::poll::Pollable;
use crate::bindings::wasi::io::streams::{InputStream, OutputStream, StreamError};
use crate::bindings::wasi::sockets::instance_network::instance_network;
use crate::bindings::wasi::sockets::ip_name_lookup::resolve_addresses;
use crate::bindings::wasi::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use crate::bindings::wasi::sockets::tcp::TcpSocket;
use crate::bindings::wasi::sockets::tcp_create_socket::create_tcp_socket;
use crate::clock::{Deadline, Passed};

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

/// A connected socket. Dropping it closes it, whatever state it is in.
pub struct Socket {
    /// Taken by drop alone.
    handles: Option<Handles>,
}

struct Handles {
    // Fields are dropped in this order, and children must go before parents.
    readable: Pollable,
    writable: Pollable,
    input: InputStream,
    output: OutputStream,
    _socket: TcpSocket,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Dropping a stream with a write under way blocks until the peer takes the
        // bytes, which may be never. Such a socket is left to the host, which
        // closes it with the instance.
        if let Some(handles) = self.handles.take()
            && matches!(handles.output.check_write(), Ok(0))
        {
            core::mem::forget(handles);
        }
    }
}

impl Socket {
    /// Connects to an address.
    pub fn connect(
        address: IpAddr,
        port: u16,
        deadline: &Deadline,
    ) -> Result<Socket, ConnectError> {
        let (family, address) = to_wasi(address, port);
        let socket = create_tcp_socket(family)?;
        socket.start_connect(&instance_network(), address)?;
        let connected = socket.subscribe();
        let (input, output) = loop {
            match socket.finish_connect() {
                Ok(streams) => break streams,
                Err(ErrorCode::WouldBlock) => deadline.wait(&connected)?,
                Err(code) => return Err(code.into()),
            }
        };
        drop(connected);
        Ok(Socket {
            handles: Some(Handles {
                readable: input.subscribe(),
                writable: output.subscribe(),
                input,
                output,
                _socket: socket,
            }),
        })
    }

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
            ErrorCode::ConnectionRefused => ConnectError::Failed("connection refused"),
            ErrorCode::ConnectionReset | ErrorCode::ConnectionAborted => {
                ConnectError::Failed("connection lost")
            }
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
