//! Every error that a server, or its absence, can cause: the right variant, in time, with
//! a text that names the operation and no secrets.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use session_memory_host::{Options, Role};

use crate::common::{
    RETRIES, Value, at_most_once, builder, elements, ends_by_itself, expires_in, free_port,
    integer, is_redis_7, memory, memory_with, peer, peer_replying, redis, refusal, server,
    server_code, server_with, server_with_user,
};

const PASSWORD: &str = "hunter2-correct";

fn credentials(username: Option<&str>, password: Option<&str>) -> Options {
    let mut options = Options::new();
    options.username = username.map(str::to_owned);
    options.password = password.map(|password| password.to_owned().into());
    options
}

/// Short, so that the tests are short.
const DEADLINE: Duration = Duration::from_millis(300);

fn impatient() -> Options {
    Options::new()
        .connect_timeout(DEADLINE)
        .operation_timeout(DEADLINE)
}

#[tokio::test]
async fn credentials_are_checked() {
    let server = server_with_user("agent", "on >agent-secret ~session:* +@all");
    redis(&server, &["CONFIG", "SET", "requirepass", PASSWORD]);
    let open = |options| builder(server.port(), options).open();
    for options in [
        credentials(None, Some(PASSWORD)),
        credentials(Some("agent"), Some("agent-secret")),
    ] {
        let memory = open(options).await.unwrap();
        memory.add("s", Role::User, "x", None).await.unwrap();
    }
    for options in [
        credentials(None, None),
        credentials(None, Some("hunter2-wrong")),
        credentials(Some("agent"), Some("hunter2-wrong")),
        credentials(Some("nobody"), Some(PASSWORD)),
        credentials(Some("agent"), None),
    ] {
        let (variant, text) = refusal(open(options).await);
        assert_eq!(variant, "access-denied");
        assert!(
            text.starts_with(&format!("connect to \"127.0.0.1:{}\": ", server.port())),
            "{text}"
        );
        assert!(
            !text.contains("hunter2") && !text.contains("secret"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_password_for_a_server_without_one_is_refused() {
    let server = server();
    let opened = builder(server.port(), credentials(None, Some(PASSWORD)))
        .open()
        .await;
    let (variant, text) = refusal(opened);
    assert_eq!(variant, "access-denied");
    assert!(
        text.ends_with("the server has no password: leave out password (REDIS_PASSWORD)"),
        "{text}"
    );
}

#[tokio::test]
async fn a_database_that_is_not_there_is_an_invalid_argument() {
    let server = server();
    let options = Options::new().db(16);
    let (variant, text) = refusal(builder(server.port(), options).open().await);
    assert_eq!(variant, "invalid-argument");
    assert!(
        text.ends_with("option db (REDIS_DB) is 16: the server does not have it"),
        "{text}"
    );
}

#[tokio::test]
async fn what_a_user_may_not_do_is_denied_before_anything_is_done() {
    // The user may run every command but one.
    for denied in ["rpush", "expire", "ltrim", "evalsha", "lpos"] {
        let server = server_with_user("agent", &format!("on nopass ~* +@all -{denied}"));
        let allowed = memory_with(&server, Options::default()).await;
        let options = credentials(Some("agent"), None).max_messages(10);
        let restricted = memory_with(&server, options).await;
        let (variant, text) = refusal(
            restricted
                .add("new", Role::User, "secret words", None)
                .await,
        );
        assert_eq!(variant, "access-denied", "{denied}");
        assert!(text.starts_with("add to \"new\": "), "{text}");
        assert!(!text.contains("secret words"), "{text}");
        assert_eq!(
            integer(redis(&server, &["EXISTS", "session:new"])),
            0,
            "{denied}"
        );

        allowed.add("old", Role::User, "x", None).await.unwrap();
        assert_eq!(
            refusal(restricted.add("old", Role::User, "y", None).await).0,
            "access-denied"
        );
        assert_eq!(elements(&server, "session:old").len(), 1, "{denied}");
        expires_in(&mut server.client().unwrap(), "session:old", 3600);
    }
}

#[tokio::test]
async fn at_most_once_what_a_user_may_not_do_is_denied_before_anything_is_done() {
    for denied in ["rpush", "expire", "ltrim", "pttl"] {
        let server = server_with_user("agent", &format!("on nopass ~* +@all -{denied}"));
        let options = at_most_once().username("agent").max_messages(10);
        let memory = memory_with(&server, options).await;
        assert_eq!(
            refusal(memory.add("s", Role::User, "x", None).await).0,
            "access-denied"
        );
        assert_eq!(
            integer(redis(&server, &["EXISTS", "session:s"])),
            0,
            "{denied}"
        );
    }
    for denied in ["multi", "exec"] {
        let server = server_with_user("agent", &format!("on nopass ~* +@all -{denied}"));
        let options = at_most_once().username("agent");
        let opened = builder(server.port(), options).open().await;
        assert_eq!(refusal(opened).0, "access-denied", "{denied}");
    }
}

#[tokio::test]
async fn reads_that_are_denied_say_so() {
    let server = server_with_user("agent", "on nopass ~other:* +@all");
    let memory = memory_with(&server, credentials(Some("agent"), None)).await;
    assert_eq!(refusal(memory.get("s", None).await).0, "access-denied");
    assert_eq!(refusal(memory.history("s", None).await).0, "access-denied");
    assert_eq!(refusal(memory.count("s").await).0, "access-denied");
    assert_eq!(refusal(memory.exists("s").await).0, "access-denied");
    assert_eq!(refusal(memory.clear("s").await).0, "access-denied");
    assert_eq!(
        refusal(memory.add("s", Role::User, "x", None).await).0,
        "access-denied"
    );

    let server = server_with_user("agent", "on nopass ~* +@all -eval");
    let memory = memory_with(&server, credentials(Some("agent"), None)).await;
    assert_eq!(refusal(memory.history("s", None).await).0, "access-denied");
}

#[tokio::test]
async fn a_key_of_another_type_is_left_alone() {
    let server = server();
    let memory = memory(&server).await;
    redis(&server, &["HSET", "session:s", "field", "value"]);
    assert_eq!(
        refusal(memory.add("s", Role::User, "x", None).await).0,
        "wrong-type"
    );
    assert_eq!(refusal(memory.add_all("s", &[]).await).0, "wrong-type");
    assert_eq!(refusal(memory.get("s", None).await).0, "wrong-type");
    assert_eq!(refusal(memory.history("s", Some(1)).await).0, "wrong-type");
    assert_eq!(refusal(memory.exists("s").await).0, "wrong-type");
    assert_eq!(refusal(memory.count("s").await).0, "wrong-type");
    let (variant, text) = refusal(memory.clear("s").await);
    assert_eq!(variant, "wrong-type");
    assert_eq!(
        text,
        "clear \"s\": WRONGTYPE: the key holds something other than a list"
    );
    assert_eq!(
        redis(&server, &["HGET", "session:s", "field"]),
        Value::Bulk(Some(b"value".into()))
    );
    assert_eq!(integer(redis(&server, &["TTL", "session:s"])), -1);

    // A transaction continues after the push has failed.
    let at_most_once = memory_with(&server, at_most_once()).await;
    let refused = async || {
        let added = at_most_once.add("s", Role::User, "x", None).await;
        assert_eq!(refusal(added).0, "wrong-type");
    };
    redis(&server, &["PERSIST", "session:s"]);
    refused().await;
    assert_eq!(integer(redis(&server, &["TTL", "session:s"])), -1);
    redis(&server, &["EXPIRE", "session:s", "50"]);
    refused().await;
    expires_in(&mut server.client().unwrap(), "session:s", 50);
}

#[tokio::test]
async fn other_error_replies_keep_their_code() {
    let server = server_with(&["--maxmemory-policy", "noeviction"]);
    let memory = memory(&server).await;
    memory.add("old", Role::User, "x", None).await.unwrap();
    redis(&server, &["CONFIG", "SET", "maxmemory", "1"]);
    if is_redis_7(&server) {
        for session in ["new", "old"] {
            let result = memory.add(session, Role::User, "secret words", None).await;
            assert_eq!(server_code(result), "OOM");
        }
    }
    let at_most_once = memory_with(&server, at_most_once()).await;
    let result = at_most_once
        .add("new", Role::User, "secret words", None)
        .await;
    assert_eq!(server_code(result), "OOM");
    redis(&server, &["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(memory.count("old").await.unwrap(), 1);
    assert_eq!(memory.count("new").await.unwrap(), 0);

    let replica_of = free_port().unwrap().to_string();
    redis(&server, &["REPLICAOF", "127.0.0.1", &replica_of]);
    let impatient = memory_with(&server, impatient()).await;
    let added = ends_by_itself(RETRIES, async || {
        impatient.add("old", Role::User, "y", None).await
    });
    assert_eq!(server_code(added.await), "READONLY");
    let cleared = ends_by_itself(RETRIES, async || impatient.clear("old").await);
    assert_eq!(server_code(cleared.await), "READONLY");
    assert_eq!(memory.count("old").await.unwrap(), 1);
    redis(&server, &["REPLICAOF", "NO", "ONE"]);
    assert_eq!(memory.add("old", Role::User, "y", None).await.unwrap(), 2);
}

#[tokio::test]
async fn a_server_that_takes_no_more_clients_is_unavailable() {
    let server = server_with(&["--maxclients", "1"]);
    // The client that checked that the server is up may still be connected.
    let begin = Instant::now();
    let _first = loop {
        match builder(server.port(), Options::default()).open().await {
            Ok(memory) => break memory,
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(5), "{error}"),
        }
    };
    assert_eq!(
        refusal(builder(server.port(), Options::default()).open().await).0,
        "unavailable"
    );
}

#[tokio::test]
async fn where_nothing_listens_it_is_unavailable() {
    let port = free_port().unwrap();
    let (variant, text) = refusal(builder(port, Options::default()).open().await);
    assert_eq!(variant, "unavailable");
    assert_eq!(
        text,
        format!("connect to \"127.0.0.1:{port}\": 127.0.0.1:{port}: connection refused")
    );

    let options = Options::new().host("no-such-host.invalid");
    let (variant, text) = refusal(builder(port, options).open().await);
    assert_eq!(variant, "unavailable");
    assert!(
        text.ends_with("\"no-such-host.invalid\": name not found"),
        "{text}"
    );
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    // The server listens on 127.0.0.1 only. localhost may also be ::1.
    let server = server();
    let options = Options::new().host("localhost");
    builder(server.port(), options).open().await.unwrap();
}

#[tokio::test]
async fn ipv6_is_spoken() {
    let server = server_with(&["--bind", "127.0.0.1", "::1"]);
    for host in ["::1", "[::1]"] {
        let options = Options::new().host(host.to_owned());
        let memory = builder(server.port(), options).open().await.unwrap();
        assert_eq!(memory.count("s").await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_server_that_never_replies_times_out() {
    let port = peer(|mut connection| {
        let _ = connection.read_to_end(&mut Vec::new());
    });
    let opened = ends_by_itself(DEADLINE, async || builder(port, impatient()).open().await);
    let (variant, text) = refusal(opened.await);
    assert_eq!(variant, "timeout");
    assert_eq!(
        text,
        format!("connect to \"127.0.0.1:{port}\": no reply within 300 ms")
    );
}

#[tokio::test]
async fn silence_after_the_request_leaves_the_outcome_of_a_write_unknown() {
    let port = peer_replying(&[b"+PONG\r\n"]);
    let open = || builder(port, impatient()).open();

    let memory = open().await.unwrap();
    let added = ends_by_itself(DEADLINE, async || {
        memory.add("s", Role::User, "secret words", None).await
    });
    let (variant, text) = refusal(added.await);
    assert_eq!(variant, "outcome-unknown");
    assert_eq!(
        text,
        "add to \"s\": no reply within 300 ms after the request was sent"
    );
    assert_eq!(
        refusal(open().await.unwrap().clear("s").await).0,
        "outcome-unknown"
    );

    let memory = open().await.unwrap();
    let got = ends_by_itself(DEADLINE, async || memory.get("s", None).await);
    let (variant, text) = refusal(got.await);
    assert_eq!(variant, "timeout");
    assert_eq!(text, "get \"s\": no reply within 300 ms");
}

#[tokio::test]
async fn a_trickle_does_not_extend_the_deadline() {
    let port = peer(|mut connection| {
        let mut buffer = [0; 1024];
        let _ = connection.read(&mut buffer);
        for byte in b"+PONG\r\n".iter().chain(b"$1000\r\n").chain(&[b'x'; 1000]) {
            std::thread::sleep(Duration::from_millis(20));
            if connection.write_all(&[*byte]).is_err() {
                return;
            }
        }
    });
    let mut options = impatient();
    options.connect_timeout = None;
    let memory = builder(port, options).open().await.unwrap();
    let got = ends_by_itself(DEADLINE, async || memory.get("s", None).await);
    assert_eq!(refusal(got.await).0, "timeout");
}

#[tokio::test]
async fn a_peer_that_stops_reading_does_not_extend_the_deadline() {
    let port = peer(|mut connection| {
        let mut buffer = [0; 1024];
        let _ = connection.read(&mut buffer);
        let _ = connection.write_all(b"+PONG\r\n");
        std::thread::sleep(Duration::from_secs(10));
    });
    let options = impatient().max_message_bytes(16 << 20);
    let memory = builder(port, options).open().await.unwrap();
    // More than the buffers on the way hold, so the server cannot have received it.
    let content = "x".repeat(16 << 20);
    let added = ends_by_itself(DEADLINE, async || {
        memory.add("s", Role::User, &content, None).await
    });
    assert_eq!(refusal(added.await).0, "timeout");
}

#[tokio::test]
async fn a_connection_lost_after_the_request_leaves_the_outcome_of_a_write_unknown() {
    let port = peer(|mut connection| {
        let mut buffer = [0; 64 * 1024];
        let _ = connection.read(&mut buffer);
        let _ = connection.write_all(b"+PONG\r\n");
        // Reads the request, so that closing does not reset the connection.
        let _ = connection.read(&mut buffer);
    });
    let open = || builder(port, impatient()).open();
    let memory = open().await.unwrap();
    let added = ends_by_itself(RETRIES, async || {
        memory.add("s", Role::User, "x", None).await
    });
    let (variant, text) = refusal(added.await);
    assert_eq!(variant, "outcome-unknown");
    assert_eq!(
        text,
        "add to \"s\": the connection was lost after the request was sent"
    );
    let memory = open().await.unwrap();
    let got = ends_by_itself(RETRIES, async || memory.get("s", None).await);
    let (variant, text) = refusal(got.await);
    assert_eq!(variant, "unavailable");
    assert_eq!(text, "get \"s\": the connection was lost");
}

#[tokio::test]
async fn at_most_once_nothing_is_sent_twice() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let port = peer(move |mut connection| {
        let mut buffer = [0; 4096];
        let _ = connection.read(&mut buffer);
        let _ = connection.write_all(b"+OK\r\n*0\r\n+PONG\r\n");
        if connection.read(&mut buffer).is_ok_and(|size| size > 0) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let memory = builder(port, at_most_once()).open().await.unwrap();
    let (variant, text) = refusal(memory.add("s", Role::User, "x", None).await);
    assert_eq!(variant, "outcome-unknown");
    assert_eq!(
        text,
        "add to \"s\": the connection was lost after the request was sent"
    );
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_malformed_reply_is_a_protocol_error() {
    for reply in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"+OK\r\n",
        b":1\r\n:2\r\n",
        b"$-2\r\n",
        b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
        b">2\r\n+message\r\n+x\r\n",
        b"%1\r\n+a\r\n+b\r\n",
        b"\r\n",
        b"$3\r\nabcd\r\n",
    ] {
        let memory = builder(peer_replying(&[b"+PONG\r\n", reply]), Options::default())
            .open()
            .await
            .unwrap();
        let (variant, text) = refusal(memory.add("s", Role::User, "x", None).await);
        assert_eq!(variant, "protocol", "{}: {text}", reply.escape_ascii());
        assert!(text.starts_with("add to \"s\": "), "{text}");
        // The peer replies to the handshake of a new connection only, so this connection
        // is new.
        assert_eq!(refusal(memory.get("s", None).await).0, "protocol");
    }
    let port = peer(|mut connection| {
        let _ = connection.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        let _ = connection.read_to_end(&mut Vec::new());
    });
    assert_eq!(
        refusal(builder(port, Options::default()).open().await).0,
        "protocol"
    );
}

#[tokio::test]
async fn what_is_announced_too_large_is_refused_at_once() {
    for reply in [
        &b"$4294967295\r\n"[..],
        b"*4294967295\r\n",
        b"*2\r\n$1\r\nx\r\n$1000000000\r\n",
    ] {
        let memory = builder(peer_replying(&[b"+PONG\r\n", reply]), Options::default())
            .open()
            .await
            .unwrap();
        assert_eq!(refusal(memory.get("s", None).await).0, "limit-exceeded");
    }
}

#[tokio::test]
async fn an_error_reply_shows_no_arguments() {
    let reply =
        b"-ERR unknown command 'EVALSHA', with args beginning with: 'abc' '1' 'secret words' \r\n";
    let memory = builder(peer_replying(&[b"+PONG\r\n", reply]), Options::default())
        .open()
        .await
        .unwrap();
    let (variant, text) = refusal(memory.add("s", Role::User, "secret words", None).await);
    assert_eq!(variant, "server");
    assert_eq!(
        text,
        "add to \"s\": ERR: the server does not know EVALSHA (renamed or disabled there, or it is \
         a Redis Sentinel or a proxy); delivery at-most-once needs no scripting, and get needs none \
         either"
    );
}
