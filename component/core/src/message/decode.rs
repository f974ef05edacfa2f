//! Decodes a stored JSON element, whatever form the Python client may have given it.

use alloc::borrow::{Cow, ToOwned};
use alloc::string::String;
use core::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::types::{Message, Role};

impl Message {
    /// Reads an element. Returns none if it is not a message: not a JSON object, or without
    /// a role `user` or `assistant`, or without a string as content.
    ///
    /// `wit/types.wit` describes how forms that only Python's JSON has are read.
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

/// A JSON value, as far as its type matters here.
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
    /// Parsed at once. serde_json refuses lone surrogates.
    Parsed,
    /// Kept as text first.
    Raw,
}

/// Parses a text as one value.
fn read(text: &str, strings: Strings) -> Option<Json<'_>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = strings.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok().map(|()| value)
}

impl<'de> DeserializeSeed<'de> for Strings {
    type Value = Json<'de>;

    // Accepts any value, with every method of the visitor. If only maps or strings were
    // accepted, serde_json would bring the code that writes numbers into its error
    // messages: 15 KB of the component.
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strings {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    /// Reads an object as a message, if it is one. If a key occurs twice, the last one
    /// counts, as in Python. But an object with a role or a content that is not a string is
    /// not a message, even if a string follows.
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
    /// Reads the next key, if there is one.
    fn key<'de, A: MapAccess<'de>>(
        self,
        map: &mut A,
    ) -> Result<Option<Option<Cow<'de, str>>>, A::Error> {
        Ok(match self {
            Strings::Parsed => map.next_key_seed(self)?.map(Json::text),
            Strings::Raw => map.next_key()?.map(text),
        })
    }

    /// Reads the value behind a key, and returns it if it is a string.
    fn value<'de, A: MapAccess<'de>>(self, map: &mut A) -> Result<Option<Cow<'de, str>>, A::Error> {
        Ok(match self {
            Strings::Parsed => map.next_value_seed(self)?.text(),
            Strings::Raw => text(map.next_value()?),
        })
    }
}

/// The text of a JSON string, with U+FFFD for lone surrogates. None if the value is no
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

/// Replaces the escape of each lone surrogate, which serde_json refuses, by that of
/// U+FFFD.
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

/// The UTF-16 code unit of the `\u` escape at the beginning of these bytes.
pub fn utf_16_unit(escape: &[u8]) -> Option<u16> {
    let [b'\\', b'u', digits @ ..] = escape else {
        return None;
    };
    digits.get(..4)?.iter().try_fold(0, |unit, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | digit as u16)
    })
}

/// Whether a value is a JSON object.
pub fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

/// Replaces `NaN`, `Infinity` and `-Infinity` outside of strings by `null`. Python's
/// `json.dumps` writes them, and JSON does not have them. Returns none if the text has none
/// of these.
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

/// The position behind the closing quotation mark of the string that begins at `at`.
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
}
