//! A user with the permissions that README names, and no others. It has no LINDEX, which
//! is optional.

use session_memory_host::{Delivery, NewMessage, Options, Role, TtlPolicy};

use crate::common::{Server, builder, expires_in, integer, is_redis_7, redis, server};

const EXACTLY_ONCE: [&str; 11] = [
    "ping", "select", "evalsha", "eval", "lpos", "rpush", "ltrim", "expire", "ttl", "llen",
    "lrange",
];

const AT_MOST_ONCE: [&str; 13] = [
    "ping", "select", "multi", "exec", "pttl", "rpush", "ltrim", "expire", "persist", "pexpire",
    "lrange", "llen", "ttl",
];

#[tokio::test]
async fn each_listed_permission_is_needed_and_no_other() {
    let server = server();
    for (delivery, commands) in [
        (Delivery::ExactlyOnce, &EXACTLY_ONCE[..]),
        (Delivery::AtMostOnce, &AT_MOST_ONCE[..]),
    ] {
        permit(&server, "~session:*", commands);
        if let Err(error) = everything(&server, delivery).await {
            panic!("{delivery:?}: {error}");
        }
        for removed in commands {
            let rest: Vec<_> = commands
                .iter()
                .copied()
                .filter(|name| name != removed)
                .collect();
            permit(&server, "~session:*", &rest);
            match everything(&server, delivery).await {
                Ok(()) => panic!("{delivery:?}: {removed} is not needed"),
                Err(error) => println!("{delivery:?} without {removed}: {error}"),
            }
        }
        permit(&server, "~other:*", commands);
        assert!(everything(&server, delivery).await.is_err());
    }
}

fn permit(server: &Server, keys: &str, commands: &[&str]) {
    let commands: Vec<String> = commands.iter().map(|name| format!("+{name}")).collect();
    let mut words = vec!["ACL", "SETUSER", "agent", "reset", "on", ">secret", keys];
    words.extend(commands.iter().map(String::as_str));
    println!("{}", words.join(" "));
    redis(server, &words);
}

/// Runs every operation with every policy, with and without a limit of messages.
async fn everything(server: &Server, delivery: Delivery) -> Result<(), String> {
    for ttl_policy in [TtlPolicy::Sliding, TtlPolicy::Fixed, TtlPolicy::None] {
        let needs_redis_7 = delivery == Delivery::AtMostOnce && ttl_policy == TtlPolicy::Fixed;
        if needs_redis_7 && !is_redis_7(server) {
            println!("before Redis 7 there is no {ttl_policy:?} with {delivery:?}");
            continue;
        }
        for max_messages in [None, Some(2)] {
            redis(server, &["FLUSHALL"]);
            // Makes the component send the whole script once.
            redis(server, &["SCRIPT", "FLUSH"]);
            let mut options = Options::new()
                .username("agent")
                .password("secret")
                .db(1)
                .delivery(delivery)
                .ttl_policy(ttl_policy);
            options.max_messages = max_messages;
            operations(server, options)
                .await
                .map_err(|error| format!("{ttl_policy:?}, {max_messages:?}: {error}"))?;
        }
    }
    Ok(())
}

async fn operations(server: &Server, options: Options) -> Result<(), String> {
    let kept = options.max_messages.unwrap_or(3);
    let describe = |error: session_memory_host::Error| format!("{}: {error}", error.variant());
    let message = NewMessage::user("x");
    let memory = builder(server.port(), options)
        .open()
        .await
        .map_err(describe)?;
    memory
        .add("s", Role::User, "x", None)
        .await
        .map_err(describe)?;
    let length = memory
        .add_all("s", &[message.clone(), message])
        .await
        .map_err(describe)?;
    assert_eq!(length, kept);
    assert_eq!(memory.add_all("s", &[]).await.map_err(describe)?, kept);
    assert_eq!(memory.get("s", Some(1)).await.map_err(describe)?.len(), 1);
    assert_eq!(
        memory.history("s", None).await.map_err(describe)?.total,
        kept
    );
    assert!(memory.exists("s").await.map_err(describe)?);
    assert_eq!(memory.count("s").await.map_err(describe)?, kept);
    memory.clear("s").await.map_err(describe)?;

    // A key of another type keeps its value and its time to live.
    let mut other = server.client().map_err(|error| error.to_string())?;
    for (set, ttl) in [
        (&["SET", "session:foreign", "x"][..], None),
        (&["SET", "session:foreign", "x", "EX", "50"], Some(50)),
    ] {
        let mut command = |words: &[&str]| other.command(words).unwrap();
        command(&["SELECT", "1"]);
        command(set);
        match memory.add("foreign", Role::User, "x", None).await {
            Err(error) if error.variant() == "wrong-type" => {}
            Err(error) => return Err(describe(error)),
            Ok(_) => panic!("it did not fail"),
        }
        match ttl {
            None => assert_eq!(integer(command(&["TTL", "session:foreign"])), -1),
            Some(ttl) => expires_in(&mut other, "session:foreign", ttl),
        }
    }
    Ok(())
}
