//! The exported functions, as the Canonical ABI has them: their arguments and
//! results as they lie in memory. By hand, because generated code would copy every
//! string of every message; here the host reads them in the reply.
//!
//! The layout that the ABI gives to records and variants is that of `repr(C)`.
//! Arguments are the component's own once it has them; results are dropped when the
//! host has read them, in the `cabi_post_` function.

#![allow(unsafe_code, reason = "the ABI is made of addresses")]
#![allow(
    dead_code,
    reason = "the host makes some and reads others of these values"
)]

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::client::Client;
use session_memory_core::error::Error;
use session_memory_core::message::{MessageSpans, Messages, NewMessage, Role, Span};
use session_memory_core::operation::{Action, Operation, Outcome};
use session_memory_core::options::{Connect, Delivery, Options, Password, Provider, TtlPolicy};
use session_memory_core::resp::ReplyBuffer;

/// A `list`, or with bytes a `string`.
#[repr(C)]
struct List<T> {
    start: *const T,
    length: usize,
}

type Str = List<u8>;

/// A `result` of an operation.
#[repr(C, u8)]
enum Fallible<T> {
    Ok(T),
    Err(Failure),
}

/// An `option`.
#[repr(C, u8)]
enum AbiOption<T> {
    None,
    Some(T),
}

/// `message`.
#[repr(C)]
struct MessageRecord {
    role: Role,
    content: Str,
    timestamp: Str,
    metadata: AbiOption<Str>,
    id: AbiOption<Str>,
}

/// `error`.
#[repr(C, u8)]
enum Failure {
    InvalidArgument(Str),
    Unavailable(Str),
    Timeout(Str),
    OutcomeUnknown(Str),
    AccessDenied(Str),
    WrongType(Str),
    LimitExceeded(Str),
    Protocol(Str),
    Server { code: Str, message: Str },
    Other(Str),
}

/// `options`.
#[repr(C)]
struct OptionsRecord {
    provider: AbiOption<Provider>,
    host: AbiOption<Str>,
    port: AbiOption<u16>,
    username: AbiOption<Str>,
    password: AbiOption<Str>,
    db: AbiOption<u32>,
    session_ttl: AbiOption<u32>,
    ttl_policy: AbiOption<TtlPolicy>,
    delivery: AbiOption<Delivery>,
    key_prefix: AbiOption<Str>,
    connect_timeout: AbiOption<u32>,
    connect: AbiOption<Connect>,
    operation_timeout: AbiOption<u32>,
    response_timeout: AbiOption<u32>,
    max_idle: AbiOption<u32>,
    max_messages: AbiOption<u32>,
    max_message_bytes: AbiOption<u32>,
    max_reply_bytes: AbiOption<u32>,
}

/// `new-message`.
#[repr(C)]
struct NewMessageRecord {
    role: Role,
    content: Str,
    metadata: AbiOption<Str>,
}

/// `operation`.
#[repr(C)]
struct OperationRecord {
    session_id: Str,
    action: ActionVariant,
}

/// `action`.
#[repr(C, u8)]
enum ActionVariant {
    Add(NewMessageRecord),
    AddAll(List<NewMessageRecord>),
    Get(AbiOption<u32>),
    History(AbiOption<u32>),
    Clear,
    Exists,
    Count,
}

/// `outcome`.
#[repr(C, u8)]
enum OutcomeVariant {
    Length(u32),
    Messages(List<MessageRecord>),
    History(HistoryRecord),
    Cleared,
    Exists(bool),
}

/// `history`.
#[repr(C)]
struct HistoryRecord {
    messages: List<MessageRecord>,
    total: u32,
    skipped: u32,
    ttl_seconds: AbiOption<u32>,
}

// As the ABI computes them: every other type is part of one of these.
const _: () = {
    assert!(size_of::<MessageRecord>() == 44);
    assert!(size_of::<OptionsRecord>() == 136);
    assert!(size_of::<OperationRecord>() == 36);
    assert!(size_of::<Fallible<OutcomeVariant>>() == 32);
};

impl<T> AbiOption<T> {
    fn get(self) -> Option<T> {
        match self {
            AbiOption::None => None,
            AbiOption::Some(value) => Some(value),
        }
    }
}

impl<T> From<Option<T>> for AbiOption<T> {
    fn from(value: Option<T>) -> AbiOption<T> {
        value.map_or(AbiOption::None, AbiOption::Some)
    }
}

/// Messages with the address of every text, and the buffers that hold the texts.
struct AddressedMessages {
    records: Vec<MessageRecord>,
    _buffers: Vec<(ReplyBuffer, usize)>,
}

