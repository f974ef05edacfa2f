//! A minimal host that keeps its instances, as other hosts may: it never discards or
//! stops one. Ours discards an instance whose call was cut short, with all its resources.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use session_memory_host::COMPONENT;
use socket2::SockRef;
use tokio::time::timeout;
use wasmtime::component::{Component, Linker, ResourceAny, ResourceTable};
use wasmtime::{Config, Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::common::sockets::{SocketEntry, connected_to};
use crate::common::{Server, integer, peer, redis, server, wait_until};

#[allow(missing_docs, reason = "wit/ documents the contract")]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package edge:own-host;

            world provider {
                export edge:session-memory/types@0.1.0;
                export edge:session-memory/memory@0.1.0;
            }
        ",
        world: "edge:own-host/provider",
        exports: { default: async },
    });
}

use bindings::Provider;
use bindings::exports::edge::session_memory::types::{Error, NewMessage, Options, Role};

struct HostState {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// An instance that lives until it is dropped.
struct KeptInstance {
    store: Store<HostState>,
    exports: Provider,
}

impl KeptInstance {
    /// An instance with network access, and further configuration.
    async fn new(configure: impl FnOnce(&mut WasiCtxBuilder)) -> KeptInstance {
        let mut config = Config::new();
        // As in the library, so that the cache of compiled code serves both.
        config.epoch_interruption(true);
        let engine = Engine::new(&config).unwrap();
        let component = Component::from_binary(&engine, COMPONENT).unwrap();
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
        let mut wasi = WasiCtx::builder();
        wasi.inherit_network().allow_tcp(true);
        configure(&mut wasi);
        let state = HostState {
            wasi: wasi.build(),
            table: ResourceTable::new(),
        };
        let mut store = Store::new(&engine, state);
        // Nobody advances the epoch.
        store.set_epoch_deadline(1);
        let exports = Provider::instantiate_async(&mut store, &component, &linker).await;
        KeptInstance {
            store,
            exports: exports.unwrap(),
        }
    }

    async fn open(&mut self, options: &Options) -> Result<ResourceAny, Error> {
        let guest = self.exports.edge_session_memory_memory().client();
        let opened = timeout(PATIENCE, guest.call_open(&mut self.store, options)).await;
        opened.expect("it ends by itself").unwrap()
    }

    async fn add(&mut self, client: ResourceAny, session: &str, text: &str) -> Result<u32, Error> {
        let guest = self.exports.edge_session_memory_memory().client();
        let call = guest.call_add(&mut self.store, client, session, Role::User, text, None);
        let added = timeout(PATIENCE, call).await;
        added.expect("it ends by itself").unwrap()
    }

    async fn count(&mut self, client: ResourceAny, session: &str) -> Result<u32, Error> {
        let guest = self.exports.edge_session_memory_memory().client();
        let counted = timeout(PATIENCE, guest.call_count(&mut self.store, client, session)).await;
        counted.expect("it ends by itself").unwrap()
    }
}

/// Longer than any call, even on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn options(port: u16) -> Options {
    Options {
        provider: None,
        host: Some("127.0.0.1".to_owned()),
        port: Some(port),
        username: None,
        password: None,
        db: None,
        session_ttl: None,
        ttl_policy: None,
        delivery: None,
        key_prefix: None,
        connect_timeout: None,
        connect: None,
        operation_timeout: Some(10_000),
        response_timeout: Some(5_000),
        max_idle: None,
        max_messages: None,
        max_message_bytes: Some(16 << 20),
        max_reply_bytes: None,
    }
}

