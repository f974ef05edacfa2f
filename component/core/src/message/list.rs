//! Messages read from the elements of a list, without copying them: each is a set of
//! spans in the buffer of the reply that it came in.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::types::{Message, Role};
use crate::resp::ReplyBuffer;

/// Messages, oldest first, as spans of the buffers that they were read from.
#[derive(Clone, Default)]
pub struct Messages {
    /// The buffers, each with its number of messages.
    buffers: Vec<(ReplyBuffer, usize)>,
    spans: Vec<MessageSpans>,
}

impl Messages {
    /// Number of messages.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are no messages.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Copies the messages out of their buffers.
    pub fn to_vec(&self) -> Vec<Message> {
        let mut messages = Vec::with_capacity(self.len());
        let mut spans = self.spans.iter();
        for (buffer, count) in &self.buffers {
            let copied = |span: Span| {
                let bytes = buffer.bytes(span.range());
                String::from_utf8_lossy(&bytes).into_owned()
            };
            messages.extend(spans.by_ref().take(*count).map(|spans| Message {
                role: spans.role,
                content: copied(spans.content),
                timestamp: copied(spans.timestamp),
                metadata: spans.metadata.map(copied),
                id: spans.id.map(copied),
            }));
        }
        messages
    }

    /// Returns the spans of the messages, and the buffers that they point into: each with its
    /// number of messages, in the same order.
    pub fn into_parts(self) -> (Vec<MessageSpans>, Vec<(ReplyBuffer, usize)>) {
        (self.spans, self.buffers)
    }
}

/// Messages while they are being read, the newest one first.
#[derive(Default)]
pub struct NewestFirst {
    messages: Messages,
    skipped: u32,
}

impl NewestFirst {
    /// Reads elements that are older than the previous ones, until there are `limit`
    /// messages in total. Each element lies in a range of the buffer, the oldest one in
    /// the first range. An element can be read only once, because it is unescaped in
    /// place.
    pub fn read(&mut self, buffer: &ReplyBuffer, elements: &[Range<usize>], limit: Option<u32>) {
        let limit = limit.map_or(usize::MAX, |limit| limit as usize);
        let spans = &mut self.messages.spans;
        let before = spans.len();
        spans.reserve(elements.len().min(limit - before));
        let mut bytes = buffer.bytes_mut();
        let mut escapes = Vec::new();
        for element in elements.iter().rev() {
            if spans.len() == limit {
                break;
            }
            match MessageSpans::read(&mut bytes, element.clone(), &mut escapes) {
                Some(message) => spans.push(message),
                None => self.skipped += 1,
            }
        }
        let read = spans.len() - before;
        self.messages.buffers.push((buffer.clone(), read));
    }

    /// Number of messages that were read.
    pub fn count(&self) -> usize {
        self.messages.len()
    }

    /// Returns the messages, oldest first, and the number of elements that are not messages.
    pub fn finish(self) -> (Messages, u32) {
        let NewestFirst {
            mut messages,
            skipped,
        } = self;
        messages.buffers.reverse();
        messages.spans.reverse();
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

/// The spans of the parts of a message in its buffer.
#[derive(Clone, Copy)]
pub struct MessageSpans {
    /// Who wrote it.
    pub role: Role,
    /// The text, unescaped.
    pub content: Span,
    /// As stored; empty if there is none.
    pub timestamp: Span,
    /// The text of a JSON object.
    pub metadata: Option<Span>,
    /// The unique id.
    pub id: Option<Span>,
}

/// A part of a buffer.
#[derive(Clone, Copy)]
pub struct Span {
    /// Index of the first byte.
    pub start: usize,
    /// Number of bytes.
    pub length: usize,
}

impl Span {
    /// The span of an empty text.
    pub(super) const EMPTY: Span = Span {
        start: 0,
        length: 0,
    };

    /// Returns the range of indexes.
    pub(super) fn range(self) -> Range<usize> {
        self.start..self.start + self.length
    }

    /// Appends a text to the bytes.
    fn append(bytes: &mut Vec<u8>, text: &str) -> Span {
        let start = bytes.len();
        bytes.extend_from_slice(text.as_bytes());
        Span {
            start,
            length: text.len(),
        }
    }
}

impl MessageSpans {
    /// Reads the element in this range. Returns none if it is not a message.
    fn read(
        bytes: &mut Vec<u8>,
        element: Range<usize>,
        escapes: &mut Vec<usize>,
    ) -> Option<MessageSpans> {
        MessageSpans::read_in_place(&mut bytes[..element.end], element.start, escapes).or_else(
            || {
                Some(MessageSpans::append(
                    bytes,
                    &Message::decode(&bytes[element])?,
                ))
            },
        )
    }

    /// Appends a message to the bytes.
    fn append(bytes: &mut Vec<u8>, message: &Message) -> MessageSpans {
        let mut append = |text: &String| Span::append(bytes, text);
        MessageSpans {
            role: message.role,
            content: append(&message.content),
            timestamp: append(&message.timestamp),
            metadata: message.metadata.as_ref().map(&mut append),
            id: message.id.as_ref().map(append),
        }
    }
}

#[cfg(test)]
impl From<Vec<Message>> for Messages {
    fn from(messages: Vec<Message>) -> Messages {
        let mut bytes = Vec::new();
        let append = |message: &Message| MessageSpans::append(&mut bytes, message);
        let spans = messages.iter().map(append).collect();
        Messages {
            buffers: Vec::from([(ReplyBuffer::new(bytes), messages.len())]),
            spans,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an element in place, if it has the form for that.
    fn in_place(element: &str) -> Option<Message> {
        // The bytes around it must not change.
        let mut bytes = format!("<{element}>").into_bytes();
        let end = bytes.len() - 1;
        let spans = MessageSpans::read_in_place(&mut bytes[..end], 1, &mut Vec::new())?;
        assert_eq!((bytes[0], bytes[end]), (b'<', b'>'));
        let messages = Messages {
            buffers: vec![(ReplyBuffer::new(bytes), 1)],
            spans: vec![spans],
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
    fn other_elements_are_left_unchanged() {
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
                MessageSpans::read_in_place(&mut bytes, 0, &mut Vec::new()).is_none(),
                "{element}"
            );
            assert_eq!(bytes, element.as_bytes());
        }
        let mut bytes = b"{\"role\":\"user\",\"content\":\"\\n\xff\"}".to_vec();
        let unread = bytes.clone();
        assert!(MessageSpans::read_in_place(&mut bytes, 0, &mut Vec::new()).is_none());
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
            let buffer = ReplyBuffer::new(ELEMENTS.concat().into_bytes());
            let mut end = 0;
            let ranges = ELEMENTS.map(|element| {
                let start = end;
                end += element.len();
                start..end
            });
            let mut newest = NewestFirst::default();
            newest.read(&buffer, &ranges, limit);
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
