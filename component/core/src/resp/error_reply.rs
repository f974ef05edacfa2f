//! What the error replies of a server mean.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use core::net::IpAddr;

use crate::error::{Error, FULL, find};

impl Error {
    /// The error that a Redis error reply stands for, in words of our own: a reply may
    /// repeat what it was sent, and that holds passwords and messages. `text` is the
    /// reply without its leading `-` and its line end.
    #[cold]
    pub fn from_reply(text: &str) -> Error {
        refusal(text).unwrap_or_else(|| Error::Server {
            code: "ERR".to_owned(),
            message: UNRECOGNISED.to_owned(),
        })
    }
}

/// Whether an error reply is known to come from the server, before it executed
/// anything. Any other one may be that of a proxy, which has lost a server that did.
#[cold]
pub fn is_refusal(text: &str) -> bool {
    refusal(text).is_some()
}

/// The errors of replies that come before execution; `docs/guarantees.md` has the
/// table.
fn refusal(text: &str) -> Option<Error> {
    if let Some(discarded) = text.strip_prefix("EXECABORT ") {
        // Nothing was executed, whatever the cause.
        let cause = after(discarded, "because of: ").and_then(refusal);
        return cause
            .or_else(|| Some(Refusal::Server.error("EXECABORT", "the transaction was discarded")));
    }
    // A script's, before Redis 7: "@user_script: 5: -OOM command not allowed".
    let in_script = text.strip_prefix("@user_script: ");
    let text = match in_script.and_then(|text| after(text, ": ")) {
        Some(cause) => cause.strip_prefix('-').unwrap_or(cause),
        None => text,
    };
    let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
    if let Some((code, refusal, what)) = BY_CODE.iter().find(|(known, ..)| *known == code) {
        return Some(refusal.error(code, what));
    }
    match code {
        "NOPERM" => Some(not_permitted(rest)),
        "MOVED" | "ASK" => Some(Refusal::Server.error(
            code,
            &format!(
                "the server is a node of a Redis Cluster, which is not supported; the session is \
                 on {}",
                node(rest).unwrap_or("another node")
            ),
        )),
        // Redis 6 has them with and without.
        _ if is_denied_script(text) => Some(not_permitted(text)),
        "ERR" => refusal_without_code(rest),
        // That of a script, before Redis 7.
        _ if in_script.is_some() => refusal_without_code(text),
        _ => None,
    }
}

/// Replies that have no code of their own, and are told apart by their texts.
fn refusal_without_code(text: &str) -> Option<Error> {
    if let Some(rest) = text.strip_prefix("unknown command") {
        // What follows is what was sent.
        let name = find(rest, ", with args").map_or(rest, |end| &rest[..end]);
        return Some(Refusal::Server.error("ERR", &unknown_command(mentioned(name))));
    }
    let name = text.strip_prefix("wrong number of arguments for ");
    let (refusal, what) = match name.map(mentioned) {
        Some(Some("AUTH")) => (
            Refusal::Credentials,
            "the server has no users, which came with Redis 6: leave out username \
             (REDIS_USERNAME)",
        ),
        Some(Some("EXPIRE")) => (
            Refusal::Server,
            "ttl-policy fixed with delivery at-most-once needs Redis 7 (EXPIRE NX)",
        ),
        Some(_) => (Refusal::Server, OTHER_FORM),
        None => {
            let known = BY_TEXT.iter().find(|(begin, ..)| text.starts_with(begin));
            known.map(|(_, refusal, what)| (*refusal, *what))?
        }
    };
    Some(refusal.error("ERR", what))
}

/// What an error reply that comes before execution is about.
#[derive(Clone, Copy)]
enum Refusal {
    /// What the user may do, or whether there is a user.
    Access,
    /// What the client says it is.
    Credentials,
    /// The type of the key.
    Type,
    /// How many clients there are.
    Clients,
    /// How large something is.
    Size,
    /// The database.
    Database,
    /// Anything else.
    Server,
}

