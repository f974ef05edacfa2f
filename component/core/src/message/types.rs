//! Messages as callers see them.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Role {
    /// The person who talks to the agent.
    User,
    /// The agent.
    Assistant,
}

impl Role {
    /// Returns the role as it is stored: `user` or `assistant`.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = ParseRoleError;

    /// Parses what [`Role::as_str`] returns. Nothing else is a role, whatever its case or
    /// the white space around it.
    fn from_str(role: &str) -> Result<Role, ParseRoleError> {
        match role {
            "user" => Ok(Role::User),
            "assistant" => Ok(Role::Assistant),
            _ => Err(ParseRoleError(())),
        }
    }
}

/// A string is not a [`Role`]. The error does not show the string, because it may be the
/// content of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseRoleError(());

impl fmt::Display for ParseRoleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the string is no role, allowed is user or assistant")
    }
}

impl core::error::Error for ParseRoleError {}

/// A message to be added. Debug output shows neither its content nor its metadata.
///
/// ```
/// # use session_memory_core::message::NewMessage;
/// let question = NewMessage::user("What is RAG?");
/// let reply = NewMessage::assistant("RAG is...").with_metadata(r#"{"tokens": 120}"#);
/// assert_eq!(question.metadata, None);
/// assert_eq!(reply.metadata.as_deref(), Some(r#"{"tokens": 120}"#));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewMessage {
    /// Who wrote it.
    pub role: Role,
    /// The text; may be empty.
    pub content: String,
    /// The text of a JSON object.
    pub metadata: Option<String>,
}

impl NewMessage {
    /// Creates a message without metadata.
    pub fn new(role: Role, content: impl Into<String>) -> NewMessage {
        NewMessage {
            role,
            content: content.into(),
            metadata: None,
        }
    }

    /// Creates a message of the user, without metadata.
    pub fn user(content: impl Into<String>) -> NewMessage {
        NewMessage::new(Role::User, content)
    }

    /// Creates a message of the assistant, without metadata.
    pub fn assistant(content: impl Into<String>) -> NewMessage {
        NewMessage::new(Role::Assistant, content)
    }

    /// Sets the metadata: the text of a JSON object, which is validated when the message
    /// is added.
    #[must_use]
    pub fn with_metadata(mut self, metadata: impl Into<String>) -> NewMessage {
        self.metadata = Some(metadata.into());
        self
    }
}

/// A message that was read from a session. `message` in `wit/types.wit` says which parts
/// are returned as they were stored. Debug output shows neither its content nor its
/// metadata.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Who wrote it.
    pub role: Role,
    /// The text; may be empty.
    pub content: String,
    /// When it was added, as stored: UTC, ISO 8601 without an offset. Empty if the stored
    /// message has none.
    pub timestamp: String,
    /// The text of a JSON object.
    pub metadata: Option<String>,
    /// The unique id, if the stored message has one.
    pub id: Option<String>,
}

impl Message {
    /// Creates a message without metadata and without an id.
    pub fn new(role: Role, content: impl Into<String>, timestamp: impl Into<String>) -> Message {
        Message {
            role,
            content: content.into(),
            timestamp: timestamp.into(),
            metadata: None,
            id: None,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_role_is_parsed_from_what_it_is_displayed_as() {
        for role in [Role::User, Role::Assistant] {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert_eq!(
            format!("{:>5}|{:9}|", Role::User, Role::Assistant),
            " user|assistant|"
        );
        for other in ["", "User", " user", "system"] {
            let error = other.parse::<Role>().unwrap_err();
            let expected = "the string is no role, allowed is user or assistant";
            assert_eq!(error.to_string(), expected, "{other:?}");
        }
    }

    #[test]
    fn debug_output_shows_no_content() {
        let new = NewMessage::user("secret words").with_metadata(r#"{"a":"secret words"}"#);
        assert_eq!(format!("{new:?}"), "NewMessage { role: User, .. }");
        let read = Message::new(Role::User, "secret words", "2024-01-15T10:30:00");
        assert!(!format!("{read:?}").contains("secret"));
    }
}
