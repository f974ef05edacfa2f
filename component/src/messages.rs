//! Messages where they lie: elements are read in the bytes of the reply that they
//! came in, and their strings are unescaped in place. Nothing of them is copied.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Ref, RefCell};
use core::fmt;
use core::mem;
use core::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::chunk;
use crate::message::{Message, Role, utf_16_unit};

/// The bytes of replies, shared with the messages that are read in them.
#[derive(Clone, Default)]
pub struct Text(Rc<RefCell<Vec<u8>>>);

impl Text {
    /// Of these bytes.
    pub fn new(bytes: Vec<u8>) -> Text {
        Text(Rc::new(RefCell::new(bytes)))
    }

    /// How many bytes it has.
    pub fn size(&self) -> usize {
        self.0.borrow().len()
    }

    /// The bytes in this range.
    pub fn bytes(&self, range: Range<usize>) -> Ref<'_, [u8]> {
        Ref::map(self.0.borrow(), |bytes| &bytes[range])
    }
}

/// Messages, oldest first, as spans of the texts that they were read in.
#[derive(Clone, Default)]
pub struct Messages {
    /// The texts, each with how many of the messages lie in it.
    texts: Vec<(Text, usize)>,
    parts: Vec<Parts>,
}

impl Messages {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The messages, copied out of their texts.
    pub fn to_vec(&self) -> Vec<Message> {
        let mut messages = Vec::with_capacity(self.len());
        let mut parts = self.parts.iter();
        for (text, count) in &self.texts {
            let bytes = text.0.borrow();
            let copied = |span: Span| String::from_utf8_lossy(&bytes[span.range()]).into_owned();
            messages.extend(parts.by_ref().take(*count).map(|parts| Message {
                role: parts.role,
                content: copied(parts.content),
                timestamp: copied(parts.timestamp),
                metadata: parts.metadata.get().map(copied),
                id: parts.id.get().map(copied),
            }));
        }
        messages
    }

    /// The parts of the messages, with the address of every span in place of its
    /// position. This is for once.
    pub fn addressed(&mut self) -> &[Parts] {
        let mut parts = self.parts.iter_mut();
        for (text, count) in &self.texts {
            // They stay there, since no more elements are read.
            let text = text.0.borrow().as_ptr().expose_provenance();
            for parts in parts.by_ref().take(*count) {
                parts.content.start += text;
                parts.timestamp.start += text;
                if let Maybe::Some(metadata) = &mut parts.metadata {
                    metadata.start += text;
                }
                if let Maybe::Some(id) = &mut parts.id {
                    id.start += text;
                }
            }
        }
        &self.parts
    }
}

/// Messages that are being read, the newest one first.
#[derive(Default)]
pub struct Newest {
    messages: Messages,
    skipped: u32,
}

impl Newest {
    /// Reads elements that are older than those before: each lies in a range of `text`,
    /// the oldest one in the first. It ends with the message that makes the number of
    /// all `limit`. An element is read once: that it was read is seen in the text.
    pub fn read(&mut self, text: &Text, elements: &[Range<usize>], limit: Option<u32>) {
        let limit = limit.map_or(usize::MAX, |limit| limit as usize);
        let parts = &mut self.messages.parts;
        let before = parts.len();
        parts.reserve(elements.len().min(limit - before));
        let mut bytes = text.0.borrow_mut();
        let mut escapes = Vec::new();
        for element in elements.iter().rev() {
            if parts.len() == limit {
                break;
            }
            match Parts::read(&mut bytes, element.clone(), &mut escapes) {
                Some(message) => parts.push(message),
                None => self.skipped += 1,
            }
        }
        let read = parts.len() - before;
        self.messages.texts.push((text.clone(), read));
    }

    /// How many messages were read.
    pub fn count(&self) -> usize {
        self.messages.len()
    }

    /// The messages, and the number of elements that were passed over.
    pub fn finish(self) -> (Messages, u32) {
        let Newest {
            mut messages,
            skipped,
        } = self;
        messages.texts.reverse();
        messages.parts.reverse();
        (messages, skipped)
    }
}

