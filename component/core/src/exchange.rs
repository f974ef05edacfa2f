//! An exchange with the server: what became of a request on its connection.

use alloc::borrow::ToOwned;
use alloc::format;

use crate::error::{Error, LOST};
use crate::resp::Received;

/// What became of a request.
pub struct Exchange {
    /// The replies: all of them, or those that came before the end.
    pub received: Received,
    /// Bytes of the reply that was incomplete at the end.
    pub partial: usize,
    /// Bytes of the request that the host has taken.
    pub written: usize,
    /// How it ended.
    pub end: End,
}

/// How an exchange ended.
#[derive(Clone, Debug)]
pub enum End {
    /// All replies came, and nothing else.
    Complete,
    /// The bytes that came are no reply, or are more than allowed.
    Malformed(Error),
    /// No reply came for so many milliseconds: until the deadline, or until the limit of
    /// silence.
    Timeout(u32),
    /// The connection was closed, or broke.
    Closed,
}

impl End {
    /// Why a request that only reads has no reply.
    pub fn lost(&self) -> Error {
        match self {
            End::Malformed(error) => error.clone(),
            End::Timeout(milliseconds) => {
                Error::Timeout(format!("no reply within {milliseconds} ms"))
            }
            End::Closed | End::Complete => Error::Unavailable(LOST.to_owned()),
        }
    }
}
