//! An exchange with the server: the result of sending a request.

use alloc::borrow::ToOwned;
use alloc::format;

use crate::error::{Error, LOST};
use crate::resp::Received;

/// The result of sending a request.
pub struct Exchange {
    /// The replies: all of them, or those that arrived before the end.
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
    /// All replies arrived, and nothing else.
    Complete,
    /// The received bytes are not a reply, or exceed the limit.
    Malformed(Error),
    /// The deadline, or the limit of silence, passed after this many milliseconds.
    Timeout(u32),
    /// The connection was closed, or broke.
    Closed,
}

impl End {
    /// Returns the error of a read that got no reply.
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
