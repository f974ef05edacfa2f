//! Reads and writes list elements as a Rust program without Session Memory would, with a
//! struct and `serde_json`. `bench/fred` compiles this file too.

use std::hint::black_box;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDateTime};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::burst::Result;

/// Who wrote a message.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredRole {
    /// The person who talks to the agent.
    User,
    /// The agent.
    Assistant,
}

/// A message to write.
#[derive(Serialize)]
struct OutgoingMessage<'a> {
    role: StoredRole,
    content: &'a str,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
}

/// A message that was read. Metadata stays text, as with Session Memory. That costs less
/// than a tree of values.
#[derive(Deserialize)]
#[expect(dead_code, reason = "an application would read the fields")]
pub struct StoredMessage {
    role: StoredRole,
    content: String,
    timestamp: String,
    metadata: Option<Box<RawValue>>,
    id: Option<String>,
}

/// Encodes a new message of the user as an element.
///
/// # Errors
///
/// Fails when `serde_json` cannot encode the message, which is not expected.
pub fn encode(content: &str) -> Result<String> {
    Ok(serde_json::to_string(&OutgoingMessage {
        role: StoredRole::User,
        content,
        // The format that chrono uses in JSON.
        timestamp: format!("{:?}", utc_now()),
        metadata: None,
    })?)
}

/// Decodes elements into messages.
///
/// # Errors
///
/// Fails when an element is not a message.
pub fn decode(elements: &[String]) -> Result<Vec<StoredMessage>> {
    let messages = elements
        .iter()
        .map(|element| serde_json::from_str(element))
        .collect::<serde_json::Result<_>>()?;
    // Otherwise the optimizer could omit fields that nobody reads.
    Ok(black_box(messages))
}

fn utc_now() -> NaiveDateTime {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = i64::try_from(now.as_secs()).unwrap_or_default();
    DateTime::from_timestamp(seconds, now.subsec_nanos())
        .unwrap_or_default()
        .naive_utc()
}