impl PartialEq for Messages {
    fn eq(&self, other: &Messages) -> bool {
        self.to_vec() == other.to_vec()
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_vec().fmt(f)
    }
}

/// Where the parts of a message are. On the target of the component it lies in
/// memory as the Canonical ABI has a `message` of `wit/types.wit`, once its spans
/// are [addressed](Messages::addressed).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Parts {
    role: Role,
    content: Span,
    timestamp: Span,
    metadata: Maybe<Span>,
    id: Maybe<Span>,
}

/// A part of a text.
#[derive(Clone, Copy)]
#[repr(C)]
struct Span {
    start: usize,
    length: usize,
}

/// An `Option` in the layout that the Canonical ABI gives to it.
#[derive(Clone, Copy)]
#[repr(C, u8)]
pub enum Maybe<T> {
    /// As [`Option::None`].
    None,
    /// As [`Option::Some`].
    Some(T),
}

impl Span {
    const EMPTY: Span = Span {
        start: 0,
        length: 0,
    };

    fn range(self) -> Range<usize> {
        self.start..self.start + self.length
    }

    /// That of a text behind the bytes.
    fn append(bytes: &mut Vec<u8>, text: &str) -> Span {
        let start = bytes.len();
        bytes.extend_from_slice(text.as_bytes());
        Span {
            start,
            length: text.len(),
        }
    }
}

impl<T> Maybe<T> {
    /// The option that it is.
    pub fn get(self) -> Option<T> {
        match self {
            Maybe::None => None,
            Maybe::Some(value) => Some(value),
        }
    }
}

impl<T> From<Option<T>> for Maybe<T> {
    fn from(value: Option<T>) -> Maybe<T> {
        value.map_or(Maybe::None, Maybe::Some)
    }
}

impl Parts {
    /// Reads the element in this range; none if it is no message.
    fn read(bytes: &mut Vec<u8>, element: Range<usize>, escapes: &mut Vec<usize>) -> Option<Parts> {
        Parts::read_in_place(&mut bytes[..element.end], element.start, escapes)
            .or_else(|| Some(Parts::append(bytes, &Message::decode(&bytes[element])?)))
    }

    /// Reads an element written as the clients write it, from `start` to the end of
    /// the bytes: none but the known keys, each once; no white space but spaces; no
    /// lone surrogates. All others are left as they are, for [`Message::decode`].
    /// `escapes` is room for the places of escapes, for one element after the other.
    fn read_in_place(bytes: &mut [u8], start: usize, escapes: &mut Vec<usize>) -> Option<Parts> {
        let mut cursor = Cursor {
            bytes,
            at: start,
            escapes: mem::take(escapes),
        };
        let found = cursor.message();
        *escapes = cursor.escapes;
        let found = found?;
        let mut unescaped =
            |string: QuotedString| unescape(bytes, string.span, &escapes[string.escapes]);
        Some(Parts {
            role: found.role?,
            content: unescaped(found.content?),
            timestamp: found.timestamp.map_or(Span::EMPTY, &mut unescaped),
            metadata: found.metadata.into(),
            id: found.id.map(unescaped).into(),
        })
    }

    /// Puts a message behind the bytes.
    fn append(bytes: &mut Vec<u8>, message: &Message) -> Parts {
        let mut append = |text: &String| Span::append(bytes, text);
        Parts {
            role: message.role,
            content: append(&message.content),
            timestamp: append(&message.timestamp),
            metadata: message.metadata.as_ref().map(&mut append).into(),
            id: message.id.as_ref().map(append).into(),
        }
    }
}

/// The keys of an element.
enum Key {
    Role,
    Content,
    Timestamp,
    Metadata,
    Id,
}

/// What an element has been found to hold.
#[derive(Default)]
struct Found {
    role: Option<Role>,
    content: Option<QuotedString>,
    timestamp: Option<QuotedString>,
    metadata: Option<Span>,
    id: Option<QuotedString>,
}

