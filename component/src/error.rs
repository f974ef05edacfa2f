//! Why an operation failed, and how that is said.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use core::fmt;

/// Why an operation failed; the cases of `error` in `wit/types.wit`, which says
/// what each one guarantees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// An argument or option is not allowed. Nothing was sent.
    InvalidArgument(String),
    /// Nothing was applied: there was no connection to send the request on, or
    /// the operation only reads.
    Unavailable(String),
    /// The deadline passed and nothing was applied.
    Timeout(String),
    /// Sent, and never answered: it may or may not have been applied.
    OutcomeUnknown(String),
    /// The server refused credentials or command, or the host the address.
    AccessDenied(String),
    /// The key holds something other than a list.
    WrongType(String),
    /// A message, a reply or the memory in use is larger than allowed.
    LimitExceeded(String),
    /// The server's answer is not an answer to the request.
    Protocol(String),
    /// Any other error reply.
    Server {
        /// The first word of the reply.
        code: String,
        /// The text of the reply.
        message: String,
    },
    /// Anything else.
    Other(String),
}

impl Error {
    /// The error that a Redis error reply stands for. `text` is the reply without
    /// its leading `-` and its line end.
    #[cold]
    pub fn from_reply(text: &str) -> Error {
        let text = cause(text);
        let code = text.split(' ').next().unwrap_or_default();
        let is_code = !code.is_empty() && code.bytes().all(|b| b.is_ascii_uppercase());
        let shown = presentable(text);
        match code {
            "NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED" => Error::AccessDenied(shown),
            "WRONGTYPE" => Error::WrongType(shown),
            "ERR" if text.starts_with("ERR max number of clients") => Error::Unavailable(shown),
            // What a script may not run has had several texts, and never a code.
            _ if SCRIPT_DENIED
                .iter()
                .any(|denied| find(text, denied).is_some()) =>
            {
                Error::AccessDenied(presentable(text.strip_prefix("ERR ").unwrap_or(text)))
            }
            _ => Error::Server {
                code: if is_code { code } else { "ERR" }.to_owned(),
                message: shown,
            },
        }
    }

    /// Whether the server refused for a reason that may pass, before anything was
    /// applied.
    pub fn may_pass(&self) -> bool {
        match self {
            Error::Server { code, .. } => MAY_PASS.contains(&code.as_str()),
            _ => false,
        }
    }

    /// The name of the case, as in `wit/types.wit`.
    pub fn variant(&self) -> &'static str {
        match self {
            Error::InvalidArgument(_) => "invalid-argument",
            Error::Unavailable(_) => "unavailable",
            Error::Timeout(_) => "timeout",
            Error::OutcomeUnknown(_) => "outcome-unknown",
            Error::AccessDenied(_) => "access-denied",
            Error::WrongType(_) => "wrong-type",
            Error::LimitExceeded(_) => "limit-exceeded",
            Error::Protocol(_) => "protocol",
            Error::Server { .. } => "server",
            Error::Other(_) => "other",
        }
    }

    /// What happened: the operation, its operand, and why.
    pub fn text(&self) -> &str {
        match self {
            Error::InvalidArgument(text)
            | Error::Unavailable(text)
            | Error::Timeout(text)
            | Error::OutcomeUnknown(text)
            | Error::AccessDenied(text)
            | Error::WrongType(text)
            | Error::LimitExceeded(text)
            | Error::Protocol(text)
            | Error::Server { message: text, .. }
            | Error::Other(text) => text,
        }
    }

    /// The same error, its text preceded by the operation and what it was about.
    #[cold]
    pub fn during(self, operation: &str, operand: &str) -> Error {
        let text = format!("{operation} {}: {}", Quoted(operand), self.text());
        match self {
            Error::InvalidArgument(_) => Error::InvalidArgument(text),
            Error::Unavailable(_) => Error::Unavailable(text),
            Error::Timeout(_) => Error::Timeout(text),
            Error::OutcomeUnknown(_) => Error::OutcomeUnknown(text),
            Error::AccessDenied(_) => Error::AccessDenied(text),
            Error::WrongType(_) => Error::WrongType(text),
            Error::LimitExceeded(_) => Error::LimitExceeded(text),
            Error::Protocol(_) => Error::Protocol(text),
            Error::Server { code, .. } => Error::Server {
                code,
                message: text,
            },
            Error::Other(_) => Error::Other(text),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for Error {}

/// Text of unknown origin for an error: in quotation marks, on one line, and no
/// longer than 200 characters.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", Shown(self.0))
    }
}

struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut characters = self.0.chars();
        for c in characters.by_ref().take(MAX_SHOWN) {
            fmt::Write::write_char(f, if c.is_control() { '?' } else { c })?;
        }
        if characters.next().is_some() {
            f.write_str("...")?;
        }
        Ok(())
    }
}

/// The reply that says what happened, where Redis wraps it: "EXECABORT Transaction
/// discarded because of: X", and of a script before Redis 7 "@user_script: 5: -X".
fn cause(text: &str) -> &str {
    if let Some(cause) = after(text, DISCARDED) {
        return cause;
    }
    let in_script = text.strip_prefix("@user_script: ");
    match in_script.and_then(|text| after(text, ": ")) {
        Some(cause) => cause.strip_prefix('-').unwrap_or(cause),
        None => text,
    }
}

fn after<'a>(text: &'a str, part: &str) -> Option<&'a str> {
    text.get(find(text, part)? + part.len()..)
}

/// Where a part begins: `str::find` for texts that are short, without the search
/// in linear time that takes 4 KB of the component.
fn find(text: &str, part: &str) -> Option<usize> {
    let mut parts = text.as_bytes().windows(part.len());
    parts.position(|found| found == part.as_bytes())
}

