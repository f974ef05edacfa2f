//! Why a call failed.

use std::fmt;
use std::sync::Arc;

use session_memory_core::error::{Error as MemoryError, Quoted};

/// Why a call failed.
///
/// [`Error::Memory`] displays as the error in it. [`Error::Component`] displays what
/// failed, and returns the reason as its [source](std::error::Error::source).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The component returned an error, with the variant that the contract gives it.
    ///
    /// The host stops a call if the component exceeds its own timeout. That is
    /// [`MemoryError::Timeout`] too, or [`MemoryError::OutcomeUnknown`] for a call that
    /// writes.
    Memory(MemoryError),
    /// The component could not be read, compiled or instantiated, or it trapped during a
    /// call. A call that writes may or may not have been applied.
    #[non_exhaustive]
    Component {
        /// What failed: a step of the preparation, or an operation with its session id.
        message: String,
        /// The error of the runtime: a [`wasmtime::Trap`] with its backtrace, say.
        source: Arc<wasmtime::Error>,
    },
}

impl Error {
    /// Returns the name of the variant: a case of `error` in `wit/types.wit`, or
    /// `component`.
    pub fn variant(&self) -> &'static str {
        match self {
            Error::Memory(error) => error.variant(),
            Error::Component { .. } => "component",
        }
    }

    /// Returns whether the same call may succeed later: nothing was applied, and the cause
    /// may pass by itself. [`MemoryError::is_retryable`] lists the cases. An
    /// [`Error::Component`] is not one.
    ///
    /// An operation that ends with such an error has been retried until its deadline, if
    /// its delivery allows that. [`SessionMemory::open`] has not been retried.
    ///
    /// [`SessionMemory::open`]: crate::SessionMemory::open
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Memory(error) if error.is_retryable())
    }

    /// Returns whether a port refused the connection: nothing listens there. This is
    /// temporary while a server restarts, and permanent without a server.
    pub fn is_refused(&self) -> bool {
        matches!(self, Error::Memory(error) if error.is_refused())
    }

    pub(crate) fn component(
        message: impl Into<String>,
        source: impl Into<Arc<wasmtime::Error>>,
    ) -> Error {
        Error::Component {
            message: message.into(),
            source: source.into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Memory(error) => error.fmt(f),
            Error::Component { message, .. } => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Memory(error) => error.source(),
            Error::Component { source, .. } => Some((**source).as_ref()),
        }
    }
}

impl From<MemoryError> for Error {
    fn from(error: MemoryError) -> Error {
        Error::Memory(error)
    }
}

/// Why a whole call failed, and all calls that were sent with it.
#[derive(Clone, Debug)]
pub(crate) enum CallError {
    /// Nothing was sent.
    Refused(MemoryError),
    /// The component could not be instantiated. Nothing was sent.
    Unopened(Arc<wasmtime::Error>),
    /// The call was cut short. This is the error of a read; a write gets
    /// [`MemoryError::OutcomeUnknown`].
    CutShort(MemoryError),
    /// The component trapped, or broke the contract.
    Trapped(Arc<wasmtime::Error>),
}

/// What an error says about its call.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// The operation, or the first of several.
    pub(crate) name: &'static str,
    pub(crate) session_id: &'a str,
    pub(crate) operations: usize,
    pub(crate) has_writes: bool,
}

impl CallError {
    /// Creates the error of a component that broke the contract.
    pub(crate) fn broken(how: impl Into<String>) -> CallError {
        CallError::Trapped(Arc::new(wasmtime::Error::msg(how.into())))
    }

    /// Returns the error of one of the calls.
    pub(crate) fn into_error(self, subject: Subject<'_>) -> Error {
        let Subject {
            name, session_id, ..
        } = subject;
        let what = match subject.operations {
            1 => name.to_owned(),
            count => format!("pipeline of {count}, first {name}"),
        };
        let error = match self {
            CallError::Refused(error) => error,
            CallError::CutShort(error) if subject.has_writes => {
                MemoryError::OutcomeUnknown(error.text().to_owned())
            }
            CallError::CutShort(error) => error,
            CallError::Unopened(source) => return Error::component(OPEN, source),
            CallError::Trapped(source) => {
                let message = format!("{what} {}: the component failed", Quoted(session_id));
                return Error::component(message, source);
            }
        };
        error.during(&what, session_id).into()
    }

    /// Returns the error of opening a memory.
    pub(crate) fn into_open_error(self) -> Error {
        match self {
            CallError::Refused(error) | CallError::CutShort(error) => error.into(),
            CallError::Unopened(source) | CallError::Trapped(source) => {
                Error::component(OPEN, source)
            }
        }
    }
}

const OPEN: &str = "open: the component failed";

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn an_error_does_not_display_its_source() {
        let subject = Subject {
            name: "get",
            session_id: "s",
            operations: 1,
            has_writes: false,
        };
        let error = CallError::broken("no reason").into_error(subject);
        assert_eq!(error.to_string(), "get \"s\": the component failed");
        // A clone shares the source.
        let clone = error.clone();
        drop(error);
        assert_eq!(clone.source().unwrap().to_string(), "no reason");

        let memory = CallError::Refused(MemoryError::Timeout("too late".to_owned()));
        let error = memory.into_error(subject);
        assert_eq!(error.to_string(), "get \"s\": too late");
        assert!(error.source().is_none());
    }

    #[test]
    fn a_component_that_fails_is_not_retryable() {
        let broken = CallError::broken("no reason").into_open_error();
        assert!(!broken.is_retryable() && !broken.is_refused());
        assert!(Error::from(MemoryError::Timeout("too late".to_owned())).is_retryable());
    }
}
