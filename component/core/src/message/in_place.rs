//! The fast parser: reads elements in the clients' form, and unescapes their strings in
//! place. The [general parser](super::decode) reads all others.

use alloc::vec::Vec;
use core::mem;
use core::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::chunk;
use super::decode::utf_16_unit;
use super::list::{MessageSpans, Span};
use super::types::Role;

impl MessageSpans {
    /// Reads an element from `start` to the end of the bytes, if it has the form that the
    /// clients write: only known keys, each once; no white space but spaces; no lone
    /// surrogates. Leaves any other element unchanged, for
    /// [`Message::decode`](super::types::Message::decode). `escapes` is a buffer that is
    /// reused from one element to the next.
    pub(super) fn read_in_place(
        bytes: &mut [u8],
        start: usize,
        escapes: &mut Vec<usize>,
    ) -> Option<MessageSpans> {
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
        Some(MessageSpans {
            role: found.role?,
            content: unescaped(found.content?),
            timestamp: found.timestamp.map_or(Span::EMPTY, &mut unescaped),
            metadata: found.metadata,
            id: found.id.map(unescaped),
        })
    }
}

/// The known keys of an element.
enum Key {
    Role,
    Content,
    Timestamp,
    Metadata,
    Id,
}

/// The values that were found in an element so far.
#[derive(Default)]
struct Found {
    role: Option<Role>,
    content: Option<QuotedString>,
    timestamp: Option<QuotedString>,
    metadata: Option<Span>,
    id: Option<QuotedString>,
}

/// A string, without its quotation marks.
struct QuotedString {
    span: Span,
    /// Indexes of its escapes in [`Cursor::escapes`].
    escapes: Range<usize>,
}

/// A position in the bytes.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The positions of all escapes so far.
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

    /// Returns the next byte that is not a space.
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

    /// Reads a key and the colon behind it.
    #[rustfmt::skip]
    fn key(&mut self) -> Option<Key> {
        self.skip_spaces();
        // Patterns, because the compiler turns comparisons of slices into calls.
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

    /// Reads a string whose escapes are valid.
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

    /// Reads a JSON object, and keeps its text.
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

/// Replaces the escapes of a string, at these positions, by their characters. Returns the
/// new span of the string. The escapes have been checked.
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
                // No escape is shorter than its character.
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

/// The character of a backslash and this byte, if it is an escape.
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

/// The character of the `\u` escape, or the pair of them, at the beginning of these bytes,
/// and its length. None if it is invalid, or only half of a character.
fn unescaped_from_utf_16(bytes: &[u8]) -> Option<(char, usize)> {
    let first = utf_16_unit(bytes)?;
    if let Some(character) = char::from_u32(first.into()) {
        return Some((character, 6));
    }
    let second = utf_16_unit(&bytes[6..])?;
    let pair = char::decode_utf16([first, second]).next()?;
    Some((pair.ok()?, 12))
}
