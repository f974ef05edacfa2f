//! Clients and calls do not see each other's data.

use std::time::Duration;

use session_memory_host::{Message, NetworkPolicy, Options, Provider, Role, SessionMemory};
use tokio::time::timeout;

use crate::common::{builder, ends_by_itself, memory, memory_with, redis, refusal, server, signal};

#[tokio::test(flavor = "multi_thread")]
async fn clients_write_to_one_session_at_once() {
    let server = server();
    let mut writers = Vec::new();
    for writer in 0..4 {
        let memory = memory(&server).await;
        writers.push(tokio::spawn(async move {
            for n in 0..100 {
                memory
                    .add("s", Role::User, &format!("{writer} {n}"), None)
                    .await
                    .unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let messages = memory(&server).await.get("s", None).await.unwrap();
    assert_eq!(messages.len(), 400);
    for writer in 0..4 {
        let prefix = format!("{writer} ");
        let own = messages
            .iter()
            .filter_map(|message| message.content.strip_prefix(&prefix));
        assert!(own.eq((0..100).map(|n| n.to_string())), "writer {writer}");
    }
}

#[tokio::test]
async fn two_clients_take_turns() {
    let server = server();
    let one = memory(&server).await;
    let two = memory(&server).await;
    for n in 0..10 {
        one.add("s", Role::User, &format!("q{n}"), None)
            .await
            .unwrap();
        assert_eq!(
            two.get("s", Some(1)).await.unwrap()[0].content,
            format!("q{n}")
        );
        two.add("s", Role::Assistant, &format!("a{n}"), None)
            .await
            .unwrap();
        assert_eq!(
            one.get("s", Some(1)).await.unwrap()[0].content,
            format!("a{n}")
        );
    }
}

#[tokio::test]
async fn a_call_that_was_given_up_leaves_no_reply_behind() {
    let server = server();
    let memory = memory(&server).await;
    let content = |messages: Vec<Message>| messages[0].content.clone();
    memory
        .add("alice", Role::User, "alice's secret", None)
        .await
        .unwrap();
    memory
        .add("bob", Role::User, "bob's question", None)
        .await
        .unwrap();
    for milliseconds in [0, 1, 5, 20, 50] {
        signal(&server, "STOP");
        let given_up = timeout(
            Duration::from_millis(milliseconds),
            memory.get("alice", None),
        )
        .await;
        assert!(given_up.is_err());
        signal(&server, "CONT");
        assert_eq!(
            content(memory.get("bob", None).await.unwrap()),
            "bob's question"
        );
    }
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced() {
    let server = server();
    let memory = memory(&server).await;
    memory.add("s", Role::User, "before", None).await.unwrap();
    redis(
        &server,
        &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"],
    );
    // The end of a connection arrives after a moment, even on loopback.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(memory.add("s", Role::User, "after", None).await.unwrap(), 2);
}

#[tokio::test]
async fn a_server_that_was_started_again_is_used_again() {
    let mut server = server();
    let options = Options::new().operation_timeout(Duration::from_millis(1000));
    let memory = memory_with(&server, options).await;
    memory.add("s", Role::User, "before", None).await.unwrap();
    server.kill().unwrap();
    // It retries until there is no time for another attempt.
    let lost = ends_by_itself(Duration::from_millis(300), async || {
        memory.add("s", Role::User, "lost", None).await
    });
    assert_eq!(refusal(lost.await).0, "unavailable");
    server.restart().unwrap();
    // The server has lost the script as well.
    assert_eq!(memory.add("s", Role::User, "after", None).await.unwrap(), 1);
}

#[tokio::test]
async fn only_allowed_servers_are_reached() {
    let server = server();
    let open = |host: &str, policy| {
        let options = Options::new().host(host);
        builder(server.port(), options).network(policy).open()
    };
    let port = server.port();
    for (host, policy) in [
        ("127.0.0.1", NetworkPolicy::deny_all()),
        (
            "127.0.0.1",
            NetworkPolicy::deny_all().allow("127.0.0.1", port ^ 1),
        ),
        (
            "127.0.0.1",
            NetworkPolicy::deny_all().allow("127.0.0.2", port),
        ),
        (
            "127.0.0.1",
            NetworkPolicy::deny_all().allow("localhost", port),
        ),
    ] {
        let (variant, text) = refusal(open(host, policy).await);
        assert_eq!(variant, "access-denied");
        assert_eq!(
            text,
            format!(
                "connect to \"127.0.0.1:{port}\": 127.0.0.1:{port}: \
                 the host does not allow this address, or no TCP at all; it may also have a \
                 loopback of its own"
            )
        );
    }
    let (variant, text) = refusal(open("localhost", NetworkPolicy::deny_all()).await);
    assert_eq!(variant, "access-denied");
    assert_eq!(
        text,
        format!(
            "connect to \"localhost:{port}\": \"localhost\": the host does not allow this name to \
             be looked up"
        )
    );
    for host in ["127.0.0.1", "localhost"] {
        let memory = open(host, NetworkPolicy::deny_all().allow(host, port))
            .await
            .unwrap();
        memory.count("s").await.unwrap();
    }
}

#[tokio::test]
async fn the_component_sees_the_listed_variables_only() {
    let server = server();
    let port = server.port().to_string();
    let environment = [
        ("REDIS_HOST", "127.0.0.1"),
        ("REDIS_PORT", port.as_str()),
        ("KEY_PREFIX", "from-environment:"),
        ("HOME", "/nowhere"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let memory = SessionMemory::builder()
        .environment(environment)
        .open()
        .await
        .unwrap();
    memory.add("s", Role::User, "x", None).await.unwrap();
    redis(&server, &["LINDEX", "from-environment:s", "0"]);
    assert_eq!(
        crate::common::elements(&server, "from-environment:s").len(),
        1
    );
}

#[tokio::test]
async fn in_memory_needs_no_network() {
    let options = Options::new().provider(Provider::InMemory);
    let builder = SessionMemory::builder().environment([]).options(options);
    let memory = builder
        .network(NetworkPolicy::deny_all())
        .open()
        .await
        .unwrap();
    memory.add("s", Role::User, "x", None).await.unwrap();
    assert!(memory.exists("s").await.unwrap());
}

#[tokio::test]
async fn databases_are_apart() {
    let server = server();
    let first = memory(&server).await;
    let second = memory_with(&server, Options::new().db(1)).await;
    first.add("s", Role::User, "first", None).await.unwrap();
    assert!(!second.exists("s").await.unwrap());
}
