//! Replies to the commands of a request, decoded by redis-protocol.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Ref;
use core::mem;
use core::ops::Range;

use redis_protocol::resp2::decode::decode_range;
use redis_protocol::resp2::types::RangeFrame;

use super::buffer::ReplyBuffer;
use super::error_reply::is_refusal;
use crate::error::Error;

/// The replies to a request: to all of its commands, or to the first ones.
#[derive(Default)]
pub struct Received {
    buffer: ReplyBuffer,
    /// Each frame with its position, which its ranges are relative to.
    frames: Vec<(usize, RangeFrame)>,
}

impl Received {
    /// Decodes replies that are complete and valid.
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`] if they cannot be decoded.
    pub(super) fn decode(bytes: Vec<u8>) -> Result<Received, Error> {
        let mut frames = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            match decode_range(&bytes[at..]) {
                Ok(Some((frame, size))) => {
                    frames.push((at, frame));
                    at += size;
                }
                Ok(None) | Err(_) => return Err(Error::protocol("the reply cannot be decoded")),
            }
        }
        Ok(Received {
            buffer: ReplyBuffer::new(bytes),
            frames,
        })
    }

    /// Splits off the replies to the first commands, as far as they have arrived.
    pub fn split_off_first(&mut self, commands: usize) -> Received {
        let rest = self.frames.split_off(commands.min(self.frames.len()));
        Received {
            buffer: self.buffer.clone(),
            frames: mem::replace(&mut self.frames, rest),
        }
    }

    /// Returns the replies to these commands, if all of them have arrived.
    pub fn replies(&self, commands: Range<usize>) -> Option<Replies<'_>> {
        Some(Replies {
            buffer: &self.buffer,
            frames: self.frames.get(commands)?,
        })
    }

    /// Returns the reply to this command, if it is an error. A server that refuses a
    /// client says why, and closes the connection before it replies to the next command.
    pub fn refusal(&self, command: usize) -> Option<Replies<'_>> {
        self.replies(command..command + 1)
            .filter(|replies| replies.last().is_err())
    }
}

/// The replies to consecutive commands.
#[derive(Clone, Copy)]
pub struct Replies<'a> {
    buffer: &'a ReplyBuffer,
    frames: &'a [(usize, RangeFrame)],
}

impl<'a> Replies<'a> {
    /// The replies, in the order of the commands.
    pub fn iter(self) -> impl Iterator<Item = Reply<'a>> {
        self.frames.iter().map(move |(from, frame)| Reply {
            buffer: self.buffer,
            from: *from,
            frame,
        })
    }

    /// Returns the last reply, unless one of them is an error.
    ///
    /// # Errors
    ///
    /// The first error reply; [`Error::Protocol`] if there is no reply.
    pub fn last(self) -> Result<Reply<'a>, Error> {
        let mut last = Err(Error::protocol("there is no reply"));
        for reply in self.iter() {
            if let Some(error) = reply.error() {
                return Err(error);
            }
            last = Ok(reply);
        }
        last
    }

    /// Returns the first error that may have come after execution, unless the last reply
    /// says that nothing was executed.
    pub fn unclear(self) -> Option<Error> {
        let mut errors = self.iter().filter_map(Reply::error_text);
        let unclear = errors.find(|text| !is_refusal(text))?;
        let last = self.iter().last().and_then(Reply::error_text);
        let is_discarded = last.is_some_and(|last| last.starts_with("EXECABORT "));
        (!is_discarded).then(|| Error::from_reply(&unclear))
    }
}

/// One reply, or an element of one.
#[derive(Clone, Copy)]
pub struct Reply<'a> {
    buffer: &'a ReplyBuffer,
    /// The position that the ranges of the frame are relative to.
    from: usize,
    frame: &'a RangeFrame,
}

impl<'a> Reply<'a> {
    /// Returns the error, if the reply is one.
    pub fn error(self) -> Option<Error> {
        self.error_text().map(|text| Error::from_reply(&text))
    }

    fn error_text(self) -> Option<String> {
        match self.frame {
            RangeFrame::Error(range) => {
                let text = self.buffer.bytes(self.range(*range));
                Some(String::from_utf8_lossy(&text).into_owned())
            }
            _ => None,
        }
    }

    /// Reads a simple string.
    ///
    /// # Errors
    ///
    /// The error, if the reply is one; [`Error::Protocol`] if it has another type.
    pub fn simple_string(self) -> Result<Ref<'a, [u8]>, Error> {
        match self.frame {
            RangeFrame::SimpleString(range) => Ok(self.buffer.bytes(self.range(*range))),
            _ => Err(self.is_not("a simple string")),
        }
    }

    /// Reads an integer.
    ///
    /// # Errors
    ///
    /// See [`Reply::simple_string`].
    pub fn integer(self) -> Result<i64, Error> {
        match self.frame {
            RangeFrame::Integer(integer) => Ok(*integer),
            _ => Err(self.is_not("an integer")),
        }
    }

    /// Reads an integer that is a number of entries.
    ///
    /// # Errors
    ///
    /// See [`Reply::simple_string`].
    pub fn length(self) -> Result<u32, Error> {
        u32::try_from(self.integer()?).map_err(|_| Error::protocol("a length is out of range"))
    }

    /// Reads a bulk string. Returns its range in the [buffer](Reply::buffer).
    ///
    /// # Errors
    ///
    /// See [`Reply::simple_string`].
    pub fn bulk_string(self) -> Result<Range<usize>, Error> {
        match self.frame {
            RangeFrame::BulkString(range) => Ok(self.range(*range)),
            _ => Err(self.is_not("a bulk string")),
        }
    }

    /// Reads an array.
    ///
    /// # Errors
    ///
    /// See [`Reply::simple_string`].
    pub fn array(self) -> Result<impl ExactSizeIterator<Item = Reply<'a>>, Error> {
        match self.frame {
            RangeFrame::Array(frames) => {
                Ok(frames.iter().map(move |frame| Reply { frame, ..self }))
            }
            _ => Err(self.is_not("an array")),
        }
    }

    /// Reads an array of bulk strings. Returns their ranges in the buffer.
    ///
    /// # Errors
    ///
    /// See [`Reply::simple_string`].
    pub fn bulk_strings(self) -> Result<Vec<Range<usize>>, Error> {
        let elements = self.array()?;
        let mut ranges = Vec::with_capacity(elements.len());
        for element in elements {
            ranges.push(element.bulk_string()?);
        }
        Ok(ranges)
    }

    /// The buffer that the reply is part of.
    pub fn buffer(self) -> &'a ReplyBuffer {
        self.buffer
    }

    /// Returns the cost of an array towards the limit for replies while it is held.
    pub fn cost(self) -> u64 {
        let elements = self.array().map_or(0, |elements| elements.len());
        cost(elements, self.buffer.size())
    }

    fn range(self, (from, to): (usize, usize)) -> Range<usize> {
        self.from + from..self.from + to
    }

    #[cold]
    fn is_not(self, expected: &str) -> Error {
        self.error()
            .unwrap_or_else(|| Error::protocol(&format!("the reply is not {expected}")))
    }
}

/// Returns the cost of array elements and bytes. It has 64 bits, because the limit may be
/// `u32::MAX`.
pub fn cost(elements: usize, bytes: usize) -> u64 {
    elements as u64 * ELEMENT_COST + bytes as u64
}

/// Bytes that an element of an array costs in addition to its bytes on the wire: the memory
/// that holds its range.
pub const ELEMENT_COST: u64 = 32;
