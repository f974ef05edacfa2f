//! The results of operations.

use alloc::vec::Vec;

use crate::message::Message;

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
