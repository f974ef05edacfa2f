//! A message, and the JSON object it is in Redis.
//!
//! An element is what Python's `MemoryClient` writes: an object with the keys
//! `role`, `content`, `timestamp` and, if there is any, `metadata`, in that order.
//! An `id` comes last, if it has one.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use chrono::{DateTime, Datelike, Timelike};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::Error;

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl NewMessage {
    /// The element for this message, written at `timestamp`, with an id if it is
    /// to have one.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] if content and metadata have more than
    /// `max_bytes` bytes together, [`Error::InvalidArgument`] if the metadata is
    /// no JSON object.
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
        let element = Element {
            role: self.role.as_str(),
            content: &self.content,
            timestamp,
            metadata: self.metadata.as_deref().map(object).transpose()?,
            id,
        };
        serde_json::to_vec(&element).map_err(|error| Error::Other(error.to_string()))
    }
}

impl Message {
    /// Reads an element; none if it is no message: not a JSON object, or without
    /// a role of `user` or `assistant`, or without a content string.
    ///
    /// What only Python's JSON knows is read as `wit/types.wit` says.
    pub fn decode(element: &[u8]) -> Option<Message> {
        let text = core::str::from_utf8(element).ok()?;
        serde_json::from_str(text)
            .ok()
            .or_else(|| serde_json::from_str(&with_null_for_non_numbers(text)?).ok())
    }
}

/// UTC in the form of Python's `datetime.utcnow().isoformat()`: microseconds, and
/// no fraction when they are zero. The time is given since the Unix epoch.
pub fn timestamp(seconds: u64, nanoseconds: u32) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let time = DateTime::from_timestamp(seconds, nanoseconds).unwrap_or(DateTime::UNIX_EPOCH);
    let mut text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
    // chrono says a leap second as nanoseconds beyond a whole second.
    let microseconds = time.nanosecond() / 1000 % 1_000_000;
    if microseconds != 0 {
        text += &format!(".{microseconds:06}");
    }
    text
}

#[derive(serde::Serialize)]
struct Element<'a> {
    role: &'a str,
    content: &'a str,
    timestamp: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

fn object(metadata: &str) -> Result<&RawValue, Error> {
    match serde_json::from_str::<&RawValue>(metadata) {
        Ok(value) if is_object(value) => Ok(value),
        Ok(_) => Err(Error::InvalidArgument(
            "the metadata is not a JSON object".to_owned(),
        )),
        // The position is shown, and nothing of the text.
        Err(error) => Err(Error::InvalidArgument(format!(
            "the metadata is not a JSON object: bad JSON at line {} column {}",
            error.line(),
            error.column()
        ))),
    }
}

fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Message, D::Error> {
        deserializer.deserialize_map(MessageVisitor)
    }
}

struct MessageVisitor;

impl<'de> Visitor<'de> for MessageVisitor {
    type Value = Message;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    // Of a key that stands twice the last one counts, as in Python; but a role or
    // a content that is no string makes it no message, wherever it stands.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Message, A::Error> {
        use serde::de::Error;

        let mut role = None;
        let mut content = None;
        let mut timestamp = None;
        let mut metadata = None;
        let mut id = None;
        while let Some(key) = map.next_key()? {
            match key {
                Key::Role => role = Some(map.next_value::<Text>()?),
                Key::Content => content = Some(map.next_value::<Text>()?),
                Key::Timestamp => timestamp = string(map.next_value()?),
                Key::Metadata => {
                    let value: &RawValue = map.next_value()?;
                    metadata = is_object(value).then(|| value.get().to_owned());
                }
                Key::Id => id = string(map.next_value()?),
                Key::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let role = role.ok_or_else(|| A::Error::missing_field("role"))?;
        let role = [Role::User, Role::Assistant]
            .into_iter()
            .find(|known| known.as_str() == role.0)
            .ok_or_else(|| A::Error::custom("unknown role"))?;
        let Text(content) = content.ok_or_else(|| A::Error::missing_field("content"))?;
        Ok(Message {
            role,
            content,
            timestamp: timestamp.unwrap_or_default(),
            metadata,
            id,
        })
    }
}

/// The value of a key that may hold anything, if it is a string.
fn string(value: &RawValue) -> Option<String> {
    let Text(text) = serde_json::from_str(value.get()).ok()?;
    Some(text)
}

enum Key {
    Role,
    Content,
    Timestamp,
    Metadata,
    Id,
    Unknown,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_bytes(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Key, E> {
        Ok(match key {
            b"role" => Key::Role,
            b"content" => Key::Content,
            b"timestamp" => Key::Timestamp,
            b"metadata" => Key::Metadata,
            b"id" => Key::Id,
            _ => Key::Unknown,
        })
    }
}

/// A JSON string in which lone surrogates have become U+FFFD. Asked for bytes,
/// serde_json hands them over as the three bytes that UTF-8 would give them if it
/// allowed them; asked for a string, it fails.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        deserializer.deserialize_bytes(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Text, E> {
        Ok(Text(match core::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => replace_surrogates(bytes),
        }))
    }
}

