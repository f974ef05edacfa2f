//! The entries in Redis, and those that other writers may leave there.

use session_memory_host::{Options, Role};

use crate::common::{at_most_once, elements, memory, memory_with, redis, server};

#[tokio::test]
async fn an_element_is_what_python_writes() {
    let server = server();
    let memory = memory_with(&server, at_most_once()).await;
    let metadata = r#"{"z": {"n": 12345678901234567890123}, "a": 1.50}"#;
    let content = "Zoë \"q\" 😀\n";
    memory.add("s", Role::User, content, None).await.unwrap();
    memory
        .add("s", Role::Assistant, "", Some(metadata))
        .await
        .unwrap();
    let stored = elements(&server, "session:s");
    let (head, timestamp) = stored[0].split_once(r#""timestamp":""#).unwrap();
    assert_eq!(head, r#"{"role":"user","content":"Zoë \"q\" 😀\n","#);
    let timestamp = timestamp.strip_suffix("\"}").unwrap();
    assert!(
        timestamp.len() == 26 || timestamp.len() == 19,
        "{timestamp}"
    );
    let pattern = "0000-00-00T00:00:00.000000";
    for (c, p) in timestamp.chars().zip(pattern.chars()) {
        assert!(
            if p == '0' { c.is_ascii_digit() } else { c == p },
            "{timestamp}"
        );
    }
    let tail = r#","metadata":{"z": {"n": 12345678901234567890123}, "a": 1.50}}"#;
    assert!(stored[1].starts_with(r#"{"role":"assistant","content":"","timestamp":""#));
    assert!(stored[1].ends_with(tail), "{}", stored[1]);
}

#[tokio::test]
async fn with_exactly_once_an_element_ends_with_its_id() {
    let server = server();
    let memory = memory(&server).await;
    for _ in 0..3 {
        memory
            .add("s", Role::User, "the same", Some("{}"))
            .await
            .unwrap();
    }
    let mut ids = Vec::new();
    for element in elements(&server, "session:s") {
        let (_, id) = element.split_once(r#","metadata":{},"id":""#).unwrap();
        ids.push(id.strip_suffix("\"}").unwrap().to_owned());
    }
    let (instance, first) = ids[0].split_once('-').unwrap();
    assert!(
        instance.len() == 32 && instance.chars().all(|c| c.is_ascii_hexdigit()),
        "{instance}"
    );
    assert_eq!(first, "000000000001");
    assert_eq!(ids[1], format!("{instance}-000000000002"));
    assert_eq!(ids[2], format!("{instance}-000000000003"));
    let other = crate::common::memory(&server).await;
    other.add("t", Role::User, "", None).await.unwrap();
    assert!(!elements(&server, "session:t")[0].contains(instance));
}

#[tokio::test]
async fn the_key_is_the_prefix_and_the_session() {
    let server = server();
    for (prefix, session, key) in [
        (None, "a", "session:a"),
        (Some("chat/"), "b c\r\n\"é", "chat/b c\r\n\"é"),
        (Some(""), "bare", "bare"),
    ] {
        let mut options = Options::new();
        options.key_prefix = prefix.map(str::to_owned);
        memory_with(&server, options)
            .await
            .add(session, Role::User, "x", None)
            .await
            .unwrap();
        assert_eq!(elements(&server, key).len(), 1, "{key:?}");
    }
}

/// Written by Python's `json.dumps` of a dictionary of role, content, timestamp and
/// metadata.
const BY_PYTHON: [&str; 6] = [
    r#"{"role": "user", "content": "What is RAG?", "timestamp": "2024-01-15T10:30:00", "metadata": {"client": "web", "ip": "192.168.1.1"}}"#,
    r#"{"role": "assistant", "content": "Zo\u00eb \ud83d\ude00 \"q\" \\ \/ \u0000\n\t", "timestamp": "2024-01-15T10:30:00.000250"}"#,
    r#"{"role": "user", "content": "", "timestamp": "2024-01-15T10:30:01", "metadata": {}}"#,
    r#"{"role": "assistant", "content": "numbers", "timestamp": "2024-01-15T10:30:02", "metadata": {"score": NaN, "bounds": [-Infinity, Infinity, 1e-07], "big": 123456789012345678901234567890, "text": "NaN"}}"#,
    r#"{"role": "user", "content": "lone \ud800 and \udc00", "timestamp": "2024-01-15T10:30:03", "metadata": {"k": "\ud800"}}"#,
    r#"{"role": "user", "content": "from elsewhere", "timestamp": "2024-01-15T10:30:04", "id": "m-1", "extra": [1, {"a": null}]}"#,
];

#[tokio::test]
async fn a_list_that_python_wrote_is_read() {
    let server = server();
    let memory = memory(&server).await;
    for element in BY_PYTHON {
        redis(&server, &["RPUSH", "session:s", element]);
    }
    let history = memory.history("s", None).await.unwrap();
    assert_eq!((history.total, history.skipped), (6, 0));
    let read: Vec<_> = history
        .messages
        .iter()
        .map(|m| {
            (
                m.content.as_str(),
                m.timestamp.as_str(),
                m.metadata.as_deref(),
                m.id.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        read,
        [
            (
                "What is RAG?",
                "2024-01-15T10:30:00",
                Some(r#"{"client": "web", "ip": "192.168.1.1"}"#),
                None
            ),
            (
                "Zoë 😀 \"q\" \\ / \0\n\t",
                "2024-01-15T10:30:00.000250",
                None,
                None
            ),
            ("", "2024-01-15T10:30:01", Some("{}"), None),
            (
                "numbers",
                "2024-01-15T10:30:02",
                Some(
                    r#"{"score": null, "bounds": [null, null, 1e-07], "big": 123456789012345678901234567890, "text": "NaN"}"#
                ),
                None
            ),
            (
                "lone \u{FFFD} and \u{FFFD}",
                "2024-01-15T10:30:03",
                Some(r#"{"k": "\ud800"}"#),
                None
            ),
            ("from elsewhere", "2024-01-15T10:30:04", None, Some("m-1")),
        ]
    );
    // An append leaves existing entries as they are.
    memory.add("s", Role::User, "ours", None).await.unwrap();
    assert_eq!(elements(&server, "session:s")[..6], BY_PYTHON);
}

/// The component's stack is small, and other writers choose the depth of an entry.
#[tokio::test]
async fn nesting_of_any_depth_takes_no_more_than_the_stack() {
    let server = server();
    let memory = memory(&server).await;
    for depth in [100, 127, 128, 129, 100_000] {
        for (key, readable) in [("content", false), ("metadata", true), ("other", true)] {
            let nested = format!(
                r#"{}"d"{}"#,
                r#"{"content":"#.repeat(depth),
                "}".repeat(depth)
            );
            let element = format!(r#"{{"role":"user","content":"c","{key}":{nested}}}"#);
            redis(&server, &["DEL", "session:deep"]);
            redis(&server, &["RPUSH", "session:deep", &element]);
            let history = memory.history("deep", None).await.unwrap();
            assert_eq!(
                history.messages.len(),
                usize::from(readable),
                "{key} {depth}"
            );
            assert_eq!(history.skipped, u32::from(!readable), "{key} {depth}");
        }
    }
}
