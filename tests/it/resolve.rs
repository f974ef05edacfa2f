//! Names with addresses set by `Builder::resolve`, and changes while a memory is open.

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use session_memory_host::{Builder, Options, Role, SessionMemory};

use crate::common::{GUEST, Server, builder, contents, free_port, redis, refusal, server};

const NAME: &str = "redis.internal";
const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Nothing listens there.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// Two servers on the same port, at [`FIRST`] and [`SECOND`].
fn servers() -> (Server, Server) {
    let first = server();
    let address = (SECOND, first.port()).into();
    let second = Server::start_at(address, &[]).unwrap_or_else(|error| panic!("{error}"));
    (first, second)
}

fn options(host: &str) -> Options {
    Options::new().host(host)
}

/// Adds a message over the memory's open connection, if there is one.
async fn add(memory: &SessionMemory, content: &str) {
    memory.add("s", Role::User, content, None).await.unwrap();
}

fn stored(server: &Server) -> Vec<String> {
    contents(&mut server.client().unwrap(), "session:s")
}

/// Closes all connections to a server, so that the next call connects again.
fn close_connections(server: &Server) {
    redis(server, &["CLIENT", "KILL", "TYPE", "normal"]);
}

#[tokio::test]
async fn a_name_leads_to_the_addresses_set_last() {
    let (first, second) = servers();
    let prepared = builder(first.port(), options(NAME))
        .resolve(NAME, [NOBODY])
        .resolve(NAME, [FIRST])
        .prepare()
        .unwrap();
    let memory = prepared.open().await.unwrap();
    add(&memory, "a").await;
    assert_eq!(stored(&first), ["a"]);

    memory.resolve(NAME, [SECOND]);
    // The open connection stays.
    add(&memory, "b").await;
    assert_eq!(stored(&first), ["a", "b"]);
    close_connections(&first);
    add(&memory, "c").await;
    assert_eq!(stored(&second), ["c"]);
    // It applies to memories opened later as well.
    add(&prepared.open().await.unwrap(), "d").await;
    assert_eq!(stored(&second), ["c", "d"]);

    // A change of the prepared memory applies to open memories.
    prepared.resolve(NAME, [FIRST]);
    close_connections(&second);
    add(&memory, "e").await;
    assert_eq!(stored(&first), ["a", "b", "e"]);
    assert_eq!(stored(&second), ["c", "d"]);
}

#[tokio::test]
async fn an_operation_follows_a_change_when_its_server_is_gone() {
    let (mut first, second) = servers();
    let memory = builder(first.port(), options(NAME))
        .resolve(NAME, [FIRST])
        .open()
        .await
        .unwrap();
    first.kill().unwrap();
    let (added, ()) = tokio::join!(memory.add("s", Role::User, "x", None), async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        memory.resolve(NAME, [SECOND]);
    });
    assert_eq!(added.unwrap(), 1);
    assert_eq!(stored(&second), ["x"]);
}

#[tokio::test]
async fn addresses_are_tried_in_their_order() {
    let (first, second) = servers();
    let memory = builder(first.port(), options(NAME))
        .resolve(NAME, [NOBODY, SECOND, FIRST])
        .open()
        .await
        .unwrap();
    add(&memory, "a").await;
    assert_eq!(stored(&second), ["a"]);

    let port = free_port().unwrap();
    let opened = builder(port, options(NAME))
        .resolve(NAME, [SECOND, NOBODY, FIRST])
        .open()
        .await;
    let refused = [SECOND, NOBODY, FIRST].map(|ip| format!("{ip}:{port}: connection refused"));
    let expected = format!("connect to \"{NAME}:{port}\": {}", refused.join("; "));
    assert_eq!(refusal(opened), ("unavailable", expected));
}

#[tokio::test]
async fn without_addresses_a_name_is_looked_up_again() {
    let (first, second) = servers();
    let prepared = builder(first.port(), options("localhost"))
        .resolve("localhost", [SECOND])
        // Another name, and an address, which is never looked up.
        .resolve("LOCALHOST", [NOBODY])
        .resolve("127.0.0.1", [NOBODY])
        .prepare()
        .unwrap();
    let memory = prepared.open().await.unwrap();
    add(&memory, "a").await;
    assert_eq!(stored(&second), ["a"]);
    memory.resolve("localhost", []);
    close_connections(&second);
    add(&memory, "b").await;
    assert_eq!(stored(&first), ["b"]);
}

#[tokio::test]
async fn only_a_name_that_the_policy_allows_is_resolved() {
    let listener = TcpListener::bind((SECOND, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let memory = of_guest(port)
        .resolve(NAME, [SECOND, "2001:db8::1".parse().unwrap(), FIRST])
        .resolve("other.internal", [SECOND])
        .open()
        .await
        .unwrap();
    let connect = format!("connect {SECOND}:{port}");
    assert_eq!(
        done(&memory, "resolve other.internal").await,
        ["access-denied"]
    );
    assert_eq!(done(&memory, "resolve 127.0.0.2").await, ["access-denied"]);
    // An address is reachable after a lookup of the name has returned it, at the allowed
    // port.
    assert_eq!(done(&memory, &connect).await, ["access-denied"]);
    let resolve = format!("resolve {NAME}");
    for _ in 0..2 {
        let addresses = ["127.0.0.2", "2001:db8::1", "127.0.0.1"];
        assert_eq!(done(&memory, &resolve).await, addresses);
    }
    assert_eq!(done(&memory, &connect).await, ["connected"]);
    let other = format!("connect {SECOND}:{}", free_port().unwrap());
    assert_eq!(done(&memory, &other).await, ["access-denied"]);
}

fn of_guest(port: u16) -> Builder {
    builder(port, options(NAME)).component_bytes(GUEST)
}

/// What WASI returned to the guest for an order.
async fn done(memory: &SessionMemory, order: &str) -> Vec<String> {
    match memory.get(order, None).await {
        Ok(lines) => lines.into_iter().map(|line| line.content).collect(),
        refused => vec![refusal(refused).1],
    }
}
