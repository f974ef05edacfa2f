//! A message, and the JSON object it is in Redis.
//!
//! An element is what Python's `MemoryClient` writes: an object with the keys
//! `role`, `content`, `timestamp` and, if there is any, `metadata`, in that order.
//! An `id` comes last, if it has one.

use alloc::borrow::{Cow, ToOwned};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use chrono::{DateTime, Datelike, Timelike};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::chunk;
use crate::error::Error;

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
        let metadata = self.metadata.as_deref().map(object).transpose()?;
        // Some room for escapes as well.
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

impl Message {
    /// Reads an element; none if it is no message: not a JSON object, or without
    /// a role of `user` or `assistant`, or without a content string.
    ///
    /// What only Python's JSON knows is read as `wit/types.wit` says.
    pub fn decode(element: &[u8]) -> Option<Message> {
        let text = core::str::from_utf8(element).ok()?;
        let message = |text: &str, strings| match read(text, strings)? {
            Json::Object(message) => Some(message),
            _ => Some(None),
        };
        message(text, Strings::Parsed)
            .or_else(|| message(text, Strings::Raw))
            .or_else(|| message(&with_null_for_non_numbers(text)?, Strings::Raw))
            .flatten()
    }
}

/// UTC in the form of Python's `datetime.utcnow().isoformat()`: microseconds, and
/// no fraction when they are zero. The time is given since the Unix epoch.
pub fn timestamp(seconds: u64, nanoseconds: u32) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let time = DateTime::from_timestamp(seconds, nanoseconds)
        .unwrap_or(DateTime::UNIX_EPOCH)
        .naive_utc();
    let mut text = *b"0000-00-00T00:00:00.000000";
    // A year of five digits is beyond what is shown, and is none that a clock tells.
    put_digits(&mut text[0..4], time.year().unsigned_abs().into());
    put_digits(&mut text[5..7], time.month().into());
    put_digits(&mut text[8..10], time.day().into());
    put_digits(&mut text[11..13], time.hour().into());
    put_digits(&mut text[14..16], time.minute().into());
    put_digits(&mut text[17..19], time.second().into());
    // chrono says a leap second as nanoseconds beyond a whole second.
    let microseconds = time.nanosecond() / 1000 % 1_000_000;
    put_digits(&mut text[20..], microseconds.into());
    let length = if microseconds == 0 { 19 } else { text.len() };
    let text = str::from_utf8(&text[..length]).expect("a timestamp is ASCII");
    text.to_owned()
}

/// Puts the last digits of a number, as many as there is room for.
fn put_digits(text: &mut [u8], number: u64) {
    let mut rest = number;
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Bytes of an element beside content and metadata: keys, a timestamp and an id.
const ROOM_FOR_THE_REST: usize = 160;

/// What stands between the quotation marks of a JSON string.
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

/// The escape of a quotation mark, a backslash or a control character.
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

/// What serde_json reads, as far as it is told apart here.
enum Json<'a> {
    Object(Option<Message>),
    Text(Cow<'a, str>),
    Other,
}

impl<'a> Json<'a> {
    fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// How the strings in an object are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strings {
    /// By serde_json at once, which refuses lone surrogates.
    Parsed,
    /// As they stand at first.
    Raw,
}

/// The value that a text is, if it is one.
fn read(text: &str, strings: Strings) -> Option<Json<'_>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = strings.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok().map(|()| value)
}

impl<'de> DeserializeSeed<'de> for Strings {
    type Value = Json<'de>;

    // Every method of the visitor is there and any value is asked for, because
    // asked for a map or a string serde_json would bring along what writes numbers
    // into its error messages, 15 KB of the component.
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strings {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    /// The message that an object is, if it is one. Of a key that stands twice the
    /// last one counts, as in Python; but a role or a content that is no string makes
    /// it no message, wherever it stands.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let mut is_message = true;
        let mut role = None;
        let mut content = None;
        let mut timestamp = None;
        let mut metadata = None;
        let mut id = None;
        while let Some(key) = self.key(&mut map)? {
            match key.as_deref() {
                Some("role") => {
                    role = self.value(&mut map)?;
                    is_message &= role.is_some();
                }
                Some("content") => {
                    content = self.value(&mut map)?;
                    is_message &= content.is_some();
                }
                Some("timestamp") => timestamp = self.value(&mut map)?,
                Some("metadata") => {
                    let value: &RawValue = map.next_value()?;
                    metadata = is_object(value).then(|| value.get());
                }
                Some("id") => id = self.value(&mut map)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let role = [Role::User, Role::Assistant]
            .into_iter()
            .find(|known| role.as_deref() == Some(known.as_str()));
        let (true, Some(role), Some(content)) = (is_message, role, content) else {
            return Ok(Json::Object(None));
        };
        Ok(Json::Object(Some(Message {
            role,
            content: content.into_owned(),
            timestamp: timestamp.unwrap_or_default().into_owned(),
            metadata: metadata.map(str::to_owned),
            id: id.map(Cow::into_owned),
        })))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Json<'de>, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Json::Other)
    }
}

impl Strings {
    /// The next key, if there is one.
    fn key<'de, A: MapAccess<'de>>(
        self,
        map: &mut A,
    ) -> Result<Option<Option<Cow<'de, str>>>, A::Error> {
        Ok(match self {
            Strings::Parsed => map.next_key_seed(self)?.map(Json::text),
            Strings::Raw => map.next_key()?.map(text),
        })
    }

    /// The value behind a key, if it is a string.
    fn value<'de, A: MapAccess<'de>>(self, map: &mut A) -> Result<Option<Cow<'de, str>>, A::Error> {
        Ok(match self {
            Strings::Parsed => map.next_value_seed(self)?.text(),
            Strings::Raw => text(map.next_value()?),
        })
    }
}

/// What a JSON string says, lone surrogates as U+FFFD; none if the value is no
/// string.
fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let quoted = value.get();
    let text = quoted.strip_prefix('"')?.strip_suffix('"')?;
    if !text.contains('\\') {
        return Some(Cow::Borrowed(text));
    }
    let parsed = |quoted: &str| {
        let text = read(quoted, Strings::Parsed)?.text()?;
        Some(Cow::Owned(text.into_owned()))
    };
    parsed(quoted).or_else(|| parsed(&with_lone_surrogates_replaced(quoted)))
}

/// A JSON string with the escape of U+FFFD for each one of a lone surrogate, which
/// serde_json refuses.
fn with_lone_surrogates_replaced(quoted: &str) -> String {
    let mut replaced = String::with_capacity(quoted.len());
    let mut rest = quoted;
    while let Some(at) = rest.find('\\') {
        let (before, escapes) = rest.split_at(at);
        replaced += before;
        let first = utf_16_unit(escapes.as_bytes());
        let second = escapes.as_bytes().get(6..).and_then(utf_16_unit);
        let (escape, length) = match (first, second) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => (&escapes[..12], 12),
            (Some(0xD800..=0xDFFF), _) => ("\\ufffd", 6),
            _ => (&escapes[..2], 2),
        };
        replaced += escape;
        rest = &escapes[length..];
    }
    replaced + rest
}

/// The UTF-16 code unit of the escape that these bytes begin with, if that has one.
pub(crate) fn utf_16_unit(escape: &[u8]) -> Option<u16> {
    let [b'\\', b'u', digits @ ..] = escape else {
        return None;
    };
    digits.get(..4)?.iter().try_fold(0, |unit, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | digit as u16)
    })
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
