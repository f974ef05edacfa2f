//! Results, from the types of the core library to the layout of the ABI.
//!
//! A result holds addresses: of texts in reply buffers, and of lists that are made here. The
//! owner of these is kept with the result until the host has read it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use session_memory_core::error::Error;
use session_memory_core::message::{MessageSpans, Messages, Span};
use session_memory_core::operation::Outcome;
use session_memory_core::resp::ReplyBuffer;

use super::layout::{
    AbiList, AbiResult, AbiString, ErrorVariant, HistoryRecord, MessageRecord, OperationResult,
    OutcomeVariant, ServerErrorRecord,
};

/// A result and the owner of everything it points to. The result comes first, because the
/// host reads it.
#[repr(C)]
pub struct Returned<T, O = Owner> {
    value: T,
    owner: O,
}

impl<T, O> Returned<T, O> {
    /// Puts a result where it stays until the host has read it.
    pub fn new(value: T, owner: O) -> *mut Returned<T, O> {
        Box::into_raw(Box::new(Returned { value, owner }))
    }
}

/// What the addresses in a result point to.
#[expect(dead_code, reason = "it is kept for the host, and dropped")]
pub enum Owner {
    Messages(AddressedMessages),
    Error(Error),
    Nothing,
}

/// Lays out the result of an operation.
pub fn lay_out(result: Result<Outcome<Messages>, Error>) -> (OperationResult, Owner) {
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(error) => {
            return (
                AbiResult::Err(ErrorVariant::of(&error)),
                Owner::Error(error),
            );
        }
    };
    let (outcome, owner) = match outcome {
        Outcome::Length(length) => (OutcomeVariant::Length(length), Owner::Nothing),
        Outcome::Cleared => (OutcomeVariant::Cleared, Owner::Nothing),
        Outcome::Exists(exists) => (OutcomeVariant::Exists(exists), Owner::Nothing),
        Outcome::Messages(messages) => {
            let messages = AddressedMessages::of(messages);
            let list = AbiList::of(&messages.records);
            (OutcomeVariant::Messages(list), Owner::Messages(messages))
        }
        Outcome::History(history) => {
            let messages = AddressedMessages::of(history.messages);
            let record = HistoryRecord {
                messages: AbiList::of(&messages.records),
                total: history.total,
                skipped: history.skipped,
                ttl_seconds: history.ttl.map(|ttl| ttl.as_secs() as u32).into(),
            };
            (OutcomeVariant::History(record), Owner::Messages(messages))
        }
        _ => unreachable!("the contract has no other outcome"),
    };
    (AbiResult::Ok(outcome), owner)
}

/// Messages with the address of every text, and the buffers that hold the texts.
pub struct AddressedMessages {
    records: Vec<MessageRecord>,
    _buffers: Vec<(ReplyBuffer, usize)>,
}

impl AddressedMessages {
    fn of(messages: Messages) -> AddressedMessages {
        // `collect` reuses the allocation of the spans only for items of the same size
        // and alignment. Without it, a read would take 44 bytes more for each message.
        const {
            assert!(size_of::<MessageRecord>() == size_of::<MessageSpans>());
            assert!(align_of::<MessageRecord>() == align_of::<MessageSpans>());
        }
        let (spans, buffers) = messages.into_parts();
        let mut starts = buffers
            .iter()
            .flat_map(|(buffer, count)| core::iter::repeat_n(address(buffer.address()), *count));
        let records = spans
            .into_iter()
            .map(|spans| {
                let start = starts.next().expect("each message lies in a buffer");
                MessageRecord::of(&spans, start)
            })
            .collect();
        AddressedMessages {
            records,
            _buffers: buffers,
        }
    }
}

impl MessageRecord {
    /// Lays out a message whose buffer begins at this address.
    fn of(spans: &MessageSpans, buffer: u32) -> MessageRecord {
        let text = |span: Span| {
            let start = buffer.wrapping_add(span.start as u32);
            AbiString(AbiList::new(start, span.length as u32))
        };
        MessageRecord {
            role: spans.role,
            content: text(spans.content),
            timestamp: text(spans.timestamp),
            metadata: spans.metadata.map(text).into(),
            id: spans.id.map(text).into(),
        }
    }
}

impl<T> AbiList<T> {
    /// Lays out a list of these items, which must not move.
    pub fn of(items: &[T]) -> AbiList<T> {
        AbiList::new(address(items.as_ptr()), items.len() as u32)
    }
}

impl ErrorVariant {
    /// Lays out an error, which must not move.
    pub fn of(error: &Error) -> ErrorVariant {
        let text = |text: &String| AbiString(AbiList::of(text.as_bytes()));
        match error {
            Error::InvalidArgument(what) => ErrorVariant::InvalidArgument(text(what)),
            Error::Unavailable(what) => ErrorVariant::Unavailable(text(what)),
            Error::Timeout(what) => ErrorVariant::Timeout(text(what)),
            Error::OutcomeUnknown(what) => ErrorVariant::OutcomeUnknown(text(what)),
            Error::AccessDenied(what) => ErrorVariant::AccessDenied(text(what)),
            Error::WrongType(what) => ErrorVariant::WrongType(text(what)),
            Error::LimitExceeded(what) => ErrorVariant::LimitExceeded(text(what)),
            Error::Protocol(what) => ErrorVariant::Protocol(text(what)),
            Error::Server { code, message } => ErrorVariant::Server(ServerErrorRecord {
                code: text(code),
                message: text(message),
            }),
            Error::Other(what) => ErrorVariant::Other(text(what)),
            _ => unreachable!("the contract has no other error"),
        }
    }
}

/// The address of a place that the host reads.
fn address<T>(place: *const T) -> u32 {
    place.expose_provenance() as u32
}
