//! Messages as callers see them.

use alloc::string::String;
use core::fmt;

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// The person who talks to the agent.
    User,
    /// The agent.
    Assistant,
}

impl Role {
    /// The word for it in an element.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// A message to be added. Debug output does not show what it says.
#[derive(Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Who wrote it.
    pub role: Role,
    /// The text.
    pub content: String,
    /// The text of a JSON object.
    pub metadata: Option<String>,
}

/// A message that was read from an element; `message` in `wit/types.wit` says
/// what of it comes back as it was stored. Debug output does not show what it
/// says.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Who wrote it.
    pub role: Role,
    /// The text.
    pub content: String,
    /// As stored; empty if there is none.
    pub timestamp: String,
    /// The text of a JSON object.
    pub metadata: Option<String>,
    /// The unique id.
    pub id: Option<String>,
}

impl fmt::Debug for NewMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewMessage")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("role", &self.role)
            .field("timestamp", &self.timestamp)
            .finish_non_exhaustive()
    }
}
