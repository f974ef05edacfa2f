//! The operations of a memory.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use session_memory_core::error::Error as MemoryError;
use session_memory_core::message::{Message, NewMessage, Role};
use session_memory_core::operation::{Action, History, Operation, Outcome};

use crate::error::{CallError, Error, Subject};
use crate::pool::Pool;

/// An open conversation memory. Clone it to share it: clones are cheap, and any number of
/// tasks and threads may use them at once.
///
/// A memory has one instance of the component, which has one connection. It creates up to
/// [`Builder::max_instances`] instances when calls arrive at the same time. A call that
/// finds an idle instance runs at once.
///
/// Calls that find all instances busy wait in a queue, first come, first served. They are
/// sent together, each with its own result: up to 128 operations and 256 KiB as one
/// [pipeline](SessionMemory::pipeline). These reads are sent on their own:
///
/// - reads without a limit, or of more than 100 messages;
/// - every read of messages, if the delivery is at most once.
///
/// # Deadlines and cancellation
///
/// The [`operation_timeout`](field@crate::Options::operation_timeout) of a call begins when its
/// future is first polled. A call whose time ends in the queue fails with
/// [`MemoryError::Timeout`]. A call that finds [`Builder::max_waiting`] calls in the queue
/// fails at once with [`MemoryError::Unavailable`]. In both cases nothing was sent.
///
/// Drop the future of a call to cancel it. Other calls are not affected. If the call waits
/// in the queue, nothing is sent for it. If it is in flight, it may or may not be applied.
///
/// Calls of one caller that are not awaited one after the other may be executed in any
/// order.
///
/// # Panics
///
/// Every operation panics if its future is polled outside of a Tokio runtime, or in one
/// without I/O and time enabled. A memory may be dropped anywhere.
///
/// [`Builder::max_instances`]: crate::Builder::max_instances
/// [`Builder::max_waiting`]: crate::Builder::max_waiting
#[derive(Clone)]
pub struct SessionMemory {
    pub(crate) pool: Arc<Pool>,
}

impl SessionMemory {
    /// Sets the addresses of a name, to be tried in this order, as [`Builder::resolve`]
    /// does. With an empty list the name is looked up again.
    ///
    /// This applies at once to every later lookup of every memory that was opened from the
    /// same [`Builder`] or [`SessionMemoryPre`](crate::SessionMemoryPre), clones included.
    /// Each new connection makes a lookup. Open connections stay open and in use.
    ///
    /// [`Builder`]: crate::Builder
    /// [`Builder::resolve`]: crate::Builder::resolve
    pub fn resolve(&self, name: impl Into<String>, addresses: impl IntoIterator<Item = IpAddr>) {
        let pinned = &self.pool.template.grants.pinned;
        pinned.set(name.into(), addresses);
    }

    /// Appends a message to a session, and applies the session's time to live, as one
    /// atomic unit. Returns the number of entries in the session. `metadata` is the text
    /// of a JSON object.
    ///
    /// # Errors
    ///
    /// - [`MemoryError::InvalidArgument`] for an empty session id, or metadata that is not
    ///   a JSON object.
    /// - [`MemoryError::LimitExceeded`] for a message larger than `max_message_bytes`.
    /// - [`MemoryError::WrongType`] if the key holds something other than a list.
    /// - [`MemoryError::OutcomeUnknown`] if the message may or may not have been stored.
    /// - [`Error::Component`] if the component trapped. The message may or may not have
    ///   been stored.
    /// - Another variant for a failure of the server or of the network.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with I/O and time enabled.
    pub async fn add(
        &self,
        session_id: &str,
        role: Role,
        content: impl Into<String>,
        metadata: Option<&str>,
    ) -> Result<u32, Error> {
        let mut message = NewMessage::new(role, content);
        message.metadata = metadata.map(str::to_owned);
        self.length(session_id, Action::Add(message)).await
    }

    /// Appends several messages in order, all or none, otherwise as
    /// [`SessionMemory::add`]. For an empty list, returns the number of entries and changes
    /// nothing.
    ///
    /// ```
    /// use session_memory_host::{NewMessage, Options, Provider, SessionMemory};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), session_memory_host::Error> {
    /// # let memory = SessionMemory::open(Options::new().provider(Provider::InMemory)).await?;
    /// let turn = [
    ///     NewMessage::user("What is RAG?"),
    ///     NewMessage::assistant("RAG is...").with_metadata(r#"{"tokens": 120}"#),
    /// ];
    /// assert_eq!(memory.add_all("user-123", turn).await?, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`SessionMemory::add`].
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with I/O and time enabled.
    pub async fn add_all(
        &self,
        session_id: &str,
        messages: impl Into<Vec<NewMessage>>,
    ) -> Result<u32, Error> {
        self.length(session_id, Action::AddAll(messages.into()))
            .await
    }

    /// Returns the messages of a session, oldest first. With a limit, returns the last
    /// `limit` messages. The list is empty if the session does not exist.
    ///
    /// # Errors
    ///
    /// - [`MemoryError::InvalidArgument`] for an empty session id.
    /// - [`MemoryError::WrongType`] if the key holds something other than a list.
    /// - [`MemoryError::LimitExceeded`] for more than `max_reply_bytes`.
    /// - [`Error::Component`] if the component trapped.
    /// - Another variant for a failure of the server or of the network.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with I/O and time enabled.
    pub async fn get(&self, session_id: &str, limit: Option<u32>) -> Result<Vec<Message>, Error> {
        let value = |outcome| match outcome {
            Outcome::Messages(messages) => Some(messages),
            _ => None,
        };
        self.operate(session_id, Action::Get(limit), value).await
    }

