//! Why an operation failed, and the texts that say so.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use core::fmt;

/// Why an operation failed: `error` in `wit/types.wit`, which says what each variant
/// guarantees.
///
/// The text names the operation, its operand and the reason. It holds no password and no
/// content of a message. It is displayed without the name of the variant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// An argument or option is not allowed. Nothing was sent.
    InvalidArgument(String),
    /// Nothing was applied: there was no connection to send the request on, or
    /// the operation only reads.
    Unavailable(String),
    /// The deadline passed and nothing was applied.
    Timeout(String),
    /// The request was sent and no reply arrived: it may or may not have been applied.
    OutcomeUnknown(String),
    /// The server refused the credentials or the command, or the host the address.
    AccessDenied(String),
    /// The key holds something other than a list.
    WrongType(String),
    /// A message, a reply or the memory in use is larger than allowed.
    LimitExceeded(String),
    /// The server's reply does not fit the request.
    Protocol(String),
    /// Any other error reply. The operation was not applied.
    Server {
        /// The first word of the reply, such as `LOADING`; `ERR` if it is not known.
        code: String,
        /// The operation, its operand, and what the reply means. It does not show the
        /// server's own text.
        message: String,
    },
    /// Any other error.
    Other(String),
}

impl Error {
    /// Returns whether the same call may succeed later: nothing was applied, and the cause
    /// may pass by itself. That is so for
    ///
    /// - [`Error::Timeout`];
    /// - [`Error::Unavailable`] if the port refused the connection, the connection was
    ///   lost, the server accepts no more clients, or the host had too many calls waiting;
    ///   not if the name was not found, for example;
    /// - [`Error::Server`] with a code of a server that loads its data, is busy, or is in a
    ///   failover: `LOADING`, `BUSY`, `TRYAGAIN`, `CLUSTERDOWN`, `MASTERDOWN`, `READONLY`,
    ///   `NOREPLICAS`.
    ///
    /// It is never so for [`Error::OutcomeUnknown`]: repeating an append after it may store
    /// the message twice.
    ///
    /// An operation that ends with such an error has been retried until its deadline, if it
    /// may be sent again. Wait before calling again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Timeout(_) => true,
            Error::Unavailable(text) => {
                self.is_transient() || [WAITING, ABANDONED].iter().any(|why| contains(text, why))
            }
            _ => self.is_transient(),
        }
    }

    /// Returns whether an operation is retried after this error: the cause may pass by
    /// itself, and the attempt was not applied.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Error::Unavailable(text) => [REFUSED, LOST, FULL].iter().any(|why| contains(text, why)),
            Error::Server { code, .. } => TRANSIENT.contains(&code.as_str()),
            _ => false,
        }
    }

    /// Returns whether a port refused the connection: nothing listens there.
    pub fn is_refused(&self) -> bool {
        matches!(self, Error::Unavailable(text) if contains(text, REFUSED))
    }

    /// Creates the error of a reply that does not fit its request.
    #[cold]
    pub(crate) fn protocol(what: &str) -> Error {
        Error::Protocol(what.to_owned())
    }

    /// Returns the name of the variant, as in `wit/types.wit`: `outcome-unknown`.
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

    /// Returns the text: the operation, its operand, and the reason.
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

    /// Puts the operation and its operand before the text.
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

/// Displays text of unknown origin: in quotation marks, on one line, and cut after 200
/// characters.
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

/// Returns the position of a part. For short texts, in place of `str::find`, whose
/// linear-time search takes 4 KB of the component.
pub(crate) fn find(text: &str, part: &str) -> Option<usize> {
    let mut parts = text.as_bytes().windows(part.len());
    parts.position(|found| found == part.as_bytes())
}

fn contains(text: &str, part: &str) -> bool {
    find(text, part).is_some()
}

/// The codes of error replies after which an operation is retried on a new connection. It
/// is also retried after "ERR max number of clients reached", an [`Error::Unavailable`].
const TRANSIENT: [&str; 7] = [
    // The server loads its data from disk.
    "LOADING",
    // A script runs for too long.
    "BUSY",
    // A cluster moves the slot, or has lost a node.
    "TRYAGAIN",
    "CLUSTERDOWN",
    // A replica has lost its primary.
    "MASTERDOWN",
    // A failover made the primary a replica; the name may lead to the new one.
    "READONLY",
    // A failover has left the primary without replicas for a moment.
    "NOREPLICAS",
];

/// Text of [`Error::Unavailable`] if nothing listens on a port.
pub const REFUSED: &str = "connection refused";
/// Text of [`Error::Unavailable`] if a connection was lost.
pub const LOST: &str = "the connection was lost";
/// Text of [`Error::Unavailable`] if the server has as many clients as it accepts.
pub(crate) const FULL: &str = "the server accepts no more clients (maxclients)";
/// Text of [`Error::Unavailable`] if the host has as many waiting calls as it accepts.
pub const WAITING: &str = "calls are waiting";
/// Text of [`Error::Unavailable`] if the host's runtime ended while a call waited.
pub const ABANDONED: &str = "the task that served the calls that wait was ended";

/// Characters of a text of unknown origin that an error shows.
const MAX_SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_unavailable_shows_whether_it_is_transient() {
        let unavailable = |text: &str| {
            let error = Error::Unavailable(format!("connect to \"a:1\": {text}"));
            (error.is_transient(), error.is_refused())
        };
        assert_eq!(unavailable(REFUSED), (true, true));
        assert_eq!(unavailable(LOST), (true, false));
        assert_eq!(unavailable(FULL), (true, false));
        assert_eq!(unavailable(WAITING), (false, false));
        assert_eq!(unavailable("name not found"), (false, false));
        assert!(Error::from_reply("LOADING x").is_transient());
        assert!(!Error::from_reply("OOM x").is_transient());
    }

    #[test]
    fn transient_errors_are_retryable() {
        let text = |text: &str| text.to_owned();
        for (error, expected) in [
            (Error::InvalidArgument(text("x")), false),
            (Error::Unavailable(text(REFUSED)), true),
            (Error::Unavailable(text(LOST)), true),
            (Error::Unavailable(text(FULL)), true),
            (Error::Unavailable(format!("3 {WAITING}")), true),
            (Error::Unavailable(text(ABANDONED)), true),
            (Error::Unavailable(text("name not found")), false),
            (Error::Timeout(text("x")), true),
            (Error::OutcomeUnknown(text(LOST)), false),
            (Error::AccessDenied(text("x")), false),
            (Error::WrongType(text("x")), false),
            (Error::LimitExceeded(text("x")), false),
            (Error::Protocol(text("x")), false),
            (Error::from_reply("LOADING x"), true),
            (Error::from_reply("OOM x"), false),
            (Error::Other(text("x")), false),
        ] {
            assert_eq!(error.is_retryable(), expected, "{error:?}");
        }
    }

    #[test]
    fn an_error_names_the_operation_and_its_operand() {
        let error = Error::Timeout("no reply within 50 ms".to_owned());
        assert_eq!(
            error.during("get", "a\r\nb"),
            Error::Timeout("get \"a??b\": no reply within 50 ms".to_owned())
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
