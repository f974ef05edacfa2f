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
    /// Whether the cause may pass by itself: an error reply after which an operation is
    /// retried, a port that refused the connection, a connection that was lost, a server
    /// that accepts no more clients. Nothing was applied.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Unavailable(text) => [REFUSED, LOST, FULL]
                .iter()
                .any(|why| find(text, why).is_some()),
            Error::Server { code, .. } => TRANSIENT.contains(&code.as_str()),
            _ => false,
        }
    }

    /// Whether a port refused the connection: nothing listens there.
    pub fn is_refused(&self) -> bool {
        matches!(self, Error::Unavailable(text) if find(text, REFUSED).is_some())
    }

    /// A reply that makes no sense.
    #[cold]
    pub(crate) fn protocol(what: &str) -> Error {
        Error::Protocol(what.to_owned())
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
        f.write_str("\"")?;
        let mut characters = self.0.chars();
        for c in characters.by_ref().take(MAX_SHOWN) {
            fmt::Write::write_char(f, if c.is_control() { '?' } else { c })?;
        }
        if characters.next().is_some() {
            f.write_str("...")?;
        }
        f.write_str("\"")
    }
}

/// Where a part begins: `str::find` for texts that are short, without the search
/// in linear time that takes 4 KB of the component.
pub(crate) fn find(text: &str, part: &str) -> Option<usize> {
    let mut parts = text.as_bytes().windows(part.len());
    parts.position(|found| found == part.as_bytes())
}

/// The error replies after which an operation is tried again on a new connection. "ERR
/// max number of clients reached" is [`Error::Unavailable`], which is tried again as
/// well.
const TRANSIENT: [&str; 7] = [
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
    // A failover has left the primary without replicas for a moment.
    "NOREPLICAS",
];

/// What the text of [`Error::Unavailable`] says where nothing listens on a port, ...
pub const REFUSED: &str = "connection refused";
/// ... where there was a connection, ...
pub const LOST: &str = "the connection was lost";
/// ... and where there are too many.
pub(crate) const FULL: &str = "the server takes no more clients (maxclients)";

/// How many characters of a text of unknown origin an error shows.
const MAX_SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_of_what_is_unavailable_is_told_by_its_text() {
        let unavailable = |text: &str| {
            let error = Error::Unavailable(format!("connect to \"a:1\": {text}"));
            (error.is_transient(), error.is_refused())
        };
        assert_eq!(unavailable(REFUSED), (true, true));
        assert_eq!(unavailable(LOST), (true, false));
        assert_eq!(unavailable(FULL), (true, false));
        assert_eq!(unavailable("name not found"), (false, false));
        assert!(Error::from_reply("LOADING x").is_transient());
        assert!(!Error::from_reply("OOM x").is_transient());
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