/// The host library calls only `pipeline`, so this test calls every other function.
#[tokio::test]
async fn each_function_of_a_client_does_what_it_says() {
    let server = server();
    let mut instance = KeptInstance::new(|_| ()).await;
    let client = instance.open(&options(server.port())).await.unwrap();
    let KeptInstance { store, exports } = &mut instance;
    let guest = exports.edge_session_memory_memory().client();
    let messages = ["one", "two"].map(|content| NewMessage {
        role: Role::Assistant,
        content: content.to_owned(),
        metadata: Some(r#"{"n":1}"#.to_owned()),
    });
    let added = guest
        .call_add_all(&mut *store, client, "s", &messages)
        .await;
    assert_eq!(added.unwrap().unwrap(), 2);
    let added = guest.call_add(&mut *store, client, "s", Role::User, "three", None);
    assert_eq!(added.await.unwrap().unwrap(), 3);
    let got = guest.call_get(&mut *store, client, "s", Some(2)).await;
    let got = got.unwrap().unwrap();
    assert_eq!((&*got[0].content, &*got[1].content), ("two", "three"));
    assert_eq!((got[0].role, got[1].role), (Role::Assistant, Role::User));
    assert_eq!(got[0].metadata, messages[1].metadata);
    let history = guest.call_history(&mut *store, client, "s", None).await;
    let history = history.unwrap().unwrap();
    assert_eq!(
        (history.messages.len(), history.total, history.skipped),
        (3, 3, 0)
    );
    assert!(history.ttl_seconds.is_some_and(|ttl| ttl > 3500));
    let exists = guest.call_exists(&mut *store, client, "s").await;
    assert!(exists.unwrap().unwrap());
    let count = guest.call_count(&mut *store, client, "s").await;
    assert_eq!(count.unwrap().unwrap(), 3);
    guest
        .call_clear(&mut *store, client, "s")
        .await
        .unwrap()
        .unwrap();
    let exists = guest.call_exists(&mut *store, client, "s").await;
    assert!(!exists.unwrap().unwrap());

    let add = guest
        .call_add(&mut *store, client, "", Role::User, "x", None)
        .await;
    let add_all = guest.call_add_all(&mut *store, client, "", &messages).await;
    let get = guest.call_get(&mut *store, client, "", None).await;
    let history = guest.call_history(&mut *store, client, "", None).await;
    let clear = guest.call_clear(&mut *store, client, "").await;
    let exists = guest.call_exists(&mut *store, client, "").await;
    let count = guest.call_count(&mut *store, client, "").await;
    for (function, error) in [
        ("add to", add.unwrap().err()),
        ("add-all to", add_all.unwrap().err()),
        ("get", get.unwrap().err()),
        ("history of", history.unwrap().err()),
        ("clear", clear.unwrap().err()),
        ("exists", exists.unwrap().err()),
        ("count", count.unwrap().err()),
    ] {
        let Some(Error::InvalidArgument(text)) = error else {
            panic!("{function}: {error:?}");
        };
        let begin = format!("{function} \"\": the session id is empty");
        assert!(text.starts_with(&begin), "{text}");
    }
}

/// What a [`Link`] does with the component's bytes after the handshake.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// Passes them on to the server.
    Carries,
    /// Does not read them.
    Stalls,
    /// Resets the connection.
    Resets,
}

/// A link to a server that can stall.
struct Link {
    port: u16,
    shared: Arc<LinkState>,
}

struct LinkState {
    mode: Mutex<Mode>,
    changed: Condvar,
}

impl Link {
    fn start(server: &Server) -> Link {
        let address = server.address();
        let shared = Arc::new(LinkState {
            mode: Mutex::new(Mode::Carries),
            changed: Condvar::new(),
        });
        let port = peer({
            let shared = Arc::clone(&shared);
            move |component| carry(&component, address, &shared)
        });
        Link { port, shared }
    }

    fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
        self.shared.changed.notify_all();
    }
}

/// Forwards a connection until one of its ends closes it.
fn carry(mut component: &TcpStream, server: SocketAddr, shared: &LinkState) {
    // The server has ended with its test.
    let Ok(server) = TcpStream::connect(server) else {
        return;
    };
    component.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    // A small buffer, so that a few megabytes do not fit on the way.
    let sock = SockRef::from(component);
    sock.set_recv_buffer_size(64 * 1024).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Either end may have closed.
            let _ = std::io::copy(&mut &server, &mut &*component);
            let _ = component.shutdown(Shutdown::Both);
        });
        let mut server = &server;
        let mut buffer = vec![0; 64 * 1024];
        let mut has_greeted = false;
        while let Ok(size @ 1..) = component.read(&mut buffer) {
            if has_greeted {
                let mode = shared.mode.lock().unwrap();
                let stalls = |mode: &mut Mode| *mode == Mode::Stalls;
                let mode = shared.changed.wait_while(mode, stalls).unwrap();
                if *mode == Mode::Resets {
                    sock.set_linger(Some(Duration::ZERO)).unwrap();
                    break;
                }
            }
            has_greeted = true;
            if server.write_all(&buffer[..size]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
    });
}

/// More than the buffers between the component and a peer that does not read.
fn large() -> String {
    "x".repeat(8 << 20)
}

const TOO_MANY: &str =
    "8 earlier connections have bytes that the server does not accept, and no more are opened";

/// An instance with two clients of one server.
struct Hung {
    server: Server,
    link: Link,
    instance: KeptInstance,
    patient: ResourceAny,
    /// The sockets that were not closed.
    sockets: Vec<SocketEntry>,
}

