//! Cluster nodes, sentinels, replicas, full servers, and peers that are no Redis.

use std::fs;
use std::io::Read;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use session_memory_host::{Delivery, Options, Role, TtlPolicy};
use tempfile::TempDir;

use super::{PASSWORD, add, credentials, get, history, impatient, on_the_way, open, with_db};
use crate::common::{
    RespClient, Server, Value, at_most_once, builder, free_port, integer, is_redis_7, memory_with,
    peer, peer_replying, program, redis, refusal, server, server_with, text, wait_until,
};

/// A node of its own cluster, with this port for other nodes.
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
        let options = || Options::new().delivery(delivery);
        let memory = memory_with(here, options()).await;
        memory.add("s", Role::User, "x", None).await.unwrap();
        let memory = memory_with(there, options()).await;
        let error = |during: &str| {
            let text = format!(
                "{during} \"s\": MOVED: the server is a node of a Redis Cluster, which is not \
                 supported; the session is on {}",
                here.address()
            );
            ("server", text)
        };
        assert_eq!(add(&memory).await, error("add to"));
        assert_eq!(get(&memory).await, error("get"));
        assert_eq!(history(&memory).await, error("history of"));
        assert_eq!(refusal(memory.clear("s").await), error("clear"));
    }

    let selected = here.client().unwrap().command(&["SELECT", "1"]).unwrap();
    let why = match selected {
        Value::Error(error) if error.contains("not allowed") => {
            "the server is a node of a Redis Cluster, which has only database 0"
        }
        // Valkey 9 can have more databases.
        _ => "the server does not have it",
    };
    let text = format!("option db (REDIS_DB) is 1: {why}");
    let opened = open(here.port(), with_db(Options::default())).await;
    assert_eq!(opened, on_the_way(here.port(), "invalid-argument", &text));
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
        // The sentinel writes its state into the file.
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
            RespClient::connect((Ipv4Addr::LOCALHOST, port))
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
    let error = |what: &str| ("server", what.to_owned());
    let memory = builder(sentinel.port, Options::default()).open().await;
    let memory = memory.unwrap();
    let text = "add to \"s\": ERR: the server does not know EVALSHA (renamed or disabled there, or \
                it is a Redis Sentinel or a proxy); delivery at-most-once needs no scripting, and \
                get needs none either";
    assert_eq!(add(&memory).await, error(text));
    let text = "get \"s\": ERR: the server does not know LRANGE, as a Redis Sentinel does not: \
                give host and port of the Redis server itself";
    assert_eq!(get(&memory).await, error(text));
    for (options, text) in [
        (
            with_db(Options::default()),
            "ERR: the server does not know SELECT (renamed or disabled there, or it is a Redis \
             Sentinel or a proxy); db 0 does not need it",
        ),
        (
            at_most_once(),
            "ERR: the server does not know MULTI (renamed or disabled there, or it is a Redis \
             Sentinel or a proxy); delivery exactly-once does not need it",
        ),
    ] {
        let opened = open(sentinel.port, options).await;
        assert_eq!(opened, on_the_way(sentinel.port, "server", text));
    }
}

#[tokio::test]
async fn a_server_that_takes_no_writes_says_why() {
    let full = server_with(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
    let text = "add to \"s\": OOM: the server has no memory left for writes (maxmemory)";
    for options in [Options::default(), at_most_once()] {
        if options.delivery.is_none() && !is_redis_7(&full) {
            println!("before Redis 7, the default delivery may go beyond maxmemory");
            continue;
        }
        let memory = memory_with(&full, options).await;
        assert_eq!(add(&memory).await, ("server", text.to_owned()));
    }

    // A primary that does not exist.
    let nowhere = free_port().unwrap().to_string();
    let replica = server_with(&["--replicaof", "127.0.0.1", &nowhere]);
    let error = |during: &str| {
        let text = format!("{during} \"s\": READONLY: the server is a read-only replica");
        ("server", text)
    };
    for options in [Options::default(), at_most_once()] {
        let memory = memory_with(&replica, impatient(options)).await;
        assert_eq!(add(&memory).await, error("add to"));
        assert_eq!(refusal(memory.clear("s").await), error("clear"));
    }
}

#[tokio::test]
async fn a_fixed_life_at_most_once_needs_redis_7() {
    let port = peer_replying(&[
        b"+OK\r\n*0\r\n+PONG\r\n",
        b"+OK\r\n+QUEUED\r\n+QUEUED\r\n\
          -ERR wrong number of arguments for 'expire' command\r\n\
          -EXECABORT Transaction discarded because of previous errors.\r\n",
    ]);
    let options = at_most_once().ttl_policy(TtlPolicy::Fixed);
    let memory = builder(port, options).open().await.unwrap();
    let text = "add to \"s\": ERR: ttl-policy fixed with delivery at-most-once needs Redis 7 \
                (EXPIRE NX)";
    assert_eq!(add(&memory).await, ("server", text.to_owned()));
}

#[tokio::test]
async fn a_write_above_a_providers_cap_says_so() {
    let text = "add to \"s\": the server's provider limits how large a request and a reply may be";
    let cap: &[u8] =
        b"-ERR max request size exceeded. Limit: 1048576 bytes, Actual: 1176582 bytes\r\n";
    let port = peer_replying(&[b"+PONG\r\n", cap]);
    let memory = builder(port, Options::default()).open().await.unwrap();
    assert_eq!(add(&memory).await, ("limit-exceeded", text.to_owned()));
}

#[tokio::test]
async fn what_is_no_redis_is_told_at_once() {
    let tls = "a TLS alert: the server requires TLS, which is not supported";
    let other = "not a reply in RESP: the server may require TLS, or is not Redis";
    for (reply, text) in [
        (&b"\x15\x03\x03\x00\x02\x02\x46"[..], tls),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", other),
        (b"SSH-2.0-OpenSSH_9.2\r\n", other),
        // A byte of TLS, and a byte of MySQL.
        (b"\x16", other),
        (b"J", other),
    ] {
        let port = peer_replying(&[reply]);
        for options in [
            Options::default(),
            at_most_once(),
            credentials(None, PASSWORD),
        ] {
            let begin = Instant::now();
            let opened = open(port, options).await;
            assert_eq!(opened, on_the_way(port, "protocol", text));
            // The peer sends nothing more, and closes when we do.
            let taken = begin.elapsed();
            assert!(taken < Duration::from_secs(4), "{taken:?}");
        }
    }
}

#[tokio::test]
async fn a_peer_that_hangs_up_without_a_word_may_want_something_else() {
    let port = peer(|mut connection| {
        // Reads the request, so that closing does not reset the connection.
        let _ = connection.read(&mut [0; 1024]);
    });
    let tls = "the connection was lost before the server replied: it may require TLS, or be a proxy without a server";
    let select = ", or a proxy that closes it on SELECT (db)";
    let multi = ", or a proxy that closes it on MULTI (delivery at-most-once)";
    for (options, text) in [
        (Options::default(), tls.to_owned()),
        (with_db(Options::default()), [tls, select].concat()),
        (at_most_once(), [tls, multi].concat()),
        (with_db(at_most_once()), [tls, select, multi].concat()),
    ] {
        let opened = open(port, options).await;
        assert_eq!(opened, on_the_way(port, "unavailable", &text));
    }
}