impl Refusal {
    fn error(self, code: &str, what: &str) -> Error {
        let coded = || format!("{code}: {what}");
        match self {
            Refusal::Access => Error::AccessDenied(coded()),
            Refusal::Credentials => Error::AccessDenied(what.to_owned()),
            Refusal::Type => Error::WrongType(coded()),
            Refusal::Clients => Error::Unavailable(what.to_owned()),
            Refusal::Size => Error::LimitExceeded(what.to_owned()),
            Refusal::Database => Error::InvalidArgument(what.to_owned()),
            Refusal::Server => Error::Server {
                code: code.to_owned(),
                message: coded(),
            },
        }
    }
}

/// Replies by their first words.
const BY_CODE: [(&str, Refusal, &str); 15] = [
    (
        "WRONGTYPE",
        Refusal::Type,
        "the key holds something other than a list",
    ),
    ("WRONGPASS", Refusal::Credentials, WRONG_CREDENTIALS),
    (
        "NOAUTH",
        Refusal::Access,
        "the server asks for a password (option password, REDIS_PASSWORD)",
    ),
    (
        "DENIED",
        Refusal::Access,
        "the server is in protected mode, in which it serves its own machine alone",
    ),
    (
        "OOM",
        Refusal::Server,
        "the server has no memory left for writes (maxmemory)",
    ),
    (
        "READONLY",
        Refusal::Server,
        "the server is a read-only replica",
    ),
    (
        "MISCONF",
        Refusal::Server,
        "the server cannot save its data, and takes no writes until it can",
    ),
    (
        "NOREPLICAS",
        Refusal::Server,
        "the server takes no writes while it has too few replicas",
    ),
    ("LOADING", Refusal::Server, "the server is loading its data"),
    ("BUSY", Refusal::Server, "the server is busy with a script"),
    (
        "MASTERDOWN",
        Refusal::Server,
        "the server is a replica that has lost its primary",
    ),
    ("CLUSTERDOWN", Refusal::Server, "the Redis Cluster is down"),
    (
        "TRYAGAIN",
        Refusal::Server,
        "the Redis Cluster cannot serve the key now",
    ),
    (
        "CROSSSLOT",
        Refusal::Server,
        "the Redis Cluster cannot serve the key now",
    ),
    (
        "NOSCRIPT",
        Refusal::Server,
        "the server does not know the script",
    ),
];

/// Replies without a code, by how they begin.
const BY_TEXT: [(&str, Refusal, &str); 15] = [
    ("max number of clients", Refusal::Clients, FULL),
    (
        "max request size",
        Refusal::Size,
        "the server's provider limits how large a request and a reply may be",
    ),
    ("invalid password", Refusal::Credentials, WRONG_CREDENTIALS),
    ("Client sent AUTH", Refusal::Credentials, NO_PASSWORD),
    (
        "AUTH <password> called without",
        Refusal::Credentials,
        NO_PASSWORD,
    ),
    ("DB index is out of range", Refusal::Database, NO_DATABASE),
    ("invalid DB index", Refusal::Database, NO_DATABASE),
    (
        "SELECT is not allowed in cluster",
        Refusal::Database,
        "the server is a node of a Redis Cluster, which has 0 alone",
    ),
    (
        "Unknown Redis command called",
        Refusal::Server,
        NOT_IN_SCRIPT,
    ),
    // Valkey 9.
    ("Unknown command called", Refusal::Server, NOT_IN_SCRIPT),
    // The script asks before it writes; in Valkey it is `server` that it asks.
    (
        "Invalid command passed to",
        Refusal::Server,
        "the server does not know EXPIRE, which a time to live needs, or LTRIM, which max-messages \
         needs",
    ),
    ("EXEC without MULTI", Refusal::Server, OTHER_FORM),
    ("MULTI calls can not be nested", Refusal::Server, OTHER_FORM),
    (
        "Command not allowed inside a transaction",
        Refusal::Server,
        OTHER_FORM,
    ),
    ("Protocol error", Refusal::Server, OTHER_FORM),
];

const WRONG_CREDENTIALS: &str = "the server does not accept the username or the password";
const NO_PASSWORD: &str = "the server has no password: leave out password (REDIS_PASSWORD)";
const NO_DATABASE: &str = "the server does not have it";
const NOT_IN_SCRIPT: &str = "the server does not know a command that the script uses; delivery \
                             at-most-once needs no script";
const OTHER_FORM: &str = "the server does not take the request in this form";

