//! The operations behave as `wit/memory.wit` describes them.

use std::collections::HashSet;

use session_memory_host::{Delivery, NewMessage, Options, Role, SessionMemory};

use crate::common::{
    at_most_once, elements, in_memory, integer, memory, memory_with, redis, refusal, server, text,
};

fn contents(messages: &[session_memory_host::Message]) -> Vec<&str> {
    messages
        .iter()
        .map(|message| message.content.as_str())
        .collect()
}

fn new(role: Role, content: &str) -> NewMessage {
    NewMessage::new(role, content)
}

/// The promises of both providers and both deliveries.
async fn keeps_the_contract(memory: &SessionMemory, delivery: Delivery) {
    // An unknown session.
    assert!(!memory.exists("s").await.unwrap());
    assert_eq!(memory.count("s").await.unwrap(), 0);
    assert!(memory.get("s", None).await.unwrap().is_empty());
    let history = memory.history("s", None).await.unwrap();
    assert_eq!(
        (history.messages.len(), history.total, history.skipped),
        (0, 0, 0)
    );
    assert_eq!(history.ttl, None);
    memory.clear("s").await.unwrap();

    // Order, roles, metadata, the empty message.
    assert_eq!(memory.add("s", Role::User, "one", None).await.unwrap(), 1);
    assert_eq!(
        memory
            .add("s", Role::Assistant, "", Some(r#" {"a": [1e999]} "#))
            .await
            .unwrap(),
        2
    );
    let more = [
        new(Role::User, "three"),
        new(Role::Assistant, "vier, Zoë 😀\0"),
    ];
    assert_eq!(memory.add_all("s", &more).await.unwrap(), 4);
    assert_eq!(memory.add_all("s", &[]).await.unwrap(), 4);
    let messages = memory.get("s", None).await.unwrap();
    assert_eq!(contents(&messages), ["one", "", "three", "vier, Zoë 😀\0"]);
    assert_eq!(messages[0].role, Role::User);
    assert_eq!(messages[0].metadata, None);
    let ids: HashSet<&str> = messages
        .iter()
        .filter_map(|message| message.id.as_deref())
        .collect();
    let expected = match delivery {
        Delivery::ExactlyOnce => 4,
        Delivery::AtMostOnce => 0,
    };
    assert_eq!(ids.len(), expected);
    assert_eq!(messages[1].role, Role::Assistant);
    assert_eq!(messages[1].metadata.as_deref(), Some(r#"{"a": [1e999]}"#));
    assert!(messages.is_sorted_by(|a, b| a.timestamp <= b.timestamp));
    assert!(memory.exists("s").await.unwrap());
    assert_eq!(memory.count("s").await.unwrap(), 4);

    // Limits.
    for (limit, expected) in [
        (0, &[][..]),
        (1, &["vier, Zoë 😀\0"]),
        (2, &["three", "vier, Zoë 😀\0"]),
        (4, &["one", "", "three", "vier, Zoë 😀\0"]),
        (u32::MAX, &["one", "", "three", "vier, Zoë 😀\0"]),
    ] {
        assert_eq!(
            contents(&memory.get("s", Some(limit)).await.unwrap()),
            expected
        );
        let history = memory.history("s", Some(limit)).await.unwrap();
        assert_eq!(contents(&history.messages), expected);
        assert_eq!((history.total, history.skipped), (4, 0));
        assert!(
            history
                .ttl
                .is_some_and(|ttl| (3590..=3600).contains(&ttl.as_secs()))
        );
    }

    // Sessions are independent.
    memory.add("t", Role::User, "other", None).await.unwrap();
    memory.clear("s").await.unwrap();
    memory.clear("s").await.unwrap();
    assert!(!memory.exists("s").await.unwrap());
    assert_eq!(memory.count("t").await.unwrap(), 1);

    // Invalid arguments are refused and change nothing.
    let (variant, text) = refusal(memory.add("", Role::User, "x", None).await);
    assert_eq!(variant, "invalid-argument");
    assert_eq!(
        text,
        r#"add to "": the session id is empty, allowed is any other text"#
    );
    let (variant, text) = refusal(memory.add("t", Role::User, "x", Some("[1]")).await);
    assert_eq!(variant, "invalid-argument");
    assert_eq!(text, r#"add to "t": the metadata is not a JSON object"#);
    let mut messages = [new(Role::User, "fine"), new(Role::User, "bad")];
    messages[1].metadata = Some("{".to_owned());
    assert_eq!(
        refusal(memory.add_all("t", messages).await).0,
        "invalid-argument"
    );
    assert_eq!(memory.count("t").await.unwrap(), 1);
}

#[tokio::test]
async fn redis_keeps_the_contract() {
    let server = server();
    keeps_the_contract(&memory(&server).await, Delivery::ExactlyOnce).await;
}

#[tokio::test]
async fn redis_keeps_the_contract_with_at_most_once() {
    let server = server();
    let memory = memory_with(&server, at_most_once()).await;
    keeps_the_contract(&memory, Delivery::AtMostOnce).await;
}

#[tokio::test]
async fn in_memory_keeps_the_contract() {
    keeps_the_contract(&in_memory(Options::default()).await, Delivery::ExactlyOnce).await;
}

#[tokio::test]
async fn unreadable_entries_are_passed_over_and_stay() {
    let server = server();
    let memory = memory(&server).await;
    let good = |n: u32| format!(r#"{{"role":"user","content":"{n}"}}"#);
    let bad = [
        "text",
        "{}",
        r#"{"role":"system","content":"x"}"#,
        "",
        r#"{"role":"user"}"#,
    ];
    for n in 0..20 {
        redis(&server, &["RPUSH", "session:s", &good(n)]);
        for _ in 0..n {
            redis(&server, &[&["RPUSH", "session:s"], &bad[..]].concat());
        }
    }
    let before = elements(&server, "session:s");
    let all: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    for limit in [
        None,
        Some(0),
        Some(1),
        Some(2),
        Some(7),
        Some(19),
        Some(20),
        Some(21),
        Some(5000),
    ] {
        let wanted = limit.map_or(20, |limit: u32| limit.min(20)) as usize;
        let expected = &all[20 - wanted..];
        assert_eq!(
            contents(&memory.get("s", limit).await.unwrap()),
            expected,
            "{limit:?}"
        );
        let history = memory.history("s", limit).await.unwrap();
        assert_eq!(contents(&history.messages), expected, "{limit:?}");
        assert_eq!(history.total as usize, before.len());
        let newer: usize = (20 - wanted..20).map(|n| 5 * n).sum();
        assert_eq!(history.skipped as usize, newer, "{limit:?}");
    }
    assert_eq!(memory.count("s").await.unwrap() as usize, before.len());
    assert_eq!(elements(&server, "session:s"), before);
}

#[tokio::test]
async fn an_operation_is_one_round_trip() {
    let server = server();
    let memory = memory(&server).await;
    // The first append loads the script.
    memory.add("s", Role::User, "hello", None).await.unwrap();
    let mut reads = 0;
    let mut reads_since_last = || {
        let info = text(redis(&server, &["INFO", "stats"]));
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("total_reads_processed:"));
        let now: i64 = line.unwrap().parse().unwrap();
        let since = now - reads;
        reads = now;
        since
    };
    reads_since_last();
    let idle = reads_since_last();
    memory.add("s", Role::User, "hello", None).await.unwrap();
    assert_eq!(reads_since_last(), idle + 1);
    memory
        .add_all("s", &[new(Role::User, "a"), new(Role::User, "b")])
        .await
        .unwrap();
    assert_eq!(reads_since_last(), idle + 1);
    memory.get("s", Some(2)).await.unwrap();
    assert_eq!(reads_since_last(), idle + 1);
    memory.history("s", None).await.unwrap();
    assert_eq!(reads_since_last(), idle + 1);
    memory.get("s", Some(0)).await.unwrap();
    assert_eq!(reads_since_last(), idle);
}

#[tokio::test]
async fn an_append_is_atomic() {
    let server = server();
    let memory = memory(&server).await;
    redis(&server, &["SET", "session:s", "foreign"]);
    let messages = [new(Role::User, "a"), new(Role::User, "b")];
    assert_eq!(refusal(memory.add_all("s", messages).await).0, "wrong-type");
    assert_eq!(integer(redis(&server, &["TTL", "session:s"])), -1);

    // More messages than Lua unpacks at once.
    let many: Vec<_> = (0..10_000)
        .map(|n| new(Role::User, &n.to_string()))
        .collect();
    assert_eq!(memory.add_all("many", &many[..]).await.unwrap(), 10_000);
    let stored = memory.get("many", None).await.unwrap();
    assert!(
        stored
            .iter()
            .zip(&many)
            .all(|(stored, sent)| stored.content == sent.content)
    );
    assert_eq!(stored.len(), 10_000);
    assert_eq!(
        contents(&memory.get("many", Some(2)).await.unwrap()),
        ["9998", "9999"]
    );
}

#[tokio::test]
async fn clones_share_their_connections() {
    let server = server();
    let memory = memory(&server).await;
    let tasks: Vec<_> = (0..8)
        .map(|n| {
            let memory = memory.clone();
            tokio::spawn(async move {
                for m in 0..20 {
                    let session = format!("s{n}");
                    memory
                        .add(&session, Role::User, &format!("{n}-{m}"), None)
                        .await
                        .unwrap();
                    let last = memory.get(&session, Some(1)).await.unwrap();
                    assert_eq!(last[0].content, format!("{n}-{m}"));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    // Two instances, which is the default, and this client.
    let clients = text(redis(&server, &["CLIENT", "LIST"]));
    assert_eq!(clients.lines().count(), 3, "{clients}");
}
