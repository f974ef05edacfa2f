//! The exact texts of errors: what an operator reads and acts on. They come from real
//! servers where such a server can be had, and from canned replies where not.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{
    RedisClient, Server, Value, builder, free_port, integer, is_redis_7, memory_with, peer,
    program, redis, refusal, server, server_with, server_with_user, text, wait_until,
};
use session_memory_host::{
    Connect, Delivery, NetworkPolicy, Options, Role, SessionMemory, TtlPolicy,
};
use tempfile::TempDir;

const WORDS: &str = "secret words";
const PASSWORD: &str = "hunter2-correct";

fn at_most_once() -> Options {
    Options {
        delivery: Some(Delivery::AtMostOnce),
        ..Options::default()
    }
}

fn with_db(options: Options) -> Options {
    Options {
        db: Some(1),
        ..options
    }
}

fn credentials(username: Option<&str>, password: &str) -> Options {
    Options {
        username: username.map(str::to_owned),
        password: Some(password.to_owned().into()),
        ..Options::default()
    }
}

/// Short, so that what is tried again until the deadline does not take long.
fn impatient(options: Options) -> Options {
    Options {
        operation_timeout: Some(300),
        ..options
    }
}

/// The variant and the text with which the operations fail.
async fn add(memory: &SessionMemory) -> (&'static str, String) {
    refusal(memory.add("s", Role::User, WORDS, None).await)
}

async fn get(memory: &SessionMemory) -> (&'static str, String) {
    refusal(memory.get("s", None).await)
}

async fn history(memory: &SessionMemory) -> (&'static str, String) {
    refusal(memory.history("s", None).await)
}

async fn open(port: u16, options: Options) -> (&'static str, String) {
    refusal(builder(port, options).open().await)
}

/// What a failed connection is said to be about.
fn on_the_way(port: u16, variant: &'static str, what: &str) -> (&'static str, String) {
    (variant, format!("connect to \"127.0.0.1:{port}\": {what}"))
}

/// A server that does not run a command, and how it is said of it.
struct Without {
    server: Server,
    username: Option<String>,
    variant: &'static str,
    says: String,
}

impl Without {
    async fn memory(&self, options: Options) -> SessionMemory {
        memory_with(&self.server, self.options(options)).await
    }

    fn options(&self, options: Options) -> Options {
        Options {
            username: self.username.clone(),
            ..options
        }
    }

    fn said(&self, during: &str) -> (&'static str, String) {
        (self.variant, format!("{during}: {}", self.says))
    }
}

/// One server on which the command is renamed away, and one where the user may not run
/// it.
fn without(command: &str, avoided: &str) -> [Without; 2] {
    let who = match command {
        "LTRIM" => ", as a Redis Sentinel does not: give host and port of the Redis server itself",
        _ => " (renamed or disabled there, or it is a Redis Sentinel or a proxy)",
    };
    let denied = format!("on nopass ~* +@all -{}", command.to_lowercase());
    [
        Without {
            server: server_with(&["--rename-command", command, ""]),
            username: None,
            variant: "server",
            says: format!("ERR: the server does not know {command}{who}{avoided}"),
        },
        Without {
            server: server_with_user("agent", &denied),
            username: Some("agent".to_owned()),
            variant: "access-denied",
            says: format!("NOPERM: the user may not run {command}{avoided}"),
        },
    ]
}

#[tokio::test]
async fn without_scripting_the_command_and_what_avoids_it_are_named() {
    let avoided = "; delivery at-most-once needs no scripting, and get needs none either";
    for command in ["EVALSHA", "EVAL"] {
        for without in without(command, avoided) {
            let memory = without.memory(Options::default()).await;
            assert_eq!(add(&memory).await, without.said("add to \"s\""));
            if command == "EVAL" {
                assert_eq!(history(&memory).await, without.said("history of \"s\""));
            } else {
                assert_eq!(memory.history("s", None).await.unwrap().total, 0);
            }
            assert_eq!(memory.get("s", None).await.unwrap(), []);

            let memory = without.memory(at_most_once()).await;
            assert_eq!(memory.add("s", Role::User, "x", None).await.unwrap(), 1);
            assert_eq!(memory.history("s", None).await.unwrap().total, 1);
        }
    }
}