/// What a script may not run has had several texts, and not always a code.
fn is_denied_script(text: &str) -> bool {
    [
        "The user executing the script can't",
        "ACL failure in script",
    ]
    .iter()
    .any(|denied| find(text, denied).is_some())
}

fn not_permitted(text: &str) -> Error {
    Error::AccessDenied(match mentioned(text) {
        // A key can have a command's name in it.
        _ if find(text, " access ").is_some() => {
            "NOPERM: the user may not access the session's key".to_owned()
        }
        Some(command) => format!("NOPERM: the user may not run {command}{}", avoided(command)),
        None => "NOPERM: the user may not run a command that was sent".to_owned(),
    })
}

fn unknown_command(command: Option<&str>) -> String {
    let Some(command) = command else {
        return "the server does not know a command that was sent".to_owned();
    };
    // Nobody renames what every client of lists needs.
    let is_basic = ["LLEN", "LRANGE", "LTRIM", "RPUSH"].contains(&command);
    let who = if is_basic {
        ", as a Redis Sentinel does not: give host and port of the Redis server itself"
    } else {
        " (renamed or disabled there, or it is a Redis Sentinel or a proxy)"
    };
    format!(
        "the server does not know {command}{who}{}",
        avoided(command)
    )
}

/// What does without a command.
fn avoided(command: &str) -> &'static str {
    match command {
        "EVAL" | "EVALSHA" => {
            "; delivery at-most-once needs no scripting, and get needs none either"
        }
        "MULTI" | "EXEC" | "PTTL" | "PERSIST" | "PEXPIRE" => "; delivery exactly-once does without",
        "LTRIM" => "; clear and max-messages need it, and nothing else does",
        "SELECT" => "; db 0 does without",
        _ => "",
    }
}

/// The command of ours that a text mentions first.
fn mentioned(text: &str) -> Option<&'static str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let ours = |word: &str| {
        COMMANDS
            .into_iter()
            .find(|name| name.eq_ignore_ascii_case(word))
    };
    words.into_iter().find_map(ours)
}

/// The address in a redirection, "3999 127.0.0.1:7001". A name could be anything, and is
/// not shown.
fn node(redirection: &str) -> Option<&str> {
    let (_slot, address) = redirection.split_once(' ')?;
    let (host, port) = address.rsplit_once(':')?;
    let is_address = host.parse::<IpAddr>().is_ok() && port.parse::<u16>().is_ok();
    is_address.then_some(address)
}

fn after<'a>(text: &'a str, part: &str) -> Option<&'a str> {
    text.get(find(text, part)? + part.len()..)
}

/// Of a reply that is not known. It may have been sent after the request was executed.
const UNRECOGNISED: &str =
    "ERR: the error reply is not known; a proxy before the server may have sent it";

/// Every command that is sent, or run by a script.
const COMMANDS: [&str; 18] = [
    "AUTH", "SELECT", "PING", "EVALSHA", "EVAL", "LINDEX", "LPOS", "LLEN", "LRANGE", "RPUSH",
    "LTRIM", "EXPIRE", "TTL", "MULTI", "EXEC", "PTTL", "PERSIST", "PEXPIRE",
];

#[cfg(test)]
mod tests {
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
            "NOAUTH: the server asks for a password (option password, REDIS_PASSWORD)",
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
            "the server has no users, which came with Redis 6: leave out username \
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
            "NOPERM: the user may not run MULTI; delivery exactly-once does without",
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
            "DENIED: the server is in protected mode, in which it serves its own machine alone",
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
            "MISCONF: the server cannot save its data, and takes no writes until it can",
        ),
        (
            "NOREPLICAS Not enough good replicas to write.",
            "server",
            "NOREPLICAS: the server takes no writes while it has too few replicas",
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
             Sentinel or a proxy); delivery exactly-once does without",
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
            "the server takes no more clients (maxclients)",
        ),
        (
            "ERR max request size exceeded. Limit: 1048576 bytes, Actual: 1176582 bytes",
            "limit-exceeded",
            "the server's provider limits how large a request and a reply may be",
        ),
        (
            "ERR EXEC without MULTI",
            "server",
            "ERR: the server does not take the request in this form",
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
}