fn replace_surrogates(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text += chunk.valid();
        // The element is UTF-8, so what is invalid here is a surrogate: ED, then
        // A0 to BF, then 80 to BF. A chunk ends after each of its bytes, and only
        // the first of them is ED.
        if chunk.invalid().first() == Some(&0xED) {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    text
}

/// The text with `null` for each `NaN`, `Infinity` and `-Infinity` outside of
/// strings, which Python's `json.dumps` writes and JSON does not have; none if
/// there is none of them.
fn with_null_for_non_numbers(text: &str) -> Option<String> {
    let mut replaced = String::new();
    let mut copied = 0;
    let mut at = 0;
    let bytes = text.as_bytes();
    while at < bytes.len() {
        if bytes[at] == b'"' {
            at = end_of_string(bytes, at + 1);
            continue;
        }
        let word = NON_NUMBERS
            .iter()
            .find(|word| bytes[at..].starts_with(word.as_bytes()));
        let Some(word) = word else {
            at += 1;
            continue;
        };
        replaced += &text[copied..at];
        replaced += "null";
        at += word.len();
        copied = at;
    }
    (copied > 0).then(|| replaced + &text[copied..])
}

/// The position after the quotation mark that ends the string whose first
/// character is at `at`.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

const NON_NUMBERS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

#[cfg(test)]
mod tests {
    use super::*;

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
    fn elements_as_python_writes_them_are_read() {
        let read = |element: &str| Message::decode(element.as_bytes()).unwrap();

        let message = read(
            r#"{"role": "user", "content": "Zo\u00eb \ud83d\ude00", "timestamp": "2024-01-15T10:30:00.250000", "metadata": {"n": 123456789012345678901234567890, "z": 1, "a": {"b": [1.50]}}}"#,
        );
        assert_eq!(message.content, "Zoë \u{1F600}");
        assert_eq!(message.timestamp, "2024-01-15T10:30:00.250000");
        assert_eq!(
            message.metadata.as_deref(),
            Some(r#"{"n": 123456789012345678901234567890, "z": 1, "a": {"b": [1.50]}}"#)
        );

        let message = read(
            r#"{"role": "assistant", "content": "NaN \"Infinity\\", "timestamp": "t", "metadata": {"a": NaN, "b": [-Infinity, Infinity], "c": "NaN"}}"#,
        );
        assert_eq!(message.content, "NaN \"Infinity\\");
        assert_eq!(
            message.metadata.as_deref(),
            Some(r#"{"a": null, "b": [null, null], "c": "NaN"}"#)
        );

        let message = read(
            r#"{"role": "user", "content": "a\ud800b\udfff\ud800", "timestamp": "\udc00", "metadata": {"k": "\ud800"}}"#,
        );
        assert_eq!(message.content, "a\u{FFFD}b\u{FFFD}\u{FFFD}");
        assert_eq!(message.timestamp, "\u{FFFD}");
        assert_eq!(message.metadata.as_deref(), Some(r#"{"k": "\ud800"}"#));
    }

    #[test]
    fn reading_is_lenient_where_nothing_is_lost() {
        for (element, expected) in [
            (
                r#"{"content":"c","role":"user","id":"i","other":[{}]}"#,
                ("", None, Some("i")),
            ),
            (
                r#"{"role":"user","content":"c","timestamp":5,"id":7,"metadata":null}"#,
                ("", None, None),
            ),
            (
                r#"{"role":"user","content":"c","metadata":[1]}"#,
                ("", None, None),
            ),
            (
                r#"{"\ud800":1,"role":"assistant","r\u006fle":"user","content":"x","content":"c"}"#,
                ("", None, None),
            ),
            (
                " {\"role\":\"user\",\"content\":\"c\",\"metadata\": {} } ",
                ("", Some("{}"), None),
            ),
        ] {
            let message = Message::decode(element.as_bytes()).unwrap();
            assert_eq!(message.role, Role::User);
            assert_eq!(message.content, "c");
            let rest = (
                message.timestamp.as_str(),
                message.metadata.as_deref(),
                message.id.as_deref(),
            );
            assert_eq!(rest, expected, "{element}");
        }
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

    #[test]
    fn other_entries_are_no_messages() {
        for element in [
            &b""[..],
            b"plain text",
            b"null",
            b"[]",
            b"{}",
            b"NaN",
            br#"{"role":"user"}"#,
            br#"{"content":"c"}"#,
            br#"{"role":"system","content":"c"}"#,
            br#"{"role":"User","content":"c"}"#,
            br#"{"role":1,"content":"c"}"#,
            br#"{"role":"user","content":null}"#,
            br#"{"role":"user","content":1,"content":"c"}"#,
            br#"{"role":"user","content":["c"]}"#,
            br#"{"role":"user","content":"c"} x"#,
            br#"{"role":"user","content":"c""#,
            b"{\"role\":\"user\",\"content\":\"\xff\"}",
        ] {
            assert!(
                Message::decode(element).is_none(),
                "{}",
                String::from_utf8_lossy(element)
            );
        }
    }

    #[test]
    fn timestamps_are_those_of_python() {
        for (seconds, nanoseconds, expected) in [
            (0, 0, "1970-01-01T00:00:00"),
            (1_705_314_600, 0, "2024-01-15T10:30:00"),
            (1_705_314_600, 999, "2024-01-15T10:30:00"),
            (1_705_314_600, 250_000_000, "2024-01-15T10:30:00.250000"),
            (1_705_314_600, 1_999, "2024-01-15T10:30:00.000001"),
            (u64::MAX, 0, "1970-01-01T00:00:00"),
        ] {
            assert_eq!(timestamp(seconds, nanoseconds), expected);
        }
    }
}