#[tokio::test]
async fn without_transactions_the_command_and_what_avoids_it_are_named() {
    for command in ["MULTI", "EXEC"] {
        for without in without(command, "; delivery exactly-once does without") {
            let port = without.server.port();
            let opened = open(port, without.options(at_most_once())).await;
            let expected = on_the_way(port, without.variant, &without.says);
            assert_eq!(opened, expected);
            let memory = without.memory(Options::default()).await;
            assert_eq!(memory.add("s", Role::User, "x", None).await.unwrap(), 1);
        }
    }
}

#[tokio::test]
async fn without_ping_there_is_no_opening() {
    for without in without("PING", "") {
        let port = without.server.port();
        let opened = open(port, without.options(Options::default())).await;
        assert_eq!(opened, on_the_way(port, without.variant, &without.says));
    }
}

#[tokio::test]
async fn without_select_another_database_is_none() {
    for without in without("SELECT", "; db 0 does without") {
        let port = without.server.port();
        let opened = open(port, without.options(with_db(Options::default()))).await;
        assert_eq!(opened, on_the_way(port, without.variant, &without.says));
        without.memory(Options::default()).await;
    }
}

#[tokio::test]
async fn without_ltrim_nothing_is_cleared_or_trimmed() {
    let avoided = "; clear and max-messages need it, and nothing else does";
    for without in without("LTRIM", avoided) {
        let memory = without.memory(Options::default()).await;
        memory.add("s", Role::User, "x", None).await.unwrap();
        let cleared = refusal(memory.clear("s").await);
        assert_eq!(cleared, without.said("clear \"s\""));

        let trimming = Options {
            max_messages: Some(10),
            ..at_most_once()
        };
        let memory = without.memory(trimming).await;
        assert_eq!(add(&memory).await, without.said("add to \"s\""));
        assert_eq!(memory.count("s").await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_script_that_asks_for_a_command_that_is_not_there_says_so() {
    let needs = |command, options: Options, allowed: Options| (command, options, allowed);
    for (command, options, allowed) in [
        needs(
            "LTRIM",
            Options {
                max_messages: Some(10),
                ..Options::default()
            },
            Options::default(),
        ),
        needs(
            "EXPIRE",
            Options::default(),
            Options {
                ttl_policy: Some(TtlPolicy::None),
                ..Options::default()
            },
        ),
    ] {
        let server = server_with(&["--rename-command", command, ""]);
        let memory = memory_with(&server, options).await;
        let said = match is_redis_7(&server) {
            true => {
                "add to \"s\": ERR: the server does not know EXPIRE, which a time to live needs, or \
                 LTRIM, which max-messages needs"
            }
            false => {
                "add to \"s\": ERR: the server does not know a command that the script uses; \
                 delivery at-most-once needs no script"
            }
        };
        assert_eq!(add(&memory).await, ("server", said.to_owned()), "{command}");
        assert_eq!(integer(redis(&server, &["EXISTS", "session:s"])), 0);
        let memory = memory_with(&server, allowed).await;
        assert_eq!(memory.add("s", Role::User, "x", None).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn credentials_that_are_refused_say_what_is_wrong_with_them() {
    let server = server_with(&["--requirepass", PASSWORD]);
    let port = server.port();
    let wrong = "the server does not accept the username or the password";
    for options in [
        credentials(None, "hunter2-wrong"),
        credentials(Some("nobody"), PASSWORD),
        with_db(credentials(None, "hunter2-wrong")),
    ] {
        let expected = on_the_way(port, "access-denied", wrong);
        assert_eq!(open(port, options.clone()).await, expected);
        // An operation that connects names itself as well.
        let later = Options {
            connect: Some(Connect::AtFirstOperation),
            ..options
        };
        let memory = memory_with(&server, later).await;
        let (variant, text) = expected;
        assert_eq!(get(&memory).await, (variant, format!("get \"s\": {text}")));
    }
    let none = "NOAUTH: the server asks for a password (option password, REDIS_PASSWORD)";
    for options in [
        Options::default(),
        at_most_once(),
        with_db(Options::default()),
    ] {
        let expected = on_the_way(port, "access-denied", none);
        assert_eq!(open(port, options).await, expected);
    }
}

#[tokio::test]
async fn a_password_that_the_server_has_not_is_to_be_left_out() {
    let none = "the server has no password: leave out password (REDIS_PASSWORD)";
    let server = server();
    for options in [
        credentials(None, PASSWORD),
        with_db(credentials(None, PASSWORD)),
    ] {
        let opened = open(server.port(), options).await;
        assert_eq!(opened, on_the_way(server.port(), "access-denied", none));
    }
}

#[tokio::test]
async fn redis_5_says_it_otherwise() {
    for (username, replies, said) in [
        (
            None,
            &b"-ERR invalid password\r\n-NOAUTH Authentication required.\r\n"[..],
            "the server does not accept the username or the password",
        ),
        (
            None,
            b"-ERR Client sent AUTH, but no password is set\r\n+PONG\r\n",
            "the server has no password: leave out password (REDIS_PASSWORD)",
        ),
        (
            Some("agent"),
            b"-ERR wrong number of arguments for 'auth' command\r\n+PONG\r\n",
            "the server has no users, which came with Redis 6: leave out username \
             (REDIS_USERNAME)",
        ),
    ] {
        let port = peer_saying(&[replies]);
        let opened = open(port, credentials(username, PASSWORD)).await;
        assert_eq!(opened, on_the_way(port, "access-denied", said));
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named() {
    let server = server();
    let port = server.port();
    let options = Options {
        db: Some(16),
        ..Options::default()
    };
    let said = "option db (REDIS_DB) is 16: the server does not have it";
    let expected = on_the_way(port, "invalid-argument", said);
    assert_eq!(open(port, options).await, expected);
}

/// A node of a cluster of its own, that other nodes reach at this port.
fn cluster_node(bus: u16) -> Server {
    let bus = bus.to_string();
    server_with(&["--cluster-enabled", "yes", "--cluster-port", &bus])
}

#[tokio::test]
async fn a_cluster_says_where_the_session_is() {
    if !is_redis_7(&server()) {
        println!("before Redis 7, the port of the other nodes cannot be chosen");
        return;
    }
    let buses = [free_port().unwrap(), free_port().unwrap()];
    let nodes = buses.map(cluster_node);
    for (node, slots) in nodes.iter().zip([["0", "8191"], ["8192", "16383"]]) {
        let [first, last] = slots;
        redis(node, &["CLUSTER", "ADDSLOTSRANGE", first, last]);
    }
    let [port, bus] = [nodes[1].port(), buses[1]].map(|port| port.to_string());
    redis(&nodes[0], &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
    wait_until(|| {
        nodes
            .iter()
            .all(|node| text(redis(node, &["CLUSTER", "INFO"])).contains("cluster_state:ok"))
    });
    let slot = integer(redis(&nodes[0], &["CLUSTER", "KEYSLOT", "session:s"]));
    let [here, there] = match slot {
        ..8192 => [&nodes[0], &nodes[1]],
        _ => [&nodes[1], &nodes[0]],
    };
    for delivery in [Delivery::ExactlyOnce, Delivery::AtMostOnce] {
        let options = || Options {
            delivery: Some(delivery),
            ..Options::default()
        };
        let memory = memory_with(here, options()).await;
        memory.add("s", Role::User, "x", None).await.unwrap();
        let memory = memory_with(there, options()).await;
        let says = |during: &str| {
            let said = format!(
                "{during} \"s\": MOVED: the server is a node of a Redis Cluster, which is not \
                 supported; the session is on {}",
                here.address()
            );
            ("server", said)
        };
        assert_eq!(add(&memory).await, says("add to"));
        assert_eq!(get(&memory).await, says("get"));
        assert_eq!(history(&memory).await, says("history of"));
        assert_eq!(refusal(memory.clear("s").await), says("clear"));
    }

    let selected = here.client().unwrap().command(&["SELECT", "1"]).unwrap();
    let why = match selected {
        Value::Error(error) if error.contains("not allowed") => {
            "the server is a node of a Redis Cluster, which has 0 alone"
        }
        // Valkey 9 can be told to have more.
        _ => "the server does not have it",
    };
    let said = format!("option db (REDIS_DB) is 1: {why}");
    let opened = open(here.port(), with_db(Options::default())).await;
    assert_eq!(opened, on_the_way(here.port(), "invalid-argument", &said));
}

/// A Redis Sentinel that watches a server.
struct Sentinel {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Sentinel {
    fn start(server: &Server) -> Sentinel {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port().unwrap();
        // It writes what it finds out into the file.
        let file = folder.path().join("sentinel.conf");
        let monitor = format!("sentinel monitor primary 127.0.0.1 {} 1", server.port());
        fs::write(&file, format!("bind 127.0.0.1\nport {port}\n{monitor}\n")).unwrap();
        let process = Command::new(program().unwrap())
            .arg(&file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let sentinel = Sentinel {
            process,
            port,
            _folder: folder,
        };
        wait_until(|| {
            RedisClient::connect((Ipv4Addr::LOCALHOST, port))
                .and_then(|mut client| client.command(&["PING"]))
                .is_ok()
        });
        sentinel
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_sentinel_is_called_one() {
    let server = server();
    let sentinel = Sentinel::start(&server);
    let says = |what: &str| ("server", what.to_owned());
    let memory = builder(sentinel.port, Options::default()).open().await;
    let memory = memory.unwrap();
    let said = "add to \"s\": ERR: the server does not know EVALSHA (renamed or disabled there, or \
                it is a Redis Sentinel or a proxy); delivery at-most-once needs no scripting, and \
                get needs none either";
    assert_eq!(add(&memory).await, says(said));
    let said = "get \"s\": ERR: the server does not know LRANGE, as a Redis Sentinel does not: \
                give host and port of the Redis server itself";
    assert_eq!(get(&memory).await, says(said));
    for (options, said) in [
        (
            with_db(Options::default()),
            "ERR: the server does not know SELECT (renamed or disabled there, or it is a Redis \
             Sentinel or a proxy); db 0 does without",
        ),
        (
            at_most_once(),
            "ERR: the server does not know MULTI (renamed or disabled there, or it is a Redis \
             Sentinel or a proxy); delivery exactly-once does without",
        ),
    ] {
        let opened = open(sentinel.port, options).await;
        assert_eq!(opened, on_the_way(sentinel.port, "server", said));
    }
}

#[tokio::test]
async fn a_server_that_takes_no_writes_says_why() {
    let full = server_with(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
    let said = "add to \"s\": OOM: the server has no memory left for writes (maxmemory)";
    for options in [Options::default(), at_most_once()] {
        if options.delivery.is_none() && !is_redis_7(&full) {
            println!("before Redis 7, the default delivery may go beyond maxmemory");
            continue;
        }
        let memory = memory_with(&full, options).await;
        assert_eq!(add(&memory).await, ("server", said.to_owned()));
    }

    // Of a server that nobody is.
    let nowhere = free_port().unwrap().to_string();
    let replica = server_with(&["--replicaof", "127.0.0.1", &nowhere]);
    let said = |during: &str| {
        let said = format!("{during} \"s\": READONLY: the server is a read-only replica");
        ("server", said)
    };
    for options in [Options::default(), at_most_once()] {
        let memory = memory_with(&replica, impatient(options)).await;
        assert_eq!(add(&memory).await, said("add to"));
        assert_eq!(refusal(memory.clear("s").await), said("clear"));
    }
}

#[tokio::test]
async fn a_fixed_life_at_most_once_needs_redis_7() {
    let port = peer_saying(&[
        b"+OK\r\n*0\r\n+PONG\r\n",
        b"+OK\r\n+QUEUED\r\n+QUEUED\r\n\
          -ERR wrong number of arguments for 'expire' command\r\n\
          -EXECABORT Transaction discarded because of previous errors.\r\n",
    ]);
    let options = Options {
        ttl_policy: Some(TtlPolicy::Fixed),
        ..at_most_once()
    };
    let memory = builder(port, options).open().await.unwrap();
    let said = "add to \"s\": ERR: ttl-policy fixed with delivery at-most-once needs Redis 7 \
                (EXPIRE NX)";
    assert_eq!(add(&memory).await, ("server", said.to_owned()));
}

#[tokio::test]
async fn a_write_above_a_providers_cap_says_so() {
    let said = "add to \"s\": the server's provider limits how large a request and a reply may be";
    let cap: &[u8] =
        b"-ERR max request size exceeded. Limit: 1048576 bytes, Actual: 1176582 bytes\r\n";
    let port = peer_saying(&[b"+PONG\r\n", cap]);
    let memory = builder(port, Options::default()).open().await.unwrap();
    assert_eq!(add(&memory).await, ("limit-exceeded", said.to_owned()));
}

#[tokio::test]
async fn what_is_no_redis_is_told_at_once() {
    let tls = "a TLS alert: the server wants TLS, which is not supported";
    let other = "no reply in RESP: the server may want TLS, or is no Redis";
    for (reply, said) in [
        (&b"\x15\x03\x03\x00\x02\x02\x46"[..], tls),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", other),
        (b"SSH-2.0-OpenSSH_9.2\r\n", other),
        // Two servers that know a byte: of TLS, and of MySQL.
        (b"\x16", other),
        (b"J", other),
    ] {
        let port = peer_saying(&[reply]);
        for options in [
            Options::default(),
            at_most_once(),
            credentials(None, PASSWORD),
        ] {
            let begin = Instant::now();
            let opened = open(port, options).await;
            assert_eq!(opened, on_the_way(port, "protocol", said));
            // The peer says no more, and hangs up when we do.
            let taken = begin.elapsed();
            assert!(taken < Duration::from_secs(4), "{taken:?}");
        }
    }
}

#[tokio::test]
async fn a_peer_that_hangs_up_without_a_word_may_want_something_else() {
    let port = peer(|mut connection| {
        // So that it is no reset.
        let _ = connection.read(&mut [0; 1024]);
    });
    let tls = "the connection was lost before the server answered: it may want TLS, or be a proxy \
               without a server";
    let select = ", or one that closes it on SELECT (db)";
    let multi = ", or one that closes it on MULTI (delivery at-most-once)";
    for (options, said) in [
        (Options::default(), tls.to_owned()),
        (with_db(Options::default()), [tls, select].concat()),
        (at_most_once(), [tls, multi].concat()),
        (with_db(at_most_once()), [tls, select, multi].concat()),
    ] {
        let opened = open(port, options).await;
        assert_eq!(opened, on_the_way(port, "unavailable", &said));
    }
}

#[tokio::test]
async fn a_host_that_allows_no_tcp_is_told_of_by_the_operation() {
    let options = Options {
        connect: Some(Connect::AtFirstOperation),
        ..Options::default()
    };
    let builder = builder(6379, options).network(NetworkPolicy::deny_all());
    let memory = builder.open().await.unwrap();
    let said = "get \"s\": connect to \"127.0.0.1:6379\": 127.0.0.1:6379: the host does not allow \
                this address, or no TCP at all; it may also have a loopback of its own";
    assert_eq!(get(&memory).await, ("access-denied", said.to_owned()));
}

#[tokio::test]
async fn what_people_set_by_mistake_is_refused_without_a_secret_and_without_dialling() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let with_port = format!("localhost:{port}");
    let url = format!("redis://:hunter2@localhost:{port}/0");
    let whole = "what looks like a URL (not shown, since it may hold a password), allowed is a \
                 name or an IP address; port, username, password and db are options of their own";
    for (variable, value, said) in [
        (
            "REDIS_HOST",
            &url[..],
            format!("host (REDIS_HOST) is {whole}"),
        ),
        (
            "REDIS_HOST",
            "rediss://default:hunter2@localhost:6380",
            format!("host (REDIS_HOST) is {whole}"),
        ),
        (
            "REDIS_HOST",
            &with_port,
            "host (REDIS_HOST) is no name and no IP address, allowed is either of them alone; the \
             port is an option of its own, port (REDIS_PORT)"
                .to_owned(),
        ),
        (
            "REDIS_HOST",
            "/var/run/redis/redis.sock",
            "host (REDIS_HOST) is a path, allowed is a name or an IP address, and a port; WASI \
             0.2 has no Unix sockets"
                .to_owned(),
        ),
        (
            "REDIS_PORT",
            "tcp://10.0.0.1:6379",
            "port (REDIS_PORT) is what looks like a URL (not shown, since it may hold a \
             password), allowed is a whole number from 1 to 65535; container platforms set such \
             a variable for a service that is named redis"
                .to_owned(),
        ),
        (
            "REDIS_DB",
            "redis://u:hunter2@h/1",
            "db (REDIS_DB) is what looks like a URL (not shown, since it may hold a password), \
             allowed is a whole number from 0 to 2147483647"
                .to_owned(),
        ),
        (
            "SESSION_TTL",
            "1h",
            "session-ttl (SESSION_TTL) is \"1h\", allowed is a whole number from 1 to 4294967295"
                .to_owned(),
        ),
        (
            "SESSION_TTL",
            "0",
            "session-ttl (SESSION_TTL) is 0, allowed is a whole number from 1 to 4294967295"
                .to_owned(),
        ),
        (
            "MESSAGE_DELIVERY",
            "Exactly-Once",
            "delivery (MESSAGE_DELIVERY) is \"Exactly-Once\", allowed is exactly-once or \
             at-most-once"
                .to_owned(),
        ),
    ] {
        let result = in_environment(port, &[(variable, value)]).await;
        let error = result.expect_err(value);
        for shown in [
            format!("{error}"),
            format!("{error:?}"),
            format!("{error:#?}"),
        ] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let expected = ("invalid-argument", format!("open: option {said}"));
        assert_eq!(refusal::<()>(Err(error)), expected);
    }
    let dialled = listener.accept().map(|(_, from)| from);
    let kind = dialled.expect_err("it was dialled").kind();
    assert_eq!(kind, std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn an_empty_variable_is_an_unset_one() {
    let server = server();
    let empty = [
        "MEMORY_PROVIDER",
        "REDIS_USERNAME",
        "REDIS_PASSWORD",
        "REDIS_DB",
        "SESSION_TTL",
        "SESSION_TTL_POLICY",
        "MESSAGE_DELIVERY",
        "KEY_PREFIX",
        "MAX_MESSAGES",
    ];
    let empty = empty.map(|variable| (variable, ""));
    let memory = in_environment(server.port(), &empty).await.unwrap();
    memory.add("s", Role::User, "x", None).await.unwrap();
    // The prefix and the time to live are the default ones, and there is an id.
    let ttl = integer(redis(&server, &["TTL", "session:s"]));
    assert!((3590..=3600).contains(&ttl), "{ttl}");
    assert!(memory.get("s", None).await.unwrap()[0].id.is_some());

    // Nothing listens at the default port of the default host that this could be.
    let nowhere = [("REDIS_HOST", ""), ("REDIS_PORT", "")].map(owned);
    let builder = SessionMemory::builder().environment(nowhere);
    let opened = builder.network(NetworkPolicy::deny_all()).open().await;
    let said = "connect to \"localhost:6379\": \"localhost\": the host does not allow this name to \
                be looked up";
    assert_eq!(refusal(opened), ("access-denied", said.to_owned()));
}

/// Opens a memory with these variables, and with a port and the local host unless they
/// are among them.
async fn in_environment(
    port: u16,
    variables: &[(&str, &str)],
) -> Result<SessionMemory, session_memory_host::Error> {
    let port = port.to_string();
    let mut environment: Vec<_> = variables.iter().copied().map(owned).collect();
    // The first of a name counts.
    environment.extend([("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", &port)].map(owned));
    SessionMemory::builder()
        .environment(environment)
        .open()
        .await
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// A peer that answers the first bytes of each connection with the first of these, the
/// next ones with the next, and then is silent until it is hung up on.
fn peer_saying(replies: &[&'static [u8]]) -> u16 {
    let replies = replies.to_vec();
    peer(move |mut connection| {
        let mut buffer = [0; 64 * 1024];
        for reply in &replies {
            // The client hangs up when it likes.
            let _ = connection.read(&mut buffer);
            let _ = connection.write_all(reply);
        }
        while connection.read(&mut buffer).is_ok_and(|size| size > 0) {}
    })
}