/// What may be shown of a server's error text. It may repeat what it was sent, and
/// that holds passwords and messages. Redis repeats the arguments of a command that
/// it does not know, in quotation marks, in an error without a code of its own.
/// Where a request is repeated as it is, a word comes after a dollar sign, and a
/// message after a brace or a quotation mark, which no error of Redis has.
fn presentable(text: &str) -> String {
    let repeated = if text.starts_with("ERR ") {
        text.find(['$', '{', '"', '\'', '`'])
    } else {
        text.find(['$', '{', '"'])
    };
    let end = repeated.or(find(text, ARGUMENTS)).unwrap_or(text.len());
    format!("{}", Shown(text[..end].trim_end_matches(['.', ' '])))
}

/// The error replies after which an operation is tried again on a new connection;
/// every other one is final. "ERR max number of clients reached" is
/// [`Error::Unavailable`], which is tried again as well.
const MAY_PASS: [&str; 6] = [
    // The server reads its data from disk.
    "LOADING",
    // A script runs for too long.
    "BUSY",
    // A cluster moves the slot, or has lost its node.
    "TRYAGAIN",
    "CLUSTERDOWN",
    // A replica has lost its primary.
    "MASTERDOWN",
    // A failover made the primary a replica; the name may lead to the new one.
    "READONLY",
];

const SCRIPT_DENIED: [&str; 2] = [
    "The user executing the script can't",
    "ACL failure in script",
];

const DISCARDED: &str = " discarded because of: ";

const ARGUMENTS: &str = ", with args beginning with";

/// How many characters of a text of unknown origin an error shows.
const MAX_SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_told_apart_by_their_code() {
        let server = |code: &str, message: &str| Error::Server {
            code: code.to_owned(),
            message: message.to_owned(),
        };
        for (reply, expected) in [
            (
                "NOAUTH Authentication required.",
                Error::AccessDenied("NOAUTH Authentication required".to_owned()),
            ),
            (
                "WRONGPASS invalid username-password pair",
                Error::AccessDenied("WRONGPASS invalid username-password pair".to_owned()),
            ),
            (
                "NOPERM this user has no permissions",
                Error::AccessDenied("NOPERM this user has no permissions".to_owned()),
            ),
            (
                "WRONGTYPE Operation against a key",
                Error::WrongType("WRONGTYPE Operation against a key".to_owned()),
            ),
            (
                "ERR max number of clients reached",
                Error::Unavailable("ERR max number of clients reached".to_owned()),
            ),
            (
                "The user executing the script can't run this command",
                Error::AccessDenied(
                    "The user executing the script can't run this command".to_owned(),
                ),
            ),
            (
                "ERR ACL failure in script: User has no permissions",
                Error::AccessDenied("ACL failure in script: User has no permissions".to_owned()),
            ),
            (
                "OOM command not allowed",
                server("OOM", "OOM command not allowed"),
            ),
            (
                "@user_script: 32: -READONLY You can't write against a read only replica.",
                server(
                    "READONLY",
                    "READONLY You can't write against a read only replica",
                ),
            ),
            (
                "EXECABORT Transaction discarded because of: NOPERM no",
                Error::AccessDenied("NOPERM no".to_owned()),
            ),
            ("no code at all", server("ERR", "no code at all")),
            ("", server("ERR", "")),
        ] {
            assert_eq!(Error::from_reply(reply), expected, "{reply:?}");
        }
    }

    #[test]
    fn what_may_pass_is_told_from_what_is_final() {
        for (reply, expected) in [
            ("LOADING Redis is loading the dataset in memory", true),
            (
                "READONLY You can't write against a read only replica.",
                true,
            ),
            ("OOM command not allowed", false),
            ("MISCONF Errors writing to the AOF file", false),
            ("MOVED 866 127.0.0.1:7001", false),
            ("ERR unknown command", false),
            ("NOPERM no", false),
        ] {
            assert_eq!(Error::from_reply(reply).may_pass(), expected, "{reply}");
        }
    }

    #[test]
    fn arguments_repeated_by_the_server_are_not_shown() {
        for (reply, expected) in [
            (
                "ERR unknown command 'AUTH', with args beginning with: 'hunter2' ",
                "ERR unknown command",
            ),
            ("ERR what is *2 $4 AUTH $7 hunter2", "ERR what is *2"),
            ("OOPS *2\\r\\n$4\\r\\nAUTH", "OOPS *2\\r\\n"),
            (
                "NOPERM RPUSH session:s {\"role\":\"user\",\"content\":\"secret\"}",
                "NOPERM RPUSH session:s",
            ),
            ("WRONGTYPE \"{\\\"role\\\"", "WRONGTYPE"),
            (
                "NOPERM User agent has no permissions to run the 'eval' command",
                "NOPERM User agent has no permissions to run the 'eval' command",
            ),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                "OOM command not allowed when used memory > 'maxmemory'",
            ),
        ] {
            assert_eq!(Error::from_reply(reply).text(), expected);
        }
    }

    #[test]
    fn an_error_names_the_operation_and_its_operand() {
        let error = Error::Timeout("no answer within 50 ms".to_owned());
        assert_eq!(
            error.during("get", "a\r\nb"),
            Error::Timeout("get \"a??b\": no answer within 50 ms".to_owned())
        );
    }

    #[test]
    fn a_long_text_is_cut() {
        let long = "x".repeat(MAX_SHOWN + 1);
        assert_eq!(
            format!("{}", Quoted(&long)),
            format!("\"{}...\"", "x".repeat(MAX_SHOWN))
        );
        let fits = "x".repeat(MAX_SHOWN);
        assert_eq!(format!("{}", Quoted(&fits)), format!("\"{fits}\""));
    }
}
