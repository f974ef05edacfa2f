//! Settings that are not allowed, and networks that the host does not allow.

use std::net::{Ipv4Addr, TcpListener};

use session_memory_host::{Connect, NetworkPolicy, Options, Role, SessionMemory};

use super::get;
use crate::common::{builder, integer, redis, refusal, server};

#[tokio::test]
async fn a_host_that_allows_no_tcp_is_told_of_by_the_operation() {
    let options = Options::new().connect(Connect::AtFirstOperation);
    let builder = builder(6379, options).network(NetworkPolicy::deny_all());
    let memory = builder.open().await.unwrap();
    let text = "get \"s\": connect to \"127.0.0.1:6379\": 127.0.0.1:6379: the host does not allow \
                this address, or no TCP at all; it may also have a loopback of its own";
    assert_eq!(get(&memory).await, ("access-denied", text.to_owned()));
}

#[tokio::test]
async fn what_people_set_by_mistake_is_refused_without_a_secret_and_without_dialling() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let with_port = format!("localhost:{port}");
    let url = format!("redis://:hunter2@localhost:{port}/0");
    let whole = "a URL or part of one (not shown, because it may contain a password), allowed is a \
                 name or an IP address; port, username, password and db are separate options";
    for (variable, value, text) in [
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
            "host (REDIS_HOST) is neither a name nor an IP address, allowed is a name or an IP address without a port; the port is a separate option, port (REDIS_PORT)"
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
            "port (REDIS_PORT) is a URL or part of one (not shown, because it may contain a password), allowed is a whole number from 1 to 65535; container platforms set such \
             a variable for a service that is named redis"
                .to_owned(),
        ),
        (
            "REDIS_DB",
            "redis://u:hunter2@h/1",
            "db (REDIS_DB) is a URL or part of one (not shown, because it may contain a password), \
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
        let expected = ("invalid-argument", format!("open: option {text}"));
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
    // The prefix and the time to live have their defaults, and messages have ids.
    let ttl = integer(redis(&server, &["TTL", "session:s"]));
    assert!((3590..=3600).contains(&ttl), "{ttl}");
    assert!(memory.get("s", None).await.unwrap()[0].id.is_some());

    // The default port of the default host is named. The policy allows no connection.
    let nowhere = [("REDIS_HOST", ""), ("REDIS_PORT", "")].map(owned);
    let builder = SessionMemory::builder().environment(nowhere);
    let opened = builder.network(NetworkPolicy::deny_all()).open().await;
    let text = "connect to \"localhost:6379\": \"localhost\": the host does not allow this name to \
                be looked up";
    assert_eq!(refusal(opened), ("access-denied", text.to_owned()));
}

/// Opens a memory with these variables. The host and the port are set unless they are
/// among them.
async fn in_environment(
    port: u16,
    variables: &[(&str, &str)],
) -> Result<SessionMemory, session_memory_host::Error> {
    let port = port.to_string();
    let mut environment: Vec<_> = variables.iter().copied().map(owned).collect();
    // The first variable with a name counts.
    environment.extend([("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", &port)].map(owned));
    SessionMemory::builder()
        .environment(environment)
        .open()
        .await
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}
