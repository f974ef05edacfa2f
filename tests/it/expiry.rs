//! When sessions expire under each policy, with real expiry.

use std::time::{Duration, Instant};

use session_memory_host::{Options, Role, TtlPolicy};

use crate::common::{Server, integer, memory_with, redis, server, took};

fn policy(ttl_policy: TtlPolicy, session_ttl: u64) -> Options {
    Options::new()
        .ttl_policy(ttl_policy)
        .session_ttl(Duration::from_secs(session_ttl))
}

/// Checks that the session `s` expires in this many seconds.
#[track_caller]
fn expires_in(server: &Server, seconds: i64) {
    crate::common::expires_in(&mut server.client().unwrap(), "session:s", seconds);
}

#[tokio::test]
async fn sliding_renews_with_every_add_and_never_with_a_read() {
    let server = server();
    let memory = memory_with(&server, policy(TtlPolicy::Sliding, 100)).await;
    memory.add("s", Role::User, "a", None).await.unwrap();
    expires_in(&server, 100);
    redis(&server, &["EXPIRE", "session:s", "50"]);
    memory.get("s", None).await.unwrap();
    memory.history("s", None).await.unwrap();
    memory.exists("s").await.unwrap();
    memory.count("s").await.unwrap();
    memory.add_all("s", &[]).await.unwrap();
    expires_in(&server, 50);
    memory.add("s", Role::User, "b", None).await.unwrap();
    expires_in(&server, 100);
    let ttl = memory.history("s", None).await.unwrap().ttl;
    assert!(
        ttl.is_some_and(|ttl| (90..=100).contains(&ttl.as_secs())),
        "{ttl:?}"
    );
}

#[tokio::test]
async fn fixed_is_set_when_the_session_begins() {
    let server = server();
    let memory = memory_with(&server, policy(TtlPolicy::Fixed, 100)).await;
    memory.add("s", Role::User, "a", None).await.unwrap();
    expires_in(&server, 100);
    redis(&server, &["EXPIRE", "session:s", "50"]);
    memory.add("s", Role::User, "b", None).await.unwrap();
    expires_in(&server, 50);
    // A session without a time to live gets the one that the policy asks for.
    redis(&server, &["PERSIST", "session:s"]);
    memory.add("s", Role::User, "c", None).await.unwrap();
    expires_in(&server, 100);
}

#[tokio::test]
async fn none_leaves_expiry_alone() {
    let server = server();
    let memory = memory_with(&server, policy(TtlPolicy::None, 100)).await;
    memory.add("s", Role::User, "a", None).await.unwrap();
    assert_eq!(integer(redis(&server, &["TTL", "session:s"])), -1);
    assert_eq!(memory.history("s", None).await.unwrap().ttl, None);
    redis(&server, &["EXPIRE", "session:s", "50"]);
    memory.add("s", Role::User, "b", None).await.unwrap();
    expires_in(&server, 50);
}

#[tokio::test]
async fn sessions_expire() {
    const SECONDS: u64 = 2;
    let time = Duration::from_secs(SECONDS);
    let server = server();
    let sliding = memory_with(&server, policy(TtlPolicy::Sliding, SECONDS)).await;
    let fixed = memory_with(&server, policy(TtlPolicy::Fixed, SECONDS)).await;
    let none = memory_with(&server, policy(TtlPolicy::None, SECONDS)).await;
    none.add("none", Role::User, "a", None).await.unwrap();
    // Each append renews the sliding session. The fixed session expires and begins anew.
    let begin = Instant::now();
    let mut last = begin;
    for n in 1.. {
        let length = fixed.add("fixed", Role::User, "a", None).await.unwrap();
        last = Instant::now();
        let renewed = sliding.add("sliding", Role::User, "a", None).await;
        assert_eq!(renewed.unwrap(), n);
        if length < n {
            assert_eq!(length, 1);
            break;
        }
        assert!(begin.elapsed() < 3 * time, "it does not expire");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    took(begin, time);
    // Without an append, the sliding session expires as well.
    while sliding.exists("sliding").await.unwrap() {
        assert!(last.elapsed() < 3 * time, "it does not expire");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    took(last, time);
    assert!(sliding.get("sliding", None).await.unwrap().is_empty());
    assert_eq!(sliding.count("sliding").await.unwrap(), 0);
    assert_eq!(sliding.history("sliding", Some(5)).await.unwrap().total, 0);
    assert_eq!(none.count("none").await.unwrap(), 1);
}

#[tokio::test]
async fn older_messages_are_trimmed_with_the_add() {
    let server = server();
    let options = Options::new().max_messages(3);
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
    expires_in(&server, 3600);
}
