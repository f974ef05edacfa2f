//! What a caller asks for, and what an operation results in.

use alloc::string::String;
use alloc::vec::Vec;

use crate::message::{Message, NewMessage};

/// What is done to a session: `operation` in `wit/types.wit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The session.
    pub session_id: String,
    /// What is done to it.
    pub action: Action,
}

/// The operations of a client, each with its arguments: `action` in `wit/types.wit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Appends a message.
    Add(NewMessage),
    /// Appends messages, all or none.
    AddAll(Vec<NewMessage>),
    /// Reads the messages; with a limit, the last ones.
    Get(Option<u32>),
    /// Reads the messages together with facts about the session.
    History(Option<u32>),
    /// Deletes the session.
    Clear,
    /// Checks whether the session has messages.
    Exists,
    /// Counts the messages of the session.
    Count,
}

/// The result of an operation: `outcome` in `wit/types.wit`. `M` is how messages are
/// held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<M = Vec<Message>> {
    /// Of an append and of [`Action::Count`]: the number of entries in the session.
    Length(u32),
    /// The messages, oldest first.
    Messages(M),
    /// The messages and facts about the session.
    History(History<M>),
    /// The session is deleted.
    Cleared,
    /// Whether the session has messages.
    Exists(bool),
}

/// The messages of a session and facts about it, all read at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History<M = Vec<Message>> {
    /// Oldest first.
    pub messages: M,
    /// Number of entries in the session, readable or not, whatever the limit was.
    pub total: u32,
    /// Number of unreadable entries that are newer than the oldest of `messages`; in
    /// the whole session, if it has fewer messages than the limit.
    pub skipped: u32,
    /// Seconds until the session expires; none if it never does or does not exist.
    pub ttl_seconds: Option<u32>,
}

impl Action {
    /// The words that precede the session id in an error text.
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

    /// The messages that it appends.
    pub fn new_messages(&self) -> &[NewMessage] {
        match self {
            Action::Add(message) => core::slice::from_ref(message),
            Action::AddAll(messages) => messages,
            Action::Get(_) | Action::History(_) => &[],
            Action::Clear | Action::Exists | Action::Count => &[],
        }
    }

    /// Whether it changes the session.
    pub fn writes(&self) -> bool {
        matches!(self, Action::Add(_) | Action::AddAll(_) | Action::Clear)
    }
}
