//! The types of `wit/` as they lie in memory.
//!
//! The Canonical ABI lays out a record like a C struct (`repr(C)`), and a variant like a
//! tag of one byte that a C union follows (`repr(C, u8)`). Addresses and lengths are
//! `u32`, as on the target of the component, so that the layout is the same on every
//! target. The tests compare it with `wit/` natively.
//!
//! Enums without payloads are those of the core library, which are `repr(u8)`.

#![allow(dead_code, reason = "only the host reads or writes some fields")]

use core::marker::PhantomData;

use session_memory_core::message::Role;
use session_memory_core::options::{Connect, Delivery, Provider, TtlPolicy};

/// `list`: the address of the first item, and the number of items.
#[repr(C)]
pub struct AbiList<T> {
    pub address: u32,
    pub length: u32,
    items: PhantomData<T>,
}

/// `string`: a list of the bytes of UTF-8.
#[repr(transparent)]
pub struct AbiString(pub AbiList<u8>);

/// `option`.
#[repr(C, u8)]
pub enum AbiOption<T> {
    None,
    Some(T),
}

/// `result`.
#[repr(C, u8)]
pub enum AbiResult<T, E = ErrorVariant> {
    Ok(T),
    Err(E),
}

/// A resource that is handed over: its index in a table of the host.
#[repr(transparent)]
pub struct OwnedHandle(pub u32);

/// `message`.
#[repr(C)]
pub struct MessageRecord {
    pub role: Role,
    pub content: AbiString,
    pub timestamp: AbiString,
    pub metadata: AbiOption<AbiString>,
    pub id: AbiOption<AbiString>,
}

/// `new-message`.
#[repr(C)]
pub struct NewMessageRecord {
    pub role: Role,
    pub content: AbiString,
    pub metadata: AbiOption<AbiString>,
}

/// `history`.
#[repr(C)]
pub struct HistoryRecord {
    pub messages: AbiList<MessageRecord>,
    pub total: u32,
    pub skipped: u32,
    pub ttl_seconds: AbiOption<u32>,
}

/// `operation`.
#[repr(C)]
pub struct OperationRecord {
    pub session_id: AbiString,
    pub action: ActionVariant,
}

/// `action`.
#[repr(C, u8)]
pub enum ActionVariant {
    Add(NewMessageRecord),
    AddAll(AbiList<NewMessageRecord>),
    Get(AbiOption<u32>),
    History(AbiOption<u32>),
    Clear,
    Exists,
    Count,
}

/// `outcome`.
#[repr(C, u8)]
pub enum OutcomeVariant {
    Length(u32),
    Messages(AbiList<MessageRecord>),
    History(HistoryRecord),
    Cleared,
    Exists(bool),
}

/// `options`.
#[repr(C)]
pub struct OptionsRecord {
    pub provider: AbiOption<Provider>,
    pub host: AbiOption<AbiString>,
    pub port: AbiOption<u16>,
    pub username: AbiOption<AbiString>,
    pub password: AbiOption<AbiString>,
    pub db: AbiOption<u32>,
    pub session_ttl: AbiOption<u32>,
    pub ttl_policy: AbiOption<TtlPolicy>,
    pub delivery: AbiOption<Delivery>,
    pub key_prefix: AbiOption<AbiString>,
    pub connect_timeout: AbiOption<u32>,
    pub connect: AbiOption<Connect>,
    pub operation_timeout: AbiOption<u32>,
    pub response_timeout: AbiOption<u32>,
    pub max_idle: AbiOption<u32>,
    pub max_messages: AbiOption<u32>,
    pub max_message_bytes: AbiOption<u32>,
    pub max_reply_bytes: AbiOption<u32>,
}

/// `error`.
#[repr(C, u8)]
pub enum ErrorVariant {
    InvalidArgument(AbiString),
    Unavailable(AbiString),
    Timeout(AbiString),
    OutcomeUnknown(AbiString),
    AccessDenied(AbiString),
    WrongType(AbiString),
    LimitExceeded(AbiString),
    Protocol(AbiString),
    Server(ServerErrorRecord),
    Other(AbiString),
}

/// `server-error`.
#[repr(C)]
pub struct ServerErrorRecord {
    pub code: AbiString,
    pub message: AbiString,
}

/// `stream-error` of `wasi:io/streams`.
#[repr(C, u8)]
pub enum StreamErrorVariant {
    LastOperationFailed(OwnedHandle),
    Closed,
}

/// The result of `client.open`.
pub type OpenResult = AbiResult<OwnedHandle>;
/// The result of `client.add` and `client.add-all`.
pub type AddResult = AbiResult<u32>;
/// The result of `client.get`.
pub type GetResult = AbiResult<AbiList<MessageRecord>>;
/// The result of `client.history`.
pub type HistoryResult = AbiResult<HistoryRecord>;
/// The result of `client.clear`.
pub type ClearResult = AbiResult<()>;
/// The result of `client.exists`.
pub type ExistsResult = AbiResult<bool>;
/// The result of `client.count`.
pub type CountResult = AbiResult<u32>;
/// The result of an operation in a pipeline.
pub type OperationResult = AbiResult<OutcomeVariant>;
/// The result of `client.pipeline`.
pub type PipelineResult = AbiList<OperationResult>;
/// The result of `input-stream.read`.
pub type ReadResult = AbiResult<AbiList<u8>, StreamErrorVariant>;

impl<T> AbiList<T> {
    /// Creates a list from its address and its length.
    pub fn new(address: u32, length: u32) -> AbiList<T> {
        AbiList {
            address,
            length,
            items: PhantomData,
        }
    }
}

impl<T> From<Option<T>> for AbiOption<T> {
    fn from(value: Option<T>) -> AbiOption<T> {
        value.map_or(AbiOption::None, AbiOption::Some)
    }
}

impl<T> From<AbiOption<T>> for Option<T> {
    fn from(value: AbiOption<T>) -> Option<T> {
        match value {
            AbiOption::None => None,
            AbiOption::Some(value) => Some(value),
        }
    }
}

#[cfg(test)]
mod tests;
