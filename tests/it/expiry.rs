//! When sessions expire, by policy, and with real expiry.

use std::time::Duration;

use session_memory_host::{Options, Role, TtlPolicy};
use session_memory_tests::{Server, integer, memory_with, redis, server};

fn policy(ttl_policy: TtlPolicy, session_ttl: u32) -> Options {
    Options {
        ttl_policy: Some(ttl_policy),
        session_ttl: Some(session_ttl),
        ..Options::default()
    }
}

fn ttl(server: &Server) -> i64 {
    integer(redis(server, &["TTL", "session:s"]))
}

#[tokio::test]
async fn sliding_renews_with_every_add_and_never_with_a_read() {
    let server = server();
    let memory = memory_with(&server, policy(TtlPolicy::Sliding, 100)).await;
    memory.add("s", Role::User, "a", None).await.unwrap();
    assert_eq!(ttl(&server), 100);
    redis(&server, &["EXPIRE", "session:s", "50"]);
    memory.get("s", None).await.unwrap();
    memory.history("s", None).await.unwrap();
    memory.exists("s").await.unwrap();
    memory.count("s").await.unwrap();
    memory.add_all("s", &[]).await.unwrap();
    assert_eq!(ttl(&server), 50);
    memory.add("s", Role::User, "b", None).await.unwrap();
    assert_eq!(ttl(&server), 100);
    assert_eq!(
        memory.history("s", None).await.unwrap().ttl_seconds,
        Some(100)
    );
}

#[tokio::test]
async fn fixed_is_set_when_the_session_begins() {
    let server = server();
    let memory = memory_with(&server, policy(TtlPolicy::Fixed, 100)).await;
    memory.add("s", Role::User, "a", None).await.unwrap();
    assert_eq!(ttl(&server), 100);
    redis(&server, &["EXPIRE", "session:s", "50"]);
    memory.add("s", Role::User, "b", None).await.unwrap();
    assert_eq!(ttl(&server), 50);
    // A session that someone made immortal gets what the policy asks for.
    redis(&server, &["PERSIST", "session:s"]);
    memory.add("s", Role::User, "c", None).await.unwrap();
    assert_eq!(ttl(&server), 100);
}

#[tokio::test]
async fn none_leaves_expiry_alone() {
    let server = server();
    let memory = memory_with(&server, policy(TtlPolicy::None, 100)).await;
    memory.add("s", Role::User, "a", None).await.unwrap();
    assert_eq!(ttl(&server), -1);
    assert_eq!(memory.history("s", None).await.unwrap().ttl_seconds, None);
    redis(&server, &["EXPIRE", "session:s", "50"]);
    memory.add("s", Role::User, "b", None).await.unwrap();
    assert_eq!(ttl(&server), 50);
}

#[tokio::test]
async fn sessions_expire() {
    let server = server();
    let sliding = memory_with(&server, policy(TtlPolicy::Sliding, 1)).await;
    let fixed = memory_with(&server, policy(TtlPolicy::Fixed, 1)).await;
    let none = memory_with(&server, policy(TtlPolicy::None, 1)).await;
    sliding.add("sliding", Role::User, "a", None).await.unwrap();
    fixed.add("fixed", Role::User, "a", None).await.unwrap();
    none.add("none", Role::User, "a", None).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(
        sliding.add("sliding", Role::User, "b", None).await.unwrap(),
        2
    );
    assert_eq!(fixed.add("fixed", Role::User, "b", None).await.unwrap(), 2);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(sliding.count("sliding").await.unwrap(), 2);
    assert_eq!(fixed.count("fixed").await.unwrap(), 0);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!sliding.exists("sliding").await.unwrap());
    assert!(sliding.get("sliding", None).await.unwrap().is_empty());
    assert_eq!(sliding.history("sliding", Some(5)).await.unwrap().total, 0);
    assert_eq!(none.count("none").await.unwrap(), 1);
    // A new session begins under the old name.
    assert_eq!(fixed.add("fixed", Role::User, "c", None).await.unwrap(), 1);
}

#[tokio::test]
async fn older_messages_are_trimmed_with_the_add() {
    let server = server();
    let options = Options {
        max_messages: Some(3),
        ..Options::default()
    };
    let memory = memory_with(&server, options).await;
    for (n, expected) in [1, 2, 3, 3, 3].into_iter().enumerate() {
        let length = memory
            .add("s", Role::User, &n.to_string(), None)
            .await
            .unwrap();
        assert_eq!(length, expected);
    }
    let contents: Vec<_> = memory
        .get("s", None)
        .await
        .unwrap()
        .into_iter()
        .map(|message| message.content)
        .collect();
    assert_eq!(contents, ["2", "3", "4"]);
    assert_eq!(ttl(&server), 3600);
}
