//! What the integration tests share. It includes `tests/support`, which other packages
//! use as well.

pub mod proxy;
pub mod rig;
pub mod scenario;
#[cfg(target_os = "linux")]
pub mod sockets;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use session_memory_host::{
    Action, Builder, Delivery, Error, MemoryError, Operation, Options, Provider, SessionMemory,
};
pub use session_memory_test_support::*;
use socket2::{Domain, Socket, Type};

use proxy::Proxy;

/// A builder for a server on the local host. It ignores the environment of the tests.
pub fn builder(port: u16, options: Options) -> Builder {
    let mut options = options.port(port);
    options
        .host
        .get_or_insert_with(|| Ipv4Addr::LOCALHOST.to_string());
    SessionMemory::builder().environment([]).options(options)
}

/// A memory on a server.
pub async fn memory_with(server: &Server, options: Options) -> SessionMemory {
    builder(server.port(), options).open().await.unwrap()
}

/// A memory on a server, with default options.
pub async fn memory(server: &Server) -> SessionMemory {
    memory_with(server, Options::default()).await
}

/// A memory that reaches the server through a proxy, which breaks nothing yet.
pub async fn memory_through_proxy(server: &Server, options: Options) -> (Proxy, SessionMemory) {
    let proxy = Proxy::start(server.address());
    let memory = builder(proxy.port(), options).open().await.unwrap();
    (proxy, memory)
}

/// A memory of the in-memory provider.
pub async fn in_memory(options: Options) -> SessionMemory {
    let options = options.provider(Provider::InMemory);
    let builder = SessionMemory::builder().environment([]).options(options);
    builder.open().await.unwrap()
}

/// Options with at-most-once delivery.
pub fn at_most_once() -> Options {
    Options::new().delivery(Delivery::AtMostOnce)
}

pub const DELIVERIES: [Delivery; 2] = [Delivery::ExactlyOnce, Delivery::AtMostOnce];

/// An operation of a pipeline.
pub fn operation(session: &str, action: Action) -> Operation {
    Operation {
        session_id: session.to_owned(),
        action,
    }
}

/// The variant and the text of the error in a result.
pub fn refusal<T>(result: Result<T, Error>) -> (&'static str, String) {
    match result {
        Ok(_) => panic!("it did not fail"),
        Err(Error::Memory(error)) => (error.variant(), error.text().to_owned()),
        Err(error) => panic!("{error:?}"),
    }
}

/// The code of the server's error reply in a result.
pub fn server_code<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Memory(MemoryError::Server { code, .. })) => code,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it did not fail"),
    }
}

/// How much longer something may take on a busy machine.
const SLACK: Duration = Duration::from_millis(1500);

/// Checks that the time since `begin` is at least this long, and not much longer. A call
/// that never ends by itself must take longer than `SLACK`, so that it fails here.
#[track_caller]
pub fn took(begin: Instant, at_least: Duration) {
    let taken = begin.elapsed();
    assert!(
        taken >= at_least && taken <= at_least + SLACK,
        "took {taken:?}, expected {at_least:?} and a little more"
    );
}

/// The least time that retries take before there is no time for another one. Each wait is
/// twice as long as the previous one.
pub const RETRIES: Duration = Duration::from_millis(100);

/// Runs an operation that ends by itself after `at_least`, and returns its result.
///
/// The host stops an operation 100 ms after its deadline. On a busy machine the component
/// may not get that much time, so an operation that was stopped runs again. An operation
/// that never ends by itself is stopped each time, and fails the test.
pub async fn ends_by_itself<T>(
    at_least: Duration,
    mut operation: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    for _ in 0..5 {
        let begin = Instant::now();
        let result = operation().await;
        took(begin, at_least);
        match &result {
            Err(error) if error.to_string().contains("the component was stopped") => {
                println!("after {:?}: {error}", begin.elapsed());
            }
            _ => return result,
        }
    }
    panic!("the host stopped the component each time");
}

/// The component that misbehaves as the session id says, see `tests/guest`.
pub const GUEST: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/session_memory_test_guest.wasm"));

/// An address where attempts to connect get no reply: its listener does not accept, and
/// the backlog is full.
pub struct BlackHole {
    _listener: Socket,
    _connections: Vec<TcpStream>,
}

impl BlackHole {
    /// Creates one at an address of this machine.
    pub fn open(address: SocketAddr) -> BlackHole {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&address.into()).unwrap();
        listener.listen(0).unwrap();
        let mut connections = Vec::new();
        while let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_millis(200))
        {
            connections.push(connection);
            assert!(connections.len() < 100, "the backlog is never full");
        }
        BlackHole {
            _listener: listener,
            _connections: connections,
        }
    }
}
