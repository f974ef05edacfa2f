//! Conversation memory for AI agents: the Session Memory component, and all it
//! takes to run it.
//!
//! A session is one conversation, kept in Redis as a list of JSON messages that
//! expires. [`SessionMemory`] runs the component that does so in a sandbox: it may
//! reach the configured server and nothing else.
//!
//! ```
//! use session_memory_host::{Options, Provider, Role, SessionMemory};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), session_memory_host::Error> {
//! // With Provider::Redis, the default, it is REDIS_HOST and REDIS_PORT that count.
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
//! Every field of [`Options`] that is not given is taken from the environment
//! variable that its documentation names, then from a default. The component sees
//! these variables and no others; [`Builder::environment`] replaces them.
//!
//! # Errors
//!
//! [`Error::Memory`] is the component's own answer and keeps its variant. After
//! [`MemoryError::OutcomeUnknown`], and after [`Error::Component`] from an
//! operation that writes, a message may or may not have been stored.
//!
//! With [`Delivery::ExactlyOnce`], the default, the component tries an append again
//! until its deadline when the connection is lost, and stores the message once.
//!
//! # Many callers
//!
//! A [`SessionMemory`] is shared by cloning it. A call that comes alone has an
//! instance of the component at once; calls that come while all instances are at work
//! wait, and go out together as one pipeline, each with its own result. How many
//! instances there may be is [`Builder::max_instances`], and how many calls may wait
//! [`Builder::max_waiting`]. Who needs memories that share nothing, such as a function
//! that lives for one call, opens each from one [`SessionMemoryPre`].
//!
//! # The sandbox
//!
//! What the component may do is settled when a [`SessionMemory`] is built:
//!
//! - TCP connections to the configured host and port, or to what
//!   [`Builder::network`] allows; a name is looked up only if it is one of those, and
//!   not in the DNS if [`Builder::resolve`] gives its addresses;
//! - the clocks, random numbers, and the environment variables of the options; no files, no
//!   standard streams, no arguments;
//! - for each instance, memory up to [`Builder::max_memory`] bytes, and 200 handles at
//!   once: sockets, streams, and what it waits for;
//! - for each operation, the timeout of the options and [`GRACE`].
//!
//! An instance that traps, oversteps or is cancelled in the middle of a call (by
//! dropping the future of a call that has the instance to itself) is discarded, and the
//! next call gets a new one with a new connection. Calls that went out together are
//! each told so, a read and a write by what it means for them; dropping one of them
//! changes nothing for the others. With [`Provider::InMemory`] the sessions are gone then, and
//! every further call says so.

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

/// The component that is run unless [`Builder`] is given another.
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