    /// Returns the messages as [`SessionMemory::get`] does, together with the number of
    /// entries, the number of unreadable entries, and the remaining time to live, as one
    /// snapshot.
    ///
    /// # Errors
    ///
    /// Those of [`SessionMemory::get`].
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with I/O and time enabled.
    pub async fn history(&self, session_id: &str, limit: Option<u32>) -> Result<History, Error> {
        let value = |outcome| match outcome {
            Outcome::History(history) => Some(history),
            _ => None,
        };
        self.operate(session_id, Action::History(limit), value)
            .await
    }

    /// Deletes a session. Succeeds if the session does not exist.
    ///
    /// # Errors
    ///
    /// Those of [`SessionMemory::get`], and [`MemoryError::OutcomeUnknown`] if the session
    /// may or may not have been deleted.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with I/O and time enabled.
    pub async fn clear(&self, session_id: &str) -> Result<(), Error> {
        let value = |outcome| match outcome {
            Outcome::Cleared => Some(()),
            _ => None,
        };
        self.operate(session_id, Action::Clear, value).await
    }

    /// Returns whether a session exists, that is, has entries.
    ///
    /// # Errors
    ///
    /// Those of [`SessionMemory::get`].
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with I/O and time enabled.
    pub async fn exists(&self, session_id: &str) -> Result<bool, Error> {
        let value = |outcome| match outcome {
            Outcome::Exists(exists) => Some(exists),
            _ => None,
        };
        self.operate(session_id, Action::Exists, value).await
    }

    /// Returns the number of entries in a session.
    ///
    /// # Errors
    ///
    /// Those of [`SessionMemory::get`].
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with I/O and time enabled.
    pub async fn count(&self, session_id: &str) -> Result<u32, Error> {
        self.length(session_id, Action::Count).await
    }

    /// Executes several operations, of any sessions, in one round trip. Returns a result
    /// for each, in the order given. The operations share one deadline. Together they are
    /// not an atomic unit.
    ///
    /// ```
    /// use session_memory_host::{Action, NewMessage, Operation, Outcome};
    /// # use session_memory_host::{Options, Provider, SessionMemory};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), session_memory_host::Error> {
    /// # let memory = SessionMemory::open(Options::new().provider(Provider::InMemory)).await?;
    /// let turn = [
    ///     Operation::new("user-123", Action::Add(NewMessage::user("And why?"))),
    ///     Operation::new("user-123", Action::Get(Some(10))),
    /// ];
    /// let results = memory.pipeline(turn).await?;
    /// assert_eq!(results[0], Ok(Outcome::Length(1)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Each result has the errors of its operation. There are no results if the pipeline
    /// as a whole was not sent, or did not end. If an operation writes and may or may not
    /// have been applied, that error is [`MemoryError::OutcomeUnknown`] or
    /// [`Error::Component`].
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with I/O and time enabled.
    pub async fn pipeline(
        &self,
        operations: impl Into<Vec<Operation>>,
    ) -> Result<Vec<Result<Outcome, MemoryError>>, Error> {
        let operations = operations.into();
        let Some(first) = operations.first() else {
            return Ok(Vec::new());
        };
        let session_id = first.session_id.clone();
        let subject = Subject {
            name: first.action.name(),
            session_id: &session_id,
            operations: operations.len(),
            has_writes: operations.iter().any(|operation| operation.action.writes()),
        };
        let results = self.pool.run(operations).await;
        results.map_err(|error| error.into_error(subject))
    }

    async fn operate<T>(
        &self,
        session_id: &str,
        action: Action,
        value: impl FnOnce(Outcome) -> Option<T>,
    ) -> Result<T, Error> {
        let subject = Subject {
            name: action.name(),
            session_id,
            operations: 1,
            has_writes: action.writes(),
        };
        let operation = Operation::new(session_id, action);
        let results = self.pool.run(vec![operation]).await;
        let mut results = results.map_err(|error| error.into_error(subject))?;
        let outcome = results.pop().transpose()?;
        let value = outcome.and_then(value);
        value.ok_or_else(|| {
            CallError::broken("the result is not one of this operation").into_error(subject)
        })
    }

    async fn length(&self, session_id: &str, action: Action) -> Result<u32, Error> {
        let value = |outcome| match outcome {
            Outcome::Length(length) => Some(length),
            _ => None,
        };
        self.operate(session_id, action, value).await
    }
}

impl fmt::Debug for SessionMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionMemory")
            .field("options", &self.pool.template.options)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use session_memory_core::options::Provider;
    use std::pin::pin;
    use std::task::{Context, Waker};
    use tokio::runtime::{Builder as RuntimeBuilder, Runtime};

    fn runtime() -> Runtime {
        RuntimeBuilder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    async fn open() -> SessionMemory {
        let options = Options::new().provider(Provider::InMemory);
        let builder = SessionMemory::builder().environment([]).options(options);
        builder.open().await.unwrap()
    }

    #[test]
    #[should_panic(expected = "Tokio")]
    fn an_operation_panics_outside_of_a_runtime() {
        let memory = runtime().block_on(open());
        let _ = pin!(memory.count("s")).poll(&mut Context::from_waker(Waker::noop()));
    }

    #[test]
    #[should_panic(expected = "Tokio")]
    fn opening_panics_outside_of_a_runtime() {
        let _ = pin!(open()).poll(&mut Context::from_waker(Waker::noop()));
    }

    #[test]
    fn a_memory_may_be_dropped_outside_of_a_runtime() {
        let runtime = runtime();
        let memory = runtime.block_on(open());
        assert_eq!(runtime.block_on(memory.count("s")).unwrap(), 0);
        drop(runtime);
        drop(memory);
    }
}
