//! Encodes a new message as the JSON element that is stored.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::value::RawValue;

use super::chunk;
use super::decode::is_object;
use super::types::NewMessage;
use crate::error::Error;

impl NewMessage {
    /// Returns the element for this message, with a timestamp and, if given, an id.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] if content and metadata together have more than
    /// `max_bytes` bytes, [`Error::InvalidArgument`] if the metadata is no JSON object.
    pub fn encode(
        &self,
        timestamp: &str,
        id: Option<&str>,
        max_bytes: u32,
    ) -> Result<Vec<u8>, Error> {
        let bytes = self.content.len() + self.metadata.as_ref().map_or(0, String::len);
        if bytes as u64 > u64::from(max_bytes) {
            return Err(Error::LimitExceeded(format!(
                "the message has {bytes} bytes of content and metadata, \
                 allowed are {max_bytes} (max-message-bytes)"
            )));
        }
        let metadata = self.metadata.as_deref().map(object).transpose()?;
        // With some room for escapes.
        let mut element = Vec::with_capacity(bytes + bytes / 16 + ROOM_FOR_THE_REST);
        element.extend_from_slice(b"{\"role\":\"");
        element.extend_from_slice(self.role.as_str().as_bytes());
        element.extend_from_slice(b"\",\"content\":\"");
        push_escaped(&mut element, &self.content);
        element.extend_from_slice(b"\",\"timestamp\":\"");
        push_escaped(&mut element, timestamp);
        element.push(b'"');
        if let Some(metadata) = metadata {
            element.extend_from_slice(b",\"metadata\":");
            element.extend_from_slice(metadata.get().as_bytes());
        }
        if let Some(id) = id {
            element.extend_from_slice(b",\"id\":\"");
            push_escaped(&mut element, id);
            element.push(b'"');
        }
        element.push(b'}');
        Ok(element)
    }
}

/// Bytes of the other parts of an element: keys, timestamp and id.
const ROOM_FOR_THE_REST: usize = 160;

/// Pushes a text as a JSON string, without quotation marks.
#[cfg_attr(target_family = "wasm", target_feature(enable = "simd128"))]
fn push_escaped(json: &mut Vec<u8>, text: &str) {
    let text = text.as_bytes();
    let mut pushed = 0;
    let mut escape = |at: usize| {
        json.extend_from_slice(&text[pushed..at]);
        push_escape(json, text[at]);
        pushed = at + 1;
    };
    let (chunks, rest) = text.as_chunks();
    for (number, chunk) in chunks.iter().enumerate() {
        let mut ends = chunk::kinds(chunk).ends;
        while ends != 0 {
            escape(number * chunk::SIZE + ends.trailing_zeros() as usize);
            ends &= ends - 1;
        }
    }
    for (at, byte) in rest.iter().enumerate() {
        if chunk::ends(*byte) {
            escape(text.len() - rest.len() + at);
        }
    }
    json.extend_from_slice(&text[pushed..]);
}

/// Pushes the escape of a quotation mark, a backslash or a control character.
fn push_escape(json: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        8 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        12 => b'f',
        b'\r' => b'r',
        b'"' | b'\\' => byte,
        _ => {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            json.extend_from_slice(b"\\u00");
            json.push(DIGITS[usize::from(byte >> 4)]);
            json.push(DIGITS[usize::from(byte & 15)]);
            return;
        }
    };
    json.extend_from_slice(&[b'\\', short]);
}

