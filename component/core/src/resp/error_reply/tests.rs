//! Tests of the table of error replies.

use alloc::vec::Vec;

use super::*;

/// Error replies, with the variant and the text that each comes to. All of them come
/// before execution.
const REFUSALS: [(&str, &str, &str); 45] = [
    (
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "wrong-type",
        "WRONGTYPE: the key holds something other than a list",
    ),
    (
        "NOAUTH Authentication required.",
        "access-denied",
        "NOAUTH: the server requires a password (option password, REDIS_PASSWORD)",
    ),
    (
        "WRONGPASS invalid username-password pair or user is disabled.",
        "access-denied",
        "the server does not accept the username or the password",
    ),
    (
        "ERR invalid password",
        "access-denied",
        "the server does not accept the username or the password",
    ),
    (
        "ERR Client sent AUTH, but no password is set",
        "access-denied",
        "the server has no password: leave out password (REDIS_PASSWORD)",
    ),
    (
        "ERR AUTH <password> called without any password configured for the default user. \
         Are you sure your configuration is correct?",
        "access-denied",
        "the server has no password: leave out password (REDIS_PASSWORD)",
    ),
    (
        "ERR wrong number of arguments for 'auth' command",
        "access-denied",
        "the server does not support users (before Redis 6): leave out username \
         (REDIS_USERNAME)",
    ),
    (
        "NOPERM User agent has no permissions to run the 'evalsha' command",
        "access-denied",
        "NOPERM: the user may not run EVALSHA; delivery at-most-once needs no scripting, and \
         get needs none either",
    ),
    (
        "NOPERM this user has no permissions to run the 'multi' command or its subcommand",
        "access-denied",
        "NOPERM: the user may not run MULTI; delivery exactly-once does not need it",
    ),
    (
        "NOPERM User agent has no permissions to access the 'session:exec' key",
        "access-denied",
        "NOPERM: the user may not access the session's key",
    ),
    (
        "NOPERM No permissions to access a key",
        "access-denied",
        "NOPERM: the user may not access the session's key",
    ),
    (
        "NOPERM what else",
        "access-denied",
        "NOPERM: the user may not run a command that was sent",
    ),
    (
        "ERR The user executing the script can't run this command or subcommand",
        "access-denied",
        "NOPERM: the user may not run a command that was sent",
    ),
    (
        "The user executing the script can't run this command or subcommand",
        "access-denied",
        "NOPERM: the user may not run a command that was sent",
    ),
    (
        "ERR ACL failure in script: User agent has no permissions to run the 'rpush' command",
        "access-denied",
        "NOPERM: the user may not run RPUSH",
    ),
    (
        "DENIED Redis is running in protected mode because protected mode is enabled",
        "access-denied",
        "DENIED: the server is in protected mode, and accepts only local clients",
    ),
    (
        "OOM command not allowed when used memory > 'maxmemory'.",
        "server",
        "OOM: the server has no memory left for writes (maxmemory)",
    ),
    (
        "@user_script: 32: -OOM command not allowed when used memory > 'maxmemory'.",
        "server",
        "OOM: the server has no memory left for writes (maxmemory)",
    ),
    (
        "READONLY You can't write against a read only replica.",
        "server",
        "READONLY: the server is a read-only replica",
    ),
    (
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to",
        "server",
        "MISCONF: the server cannot save its data, and accepts no writes until it can",
    ),
    (
        "NOREPLICAS Not enough good replicas to write.",
        "server",
        "NOREPLICAS: the server accepts no writes while it has too few replicas",
    ),
    (
        "LOADING Redis is loading the dataset in memory",
        "server",
        "LOADING: the server is loading its data",
    ),
    (
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL",
        "server",
        "BUSY: the server is busy with a script",
    ),
    (
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "server",
        "MASTERDOWN: the server is a replica that has lost its primary",
    ),
    (
        "CLUSTERDOWN The cluster is down",
        "server",
        "CLUSTERDOWN: the Redis Cluster is down",
    ),
    (
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "server",
        "TRYAGAIN: the Redis Cluster cannot serve the key now",
    ),
    (
        "MOVED 3999 127.0.0.1:7001",
        "server",
        "MOVED: the server is a node of a Redis Cluster, which is not supported; the session \
         is on 127.0.0.1:7001",
    ),
    (
        "ASK 3999 ::1:7001",
        "server",
        "ASK: the server is a node of a Redis Cluster, which is not supported; the session is \
         on ::1:7001",
    ),
    (
        "MOVED 3999 hunter2:7001",
        "server",
        "MOVED: the server is a node of a Redis Cluster, which is not supported; the session \
         is on another node",
    ),
    (
        "ERR unknown command 'EVALSHA', with args beginning with: 'ffd7' '1' 'session:a'",
        "server",
        "ERR: the server does not know EVALSHA (renamed or disabled there, or it is a Redis \
         Sentinel or a proxy); delivery at-most-once needs no scripting, and get needs none \
         either",
    ),
    (
        "ERR unknown command `MULTI`, with args beginning with: ",
        "server",
        "ERR: the server does not know MULTI (renamed or disabled there, or it is a Redis \
         Sentinel or a proxy); delivery exactly-once does not need it",
    ),
    (
        "ERR unknown command 'LLEN'",
        "server",
        "ERR: the server does not know LLEN, as a Redis Sentinel does not: give host and port \
         of the Redis server itself",
    ),
    (
        "ERR unknown command 'ltrim', with args beginning with: 'k' '1' '0' ",
        "server",
        "ERR: the server does not know LTRIM, as a Redis Sentinel does not: give host and \
         port of the Redis server itself; clear and max-messages need it, and nothing else \
         does",
    ),
    (
        "ERR unknown command, with args beginning with: 'PING' ",
        "server",
        "ERR: the server does not know a command that was sent",
    ),
    (
        "ERR Unknown Redis command called from script script: f_x, on @user_script:1.",
        "server",
        "ERR: the server does not know a command that the script uses; delivery at-most-once \
         needs no script",
    ),
    (
        "ERR Unknown command called from script script: on @user_script:1.",
        "server",
        "ERR: the server does not know a command that the script uses; delivery at-most-once \
         needs no script",
    ),
    (
        "@user_script: 46: Unknown Redis command called from Lua script",
        "server",
        "ERR: the server does not know a command that the script uses; delivery at-most-once \
         needs no script",
    ),
    (
        "ERR Invalid command passed to redis.acl_check_cmd() script: f_x, on @user_script:36.",
        "server",
        "ERR: the server does not know EXPIRE, which a time to live needs, or LTRIM, which \
         max-messages needs",
    ),
    (
        "ERR Invalid command passed to server.acl_check_cmd() script: on @user_script:36.",
        "server",
        "ERR: the server does not know EXPIRE, which a time to live needs, or LTRIM, which \
         max-messages needs",
    ),
    (
        "EXECABORT Transaction discarded because of: ERR wrong number of arguments for \
         'expire' command",
        "server",
        "ERR: ttl-policy fixed with delivery at-most-once needs Redis 7 (EXPIRE NX)",
    ),
    (
        "EXECABORT Transaction discarded because of previous errors.",
        "server",
        "EXECABORT: the transaction was discarded",
    ),
    (
        "EXECABORT Transaction discarded because of: hunter2",
        "server",
        "EXECABORT: the transaction was discarded",
    ),
    (
        "ERR max number of clients reached",
        "unavailable",
        "the server accepts no more clients (maxclients)",
    ),
    (
        "ERR max request size exceeded. Limit: 1048576 bytes, Actual: 1176582 bytes",
        "limit-exceeded",
        "the server's provider limits how large a request and a reply may be",
    ),
    (
        "ERR EXEC without MULTI",
        "server",
        "ERR: the server does not accept the request in this form",
    ),
];