impl AddressedMessages {
    fn of(messages: Messages) -> AddressedMessages {
        let (spans, buffers) = messages.into_parts();
        let mut in_buffers = buffers
            .iter()
            .flat_map(|(buffer, count)| core::iter::repeat_n(buffer.address(), *count));
        // The records take the place of the spans, which have the same size.
        let records = spans
            .into_iter()
            .map(|spans| MessageRecord::of(&spans, in_buffers.next().expect("each has one")))
            .collect();
        AddressedMessages {
            records,
            _buffers: buffers,
        }
    }
}

impl MessageRecord {
    fn of(spans: &MessageSpans, buffer: *const u8) -> MessageRecord {
        let text = |span: Span| List {
            start: buffer.wrapping_add(span.start),
            length: span.length,
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

impl<T> List<T> {
    fn of(items: &[T]) -> List<T> {
        List {
            start: items.as_ptr(),
            length: items.len(),
        }
    }

    /// What was handed over.
    ///
    /// # Safety
    ///
    /// It is an argument, and is taken once.
    unsafe fn into_vec(self) -> Vec<T> {
        // SAFETY: the host has got the place from `cabi_realloc`, in this size, and has
        // put these items there.
        unsafe { Vec::from_raw_parts(self.start.cast_mut(), self.length, self.length) }
    }
}

impl Str {
    /// As [`List::into_vec`].
    unsafe fn into_string(self) -> String {
        // SAFETY: that of the caller, and strings of the ABI are UTF-8.
        unsafe { String::from_utf8_unchecked(self.into_vec()) }
    }
}

impl AbiOption<Str> {
    /// As [`List::into_vec`].
    unsafe fn into_string(self) -> Option<String> {
        // SAFETY: that of the caller.
        self.get().map(|text| unsafe { text.into_string() })
    }
}

impl OptionsRecord {
    /// As [`List::into_vec`].
    unsafe fn into_options(self) -> Options {
        // SAFETY: that of the caller.
        unsafe {
            Options {
                provider: self.provider.get(),
                host: self.host.into_string(),
                port: self.port.get(),
                username: self.username.into_string(),
                password: self.password.into_string().map(Password::from),
                db: self.db.get(),
                session_ttl: self.session_ttl.get(),
                ttl_policy: self.ttl_policy.get(),
                delivery: self.delivery.get(),
                key_prefix: self.key_prefix.into_string(),
                connect_timeout: self.connect_timeout.get(),
                connect: self.connect.get(),
                operation_timeout: self.operation_timeout.get(),
                response_timeout: self.response_timeout.get(),
                max_idle: self.max_idle.get(),
                max_messages: self.max_messages.get(),
                max_message_bytes: self.max_message_bytes.get(),
                max_reply_bytes: self.max_reply_bytes.get(),
            }
        }
    }
}

impl NewMessageRecord {
    /// As [`List::into_vec`].
    unsafe fn into_message(self) -> NewMessage {
        // SAFETY: that of the caller.
        unsafe {
            NewMessage {
                role: self.role,
                content: self.content.into_string(),
                metadata: self.metadata.into_string(),
            }
        }
    }
}

impl List<NewMessageRecord> {
    /// As [`List::into_vec`].
    unsafe fn into_messages(self) -> Vec<NewMessage> {
        // SAFETY: that of the caller.
        let records = unsafe { self.into_vec() }.into_iter();
        records
            .map(|record| unsafe { record.into_message() })
            .collect()
    }
}

impl OperationRecord {
    /// As [`List::into_vec`].
    unsafe fn into_operation(self) -> Operation {
        // SAFETY: that of the caller.
        unsafe {
            Operation {
                session_id: self.session_id.into_string(),
                action: match self.action {
                    ActionVariant::Add(message) => Action::Add(message.into_message()),
                    ActionVariant::AddAll(messages) => Action::AddAll(messages.into_messages()),
                    ActionVariant::Get(limit) => Action::Get(limit.get()),
                    ActionVariant::History(limit) => Action::History(limit.get()),
                    ActionVariant::Clear => Action::Clear,
                    ActionVariant::Exists => Action::Exists,
                    ActionVariant::Count => Action::Count,
                },
            }
        }
    }
}

impl Failure {
    fn of(error: &Error) -> Failure {
        let text = |text: &String| List::of(text.as_bytes());
        match error {
            Error::InvalidArgument(what) => Failure::InvalidArgument(text(what)),
            Error::Unavailable(what) => Failure::Unavailable(text(what)),
            Error::Timeout(what) => Failure::Timeout(text(what)),
            Error::OutcomeUnknown(what) => Failure::OutcomeUnknown(text(what)),
            Error::AccessDenied(what) => Failure::AccessDenied(text(what)),
            Error::WrongType(what) => Failure::WrongType(text(what)),
            Error::LimitExceeded(what) => Failure::LimitExceeded(text(what)),
            Error::Protocol(what) => Failure::Protocol(text(what)),
            Error::Server { code, message } => Failure::Server {
                code: text(code),
                message: text(message),
            },
            Error::Other(what) => Failure::Other(text(what)),
        }
    }
}

/// What the addresses in a result lead to.
enum Owner {
    Messages(AddressedMessages),
    Error(Error),
    Nothing,
}

/// A result as it lies in memory, and what its addresses lead to.
fn lay_out(result: Result<Outcome<Messages>, Error>) -> (Fallible<OutcomeVariant>, Owner) {
    let value = match result {
        Ok(Outcome::Length(length)) => OutcomeVariant::Length(length),
        Ok(Outcome::Cleared) => OutcomeVariant::Cleared,
        Ok(Outcome::Exists(exists)) => OutcomeVariant::Exists(exists),
        Ok(Outcome::Messages(messages)) => {
            let messages = AddressedMessages::of(messages);
            let list = List::of(&messages.records);
            return (
                Fallible::Ok(OutcomeVariant::Messages(list)),
                Owner::Messages(messages),
            );
        }
        Ok(Outcome::History(history)) => {
            let messages = AddressedMessages::of(history.messages);
            let record = HistoryRecord {
                messages: List::of(&messages.records),
                total: history.total,
                skipped: history.skipped,
                ttl_seconds: history.ttl_seconds.into(),
            };
            return (
                Fallible::Ok(OutcomeVariant::History(record)),
                Owner::Messages(messages),
            );
        }
        Err(error) => return (Fallible::Err(Failure::of(&error)), Owner::Error(error)),
    };
    (Fallible::Ok(value), Owner::Nothing)
}

/// A result, with what its addresses lead to. It begins with what the host reads.
#[repr(C)]
struct Returned<T, O> {
    value: T,
    owner: O,
}

impl<T, O> Returned<T, O> {
    fn new(value: T, owner: O) -> *mut Returned<T, O> {
        Box::into_raw(Box::new(Returned { value, owner }))
    }
}

type One<T> = Returned<Fallible<T>, Owner>;

/// Runs an operation that has a function of its own.
fn one<T>(
    client: &Client,
    session_id: Str,
    action: Action,
    value: impl FnOnce(OutcomeVariant) -> Option<T>,
) -> *mut One<T> {
    let operation = Operation {
        // SAFETY: it is an argument of the function that calls this one.
        session_id: unsafe { session_id.into_string() },
        action,
    };
    let (result, owner) = lay_out(client.one(operation));
    let value = match result {
        Fallible::Ok(outcome) => {
            Fallible::Ok(value(outcome).expect("it is the outcome of this action"))
        }
        Fallible::Err(failure) => Fallible::Err(failure),
    };
    Returned::new(value, owner)
}

fn length(outcome: OutcomeVariant) -> Option<u32> {
    match outcome {
        OutcomeVariant::Length(length) => Some(length),
        _ => None,
    }
}

fn limit(is_some: u32, limit: u32) -> Option<u32> {
    (is_some != 0).then_some(limit)
}

fn string(start: *const u8, length: usize) -> Str {
    List { start, length }
}

fn maybe_string(is_some: u32, start: *const u8, length: usize) -> AbiOption<Str> {
    match is_some {
        0 => AbiOption::None,
        _ => AbiOption::Some(string(start, length)),
    }
}

#[link(wasm_import_module = "[export]edge:session-memory/memory@0.1.0")]
unsafe extern "C" {
    #[link_name = "[resource-new]client"]
    fn new_client(client: *mut u8) -> u32;
}

unsafe extern "C" {
    /// The constructors of the C library. Unless something calls it, the linker wraps
    /// every exported function in calls of it and of the destructors.
    fn __wasm_call_ctors();
}

/// Declares an exported function of the resource, and the one that is called when
/// its result has been read.
macro_rules! export {
    (
        $name:literal,
        fn $function:ident($($argument:ident: $type:ty),*) -> $returned:ty $body:block
    ) => {
        const _: () = {
            // SAFETY: the host calls it with arguments as the ABI has them.
            #[unsafe(export_name = concat!("edge:session-memory/memory@0.1.0#", $name))]
            unsafe extern "C" fn $function($($argument: $type),*) -> *mut $returned $body

            // SAFETY: the host calls it once, with what the function has returned.
            #[unsafe(export_name = concat!("cabi_post_edge:session-memory/memory@0.1.0#", $name))]
            unsafe extern "C" fn post(returned: *mut $returned) {
                // SAFETY: as above.
                drop(unsafe { Box::from_raw(returned) });
            }
        };
    };
}

export! {
    "[static]client.open",
    fn open(options: *mut OptionsRecord) -> Returned<Fallible<u32>, Option<Error>> {
        // SAFETY: what is linked of that library has none.
        unsafe { __wasm_call_ctors() };
        // SAFETY: the options were put into a place of their own, since they have more
        // fields than a function may have arguments.
        let options = unsafe { Box::from_raw(options).into_options() };
        match Client::new(options) {
            Ok(client) => {
                let client = Box::into_raw(Box::new(client));
                // SAFETY: the import of the type that is asked for.
                let client = unsafe { new_client(client.cast()) };
                Returned::new(Fallible::Ok(client), None)
            }
            Err(error) => Returned::new(Fallible::Err(Failure::of(&error)), Some(error)),
        }
    }
}

// SAFETY: the host calls it once, with what was given to `new_client`.
#[unsafe(export_name = "edge:session-memory/memory@0.1.0#[dtor]client")]
unsafe extern "C" fn drop_client(client: *mut Client) {
    // SAFETY: as above.
    drop(unsafe { Box::from_raw(client) });
}

export! {
    "[method]client.add",
    fn add(
        client: &Client,
        id: *const u8,
        id_length: usize,
        role: Role,
        content: *const u8,
        content_length: usize,
        has_metadata: u32,
        metadata: *const u8,
        metadata_length: usize
    ) -> One<u32> {
        let message = NewMessageRecord {
            role,
            content: string(content, content_length),
            metadata: maybe_string(has_metadata, metadata, metadata_length),
        };
        // SAFETY: it is an argument.
        let message = unsafe { message.into_message() };
        one(client, string(id, id_length), Action::Add(message), length)
    }
}

export! {
    "[method]client.add-all",
    fn add_all(
        client: &Client,
        id: *const u8,
        id_length: usize,
        messages: *const NewMessageRecord,
        count: usize
    ) -> One<u32> {
        let messages = List { start: messages, length: count };
        // SAFETY: it is an argument.
        let messages = unsafe { messages.into_messages() };
        one(client, string(id, id_length), Action::AddAll(messages), length)
    }
}

export! {
    "[method]client.get",
    fn get(
        client: &Client,
        id: *const u8,
        id_length: usize,
        has_limit: u32,
        most: u32
    ) -> One<List<MessageRecord>> {
        let action = Action::Get(limit(has_limit, most));
        one(client, string(id, id_length), action, |outcome| match outcome {
            OutcomeVariant::Messages(messages) => Some(messages),
            _ => None,
        })
    }
}

export! {
    "[method]client.history",
    fn history(
        client: &Client,
        id: *const u8,
        id_length: usize,
        has_limit: u32,
        most: u32
    ) -> One<HistoryRecord> {
        let action = Action::History(limit(has_limit, most));
        one(client, string(id, id_length), action, |outcome| match outcome {
            OutcomeVariant::History(history) => Some(history),
            _ => None,
        })
    }
}

export! {
    "[method]client.clear",
    fn clear(client: &Client, id: *const u8, id_length: usize) -> One<()> {
        one(client, string(id, id_length), Action::Clear, |outcome| match outcome {
            OutcomeVariant::Cleared => Some(()),
            _ => None,
        })
    }
}

export! {
    "[method]client.exists",
    fn exists(client: &Client, id: *const u8, id_length: usize) -> One<bool> {
        one(client, string(id, id_length), Action::Exists, |outcome| match outcome {
            OutcomeVariant::Exists(exists) => Some(exists),
            _ => None,
        })
    }
}

export! {
    "[method]client.count",
    fn count(client: &Client, id: *const u8, id_length: usize) -> One<u32> {
        one(client, string(id, id_length), Action::Count, length)
    }
}

/// The results of a pipeline, and what their addresses lead to.
type All = (Vec<Fallible<OutcomeVariant>>, Vec<Owner>);

export! {
    "[method]client.pipeline",
    fn pipeline(
        client: &Client,
        operations: *const OperationRecord,
        count: usize
    ) -> Returned<List<Fallible<OutcomeVariant>>, All> {
        let operations = List { start: operations, length: count };
        // SAFETY: it is an argument.
        let operations = unsafe { operations.into_vec() }.into_iter();
        let operations = operations.map(|operation| unsafe { operation.into_operation() });
        let results = client.run(operations.collect()).into_iter();
        let (values, owners): All = results.map(lay_out).unzip();
        Returned::new(List::of(&values), (values, owners))
    }
}