/// What stands between quotation marks.
struct QuotedString {
    span: Span,
    /// Which of the escapes are its own.
    escapes: Range<usize>,
}

/// A place in bytes that are read.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The places of all escapes up to here.
    escapes: Vec<usize>,
}

impl Cursor<'_> {
    fn message(&mut self) -> Option<Found> {
        let mut found = Found::default();
        self.escapes.clear();
        self.token(b'{')?;
        loop {
            match self.key()? {
                Key::Role if found.role.is_none() => found.role = Some(self.role()?),
                Key::Content if found.content.is_none() => found.content = Some(self.string()?),
                Key::Timestamp if found.timestamp.is_none() => {
                    found.timestamp = Some(self.string()?);
                }
                Key::Metadata if found.metadata.is_none() => {
                    found.metadata = Some(self.object()?);
                }
                Key::Id if found.id.is_none() => found.id = Some(self.string()?),
                _ => return None,
            }
            match self.next()? {
                b',' => {}
                b'}' if self.at == self.bytes.len() => return Some(found),
                _ => return None,
            }
        }
    }

    /// The next byte that is no space.
    fn next(&mut self) -> Option<u8> {
        self.skip_spaces();
        let next = self.bytes.get(self.at).copied();
        self.at += 1;
        next
    }

    fn skip_spaces(&mut self) {
        while self.bytes.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
    }

    fn token(&mut self, expected: u8) -> Option<()> {
        (self.next()? == expected).then_some(())
    }

    /// A key, and what separates it from its value.
    #[rustfmt::skip]
    fn key(&mut self) -> Option<Key> {
        self.skip_spaces();
        // Patterns, since comparisons of slices are calls.
        let (key, length) = match self.bytes.get(self.at..)? {
            [b'"', b'r', b'o', b'l', b'e', b'"', ..] => (Key::Role, 6),
            [b'"', b'c', b'o', b'n', b't', b'e', b'n', b't', b'"', ..] => (Key::Content, 9),
            [b'"', b't', b'i', b'm', b'e', b's', b't', b'a', b'm', b'p', b'"', ..] => (Key::Timestamp, 11),
            [b'"', b'm', b'e', b't', b'a', b'd', b'a', b't', b'a', b'"', ..] => (Key::Metadata, 10),
            [b'"', b'i', b'd', b'"', ..] => (Key::Id, 4),
            _ => return None,
        };
        self.at += length;
        self.token(b':')?;
        Some(key)
    }

    #[rustfmt::skip]
    fn role(&mut self) -> Option<Role> {
        self.skip_spaces();
        let role = match self.bytes.get(self.at..)? {
            [b'"', b'u', b's', b'e', b'r', b'"', ..] => Role::User,
            [b'"', b'a', b's', b's', b'i', b's', b't', b'a', b'n', b't', b'"', ..] => Role::Assistant,
            _ => return None,
        };
        self.at += role.as_str().len() + 2;
        Some(role)
    }

    /// A string whose escapes are sound.
    #[cfg_attr(target_family = "wasm", target_feature(enable = "simd128"))]
    fn string(&mut self) -> Option<QuotedString> {
        self.token(b'"')?;
        let start = self.at;
        let first_escape = self.escapes.len();
        let bytes = self.bytes;
        let mut beyond_ascii = 0;
        let mut at = start;
        let end = loop {
            let kinds = chunk::kinds_at(bytes, at)?;
            beyond_ascii |= kinds.beyond_ascii;
            if kinds.ends == 0 {
                at += chunk::SIZE;
                continue;
            }
            at += kinds.ends.trailing_zeros() as usize;
            match bytes.get(at)? {
                b'"' => break at,
                b'\\' => {
                    self.escapes.push(at);
                    at += match bytes.get(at + 1)? {
                        b'u' => unescaped_from_utf_16(&bytes[at..])?.1,
                        kind => short_escape(*kind).map(|_| 2)?,
                    };
                }
                _ => return None,
            }
        };
        self.at = end + 1;
        let span = Span {
            start,
            length: end - start,
        };
        let is_utf_8 = beyond_ascii == 0 || str::from_utf8(&bytes[span.range()]).is_ok();
        is_utf_8.then_some(QuotedString {
            span,
            escapes: first_escape..self.escapes.len(),
        })
    }

    /// A JSON object, as it stands.
    fn object(&mut self) -> Option<Span> {
        self.token(b'{')?;
        let start = self.at - 1;
        let rest = str::from_utf8(&self.bytes[start..]).ok()?;
        let mut deserializer = serde_json::Deserializer::from_str(rest);
        let object: &RawValue = Deserialize::deserialize(&mut deserializer).ok()?;
        let length = object.get().len();
        self.at = start + length;
        Some(Span { start, length })
    }
}

