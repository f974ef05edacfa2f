//! The results of operations.

use alloc::vec::Vec;
use core::time::Duration;

use crate::message::Message;

/// The result of an operation: `outcome` in `wit/memory.wit`. `M` is the representation of
/// messages.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome<M = Vec<Message>> {
    /// `add`, `add-all`, `count`: the number of entries in the session.
    Length(u32),
    /// `get`: the messages, oldest first.
    Messages(M),
    /// `history`: the messages and facts about the session.
    History(History<M>),
    /// `clear`: the session is deleted.
    Cleared,
    /// `exists`: whether the session exists, that is, has entries.
    Exists(bool),
}

/// The messages of a session and facts about it, all as one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct History<M = Vec<Message>> {
    /// The messages, oldest first.
    pub messages: M,
    /// Number of entries in the session, readable or not, whatever the limit was.
    pub total: u32,
    /// Number of unreadable entries that are newer than the oldest of `messages`; in
    /// the whole session, if it has fewer messages than the limit.
    pub skipped: u32,
    /// Time until the session expires, in whole seconds. None if it never expires or does
    /// not exist.
    pub ttl: Option<Duration>,
}

impl<M> History<M> {
    /// Creates the history of a session that has `total` entries, all of them readable,
    /// and never expires.
    pub fn new(messages: M, total: u32) -> History<M> {
        History {
            messages,
            total,
            skipped: 0,
            ttl: None,
        }
    }
}