/// Makes this many appends hang on a link that stalls.
async fn hang(adds: u32) -> Hung {
    let server = server();
    let link = Link::start(&server);
    let mut instance = KeptInstance::new(|_| ()).await;
    let hasty = Options {
        operation_timeout: Some(1000),
        response_timeout: Some(40),
        ..options(link.port)
    };
    let hasty = instance.open(&hasty).await.unwrap();
    let patient = instance.open(&options(link.port)).await.unwrap();
    assert_eq!(instance.add(patient, "s", "before").await.unwrap(), 1);

    link.set(Mode::Stalls);
    let text = large();
    let mut refused = 0;
    let begin = Instant::now();
    for number in 0..adds {
        match instance.add(hasty, "large", &text).await {
            Err(Error::Timeout(_)) => {}
            Err(Error::Unavailable(text)) => {
                let on = format!("add to \"large\": connect to \"127.0.0.1:{}\"", link.port);
                assert_eq!(text, format!("{on}: {TOO_MANY}"));
                refused += 1;
            }
            other => panic!("{number}: {other:?}"),
        }
        // The patient client's socket is one of them.
        let sockets = connected_to(link.port).len();
        assert!(sockets <= 9, "{number}: {sockets}");
    }
    // On a slow machine some of the first appends do not leave two sockets.
    assert!(refused >= adds - 20, "{refused}");
    // No append waits until its deadline.
    assert!(
        begin.elapsed() < Duration::from_secs(25),
        "{:?}",
        begin.elapsed()
    );
    let mut sockets = Vec::new();
    wait_until(|| {
        sockets = connected_to(link.port);
        sockets.len() == 9
    });
    assert!(sockets.iter().all(SocketEntry::is_held));
    Hung {
        server,
        link,
        instance,
        patient,
        sockets,
    }
}

impl Hung {
    /// The link passes everything on again. Further calls close the sockets.
    async fn recover(mut self) {
        let begin = Instant::now();
        while self
            .sockets
            .iter()
            .filter(|socket| socket.is_held())
            .count()
            > 1
        {
            assert!(begin.elapsed() < PATIENCE, "some are still held");
            let count = self.instance.count(self.patient, "s").await;
            assert_eq!(count.unwrap(), 1);
        }
        // No request was complete, so nothing was stored.
        assert_eq!(
            integer(redis(&self.server, &["EXISTS", "session:large"])),
            0
        );
        for (session, text, length) in [("s", "after", 2), ("large", &large(), 1)] {
            let added = self.instance.add(self.patient, session, text).await;
            assert_eq!(added.unwrap(), length);
        }
        wait_until(|| connected_to(self.link.port).len() == 1);
    }
}

#[tokio::test]
async fn no_more_than_eight_sockets_are_kept_until_their_bytes_are_taken() {
    let hung = hang(100).await;
    hung.link.set(Mode::Carries);
    hung.recover().await;
}

#[tokio::test]
async fn no_more_than_eight_sockets_are_kept_until_they_are_reset() {
    let hung = hang(40).await;
    hung.link.set(Mode::Resets);
    // The patient client's socket has nothing to send, and is not reset.
    wait_until(|| connected_to(hung.link.port).len() == 1);
    hung.link.set(Mode::Carries);
    hung.recover().await;
}

#[tokio::test]
async fn a_setting_that_is_not_allowed_is_refused_by_the_component_itself() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    for (variable, value, error_text) in [
        (
            "REDIS_HOST",
            "redis://:hunter2@localhost:6379/0",
            "host (REDIS_HOST) is a URL or part of one (not shown, because it may contain a password), allowed is a name or an IP address; port, username, password and db are separate options",
        ),
        (
            "REDIS_PORT",
            "tcp://10.0.0.1:6379",
            "port (REDIS_PORT) is a URL or part of one (not shown, because it may contain a password), allowed is a whole number from 1 to 65535; container platforms set such \
             a variable for a service that is named redis",
        ),
        (
            "SESSION_TTL",
            "1h",
            "session-ttl (SESSION_TTL) is \"1h\", allowed is a whole number from 1 to 4294967295",
        ),
    ] {
        let mut instance = KeptInstance::new(|wasi| {
            // The first variable with a name counts.
            let variables = [
                (variable, value),
                ("REDIS_HOST", "127.0.0.1"),
                ("REDIS_PORT", &port),
            ];
            wasi.envs(&variables);
        })
        .await;
        let none = Options {
            host: None,
            port: None,
            ..options(0)
        };
        match instance.open(&none).await {
            Err(Error::InvalidArgument(text)) => {
                assert_eq!(text, format!("open: option {error_text}"));
            }
            other => panic!("{variable}: {other:?}"),
        }
    }
    let dialled = listener.accept().map(|(_, from)| from);
    assert_eq!(
        dialled.expect_err("it was dialled").kind(),
        ErrorKind::WouldBlock
    );
}

#[tokio::test]
async fn a_host_without_tcp_is_told_of() {
    let mut instance = KeptInstance::new(|wasi| {
        wasi.allow_tcp(false);
    })
    .await;
    match instance.open(&options(6379)).await {
        Err(Error::AccessDenied(text)) => assert_eq!(
            text,
            "connect to \"127.0.0.1:6379\": 127.0.0.1:6379: the host does not allow this \
             address, or no TCP at all; it may also have a loopback of its own"
        ),
        other => panic!("{other:?}"),
    }
}
