//! Elements as a Rust program without this project would write and read them: a
//! struct, through `serde_json`. The program for fred compiles this file too.

use std::hint::black_box;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDateTime};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::slot::Result;

/// Who wrote a message.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The person who talks to the agent.
    User,
    /// The agent.
    Assistant,
}

/// What is written.
#[derive(Serialize)]
struct NewMessage<'a> {
    role: Role,
    content: &'a str,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
}

/// What is read. Metadata stays text, as it does with Session Memory, which costs
/// less than a tree of values.
#[derive(Deserialize)]
#[expect(dead_code, reason = "a program would look at them")]
pub struct Message {
    role: Role,
    content: String,
    timestamp: String,
    metadata: Option<Box<RawValue>>,
    id: Option<String>,
}

/// The element of a message of the user's that is written now.
///
/// # Errors
///
/// None that is expected.
pub fn encode(content: &str) -> Result<String> {
    Ok(serde_json::to_string(&NewMessage {
        role: Role::User,
        content,
        // The form that chrono has for JSON.
        timestamp: format!("{:?}", utc_now()),
        metadata: None,
    })?)
}

/// Reads elements to messages.
///
/// # Errors
///
/// When one is no message.
pub fn decode(elements: &[String]) -> Result<Vec<Message>> {
    let messages = elements
        .iter()
        .map(|element| serde_json::from_str(element))
        .collect::<serde_json::Result<_>>()?;
    // The optimizer is to leave nothing out.
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