/// Replaces the escapes of a string, which are at these places and sound, by what
/// they stand for; answers where the string is then.
fn unescape(bytes: &mut [u8], string: Span, escapes: &[usize]) -> Span {
    let Some(first) = escapes.first() else {
        return string;
    };
    let ends = escapes[1..].iter().copied().chain([string.range().end]);
    let mut to = *first;
    for (escape, end) in escapes.iter().zip(ends) {
        let from = match short_escape(bytes[escape + 1]) {
            Some(character) => {
                bytes[to] = character;
                to += 1;
                escape + 2
            }
            None => {
                let (character, length) =
                    unescaped_from_utf_16(&bytes[*escape..]).unwrap_or_default();
                // No escape is shorter than what it stands for.
                to += character.encode_utf8(&mut bytes[to..]).len();
                escape + length
            }
        };
        bytes.copy_within(from..end, to);
        to += end - from;
    }
    Span {
        length: to - string.start,
        ..string
    }
}

/// What a backslash and this byte stand for; none if that is nothing.
#[inline]
fn short_escape(kind: u8) -> Option<u8> {
    let character = match kind {
        b'n' => b'\n',
        b'"' | b'\\' | b'/' => kind,
        b't' => b'\t',
        b'r' => b'\r',
        b'b' => 8,
        b'f' => 12,
        _ => return None,
    };
    Some(character)
}

/// What the escape with a code unit at the beginning of these bytes stands for, and its
/// length; none if that is not sound, or only half of a character.
fn unescaped_from_utf_16(bytes: &[u8]) -> Option<(char, usize)> {
    let first = utf_16_unit(bytes)?;
    if let Some(character) = char::from_u32(first.into()) {
        return Some((character, 6));
    }
    let second = utf_16_unit(&bytes[6..])?;
    let pair = char::decode_utf16([first, second]).next()?;
    Some((pair.ok()?, 12))
}

