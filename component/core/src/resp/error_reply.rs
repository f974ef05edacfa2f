//! The meaning of error replies.
//!
//! A table of known replies decides which ones come before execution. An error never shows
//! the text of the reply, which may repeat passwords and messages.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use core::net::IpAddr;

use crate::error::{Error, FULL, find};

impl Error {
    /// Returns the error for an error reply, in words of our own. `text` is the reply
    /// without its leading `-` and its line end.
    #[cold]
    pub fn from_reply(text: &str) -> Error {
        refusal(text).unwrap_or_else(|| Error::Server {
            code: "ERR".to_owned(),
            message: UNRECOGNISED.to_owned(),
        })
    }
}

/// Whether an error reply is known to come before execution. Any other reply may come
/// from a proxy that lost the connection to a server after execution.
#[cold]
pub fn is_refusal(text: &str) -> bool {
    refusal(text).is_some()
}

/// The error for a reply that comes before execution. `docs/guarantees.md` has the table.
fn refusal(text: &str) -> Option<Error> {
    if let Some(discarded) = text.strip_prefix("EXECABORT ") {
        // Nothing was executed, whatever the cause is.
        let cause = after(discarded, "because of: ").and_then(refusal);
        return cause
            .or_else(|| Some(Refusal::Server.error("EXECABORT", "the transaction was discarded")));
    }
    // From a script, before Redis 7: "@user_script: 5: -OOM command not allowed".
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
        // Redis 6 sends these with and without a code.
        _ if is_denied_script(text) => Some(not_permitted(text)),
        "ERR" => refusal_without_code(rest),
        // From a script, before Redis 7.
        _ if in_script.is_some() => refusal_without_code(text),
        _ => None,
    }
}

/// The error for a reply without a code of its own, decided by its text.
fn refusal_without_code(text: &str) -> Option<Error> {
    if let Some(rest) = text.strip_prefix("unknown command") {
        // The arguments follow, which must not be shown.
        let name = find(rest, ", with args").map_or(rest, |end| &rest[..end]);
        return Some(Refusal::Server.error("ERR", &unknown_command(mentioned(name))));
    }
    let name = text.strip_prefix("wrong number of arguments for ");
    let (refusal, what) = match name.map(mentioned) {
        Some(Some("AUTH")) => (
            Refusal::Credentials,
            "the server does not support users (before Redis 6): leave out username \
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

/// The subject of an error reply.
#[derive(Clone, Copy)]
enum Refusal {
    /// The user's permissions, or missing authentication.
    Access,
    /// The username or the password.
    Credentials,
    /// The type of the key.
    Type,
    /// The number of clients.
    Clients,
    /// The size of a request or a reply.
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

/// The replies with a code: the first word.
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
        "the server requires a password (option password, REDIS_PASSWORD)",
    ),
    (
        "DENIED",
        Refusal::Access,
        "the server is in protected mode, and accepts only local clients",
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
        "the server cannot save its data, and accepts no writes until it can",
    ),
    (
        "NOREPLICAS",
        Refusal::Server,
        "the server accepts no writes while it has too few replicas",
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

/// The replies without a code, by their beginnings.
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
        "the server is a node of a Redis Cluster, which has only database 0",
    ),
    (
        "Unknown Redis command called",
        Refusal::Server,
        NOT_IN_SCRIPT,
    ),
    // Valkey 9.
    ("Unknown command called", Refusal::Server, NOT_IN_SCRIPT),
    // The script asks for permissions: `redis.acl_check_cmd()`, or `server.` in Valkey.
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
const OTHER_FORM: &str = "the server does not accept the request in this form";

/// Whether the user may not run a command in a script. Redis versions have several texts
/// for this, some without a code.
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
        // A key may contain the name of a command.
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
    // Nobody renames the commands that every client of lists needs.
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

/// How a command can be avoided.
fn avoided(command: &str) -> &'static str {
    match command {
        "EVAL" | "EVALSHA" => {
            "; delivery at-most-once needs no scripting, and get needs none either"
        }
        "MULTI" | "EXEC" | "PTTL" | "PERSIST" | "PEXPIRE" => {
            "; delivery exactly-once does not need it"
        }
        "LTRIM" => "; clear and max-messages need it, and nothing else does",
        "SELECT" => "; db 0 does not need it",
        _ => "",
    }
}

/// The first of our commands that a text mentions.
fn mentioned(text: &str) -> Option<&'static str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let ours = |word: &str| {
        COMMANDS
            .into_iter()
            .find(|name| name.eq_ignore_ascii_case(word))
    };
    words.into_iter().find_map(ours)
}

/// The address in a redirection: "3999 127.0.0.1:7001". A host name is not shown, because
/// it could be anything.
fn node(redirection: &str) -> Option<&str> {
    let (_slot, address) = redirection.split_once(' ')?;
    let (host, port) = address.rsplit_once(':')?;
    let is_address = host.parse::<IpAddr>().is_ok() && port.parse::<u16>().is_ok();
    is_address.then_some(address)
}

fn after<'a>(text: &'a str, part: &str) -> Option<&'a str> {
    text.get(find(text, part)? + part.len()..)
}

/// The text for an unknown reply, which may have come after execution.
const UNRECOGNISED: &str =
    "ERR: the error reply is unknown; a proxy in front of the server may have sent it";

/// All commands that are sent, or run by a script.
const COMMANDS: [&str; 18] = [
    "AUTH", "SELECT", "PING", "EVALSHA", "EVAL", "LINDEX", "LPOS", "LLEN", "LRANGE", "RPUSH",
    "LTRIM", "EXPIRE", "TTL", "MULTI", "EXEC", "PTTL", "PERSIST", "PEXPIRE",
];

#[cfg(test)]
mod tests;
