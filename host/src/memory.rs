//! The operations of a memory.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use session_memory_core::error::Error as MemoryError;
use session_memory_core::message::{Message, NewMessage, Role};
use session_memory_core::operation::{Action, History, Operation, Outcome};
use session_memory_core::options::Options;

use crate::builder::Builder;
use crate::error::{CallError, Error, Subject};
use crate::pool::Pool;

/// An open conversation memory, to be shared: clones are cheap, and may be used by
/// any number of tasks and threads at once.
///
/// It has one instance of the component, and with it one connection, and up to
/// [`Builder::max_instances`] when calls come at the same time. Calls that find all
/// of them at work wait, first come, first served, and go out together: up to 128
/// operations and 256 KiB as one [pipeline](SessionMemory::pipeline), each with its own
/// result. Only reads without a limit, or of more than 100 messages, go alone; and
/// all reads of messages where delivery is at most once. A call that finds an
/// instance idle waits for nothing.
///
/// The time of a call runs from when it is made. One whose time is over while it
/// waits ends with [`MemoryError::Timeout`], and one that comes when
/// [`Builder::max_waiting`] calls are waiting ends at once with
/// [`MemoryError::Unavailable`]: of neither was anything sent.
///
/// A call is given up by dropping its future, which changes nothing for others.
/// While it waits nothing is sent for it; after that, it may or may not be applied.
/// Calls of one caller that are not awaited one after the other may be executed in
/// any order.
#[derive(Clone)]
pub struct SessionMemory {
    pub(crate) pool: Arc<Pool>,
}

impl SessionMemory {
    /// Opens a memory with the embedded component: connects, authenticates,
    /// selects the database. It is not repeated, see [`SessionMemoryPre::open`].
    /// [`SessionMemory::builder`] has more to choose from.
    ///
    /// [`SessionMemoryPre::open`]: crate::SessionMemoryPre::open
    ///
    /// # Errors
    ///
    /// As [`Builder::open`].
    pub async fn open(options: Options) -> Result<SessionMemory, Error> {
        SessionMemory::builder().options(options).open().await
    }

    /// What is to be opened, to be told step by step.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Gives a name these addresses, to be tried in this order, as
    /// [`Builder::resolve`] does; an empty list has the name looked up again.
    ///
    /// It holds at once, for every later lookup of every memory that was opened from
    /// the same [`Builder`] or [`SessionMemoryPre`](crate::SessionMemoryPre), this one
    /// and its clones included. A lookup is made for each new connection. Connections
    /// that are open stay open, and are used as long as they last.
    pub fn resolve(&self, name: impl Into<String>, addresses: impl IntoIterator<Item = IpAddr>) {
        let pinned = &self.pool.template.grants.pinned;
        pinned.set(name.into(), addresses);
    }

    /// Appends a message to a session and applies the session's time to live, as
    /// one atomic unit; answers how many messages the session holds now.
    /// `metadata` is the text of a JSON object.
    ///
    /// # Errors
    ///
    /// [`MemoryError::InvalidArgument`] for an empty session id or metadata that
    /// is no JSON object; [`MemoryError::LimitExceeded`] for a message larger than
    /// `max_message_bytes`; [`MemoryError::WrongType`] if the key holds something
    /// other than a list; [`MemoryError::OutcomeUnknown`] if the message may or may
    /// not have been stored; [`Error::Component`] if the component trapped, which
    /// leaves that open too; otherwise the variant that says what was wrong with
    /// the server or the way to it.
    pub async fn add(
        &self,
        session_id: &str,
        role: Role,
        content: &str,
        metadata: Option<&str>,
    ) -> Result<u32, Error> {
        let mut message = NewMessage::new(role, content);
        message.metadata = metadata.map(str::to_owned);
        self.length(session_id, Action::Add(message)).await
    }

    /// Appends several messages in order, all or none, otherwise as
    /// [`SessionMemory::add`].
    ///
    /// # Errors
    ///
    /// As [`SessionMemory::add`].
    pub async fn add_all(&self, session_id: &str, messages: &[NewMessage]) -> Result<u32, Error> {
        self.length(session_id, Action::AddAll(messages.to_vec()))
            .await
    }

    /// A session's messages, oldest first; with a limit the last that many. Empty
    /// if there is no such session.
    ///
    /// # Errors
    ///
    /// [`MemoryError::InvalidArgument`] for an empty session id;
    /// [`MemoryError::WrongType`] if the key holds something other than a list;
    /// [`MemoryError::LimitExceeded`] for more than `max_reply_bytes`;
    /// [`Error::Component`] if the component trapped; otherwise the variant that
    /// says what was wrong with the server or the way to it.
    pub async fn get(&self, session_id: &str, limit: Option<u32>) -> Result<Vec<Message>, Error> {
        let value = |outcome| match outcome {
            Outcome::Messages(messages) => Some(messages),
            _ => None,
        };
        self.operate(session_id, Action::Get(limit), value).await
    }

    /// [`SessionMemory::get`], with the number of entries, the number of those
    /// that are no messages, and the remaining time to live, all of one moment.
    ///
    /// # Errors
    ///
    /// As [`SessionMemory::get`].
    pub async fn history(&self, session_id: &str, limit: Option<u32>) -> Result<History, Error> {
        let value = |outcome| match outcome {
            Outcome::History(history) => Some(history),
            _ => None,
        };
        self.operate(session_id, Action::History(limit), value)
            .await
    }

    /// Deletes a session. Succeeds if there is none.
    ///
    /// # Errors
    ///
    /// As [`SessionMemory::get`], and [`MemoryError::OutcomeUnknown`] if it may or
    /// may not have been deleted.
    pub async fn clear(&self, session_id: &str) -> Result<(), Error> {
        let value = |outcome| match outcome {
            Outcome::Cleared => Some(()),
            _ => None,
        };
        self.operate(session_id, Action::Clear, value).await
    }

    /// Whether a session has messages.
    ///
    /// # Errors
    ///
    /// As [`SessionMemory::get`].
    pub async fn exists(&self, session_id: &str) -> Result<bool, Error> {
        let value = |outcome| match outcome {
            Outcome::Exists(exists) => Some(exists),
            _ => None,
        };
        self.operate(session_id, Action::Exists, value).await
    }

    /// How many messages a session holds.
    ///
    /// # Errors
    ///
    /// As [`SessionMemory::get`].
    pub async fn count(&self, session_id: &str) -> Result<u32, Error> {
        self.length(session_id, Action::Count).await
    }

    /// Several operations, of any sessions, in one round trip: for each its own
    /// result, in the order given. They share one deadline, and together are no
    /// atomic unit.
    ///
    /// # Errors
    ///
    /// Each result has the errors of its operation. There are none if the pipeline as
    /// a whole was not sent or did not come to its end; where that leaves open what
    /// was applied, and an operation writes, it is [`MemoryError::OutcomeUnknown`] or
    /// [`Error::Component`].
    pub async fn pipeline(
        &self,
        operations: &[Operation],
    ) -> Result<Vec<Result<Outcome, MemoryError>>, Error> {
        let Some(first) = operations.first() else {
            return Ok(Vec::new());
        };
        let subject = Subject {
            name: first.action.name(),
            session_id: &first.session_id,
            operations: operations.len(),
            writes: operations.iter().any(|operation| operation.action.writes()),
        };
        let results = self.pool.run(operations.to_vec()).await;
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
            writes: action.writes(),
        };
        let session_id = session_id.to_owned();
        let operation = Operation { session_id, action };
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
