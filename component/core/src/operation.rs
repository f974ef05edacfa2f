//! Operations on a session: what a caller asks for, and how each is executed.
//!
//! Every operation has a file of its own, with its requests and the reading of their
//! replies. Appends have two, one for each [`Delivery`].

mod append_at_most_once;
mod append_exactly_once;
mod clear;
mod count;
mod exists;
mod get;
mod history;
mod outcome;
mod paging;
mod procedure;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Error;
use crate::ids::Id;
use crate::message::NewMessage;
use crate::options::{Delivery, Settings};

use append_at_most_once::AppendAtMostOnce;
use append_exactly_once::AppendExactlyOnce;
use clear::Clear;
use count::Count;
use exists::Exists;
use get::Get;
use history::ReadHistory;

pub use append_exactly_once::APPEND;
pub use history::HISTORY;
pub use outcome::{History, Outcome};
pub use paging::ReadMode;
pub use procedure::{Effect, Procedure, Progress, Session, Stamp, StartContext};

/// An operation on a session: `operation` in `wit/memory.wit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The id of the session.
    pub session_id: String,
    /// What is done to the session.
    pub action: Action,
}

impl Operation {
    /// Creates an operation.
    pub fn new(session_id: impl Into<String>, action: Action) -> Operation {
        Operation {
            session_id: session_id.into(),
            action,
        }
    }
}

/// The operations of a client, each with its arguments: `action` in `wit/memory.wit`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Appends a message.
    Add(NewMessage),
    /// Appends messages, all or none.
    AddAll(Vec<NewMessage>),
    /// Reads the messages; with a limit, at most that many of the last ones.
    Get(Option<u32>),
    /// Reads the messages together with facts about the session.
    History(Option<u32>),
    /// Deletes the session.
    Clear,
    /// Checks whether the session exists, that is, has entries.
    Exists,
    /// Counts the entries of the session.
    Count,
}

impl Action {
    /// Returns the words that precede the session id in an error text.
    pub fn name(&self) -> &'static str {
        match self {
            Action::Add(_) => "add to",
            Action::AddAll(_) => "add-all to",
            Action::Get(_) => "get",
            Action::History(_) => "history of",
            Action::Clear => "clear",
            Action::Exists => "exists",
            Action::Count => "count",
        }
    }

    /// Returns the messages that the action appends.
    pub fn new_messages(&self) -> &[NewMessage] {
        match self {
            Action::Add(message) => core::slice::from_ref(message),
            Action::AddAll(messages) => messages,
            Action::Get(_) | Action::History(_) => &[],
            Action::Clear | Action::Exists | Action::Count => &[],
        }
    }

    /// Returns whether the action changes the session.
    pub fn writes(&self) -> bool {
        matches!(self, Action::Add(_) | Action::AddAll(_) | Action::Clear)
    }

    /// Creates the procedure that executes the action.
    ///
    /// # Errors
    ///
    /// As [`NewMessage::encode`].
    pub fn start(
        &self,
        session: Session<'_>,
        context: StartContext<'_>,
    ) -> Result<Box<dyn Procedure>, Error> {
        let settings = session.settings;
        let procedure: Box<dyn Procedure> = match self {
            Action::AddAll(messages) if messages.is_empty() => Box::new(Count),
            Action::Add(_) | Action::AddAll(_) => {
                let elements = elements(self.new_messages(), settings, context.stamp)?;
                match settings.delivery {
                    Delivery::ExactlyOnce => {
                        let previous = context.stamp.recent.of(session.key);
                        let append = AppendExactlyOnce::new(elements, previous, context.others);
                        Box::new(append)
                    }
                    Delivery::AtMostOnce => Box::new(AppendAtMostOnce::new(elements, settings)),
                }
            }
            Action::Get(limit) => Box::new(Get::new(*limit, context.read_mode)),
            Action::History(limit) => Box::new(ReadHistory::new(
                *limit,
                context.read_mode,
                settings.delivery,
            )),
            Action::Clear => Box::new(Clear),
            Action::Exists => Box::new(Exists),
            Action::Count => Box::new(Count),
        };
        Ok(procedure)
    }
}

/// Encodes messages as the elements that are stored.
///
/// # Errors
///
/// As [`NewMessage::encode`].
pub fn elements(
    messages: &[NewMessage],
    settings: &Settings,
    stamp: Stamp<'_>,
) -> Result<Vec<Vec<u8>>, Error> {
    let encode = |message: &NewMessage| {
        let id = match settings.delivery {
            Delivery::ExactlyOnce => Some((stamp.id)()),
            Delivery::AtMostOnce => None,
        };
        let id = id.as_ref().map(Id::as_str);
        message.encode(stamp.timestamp, id, settings.max_message_bytes)
    };
    messages.iter().map(encode).collect()
}