fn object(metadata: &str) -> Result<&RawValue, Error> {
    match serde_json::from_str::<&RawValue>(metadata) {
        Ok(value) if is_object(value) => Ok(value),
        Ok(_) => Err(Error::InvalidArgument(
            "the metadata is not a JSON object".to_owned(),
        )),
        // Shows the position, and nothing of the text.
        Err(error) => Err(Error::InvalidArgument(format!(
            "the metadata is not a JSON object: bad JSON at line {} column {}",
            error.line(),
            error.column()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, Role};

    fn new(role: Role, content: &str, metadata: Option<&str>) -> NewMessage {
        NewMessage {
            role,
            content: content.to_owned(),
            metadata: metadata.map(str::to_owned),
        }
    }

    fn encode(message: &NewMessage) -> String {
        let element = message
            .encode("2024-01-15T10:30:00", None, 1 << 20)
            .unwrap();
        String::from_utf8(element).unwrap()
    }

    #[test]
    fn an_element_has_the_keys_of_the_python_client_in_their_order() {
        for (message, expected) in [
            (
                new(Role::User, "What is RAG?", None),
                r#"{"role":"user","content":"What is RAG?","timestamp":"2024-01-15T10:30:00"}"#,
            ),
            (
                new(
                    Role::Assistant,
                    "",
                    Some(" {\"b\": 1, \"a\": [1e400, 123456789012345678901234567890]}\n"),
                ),
                r#"{"role":"assistant","content":"","timestamp":"2024-01-15T10:30:00","metadata":{"b": 1, "a": [1e400, 123456789012345678901234567890]}}"#,
            ),
            (
                new(Role::User, "Zoë \u{1F600} / \"q\" \\ \n\u{1}\u{7f}", None),
                "{\"role\":\"user\",\"content\":\"Zoë \u{1F600} / \\\"q\\\" \\\\ \\n\\u0001\u{7f}\",\"timestamp\":\"2024-01-15T10:30:00\"}",
            ),
        ] {
            assert_eq!(encode(&message), expected);
        }
    }

    #[test]
    fn an_id_comes_last() {
        let message = new(Role::User, "", Some("{}"));
        let element = message.encode("t", Some("a-1"), 10).unwrap();
        assert_eq!(
            String::from_utf8(element.clone()).unwrap(),
            r#"{"role":"user","content":"","timestamp":"t","metadata":{},"id":"a-1"}"#
        );
        assert_eq!(
            Message::decode(&element).unwrap().id.as_deref(),
            Some("a-1")
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        for content in [
            "",
            "plain",
            "Zoë \u{1F600}",
            "\0\u{1f}\u{7f}\"\\/",
            "\u{FFFD}\u{FFFF}\u{10FFFF}",
        ] {
            let element = encode(&new(Role::Assistant, content, Some(r#"{"k":"\ud800"}"#)));
            let message = Message::decode(element.as_bytes()).unwrap();
            assert_eq!(message.content, content);
            assert_eq!(message.role, Role::Assistant);
            assert_eq!(message.timestamp, "2024-01-15T10:30:00");
            assert_eq!(message.metadata.as_deref(), Some(r#"{"k":"\ud800"}"#));
            assert_eq!(message.id, None);
        }
    }

    #[test]
    fn metadata_that_is_no_object_is_refused() {
        for (metadata, expected) in [
            ("[]", "the metadata is not a JSON object"),
            ("null", "the metadata is not a JSON object"),
            ("\"{}\"", "the metadata is not a JSON object"),
            (
                "",
                "the metadata is not a JSON object: bad JSON at line 1 column 0",
            ),
            (
                "{\"a\":}",
                "the metadata is not a JSON object: bad JSON at line 1 column 6",
            ),
            (
                "{} {}",
                "the metadata is not a JSON object: bad JSON at line 1 column 4",
            ),
            (
                "{\"a\":NaN}",
                "the metadata is not a JSON object: bad JSON at line 1 column 6",
            ),
        ] {
            let message = new(Role::User, "", Some(metadata));
            assert_eq!(
                message.encode("", None, 100),
                Err(Error::InvalidArgument(expected.to_owned())),
                "{metadata}"
            );
        }
    }

    #[test]
    fn content_and_metadata_count_towards_the_limit() {
        let message = new(Role::User, "é234", Some("{  }"));
        assert!(message.encode("", None, 9).is_ok());
        assert_eq!(
            message.encode("", None, 8),
            Err(Error::LimitExceeded(
                "the message has 9 bytes of content and metadata, allowed are 8 (max-message-bytes)"
                    .to_owned()
            ))
        );
    }

    #[test]
    fn deep_metadata_is_read() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let element = encode(&new(Role::User, "", Some(&deep)));
        assert_eq!(
            Message::decode(element.as_bytes()).unwrap().metadata,
            Some(deep)
        );
    }
}
