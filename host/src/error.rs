//! Why a call failed.

use std::fmt;
use std::sync::Arc;

use session_memory_core::error::{Error as MemoryError, Quoted};

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

    /// Whether the failure may pass without anything being changed: the port refused
    /// the connection, the connection was lost, or the server takes no more clients,
    /// loads its data, or gives another error that
    /// [an operation is repeated after](MemoryError::is_transient).
    ///
    /// An operation has been repeated until its deadline when it ends with such an
    /// error, as far as its delivery allows. [`SessionMemory::open`] has not.
    ///
    /// [`SessionMemory::open`]: crate::SessionMemory::open
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Memory(error) if error.is_transient())
    }

    /// Whether a port refused the connection: nothing listens there. That passes when
    /// a server is just being started again, and does not where there is none.
    pub fn is_refused(&self) -> bool {
        matches!(self, Error::Memory(error) if error.is_refused())
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

/// Why the component gave no answer, to any of the calls that went out together.
#[derive(Clone, Debug)]
pub(crate) enum CallError {
    /// Nothing was sent.
    Refused(MemoryError),
    /// No instance could be made; nothing was sent.
    Unopened(Arc<wasmtime::Error>),
    /// The call did not come to its end. The error is that of one that only reads.
    CutShort(MemoryError),
    /// The component trapped, or broke the contract.
    Trapped(Arc<wasmtime::Error>),
}

/// What a call is about, for its errors.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// The operation, or the first of several.
    pub(crate) name: &'static str,
    pub(crate) session_id: &'a str,
    pub(crate) operations: usize,
    pub(crate) writes: bool,
}

impl CallError {
    /// The failure of a component that broke the contract.
    pub(crate) fn broken(how: impl Into<String>) -> CallError {
        CallError::Trapped(Arc::new(wasmtime::Error::msg(how.into())))
    }

    /// The error of one of the calls.
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
            CallError::CutShort(error) if subject.writes => {
                MemoryError::OutcomeUnknown(error.text().to_owned())
            }
            CallError::CutShort(error) => error,
            CallError::Unopened(source) => return Error::component("open")(shared(source)),
            CallError::Trapped(source) => {
                let during = format!("{what} {}", Quoted(session_id));
                return Error::component(during)(shared(source));
            }
        };
        error.during(&what, session_id).into()
    }

    /// The error of opening a memory.
    pub(crate) fn into_open_error(self) -> Error {
        match self {
            CallError::Refused(error) | CallError::CutShort(error) => error.into(),
            CallError::Unopened(source) | CallError::Trapped(source) => {
                Error::component("open")(shared(source))
            }
        }
    }
}

/// An error that several calls have ended with. It is as the one that it shares.
#[derive(Debug)]
struct Shared(Arc<wasmtime::Error>);

fn shared(source: Arc<wasmtime::Error>) -> wasmtime::Error {
    match Arc::try_unwrap(source) {
        Ok(own) => own,
        Err(source) => wasmtime::Error::new(Shared(source)),
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let error: &(dyn std::error::Error + 'static) = (*self.0).as_ref();
        error.source()
    }
}
