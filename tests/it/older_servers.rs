//! The append script on servers before Redis 7, and before Redis 6.0.6.

use crate::common::{Value, elements, expires_in, integer, redis, server, server_with_user};

#[tokio::test]
async fn the_script_does_the_same_before_redis_7() {
    let server = server_with_user("agent", "on nopass ~* +@all -expire");
    let script = include_str!("../../component/core/src/operation/append.lua");
    let script = script.replace("if redis.acl_check_cmd then", "if false then");
    let append = |user: &[&str], key: &str, policy: &str, most: &str, elements: [&str; 2]| {
        let mut client = server.client().unwrap();
        if !user.is_empty() {
            client.command(user).unwrap();
        }
        let words = ["EVAL", &script, "1", key, "64", "", "60", policy, most];
        client
            .command(&[&words[..], &elements[..]].concat())
            .unwrap()
    };
    assert_eq!(
        append(&[], "k", "sliding", "0", ["a", "b"]),
        Value::Integer(2)
    );
    expires_in(&mut server.client().unwrap(), "k", 60);
    assert_eq!(
        append(&[], "k", "fixed", "3", ["c", "d"]),
        Value::Integer(3)
    );
    assert_eq!(
        append(&[], "k", "fixed", "3", ["c", "d"]),
        Value::Integer(3)
    );
    assert_eq!(elements(&server, "k"), ["b", "c", "d"]);
    assert_eq!(append(&[], "n", "none", "0", ["a", "b"]), Value::Integer(2));
    assert_eq!(integer(redis(&server, &["TTL", "n"])), -1);

    redis(&server, &["SET", "foreign", "x"]);
    let reply = append(&[], "foreign", "sliding", "4", ["a", "b"]);
    assert!(
        matches!(&reply, Value::Error(text) if text.starts_with("WRONGTYPE")),
        "{reply:?}"
    );
    assert_eq!(integer(redis(&server, &["TTL", "foreign"])), -1);

    for key in ["k", "new"] {
        let reply = append(&["AUTH", "agent", ""], key, "sliding", "0", ["x", "y"]);
        assert!(
            matches!(&reply, Value::Error(text)
                if text.contains("can't run this command") || text.contains("ACL failure")),
            "{reply:?}"
        );
    }
    assert_eq!(elements(&server, "k").len(), 3);
    assert_eq!(integer(redis(&server, &["EXISTS", "new"])), 0);
}

#[tokio::test]
async fn the_script_does_the_same_before_redis_6_0_6() {
    // A name that no command has takes the place of LPOS.
    let server = server();
    let script =
        include_str!("../../component/core/src/operation/append.lua").replace("'LPOS'", "'NOLPOS'");
    let append = |key: &str, element: &str| {
        let words = [
            "EVAL", &script, "1", key, "3", "", "60", "sliding", "0", element,
        ];
        redis(&server, &words)
    };
    for (element, expected) in [
        ("a", 1),
        ("b", 2),
        ("b", 2),
        ("a", 2),
        ("c", 3),
        ("d", 4),
        ("a", 5),
    ] {
        assert_eq!(append("k", element), Value::Integer(expected), "{element}");
    }
    assert_eq!(elements(&server, "k"), ["a", "b", "c", "d", "a"]);
}
