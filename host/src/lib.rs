//! Conversation memory for AI agents: runs the Session Memory component.
//!
//! A session is one conversation. Redis keeps it as a list of JSON messages that expires.
//! [`SessionMemory`] runs the component that reads and writes these lists. The component
//! runs in a sandbox: it may reach the configured server and nothing else.
//!
//! ```
//! use session_memory_host::{Options, Provider, Role, SessionMemory};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), session_memory_host::Error> {
//! // With Provider::Redis, the default, host("...") and port(...) name the server.
//! let options = Options::new().provider(Provider::InMemory);
//! let memory = SessionMemory::open(options).await?;
//!
//! memory.add("user-123", Role::User, "What is RAG?", None).await?;
//! memory.add("user-123", Role::Assistant, "RAG is...", Some(r#"{"tokens": 120}"#)).await?;
//!
//! let recent = memory.get("user-123", Some(10)).await?;
//! assert_eq!(recent.len(), 2);
//! assert_eq!(recent[0].content, "What is RAG?");
//! assert_eq!(recent[1].metadata.as_deref(), Some(r#"{"tokens": 120}"#));
//! # Ok(())
//! # }
//! ```
//!
//! # Options
//!
//! An option of [`Options`] that is not given is taken from the environment variable that
//! its documentation names, then from a default. The component sees these variables and no
//! others. [`Builder::environment`] replaces them.
//!
//! # Errors
//!
//! [`Error::Memory`] is an error that the component returned, with its variant. After
//! [`MemoryError::OutcomeUnknown`] a message may or may not have been stored. The same
//! holds after [`Error::Component`] from an operation that writes.
//! [`Error::is_retryable`] says whether the same call may succeed later.
//!
//! With [`Delivery::ExactlyOnce`], the default, the component retries an append until its
//! deadline when the connection is lost, and stores the message once.
//!
//! # Tokio
//!
//! Calls run on [tokio](https://docs.rs/tokio), in a runtime with I/O and time enabled.
//! They panic outside of one.
//!
//! # Many callers
//!
//! Clone a [`SessionMemory`] to share it. A single call runs at once. Calls that
//! find all instances of the component busy wait, and are sent together as one pipeline,
//! each with its own result. [`Builder::max_instances`] limits the instances, and
//! [`Builder::max_waiting`] the waiting calls. For memories that share nothing, such as
//! those of functions that live for one call, open each from one [`SessionMemoryPre`].
//!
//! # The sandbox
//!
//! The component may use only this:
//!
//! - TCP connections to the configured host and port, or to what [`Builder::network`]
//!   allows. It may look up the names of these servers and no others; it does not use the
//!   DNS for a name whose addresses [`Builder::resolve`] gives.
//! - The clocks, random numbers, and the environment variables of the options. It has no
//!   files, no standard streams and no arguments.
//! - For each instance, memory up to [`Builder::max_memory`] bytes, and 200 handles at
//!   once: sockets, streams, and pollables.
//! - For each operation, the timeout of the options and [`GRACE`].
//!
//! An instance is discarded if it traps, exceeds a limit, or is cancelled during a call. A
//! call is cancelled when its future is dropped while it has the instance to itself. The
//! next call gets a new instance with a new connection.
//!
//! If an instance fails during calls that were sent together, each call gets its own error:
//! [`MemoryError::OutcomeUnknown`] only if it writes. Dropping one of them does not affect
//! the others. With [`Provider::InMemory`] the sessions are lost with the instance, and
//! every further call returns an error that says so.

mod bindings;
mod builder;
mod engine;
mod error;
mod instance;
mod memory;
mod network;
mod pool;
mod store;

pub use builder::{Builder, SessionMemoryPre};
pub use error::Error;
pub use instance::GRACE;
pub use memory::SessionMemory;
pub use network::NetworkPolicy;
pub use session_memory_core::error::Error as MemoryError;
pub use session_memory_core::message::{Message, NewMessage, ParseRoleError, Role};
pub use session_memory_core::operation::{Action, History, Operation, Outcome};
pub use session_memory_core::options::{Connect, Delivery, Options, Password, Provider, TtlPolicy};

/// The component that a memory runs, unless [`Builder`] is given another.
pub const COMPONENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/session_memory.wasm"));

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Debug;

    #[test]
    fn public_types_are_shared_by_threads_and_shown() {
        fn is<T: Send + Sync + Debug + 'static>() {}
        is::<Action>();
        is::<Builder>();
        is::<Connect>();
        is::<Delivery>();
        is::<Error>();
        is::<History>();
        is::<MemoryError>();
        is::<Message>();
        is::<NetworkPolicy>();
        is::<NewMessage>();
        is::<Operation>();
        is::<Options>();
        is::<Outcome>();
        is::<ParseRoleError>();
        is::<Password>();
        is::<Provider>();
        is::<Role>();
        is::<SessionMemory>();
        is::<SessionMemoryPre>();
        is::<TtlPolicy>();
    }

    #[test]
    fn futures_are_sent_between_threads() {
        fn is_send<T: Send>(_: impl Fn(&'static SessionMemory) -> T) {}
        fn is_send_prepared<T: Send>(_: impl Fn(&'static SessionMemoryPre) -> T) {}
        is_send(|memory| memory.add("s", Role::User, "x", None));
        is_send(|memory| memory.add_all("s", []));
        is_send(|memory| memory.get("s", None));
        is_send(|memory| memory.history("s", None));
        is_send(|memory| memory.clear("s"));
        is_send(|memory| memory.exists("s"));
        is_send(|memory| memory.count("s"));
        is_send(|memory| memory.pipeline([]));
        is_send_prepared(|prepared| prepared.open());
    }
}