/// Error replies that may come after execution: those of proxies, and of nobody
/// known.
const UNKNOWN: [&str; 12] = [
    "upstream failure",
    "ERR Connection timed out",
    "ERR upstream reset: reset reason: connection termination",
    "no upstream host",
    "ERR server closed connection",
    "UNBLOCKED client unblocked via CLIENT UNBLOCK",
    "ERR internal error",
    "ERR Error running script (call to f_x): @user_script:60: @user_script: 60: -OOM x",
    "@user_script: 60: hunter2",
    "OOPS",
    "WRONGTYPEX",
    "",
];

#[test]
fn what_comes_before_execution_is_said_in_our_words() {
    for (reply, variant, text) in REFUSALS {
        let error = Error::from_reply(reply);
        assert_eq!((error.variant(), error.text()), (variant, text), "{reply}");
        assert!(is_refusal(reply), "{reply}");
        if let Error::Server { code, message } = error {
            assert!(message.starts_with(&format!("{code}: ")), "{message}");
        }
    }
}

#[test]
fn any_other_reply_may_come_after_execution() {
    for reply in UNKNOWN {
        assert!(!is_refusal(reply), "{reply}");
        let expected = Error::Server {
            code: "ERR".to_owned(),
            message: UNRECOGNISED.to_owned(),
        };
        assert_eq!(Error::from_reply(reply), expected, "{reply}");
    }
}

#[test]
fn transient_errors_are_told_from_final_ones() {
    let passes = |reply: &str| Error::from_reply(reply).is_transient();
    let passing: Vec<&str> = REFUSALS
        .iter()
        .filter(|(reply, ..)| passes(reply))
        .filter_map(|(reply, ..)| reply.split(' ').next())
        .collect();
    let expected = [
        "READONLY",
        "NOREPLICAS",
        "LOADING",
        "BUSY",
        "MASTERDOWN",
        "CLUSTERDOWN",
        "TRYAGAIN",
        // Too many clients.
        "ERR",
    ];
    assert_eq!(passing, expected);
    assert!(!UNKNOWN.into_iter().any(passes));
}
