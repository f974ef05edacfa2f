//! Why a call failed.

use std::fmt;

use session_memory::error::Error as MemoryError;

/// Why a call failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The memory's own answer, with the variant that the contract gives it. A
    /// call that was stopped from outside, because the component did not keep to
    /// its own timeout, is told the same way: [`MemoryError::Timeout`], or
    /// [`MemoryError::OutcomeUnknown`] for one that writes.
    Memory(MemoryError),
    /// The component could not be read, compiled or instantiated, or trapped
    /// during a call. The source says more.
    Component {
        /// What was being done.
        during: String,
        /// What the runtime says.
        source: wasmtime::Error,
    },
}

impl Error {
    /// The name of the variant: one of those in `wit/types.wit`, or `component`.
    pub fn variant(&self) -> &'static str {
        match self {
            Error::Memory(error) => error.variant(),
            Error::Component { .. } => "component",
        }
    }

    pub(crate) fn component(during: impl Into<String>) -> impl FnOnce(wasmtime::Error) -> Error {
        move |source| Error::Component {
            during: during.into(),
            source,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Memory(error) => write!(f, "{error}"),
            // The root cause is what a reader can act on, in one line; the whole
            // chain, with a trap's backtrace in it, is there as the source.
            Error::Component { during, source } => {
                let cause = source.root_cause().to_string();
                let words: Vec<&str> = cause.split_whitespace().collect();
                write!(f, "{during}: {}", words.join(" "))
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Memory(error) => Some(error),
            Error::Component { source, .. } => Some(source.as_ref()),
        }
    }
}

impl From<MemoryError> for Error {
    fn from(error: MemoryError) -> Error {
        Error::Memory(error)
    }
}
