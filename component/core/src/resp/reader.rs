//! Receives replies under limits.
//!
//! A [`ReplyReader`] takes bytes as they arrive and scans each one once, to find where the
//! replies end and to refuse bytes that no Redis sends. It allocates for bytes that have
//! arrived, never for bytes that are only announced. Complete and valid replies go to
//! redis-protocol. Its decoder needs that, because it recurses and trusts lengths.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::vec::Vec;

use super::reply::{Received, cost};
use crate::error::Error;

/// Receives the replies to one request, in RESP2.
pub struct ReplyReader {
    buffer: Vec<u8>,
    /// Number of bytes that are scanned.
    scanned: usize,
    /// Where the search for the end of the line continues.
    searched: usize,
    /// Number of missing elements of each open array. The first one counts the missing
    /// replies.
    missing: [usize; MAX_DEPTH + 1],
    depth: usize,
    /// End of the last complete reply.
    complete: usize,
    elements: usize,
    /// The part of `max_bytes` that previous replies take.
    reserved: u64,
    max_bytes: u32,
}

/// What a reader needs next.
#[derive(Debug, PartialEq, Eq)]
pub enum Scan {
    /// Nothing: all replies are complete.
    Complete,
    /// At least this many more bytes.
    Missing(usize),
}

impl ReplyReader {
    /// Creates a reader of this many replies. Together they may cost `max_bytes`: the bytes
    /// on the wire, and 32 for every element of an array.
    pub fn new(replies: usize, max_bytes: u32) -> ReplyReader {
        let mut missing = [0; MAX_DEPTH + 1];
        missing[0] = replies;
        ReplyReader {
            buffer: Vec::new(),
            scanned: 0,
            searched: 0,
            missing,
            depth: 0,
            complete: 0,
            elements: 0,
            reserved: 0,
            max_bytes,
        }
    }

    /// Reserves a part of the limit for previous replies that are still held: their
    /// [cost](super::Reply::cost).
    pub fn with_reserved(mut self, cost: u64) -> ReplyReader {
        self.reserved = cost;
        self
    }

