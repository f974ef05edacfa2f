//! What several tests share and no other package needs. What others need as well is in
//! `tests/support`, and taken from there by way of this.

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

/// A memory to be opened that knows nothing of the environment of the tests.
pub fn builder(port: u16, options: Options) -> Builder {
    let options = Options {
        host: options
            .host
            .or_else(|| Some(Ipv4Addr::LOCALHOST.to_string())),
        port: Some(port),
        ..options
    };
    SessionMemory::builder().environment([]).options(options)
}

/// A memory on a server.
pub async fn memory_with(server: &Server, options: Options) -> SessionMemory {
    builder(server.port(), options).open().await.unwrap()
}

/// As [`memory_with`], with default options.
pub async fn memory(server: &Server) -> SessionMemory {
    memory_with(server, Options::default()).await
}

/// A memory that reaches the server through a proxy, which breaks nothing yet.
pub async fn memory_through_proxy(server: &Server, options: Options) -> (Proxy, SessionMemory) {
    let proxy = Proxy::start(server.address());
    let memory = builder(proxy.port(), options).open().await.unwrap();
    (proxy, memory)
}

/// A memory that the component keeps to itself.
pub async fn in_memory(options: Options) -> SessionMemory {
    let options = Options {
        provider: Some(Provider::InMemory),
        ..options
    };
    let builder = SessionMemory::builder().environment([]).options(options);
    builder.open().await.unwrap()
}

/// Options with at-most-once delivery.
pub fn at_most_once() -> Options {
    Options {
        delivery: Some(Delivery::AtMostOnce),
        ..Options::default()
    }
}

pub const DELIVERIES: [Delivery; 2] = [Delivery::ExactlyOnce, Delivery::AtMostOnce];

/// An operation of a pipeline.
pub fn operation(session: &str, action: Action) -> Operation {
    Operation {
        session_id: session.to_owned(),
        action,
    }
}

/// The variant and the text of the error that a call ended with.
pub fn refusal<T>(result: Result<T, Error>) -> (&'static str, String) {
    match result {
        Ok(_) => panic!("it did not fail"),
        Err(Error::Memory(error)) => (error.variant(), error.text().to_owned()),
        Err(error) => panic!("{error:?}"),
    }
}

/// The code that the server's error reply began with.
pub fn server_code<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Memory(MemoryError::Server { code, .. })) => code,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it did not fail"),
    }
}

/// What a busy machine may add to the time that something takes.
const SLACK: Duration = Duration::from_millis(1500);

/// Checks that what began at `begin` took at least so long, and ended soon after. What
/// would never end by itself must take longer than `SLACK`, so that it fails here.
#[track_caller]
pub fn took(begin: Instant, at_least: Duration) {
    let taken = begin.elapsed();
    assert!(
        taken >= at_least && taken <= at_least + SLACK,
        "took {taken:?}, expected {at_least:?} and a little more"
    );
}

/// Runs an operation that ends by itself when `at_least` has passed, and returns its
/// result.
///
/// The host stops an operation 100 ms after its deadline. A busy machine may leave the
/// component less time than that, so an operation that was stopped is run again. An
/// operation that never ends by itself is stopped each time, and fails the test.
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

/// The component that misbehaves as the session id tells it, see `tests/guest`.
pub const GUEST: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/session_memory_test_guest.wasm"));

/// An address that swallows every attempt to connect: a listener that does not accept, and
/// whose backlog is full.
pub struct BlackHole {
    _listener: Socket,
    _connections: Vec<TcpStream>,
}

impl BlackHole {
    /// Opens one at an address of this machine.
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
