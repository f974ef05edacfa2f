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

use crate::error::Error;
use crate::export::Open;
use crate::message::{NewMessage, Role};
use crate::messages::{Maybe, Messages, Parts};
use crate::operation::{Action, Operation, Outcome};
use crate::options::{Connect, Delivery, Options, Password, Provider, TtlPolicy};

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
    provider: Maybe<Provider>,
    host: Maybe<Str>,
    port: Maybe<u16>,
    username: Maybe<Str>,
    password: Maybe<Str>,
    db: Maybe<u32>,
    session_ttl: Maybe<u32>,
    ttl_policy: Maybe<TtlPolicy>,
    delivery: Maybe<Delivery>,
    key_prefix: Maybe<Str>,
    connect_timeout: Maybe<u32>,
    connect: Maybe<Connect>,
    operation_timeout: Maybe<u32>,
    response_timeout: Maybe<u32>,
    max_idle: Maybe<u32>,
    max_messages: Maybe<u32>,
    max_message_bytes: Maybe<u32>,
    max_reply_bytes: Maybe<u32>,
}

/// `new-message`.
#[repr(C)]
struct NewMessageRecord {
    role: Role,
    content: Str,
    metadata: Maybe<Str>,
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
    Get(Maybe<u32>),
    History(Maybe<u32>),
    Clear,
    Exists,
    Count,
}

/// `outcome`.
#[repr(C, u8)]
enum OutcomeVariant {
    Length(u32),
    Messages(List<Parts>),
    History(HistoryRecord),
    Cleared,
    Exists(bool),
}

/// `history`.
#[repr(C)]
struct HistoryRecord {
    messages: List<Parts>,
    total: u32,
    skipped: u32,
    ttl_seconds: Maybe<u32>,
}

// As the ABI computes them: every other type is part of one of these.
const _: () = {
    assert!(size_of::<Parts>() == 44);
    assert!(size_of::<OptionsRecord>() == 136);
    assert!(size_of::<OperationRecord>() == 36);
    assert!(size_of::<Fallible<OutcomeVariant>>() == 32);
};

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

impl Maybe<Str> {
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

impl<T> Fallible<T> {
    fn of<U>(result: &mut Result<U, Error>, value: impl FnOnce(&mut U) -> T) -> Fallible<T> {
        match result {
            Ok(outcome) => Fallible::Ok(value(outcome)),
            Err(error) => Fallible::Err(Failure::of(error)),
        }
    }
}

impl OutcomeVariant {
    fn of(outcome: &mut Outcome<Messages>) -> OutcomeVariant {
        match outcome {
            Outcome::Length(length) => OutcomeVariant::Length(*length),
            Outcome::Messages(messages) => OutcomeVariant::Messages(List::of(messages.addressed())),
            Outcome::History(history) => OutcomeVariant::History(HistoryRecord {
                messages: List::of(history.messages.addressed()),
                total: history.total,
                skipped: history.skipped,
                ttl_seconds: history.ttl_seconds.into(),
            }),
            Outcome::Cleared => OutcomeVariant::Cleared,
            Outcome::Exists(exists) => OutcomeVariant::Exists(*exists),
        }
    }
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

type One<T> = Returned<Fallible<T>, Result<Outcome<Messages>, Error>>;

/// Runs an operation that has a function of its own.
fn one<T>(
    client: &Open,
    session_id: Str,
    action: Action,
    value: impl FnOnce(OutcomeVariant) -> Option<T>,
) -> *mut One<T> {
    let operation = Operation {
        // SAFETY: it is an argument of the function that calls this one.
        session_id: unsafe { session_id.into_string() },
        action,
    };
    let mut result = client.one(operation);
    let value = Fallible::of(&mut result, |outcome| {
        value(OutcomeVariant::of(outcome)).expect("it is the outcome of this action")
    });
    Returned::new(value, result)
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

fn maybe_string(is_some: u32, start: *const u8, length: usize) -> Maybe<Str> {
    match is_some {
        0 => Maybe::None,
        _ => Maybe::Some(string(start, length)),
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
    fn open(options: *mut OptionsRecord) -> Returned<Fallible<u32>, Result<(), Error>> {
        // SAFETY: what is linked of that library has none.
        unsafe { __wasm_call_ctors() };
        // SAFETY: the options were put into a place of their own, since they have more
        // fields than a function may have arguments.
        let options = unsafe { Box::from_raw(options).into_options() };
        let mut client = Open::new(options).map(Some);
        let value = Fallible::of(&mut client, |client| {
            let client = Box::new(client.take().expect("it is taken once"));
            // SAFETY: the import of the type that is asked for.
            unsafe { new_client(Box::into_raw(client).cast()) }
        });
        Returned::new(value, client.map(drop))
    }
}

// SAFETY: the host calls it once, with what was given to `new_client`.
#[unsafe(export_name = "edge:session-memory/memory@0.1.0#[dtor]client")]
unsafe extern "C" fn drop_client(client: *mut Open) {
    // SAFETY: as above.
    drop(unsafe { Box::from_raw(client) });
}

export! {
    "[method]client.add",
    fn add(
        client: &Open,
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
        client: &Open,
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
        client: &Open,
        id: *const u8,
        id_length: usize,
        has_limit: u32,
        most: u32
    ) -> One<List<Parts>> {
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
        client: &Open,
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
    fn clear(client: &Open, id: *const u8, id_length: usize) -> One<()> {
        one(client, string(id, id_length), Action::Clear, |outcome| match outcome {
            OutcomeVariant::Cleared => Some(()),
            _ => None,
        })
    }
}

export! {
    "[method]client.exists",
    fn exists(client: &Open, id: *const u8, id_length: usize) -> One<bool> {
        one(client, string(id, id_length), Action::Exists, |outcome| match outcome {
            OutcomeVariant::Exists(exists) => Some(exists),
            _ => None,
        })
    }
}

export! {
    "[method]client.count",
    fn count(client: &Open, id: *const u8, id_length: usize) -> One<u32> {
        one(client, string(id, id_length), Action::Count, length)
    }
}

/// The results of a pipeline in memory, and the results.
type All = (
    Vec<Fallible<OutcomeVariant>>,
    Vec<Result<Outcome<Messages>, Error>>,
);

export! {
    "[method]client.pipeline",
    fn pipeline(
        client: &Open,
        operations: *const OperationRecord,
        count: usize
    ) -> Returned<List<Fallible<OutcomeVariant>>, All> {
        let operations = List { start: operations, length: count };
        // SAFETY: it is an argument.
        let operations = unsafe { operations.into_vec() }.into_iter();
        let operations = operations.map(|operation| unsafe { operation.into_operation() });
        let mut results = client.run(operations.collect());
        let values: Vec<_> = results
            .iter_mut()
            .map(|result| Fallible::of(result, OutcomeVariant::of))
            .collect();
        Returned::new(List::of(&values), (values, results))
    }
}