#[cfg(test)]
impl From<Vec<Message>> for Messages {
    fn from(messages: Vec<Message>) -> Messages {
        let mut bytes = Vec::new();
        let append = |message: &Message| Parts::append(&mut bytes, message);
        let parts = messages.iter().map(append).collect();
        Messages {
            texts: Vec::from([(Text::new(bytes), messages.len())]),
            parts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of an element in place, if it is read so.
    fn in_place(element: &str) -> Option<Message> {
        // Something before and behind it, which nobody may touch.
        let mut bytes = format!("<{element}>").into_bytes();
        let end = bytes.len() - 1;
        let parts = Parts::read_in_place(&mut bytes[..end], 1, &mut Vec::new())?;
        assert_eq!((bytes[0], bytes[end]), (b'<', b'>'));
        let messages = Messages {
            texts: vec![(Text::new(bytes), 1)],
            parts: vec![parts],
        };
        messages.to_vec().pop()
    }

    #[test]
    fn what_the_clients_write_is_read_in_place() {
        for element in [
            r#"{"role":"user","content":"What is RAG?","timestamp":"2024-01-15T10:30:00","metadata":{"b": 1},"id":"a-1"}"#,
            r#"{"role": "assistant", "content": "Zo\u00eb \ud83d\ude00", "timestamp": "2024-01-15T10:30:00.250000", "metadata": {"a": {"b": [1.50, "}\""]}}}"#,
            r#"{"content":"","role":"user"}"#,
            r#"{"role":"user","content":"\"\\\/\b\f\n\r\t\u0000\uffff \u0041"}"#,
            r#"{"role":"user","content":"Zoë, and more than sixteen bytes, 😀\n, and \\ again, and more than sixteen","timestamp":"\n","id":"\\"}"#,
            r#"{"role":"user","content":"exactly sixteen.","timestamp":"exactly sixteen.exactly sixteen."}"#,
        ] {
            let expected = Message::decode(element.as_bytes());
            assert!(expected.is_some(), "{element}");
            assert!(in_place(element) == expected, "{element}");
        }
    }

    #[test]
    fn all_else_is_left_as_it_is() {
        for element in [
            "",
            "{",
            "{}",
            "[]",
            r#"{"role":"user"}"#,
            r#"{"role":"user","content":"c""#,
            r#"{"role":"user","content":"c",}"#,
            r#"{"role":"user","content":"c"} "#,
            r#" {"role":"user","content":"c"}x"#,
            r#"{"role":"user","content":1}"#,
            r#"{"role":"system","content":"c"}"#,
            r#"{"role":"user","content":"c","other":1}"#,
            r#"{"role":"user","content":"c","content":"d"}"#,
            r#"{"r\u006fle":"user","content":"c"}"#,
            r#"{"role":"user","content":"c","metadata":null}"#,
            r#"{"role":"user","content":"c","metadata":{"a":NaN}}"#,
            r#"{"role":"user","content":"\n, then \ud800"}"#,
            r#"{"role":"user","content":"\n","timestamp":"\udc00\ud800"}"#,
            r#"{"role":"user","content":"\u+123"}"#,
            r#"{"role":"user","content":"\x"}"#,
            r#"{"role":"user","content":"\"#,
            r#"{"role":"user","content":"\ud83d\u"#,
            "{\"role\":\"user\",\"content\":\"a line\nand another\"}",
            "{\n\"role\":\"user\",\"content\":\"c\"}",
        ] {
            let mut bytes = element.as_bytes().to_vec();
            assert!(
                Parts::read_in_place(&mut bytes, 0, &mut Vec::new()).is_none(),
                "{element}"
            );
            assert_eq!(bytes, element.as_bytes());
        }
        let mut bytes = b"{\"role\":\"user\",\"content\":\"\\n\xff\"}".to_vec();
        let unread = bytes.clone();
        assert!(Parts::read_in_place(&mut bytes, 0, &mut Vec::new()).is_none());
        assert_eq!(bytes, unread);
    }

    #[test]
    fn the_last_messages_come_oldest_first() {
        const ELEMENTS: [&str; 4] = [
            r#"{"role":"user","content":"a"}"#,
            "unreadable",
            r#"{"role":"user","content":"\ud800"}"#,
            r#"{"role":"user","content":"\t","metadata":{}}"#,
        ];
        let newest = |limit| {
            let text = Text::new(ELEMENTS.concat().into_bytes());
            let mut end = 0;
            let ranges = ELEMENTS.map(|element| {
                let start = end;
                end += element.len();
                start..end
            });
            let mut newest = Newest::default();
            newest.read(&text, &ranges, limit);
            let (messages, skipped) = newest.finish();
            assert_eq!(messages.len(), messages.to_vec().len());
            let contents = messages.to_vec().into_iter().map(|message| message.content);
            (contents.collect::<Vec<_>>().join(" "), skipped)
        };
        assert_eq!(newest(None), ("a \u{FFFD} \t".to_owned(), 1));
        assert_eq!(newest(Some(2)), ("\u{FFFD} \t".to_owned(), 0));
        assert_eq!(newest(Some(1)), ("\t".to_owned(), 0));
        assert_eq!(newest(Some(0)), (String::new(), 0));
    }
}
