//! Large messages and histories, and those that are too large.

use session_memory_host::{NewMessage, Options, Role};

use crate::common::{builder, elements, in_memory, memory, memory_with, redis, refusal, server};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_message_of_a_mebibyte_is_kept() {
    let server = server();
    let memory = memory(&server).await;
    for content in ["x".repeat(MIB), "\u{1}".repeat(MIB), "é".repeat(MIB / 2)] {
        memory.add("s", Role::User, &content, None).await.unwrap();
        assert!(memory.get("s", Some(1)).await.unwrap()[0].content == content);
    }
}

#[tokio::test]
async fn a_larger_message_is_refused_before_it_is_sent() {
    let server = server();
    let memory = memory(&server).await;
    let (variant, text) = refusal(
        memory
            .add("s", Role::User, &"x".repeat(MIB + 1), None)
            .await,
    );
    assert_eq!(variant, "limit-exceeded");
    assert_eq!(
        text,
        "add to \"s\": the message has 1048577 bytes of content and metadata, \
         allowed are 1048576 (max-message-bytes)"
    );
    assert!(!memory.exists("s").await.unwrap());

    let options = Options::new().max_message_bytes(5);
    let memory = memory_with(&server, options).await;
    memory.add("s", Role::User, "12345", None).await.unwrap();
    memory
        .add("s", Role::User, "123", Some("{}"))
        .await
        .unwrap();
    assert_eq!(
        refusal(memory.add("s", Role::User, "1234", Some("{}")).await).0,
        "limit-exceeded"
    );
    let new = |content: &str| NewMessage::user(content);
    let result = memory.add_all("s", &[new("1"), new("123456")]).await;
    assert_eq!(refusal(result).0, "limit-exceeded");
    assert_eq!(elements(&server, "session:s").len(), 2);
}

#[tokio::test]
async fn a_history_of_ten_thousand_messages() {
    let server = server();
    let memory = memory(&server).await;
    let messages: Vec<_> = (0..10_000)
        .map(|n| {
            let content = format!("{n} {}", "x".repeat(200));
            let message = match n % 2 {
                0 => NewMessage::user(content),
                _ => NewMessage::assistant(content),
            };
            message.with_metadata(format!(r#"{{"n": {n}}}"#))
        })
        .collect();
    for chunk in messages.chunks(100) {
        memory.add_all("s", chunk).await.unwrap();
    }
    let history = memory.history("s", None).await.unwrap();
    assert_eq!((history.total, history.skipped), (10_000, 0));
    for (stored, sent) in history.messages.iter().zip(&messages) {
        assert_eq!(
            (stored.role, &stored.content, &stored.metadata),
            (sent.role, &sent.content, &sent.metadata)
        );
    }
    assert_eq!(
        memory.get("s", Some(2)).await.unwrap()[1].content,
        messages[9999].content
    );
}

#[tokio::test]
async fn a_reply_that_is_too_large_is_refused() {
    let server = server();
    let options = Options::new().max_reply_bytes(10_000);
    let memory = memory_with(&server, options).await;
    for _ in 0..20 {
        memory
            .add("s", Role::User, &"x".repeat(1000), None)
            .await
            .unwrap();
    }
    let (variant, text) = refusal(memory.get("s", None).await);
    assert_eq!(variant, "limit-exceeded");
    assert_eq!(
        text,
        "get \"s\": the reply is larger than 10000 bytes (max-reply-bytes)"
    );
    // The next operation uses a new connection.
    assert_eq!(memory.get("s", Some(5)).await.unwrap().len(), 5);
    assert_eq!(memory.count("s").await.unwrap(), 20);
}

#[tokio::test]
async fn a_reply_that_the_memory_does_not_hold_ends_in_an_error() {
    let server = server();
    for _ in 0..64 {
        let element = format!(r#"{{"role":"user","content":"{}"}}"#, "x".repeat(MIB));
        redis(&server, &["RPUSH", "session:s", &element]);
    }
    let memory = builder(server.port(), Options::default())
        .max_memory(32 * MIB)
        .open()
        .await
        .unwrap();
    assert!(memory.get("s", None).await.is_err());
    // Whether or not the instance was discarded, the next call succeeds.
    assert_eq!(memory.get("s", Some(2)).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_history_of_a_hundred_mebibytes_is_read() {
    let server = server();
    let element = format!(r#"{{"role":"user","content":"{}"}}"#, "x".repeat(MIB));
    for _ in 0..150 {
        redis(&server, &["RPUSH", "session:s", &element]);
    }
    let messages = memory(&server).await.get("s", None).await.unwrap();
    assert_eq!(
        messages
            .iter()
            .map(|message| message.content.len())
            .sum::<usize>(),
        150 * MIB
    );
}

#[tokio::test]
async fn in_memory_keeps_the_limits() {
    let options = Options::new()
        .max_messages(2)
        .max_message_bytes(2000)
        .max_reply_bytes(1024);
    let memory = in_memory(options).await;
    for n in 0..3 {
        memory
            .add("s", Role::User, &n.to_string(), None)
            .await
            .unwrap();
    }
    assert_eq!(memory.count("s").await.unwrap(), 2);
    assert_eq!(
        refusal(memory.add("s", Role::User, &"x".repeat(2001), None).await).0,
        "limit-exceeded"
    );
    memory
        .add("s", Role::User, &"x".repeat(1500), None)
        .await
        .unwrap();
    assert_eq!(refusal(memory.get("s", None).await).0, "limit-exceeded");
}
