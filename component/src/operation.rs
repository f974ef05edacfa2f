//! The operations of a client and what they come to: `operation`, `action` and
//! `outcome` in `wit/types.wit`.

use alloc::string::String;
use alloc::vec::Vec;

use crate::message::{Message, NewMessage};

/// What is done to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The session.
    pub session_id: String,
    /// What is done to it.
    pub action: Action,
}

/// The operations of a client, each with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Appends a message.
    Add(NewMessage),
    /// Appends messages, all or none.
    AddAll(Vec<NewMessage>),
    /// Reads the messages; with a limit the last that many.
    Get(Option<u32>),
    /// Reads the messages and what is known of the session.
    History(Option<u32>),
    /// Deletes the session.
    Clear,
    /// Asks whether the session has messages.
    Exists,
    /// Asks how many messages the session holds.
    Count,
}

impl Action {
    /// What an error text says before the session id.
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

    /// Whether it changes the session.
    pub fn writes(&self) -> bool {
        matches!(self, Action::Add(_) | Action::AddAll(_) | Action::Clear)
    }
}

/// What an operation came to; `M` is how messages are held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<M = Vec<Message>> {
    /// Of an append and of [`Action::Count`]: how many entries the session holds.
    Length(u32),
    /// The messages, oldest first.
    Messages(M),
    /// The messages and what is known of the session.
    History(History<M>),
    /// The session is deleted.
    Cleared,
    /// Whether the session has messages.
    Exists(bool),
}

/// A session's messages and what is known of the session, all of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History<M = Vec<Message>> {
    /// Oldest first.
    pub messages: M,
    /// Entries that the session holds, readable or not, whatever the limit was.
    pub total: u32,
    /// Entries newer than the oldest of `messages` that could not be read as
    /// messages; of the whole session, if it holds fewer messages than the limit.
    pub skipped: u32,
    /// Seconds until the session expires; none if it never does or is not there.
    pub ttl_seconds: Option<u32>,
}
