//! What the command prints: lines for people, or JSON.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::value::RawValue;
use session_memory_host::{History, Message};

/// Prints messages as lines for people.
pub fn print_messages(out: &mut impl Write, messages: &[Message]) -> io::Result<()> {
    for message in messages {
        // Stored text must not control the terminal.
        let content = printable(&message.content).replace('\n', "\n    ");
        let timestamp = printable(&message.timestamp);
        writeln!(out, "{timestamp} {}: {content}", message.role.as_str())?;
        if let Some(metadata) = &message.metadata {
            writeln!(out, "    {}", printable(&one_line(metadata)))?;
        }
    }
    Ok(())
}

/// Prints messages as JSON, one object a line.
pub fn print_messages_as_json(out: &mut impl Write, messages: &[Message]) -> io::Result<()> {
    messages
        .iter()
        .try_for_each(|message| print_json(out, &JsonMessage::from(message)))
}

/// Prints a history as lines for people.
pub fn print_history(out: &mut impl Write, history: &History) -> io::Result<()> {
    print_messages(out, &history.messages)?;
    write!(
        out,
        "{} of {} messages",
        history.messages.len(),
        history.total
    )?;
    if history.skipped > 0 {
        write!(out, ", {} unreadable", history.skipped)?;
    }
    match history.ttl {
        Some(ttl) => writeln!(out, ", expires in {} s", ttl.as_secs()),
        None if history.total > 0 => writeln!(out, ", never expires"),
        None => writeln!(out),
    }
}

/// Prints a history as one JSON object.
pub fn print_history_as_json(out: &mut impl Write, history: &History) -> io::Result<()> {
    print_json(out, &JsonHistory::from(history))
}

fn print_json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

/// Replaces control characters.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' && c != '\t' {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// Puts JSON on one line: line ends occur only between tokens, so spaces can replace them.
fn one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

#[derive(Serialize)]
struct JsonMessage<'a> {
    role: &'a str,
    content: &'a str,
    timestamp: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

impl<'a> From<&'a Message> for JsonMessage<'a> {
    fn from(message: &'a Message) -> JsonMessage<'a> {
        JsonMessage {
            role: message.role.as_str(),
            content: &message.content,
            timestamp: &message.timestamp,
            // The component returns JSON objects only. Anything else is left out.
            metadata: message
                .metadata
                .as_deref()
                .and_then(|metadata| RawValue::from_string(one_line(metadata)).ok()),
            id: message.id.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct JsonHistory<'a> {
    messages: Vec<JsonMessage<'a>>,
    total: u32,
    skipped: u32,
    ttl_seconds: Option<u64>,
}

impl<'a> From<&'a History> for JsonHistory<'a> {
    fn from(history: &'a History) -> JsonHistory<'a> {
        JsonHistory {
            messages: history.messages.iter().map(JsonMessage::from).collect(),
            total: history.total,
            skipped: history.skipped,
            ttl_seconds: history.ttl.map(|ttl| ttl.as_secs()),
        }
    }
}
