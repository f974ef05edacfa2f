//! What all operations have in common.

use crate::error::Error;
use crate::ids::Id;
use crate::message::Messages;
use crate::options::Settings;
use crate::recent::RecentAppends;
use crate::resp::{Commands, Replies};
use crate::store::StoredSession;

use super::outcome::Outcome;
use super::paging::ReadMode;

/// Executes an operation: makes its next request, and reads the replies.
pub trait Procedure {
    /// What the next request does on the server.
    fn effect(&self) -> Effect;

    /// Pushes the commands of the next request.
    fn request(&self, session: Session<'_>, commands: &mut Commands);

    /// Reads the replies to the request.
    ///
    /// # Errors
    ///
    /// The error that was replied, or [`Error::Protocol`].
    fn response(&mut self, replies: Replies<'_>) -> Result<Progress, Error>;

    /// Handles a reply that was cut after `bytes` bytes. The next request may ask for less.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] if a smaller request cannot help.
    fn reply_was_cut(&mut self, bytes: usize) -> Result<(), Error> {
        let _ = bytes;
        Ok(())
    }

    /// Executes the operation on a session in memory.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] if there is more to read than `max_reply_bytes`.
    fn run_in_memory(
        &mut self,
        session: &mut StoredSession<'_>,
    ) -> Result<Outcome<Messages>, Error>;

    /// Makes the next request send the script in full, if it needs one.
    fn bring_script(&mut self) {}

    /// The last element that it appends, if a retry can recognise it.
    fn last_element(&self) -> Option<&[u8]> {
        None
    }
}

/// The result of reading the replies to a request.
#[derive(Debug, PartialEq)]
pub enum Progress {
    /// The operation is done.
    Done(Outcome<Messages>),
    /// The operation needs another request.
    NeedsMore,
    /// The operation failed with this error. The next request undoes what it did.
    Undo(Error),
    /// What a failed operation did is undone.
    Undone,
}

/// What a request does on the server. It decides what may follow if the reply is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it only reads.
    Reads,
    /// Appends elements, unless they are there already: executed again, however late,
    /// it changes nothing.
    AppendsOnce,
    /// Appends elements: must not be executed twice.
    Appends,
    /// Deletes the session. Executed again at once it changes nothing; late, it deletes
    /// what was appended in between.
    Clears,
    /// Restores the expiry of a key of another type. As with `Clears`, a late execution does
    /// harm.
    RestoresExpiry,
}

/// The session of an operation.
#[derive(Clone, Copy)]
pub struct Session<'a> {
    /// The Redis key.
    pub key: &'a str,
    /// The settings of the client.
    pub settings: &'a Settings,
}

/// What an operation needs when it starts.
#[derive(Clone, Copy)]
pub struct StartContext<'a> {
    /// What its messages are marked with.
    pub stamp: Stamp<'a>,
    /// How a long session may be read.
    pub read_mode: ReadMode,
    /// Number of entries that other operations of the same request append to the
    /// session.
    pub others: usize,
}

/// What the messages of an operation are marked with.
#[derive(Clone, Copy)]
pub struct Stamp<'a> {
    /// The time at which it began.
    pub timestamp: &'a str,
    /// Makes an id that no other message has.
    pub id: fn() -> Id,
    /// The recent appends of this instance.
    pub recent: &'a RecentAppends,
}
