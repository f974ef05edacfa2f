//! The append script on servers before Redis 7, and before Redis 6.0.6.

use std::time::Duration;

use session_memory_core::ids::Ids;
use session_memory_core::operation::{APPEND, Action, ReadMode, Session, Stamp, StartContext};
use session_memory_core::options::Settings;
use session_memory_core::recent::RecentAppends;
use session_memory_core::resp::Commands;
use session_memory_host::{NewMessage, Options, TtlPolicy};

use crate::common::{
    RespClient, Value, contents, expires_in, integer, redis, server, server_with_user,
};

/// Appends messages as the component does, with another script in place of the append
/// script. Messages with the same content have the same id, as those of a retry have.
fn append(
    redis: &mut RespClient,
    script: &str,
    options: Options,
    key: &str,
    contents: &[&str],
) -> Value {
    let settings = Settings::resolve(options, &[]).unwrap();
    let session = Session {
        key,
        settings: &settings,
    };
    let context = StartContext {
        stamp: Stamp {
            timestamp: "2024-01-15T10:30:00",
            id: || Ids::new().next(|| 0),
            recent: &RecentAppends::new(),
        },
        read_mode: ReadMode::AtOnce,
        others: 0,
    };
    let message = |content: &&str| NewMessage::user(*content);
    let messages = contents.iter().map(message).collect();
    let mut procedure = Action::AddAll(messages).start(session, context).unwrap();
    procedure.bring_script();
    let mut commands = Commands::default();
    procedure.request(session, &mut commands);

    let request = str::from_utf8(commands.bytes()).unwrap();
    // No word holds a line end of the protocol. Each one follows the line with its length.
    let mut words: Vec<&str> = request.split("\r\n").skip(2).step_by(2).collect();
    assert_eq!(words[..2], ["EVAL", APPEND]);
    words[1] = script;
    redis.command(&words).unwrap()
}

fn options(ttl_policy: TtlPolicy, max_messages: Option<u32>) -> Options {
    let mut options = Options::new()
        .session_ttl(Duration::from_secs(60))
        .ttl_policy(ttl_policy);
    options.max_messages = max_messages;
    options
}

#[tokio::test]
async fn the_script_does_the_same_before_redis_7() {
    let server = server_with_user("agent", "on nopass ~* +@all -expire");
    let script = APPEND.replace("if redis.acl_check_cmd then", "if false then");
    assert_ne!(script, APPEND);
    let mut client = server.client().unwrap();
    let mut append = |key, policy, most, contents: [&str; 2]| {
        append(&mut client, &script, options(policy, most), key, &contents)
    };
    assert_eq!(
        append("k", TtlPolicy::Sliding, None, ["a", "b"]),
        Value::Integer(2)
    );
    expires_in(&mut server.client().unwrap(), "k", 60);
    for _ in 0..2 {
        assert_eq!(
            append("k", TtlPolicy::Fixed, Some(3), ["c", "d"]),
            Value::Integer(3)
        );
    }
    let stored = |key: &str| contents(&mut server.client().unwrap(), key);
    assert_eq!(stored("k"), ["b", "c", "d"]);
    assert_eq!(
        append("n", TtlPolicy::None, None, ["a", "b"]),
        Value::Integer(2)
    );
    assert_eq!(integer(redis(&server, &["TTL", "n"])), -1);

    redis(&server, &["SET", "foreign", "x"]);
    let reply = append("foreign", TtlPolicy::Sliding, Some(4), ["a", "b"]);
    assert!(
        matches!(&reply, Value::Error(text) if text.starts_with("WRONGTYPE")),
        "{reply:?}"
    );
    assert_eq!(integer(redis(&server, &["TTL", "foreign"])), -1);

    // From here on, a user who may not run EXPIRE.
    client.command(&["AUTH", "agent", ""]).unwrap();
    for key in ["k", "new"] {
        let sliding = options(TtlPolicy::Sliding, None);
        let reply = self::append(&mut client, &script, sliding, key, &["x", "y"]);
        assert!(
            matches!(&reply, Value::Error(text)
                if text.contains("can't run this command") || text.contains("ACL failure")),
            "{reply:?}"
        );
    }
    assert_eq!(stored("k").len(), 3);
    assert_eq!(integer(redis(&server, &["EXISTS", "new"])), 0);
}

#[tokio::test]
async fn the_script_does_the_same_before_redis_6_0_6() {
    // A name that no command has takes the place of LPOS.
    let script = APPEND.replace("'LPOS'", "'NOLPOS'");
    assert_ne!(script, APPEND);
    let server = server();
    let mut client = server.client().unwrap();
    let mut append = |content: &str| {
        let sliding = options(TtlPolicy::Sliding, None);
        integer(append(&mut client, &script, sliding, "k", &[content]))
    };
    for (content, expected) in [("a", 1), ("b", 2), ("b", 2), ("a", 2)] {
        assert_eq!(append(content), expected, "{content}");
    }
    // The search covers the last 64 entries.
    let others: Vec<String> = (0..61).map(|number| number.to_string()).collect();
    for (number, content) in others.iter().enumerate() {
        assert_eq!(append(content), 3 + number as i64, "{content}");
    }
    for (content, expected) in [("c", 64), ("d", 65), ("b", 65), ("a", 66)] {
        assert_eq!(append(content), expected, "{content}");
    }
    let others = others.iter().map(String::as_str);
    let expected = ["a", "b"].into_iter().chain(others).chain(["c", "d", "a"]);
    let stored = contents(&mut server.client().unwrap(), "k");
    assert!(stored.iter().eq(expected), "{stored:?}");
}