    /// Returns the buffer, with room for this many more bytes. The caller appends them and
    /// calls [`ReplyReader::scan`].
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] if there is no memory for them.
    pub fn room(&mut self, bytes: usize) -> Result<&mut Vec<u8>, Error> {
        self.reserve(bytes)?;
        Ok(&mut self.buffer)
    }

    /// Appends bytes and scans them.
    ///
    /// # Errors
    ///
    /// As [`ReplyReader::room`] and [`ReplyReader::scan`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<Scan, Error> {
        self.room(bytes.len())?.extend_from_slice(bytes);
        self.scan()
    }

    /// Number of bytes of the incomplete reply.
    pub fn partial(&self) -> usize {
        self.buffer.len() - self.complete
    }

    /// Returns the complete replies. After an error of [`ReplyReader::scan`] these are the
    /// replies before the error.
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`] if they cannot be decoded.
    pub fn finish(mut self) -> Result<Received, Error> {
        self.buffer.truncate(self.complete);
        Received::decode(self.buffer)
    }

    /// Scans the bytes that were appended since the last call.
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`] for bytes that are not a reply, or follow the last one;
    /// [`Error::LimitExceeded`] for replies that cost more than allowed. Both are returned
    /// as early as possible. The connection must not be used after either.
    pub fn scan(&mut self) -> Result<Scan, Error> {
        while self.missing[0] > 0 {
            let Some(kind) = self.buffer.get(self.scanned).copied() else {
                return Ok(Scan::Missing(1));
            };
            // Checked before the line is complete: other servers may send less than a line
            // and close the connection.
            if !KINDS.contains(&kind) {
                return Err(Error::protocol(match kind {
                    TLS_ALERT => "a TLS alert: the server requires TLS, which is not supported",
                    _ => "not a reply in RESP: the server may require TLS, or is not Redis",
                }));
            }
            let Some(line_end) = self.line_end()? else {
                // A line ends with two bytes, and one of them may have arrived.
                return Ok(Scan::Missing(1));
            };
            let rest = &self.buffer[self.scanned + 1..line_end];
            match kind {
                b'+' | b'-' => {
                    self.scanned = line_end + 2;
                }
                b':' => {
                    integer(rest)?;
                    self.scanned = line_end + 2;
                }
                b'$' => match length(rest)? {
                    None => self.scanned = line_end + 2,
                    Some(length) => {
                        let end = (line_end + 2).saturating_add(length).saturating_add(2);
                        self.check_cost(end)?;
                        if end > self.buffer.len() {
                            return Ok(Scan::Missing(end - self.buffer.len()));
                        }
                        if self.buffer[end - 2..end] != *b"\r\n" {
                            return Err(Error::protocol("a bulk string is longer than announced"));
                        }
                        self.scanned = end;
                    }
                },
                _ => {
                    let elements = length(rest)?.unwrap_or(0);
                    self.elements = self.elements.saturating_add(elements);
                    self.scanned = line_end + 2;
                    // The smallest element is a kind and a line end.
                    self.check_cost(self.scanned.saturating_add(elements.saturating_mul(3)))?;
                    if elements > 0 {
                        if self.depth == MAX_DEPTH {
                            return Err(Error::protocol("arrays are nested too deep"));
                        }
                        self.depth += 1;
                        self.missing[self.depth] = elements;
                        self.searched = self.scanned;
                        continue;
                    }
                }
            }
            self.searched = self.scanned;
            self.check_cost(self.scanned)?;
            self.end_element();
        }
        if self.scanned < self.buffer.len() {
            return Err(Error::protocol("bytes after the reply"));
        }
        Ok(Scan::Complete)
    }

    /// The position of the next `\r\n`, if it has arrived.
    fn line_end(&mut self) -> Result<Option<usize>, Error> {
        let line_limit = self.scanned + MAX_LINE + 1;
        let unsearched = &self.buffer[self.searched..self.buffer.len().min(line_limit)];
        let found = unsearched
            .iter()
            .position(|byte| matches!(byte, b'\r' | b'\n'));
        let end = self.searched + found.unwrap_or(unsearched.len());
        // The smaller of the two limits applies, however much has arrived. A complete line
        // has two more bytes.
        match self.buffer.get(end) {
            Some(b'\r') => self.check_cost(end + 2)?,
            _ => self.check_cost(end)?,
        }
        if end == line_limit {
            return Err(Error::protocol("a line is too long"));
        }
        self.searched = end;
        match self.buffer[end..] {
            [] | [b'\r'] => Ok(None),
            [b'\r', b'\n', ..] => Ok(Some(end)),
            _ => Err(Error::protocol("a line does not end with CR LF")),
        }
    }

    fn end_element(&mut self) {
        self.missing[self.depth] -= 1;
        while self.depth > 0 && self.missing[self.depth] == 0 {
            self.depth -= 1;
            self.missing[self.depth] -= 1;
        }
        if self.depth == 0 {
            self.complete = self.scanned;
        }
    }

    fn check_cost(&self, end: usize) -> Result<(), Error> {
        let cost = self.reserved + cost(self.elements, end);
        if end == usize::MAX || cost > u64::from(self.max_bytes) {
            return Err(Error::LimitExceeded(format!(
                "the reply is larger than {} bytes (max-reply-bytes)",
                self.max_bytes
            )));
        }
        Ok(())
    }

    /// Makes room for this many bytes, and for the missing elements if they are like the
    /// ones so far. The room at most doubles, because the missing elements are only
    /// announced.
    fn reserve(&mut self, bytes: usize) -> Result<(), Error> {
        let here = self.buffer.len();
        if bytes <= self.buffer.capacity() - here {
            return Ok(());
        }
        let to_come: usize = self.missing[1..=self.depth].iter().sum();
        let complete = self.elements.saturating_sub(to_come).max(1);
        let expected = (self.scanned / complete).saturating_mul(to_come);
        let more = expected.clamp(here / 4, here).max(bytes);
        self.buffer.try_reserve_exact(more).map_err(|_| {
            Error::LimitExceeded("the reply is larger than the memory that is left".to_owned())
        })
    }
}

/// Parses the length after `$` or `*`. `None` is a null string or a null array.
fn length(digits: &[u8]) -> Result<Option<usize>, Error> {
    if let [b'-', b'1'] = digits {
        return Ok(None);
    }
    // Ten digits: a Redis string has at most 512 MiB. The caller checks the limit.
    if !(1..=10).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Error::protocol("a length is not a whole number"));
    }
    let digits = digits.iter().map(|digit| u64::from(digit - b'0'));
    let length = digits.fold(0, |length, digit| 10 * length + digit);
    Ok(Some(usize::try_from(length).unwrap_or(usize::MAX)))
}

fn integer(digits: &[u8]) -> Result<i64, Error> {
    core::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| Error::protocol("an integer is malformed"))
}

/// The first bytes of a simple string, an error, an integer, a bulk string, an array.
const KINDS: &[u8] = b"+-:$*";
/// The first byte of a TLS alert: its content type (RFC 8446, section 5.1).
const TLS_ALERT: u8 = 21;
/// Levels of nested arrays. No expected reply has more than two.
const MAX_DEPTH: usize = 8;
/// Bytes of a line without its end. Redis limits its own lines to far less.
const MAX_LINE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::Reply;

    const MAX: u32 = 1 << 20;

    fn read(replies: usize, bytes: &[u8]) -> Result<Received, Error> {
        let mut reader = ReplyReader::new(replies, MAX);
        assert_eq!(reader.push(bytes)?, Scan::Complete);
        reader.finish()
    }

    fn shown(received: &Received, count: usize) -> Vec<String> {
        let replies = received.replies(0..count).unwrap();
        assert!(received.replies(0..count + 1).is_none());
        replies.iter().map(show).collect()
    }

    fn refused(replies: usize, bytes: &[u8]) -> Error {
        match ReplyReader::new(replies, MAX).push(bytes) {
            Err(error) => error,
            Ok(progress) => panic!("{progress:?}"),
        }
    }

    /// All that these tests compare of a reply.
    fn show(reply: Reply<'_>) -> String {
        if let Ok(text) = reply.simple_string() {
            format!("+{}", text.escape_ascii())
        } else if let Ok(integer) = reply.integer() {
            format!(":{integer}")
        } else if let Ok(text) = reply.bulk_string() {
            format!("${}", reply.buffer().bytes(text).escape_ascii())
        } else if let Ok(elements) = reply.array() {
            format!("[{}]", elements.map(show).collect::<Vec<_>>().join(" "))
        } else if let Some(error) = reply.error() {
            format!("{error:?}")
        } else {
            "null".to_owned()
        }
    }

    const SAMPLE: &[u8] = b"+OK\r\n:-12\r\n$4\r\na\r\nb\r\n$-1\r\n*0\r\n*-1\r\n\
        *3\r\n$0\r\n\r\n*1\r\n*1\r\n:7\r\n-ERR x\r\n";

    const SHOWN: [&str; 7] = [
        "+OK",
        ":-12",
        "$a\\r\\nb",
        "null",
        "[]",
        "null",
        "[$ [[:7]] Server { code: \"ERR\", message: \"ERR: the error reply is unknown; a proxy in front of the server may have sent it\" }]",
    ];

    #[test]
    fn replies_of_every_type() {
        assert_eq!(shown(&read(7, SAMPLE).unwrap(), 7), SHOWN);
    }

    #[test]
    fn replies_in_any_two_pieces() {
        for split in 0..=SAMPLE.len() {
            let mut reader = ReplyReader::new(7, MAX);
            let (head, tail) = SAMPLE.split_at(split);
            let first = reader.push(head).unwrap();
            match first {
                Scan::Complete => assert_eq!(split, SAMPLE.len()),
                Scan::Missing(bytes) => {
                    assert!((1..=tail.len()).contains(&bytes), "{split}: {bytes}");
                    assert_eq!(reader.push(tail).unwrap(), Scan::Complete);
                }
            }
            assert_eq!(shown(&reader.finish().unwrap(), 7), SHOWN, "{split}");
        }
    }

    #[test]
    fn replies_byte_by_byte() {
        let mut reader = ReplyReader::new(7, MAX);
        let (last, head) = SAMPLE.split_last().unwrap();
        for byte in head {
            assert_ne!(reader.push(&[*byte]).unwrap(), Scan::Complete);
        }
        assert_eq!(reader.push(&[*last]).unwrap(), Scan::Complete);
        assert_eq!(shown(&reader.finish().unwrap(), 7), SHOWN);
    }

    #[test]
    fn what_is_missing_is_known() {
        for (bytes, missing) in [
            ("", 1),
            ("$", 1),
            ("$10\r", 1),
            ("$10\r\n", 12),
            ("$10\r\n0123456789\r", 1),
            ("*2\r\n:1\r\n", 1),
        ] {
            let mut reader = ReplyReader::new(1, MAX);
            assert_eq!(
                reader.push(bytes.as_bytes()),
                Ok(Scan::Missing(missing)),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn what_no_redis_sends_is_refused() {
        for (bytes, expected) in [
            (
                &b"\r\n"[..],
                "not a reply in RESP: the server may require TLS, or is not Redis",
            ),
            (
                b"OK\r\n",
                "not a reply in RESP: the server may require TLS, or is not Redis",
            ),
            (
                b"\x15\x03\x01\0\x02\x02F",
                "a TLS alert: the server requires TLS, which is not supported",
            ),
            (
                b"HTTP/1.1 400 Bad Request\r\n",
                "not a reply in RESP: the server may require TLS, or is not Redis",
            ),
            (
                b">1\r\n+x\r\n",
                "not a reply in RESP: the server may require TLS, or is not Redis",
            ),
            (
                b"%0\r\n",
                "not a reply in RESP: the server may require TLS, or is not Redis",
            ),
            (
                b"_\r\n",
                "not a reply in RESP: the server may require TLS, or is not Redis",
            ),
            (b"+OK\n", "a line does not end with CR LF"),
            (b"+a\rb", "a line does not end with CR LF"),
            (b":1x\r\n", "an integer is malformed"),
            (b":\r\n", "an integer is malformed"),
            (b":9223372036854775808\r\n", "an integer is malformed"),
            (b"$-2\r\n", "a length is not a whole number"),
            (b"$+1\r\n", "a length is not a whole number"),
            (b"$\r\n", "a length is not a whole number"),
            (b"*12345678901\r\n", "a length is not a whole number"),
            (b"$2\r\nabcd", "a bulk string is longer than announced"),
            (b"+OK\r\n+", "bytes after the reply"),
            (b"*0\r\n\r\n", "bytes after the reply"),
        ] {
            assert_eq!(
                refused(1, bytes),
                Error::protocol(expected),
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let nested = |depth| ["*1\r\n".repeat(depth).as_bytes(), b":1\r\n"].concat();
        assert!(read(1, &nested(MAX_DEPTH)).is_ok());
        assert_eq!(
            refused(1, &nested(MAX_DEPTH + 1)),
            Error::protocol("arrays are nested too deep")
        );
        assert_eq!(
            refused(1, &nested(100_000)),
            Error::protocol("arrays are nested too deep")
        );
    }

    #[test]
    fn an_endless_line_is_refused() {
        let line = |length| [b"+", &vec![b'x'; length][..]].concat();
        for (more, expected) in [
            (&b"\r\n"[..], Ok(Scan::Complete)),
            (b"x", Err(Error::protocol("a line is too long"))),
        ] {
            let mut reader = ReplyReader::new(1, MAX);
            assert_eq!(reader.push(&line(MAX_LINE - 1)), Ok(Scan::Missing(1)));
            assert_eq!(reader.push(more), expected);
        }
    }

    #[test]
    fn what_is_too_large_is_refused_when_it_is_announced() {
        let too_large = Error::LimitExceeded(
            "the reply is larger than 1024 bytes (max-reply-bytes)".to_owned(),
        );
        for bytes in [
            &b"$1017\r\n"[..],
            b"$9999999999\r\n",
            b"*30\r\n",
            b"*9999999999\r\n",
            b"*2\r\n*29\r\n",
            &[&[b'+'; 1023][..], b"\r"].concat(),
            &[b'+'; 1025],
            &[b'+'; 2 * MAX_LINE],
        ] {
            let mut reader = ReplyReader::new(1, 1024);
            assert_eq!(
                reader.push(bytes),
                Err(too_large.clone()),
                "{}",
                bytes.escape_ascii()
            );
        }
        for (reserved, expected) in [
            (0, Ok(Scan::Missing(1017))),
            (1, Err(too_large.clone())),
            (u64::from(u32::MAX) * 40, Err(too_large)),
        ] {
            let mut reader = ReplyReader::new(1, 1024).with_reserved(reserved);
            assert_eq!(reader.push(b"$1015\r\n"), expected);
        }
    }

    #[test]
    fn complete_replies_are_returned_without_the_rest() {
        for (bytes, complete) in [
            (&b""[..], 0),
            (b"+O", 0),
            (b"+OK\r\n", 1),
            (b"+OK\r\n*2\r\n:1\r\n", 1),
            (b"+OK\r\n*2\r\n:1\r\n:2\r\n", 2),
            (b"+OK\r\n*0\r\n?", 2),
        ] {
            let mut reader = ReplyReader::new(3, MAX);
            assert_ne!(reader.push(bytes), Ok(Scan::Complete));
            assert_eq!(shown(&reader.finish().unwrap(), complete).len(), complete);
        }
    }

    #[test]
    fn a_refusal_is_an_error_in_the_place_of_a_commands_reply() {
        let mut reader = ReplyReader::new(4, MAX);
        reader
            .push(b"+OK\r\n-ERR max number of clients reached\r\n")
            .unwrap();
        let received = reader.finish().unwrap();
        let refusal = received.refusal(1).and_then(|replies| replies.last().err());
        let expected = Error::from_reply("ERR max number of clients reached");
        assert_eq!(refusal, Some(expected));
        assert!(received.refusal(0).is_none());
        assert!(received.refusal(2).is_none());
    }

    #[test]
    fn an_error_that_is_not_known_may_come_after_execution() {
        for (replies, is_unclear) in [
            (&b"+OK\r\n-ERR Connection timed out\r\n"[..], true),
            (b"-oops\r\n-EXECABORT x\r\n", false),
            (b"-oops\r\n:1\r\n", true),
            (b"+OK\r\n-WRONGTYPE x\r\n", false),
        ] {
            let mut reader = ReplyReader::new(2, 1024);
            assert_eq!(reader.push(replies), Ok(Scan::Complete));
            let received = reader.finish().unwrap();
            let unclear = received.replies(0..2).unwrap().unclear();
            assert_eq!(unclear.is_some(), is_unclear, "{}", replies.escape_ascii());
        }
    }

    #[test]
    fn the_first_error_is_the_one_that_counts() {
        let received = read(3, b"+OK\r\n-NOPERM a\r\n-EXECABORT b\r\n").unwrap();
        assert_eq!(
            received.replies(0..3).unwrap().last().err(),
            Some(Error::from_reply("NOPERM a"))
        );
    }

    #[test]
    fn a_reply_of_another_type_is_a_protocol_error() {
        let received = read(1, b"+OK\r\n").unwrap();
        let reply = received.replies(0..1).unwrap().last().unwrap();
        assert_eq!(
            reply.integer(),
            Err(Error::protocol("the reply is not an integer"))
        );
        assert_eq!(
            reply.bulk_string(),
            Err(Error::protocol("the reply is not a bulk string"))
        );
        assert_eq!(
            reply.array().err(),
            Some(Error::protocol("the reply is not an array"))
        );
    }
}
