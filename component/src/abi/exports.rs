//! The exported functions: parameters as the Canonical ABI flattens them, and results
//! as it lays them out.
//!
//! A string or list is two parameters, its address and its length. An option is the
//! parameters of its value behind one that says whether there is a value. A result is
//! the address of its place in memory. The host calls a `cabi_post_` function when it
//! has read the result.

#![allow(unsafe_code, reason = "the host passes addresses")]

use alloc::boxed::Box;
use alloc::vec::Vec;

use session_memory_core::error::Error;
use session_memory_core::message::Role;
use session_memory_core::operation::{Action, Operation};

use super::layout::{
    AbiList, AbiOption, AbiResult, AbiString, ActionVariant, AddResult, ClearResult, CountResult,
    ErrorVariant, ExistsResult, GetResult, HistoryResult, NewMessageRecord, OpenResult,
    OperationRecord, OperationResult, OptionsRecord, OutcomeVariant, OwnedHandle, PipelineResult,
};
use super::results::{Owner, Returned, lay_out};
use super::runtime::call_constructors;
use crate::client::Client;

#[link(wasm_import_module = "[export]edge:session-memory/memory@0.1.0")]
unsafe extern "C" {
    #[link_name = "[resource-new]client"]
    fn new_client(client: *mut u8) -> u32;
}

/// Declares an exported function of the resource, and its `cabi_post_` function, which is
/// called when the result has been read.
macro_rules! export {
    (
        $name:literal,
        fn $function:ident($($parameter:ident: $type:ty),*) -> $returned:ty $body:block
    ) => {
        const _: () = {
            // SAFETY: nothing else has a name like this. The parameters are those of the
            // ABI, which is checked when the component is built.
            #[unsafe(export_name = concat!("edge:session-memory/memory@0.1.0#", $name))]
            unsafe extern "C" fn $function($($parameter: $type),*) -> *mut $returned $body

            // SAFETY: nothing else has a name like this.
            #[unsafe(export_name = concat!("cabi_post_edge:session-memory/memory@0.1.0#", $name))]
            unsafe extern "C" fn post(returned: *mut $returned) {
                // SAFETY: the host passes what the function has returned, once.
                // `Returned::new` has put it into a box.
                drop(unsafe { Box::from_raw(returned) });
            }
        };
    };
}

export! {
    "[static]client.open",
    fn open(options: u32) -> Returned<OpenResult, Option<Error>> {
        call_constructors();
        // SAFETY: it is an argument, and only this call takes it over.
        let options = unsafe { OptionsRecord::take(options) };
        match Client::open(options) {
            Ok(client) => {
                let client = Box::into_raw(Box::new(client));
                // SAFETY: the import takes an address, and returns a handle that the host
                // keeps with it.
                let handle = unsafe { new_client(client.cast()) };
                Returned::new(AbiResult::Ok(OwnedHandle(handle)), None)
            }
            Err(error) => Returned::new(AbiResult::Err(ErrorVariant::of(&error)), Some(error)),
        }
    }
}

// SAFETY: nothing else has a name like this.
#[unsafe(export_name = "edge:session-memory/memory@0.1.0#[dtor]client")]
unsafe extern "C" fn drop_client(client: *mut Client) {
    // SAFETY: the host passes the address that it got from `new_client`, which is that of
    // a box, and forgets it.
    drop(unsafe { Box::from_raw(client) });
}

export! {
    "[method]client.add",
    fn add(
        client: &Client,
        id: u32,
        id_length: u32,
        role: Role,
        content: u32,
        content_length: u32,
        has_metadata: u32,
        metadata: u32,
        metadata_length: u32
    ) -> Returned<AddResult> {
        let message = NewMessageRecord {
            role,
            content: string(content, content_length),
            metadata: option(has_metadata, string(metadata, metadata_length)),
        };
        // SAFETY: content and metadata are arguments, and only this call takes them over.
        let message = unsafe { message.into_message() };
        run(client, string(id, id_length), Action::Add(message), length)
    }
}

export! {
    "[method]client.add-all",
    fn add_all(
        client: &Client,
        id: u32,
        id_length: u32,
        messages: u32,
        count: u32
    ) -> Returned<AddResult> {
        let messages: AbiList<NewMessageRecord> = AbiList::new(messages, count);
        // SAFETY: the list is an argument, and only this call takes it over.
        let messages = unsafe { messages.into_messages() };
        run(client, string(id, id_length), Action::AddAll(messages), length)
    }
}

export! {
    "[method]client.get",
    fn get(
        client: &Client,
        id: u32,
        id_length: u32,
        has_limit: u32,
        limit: u32
    ) -> Returned<GetResult> {
        let action = Action::Get(option(has_limit, limit).into());
        run(client, string(id, id_length), action, |outcome| match outcome {
            OutcomeVariant::Messages(messages) => Some(messages),
            _ => None,
        })
    }
}

export! {
    "[method]client.history",
    fn history(
        client: &Client,
        id: u32,
        id_length: u32,
        has_limit: u32,
        limit: u32
    ) -> Returned<HistoryResult> {
        let action = Action::History(option(has_limit, limit).into());
        run(client, string(id, id_length), action, |outcome| match outcome {
            OutcomeVariant::History(history) => Some(history),
            _ => None,
        })
    }
}

export! {
    "[method]client.clear",
    fn clear(client: &Client, id: u32, id_length: u32) -> Returned<ClearResult> {
        run(client, string(id, id_length), Action::Clear, |outcome| match outcome {
            OutcomeVariant::Cleared => Some(()),
            _ => None,
        })
    }
}

export! {
    "[method]client.exists",
    fn exists(client: &Client, id: u32, id_length: u32) -> Returned<ExistsResult> {
        run(client, string(id, id_length), Action::Exists, |outcome| match outcome {
            OutcomeVariant::Exists(exists) => Some(exists),
            _ => None,
        })
    }
}

export! {
    "[method]client.count",
    fn count(client: &Client, id: u32, id_length: u32) -> Returned<CountResult> {
        run(client, string(id, id_length), Action::Count, length)
    }
}

/// What the addresses in the result of a pipeline point to.
type PipelineOwner = (Vec<OperationResult>, Vec<Owner>);

export! {
    "[method]client.pipeline",
    fn pipeline(
        client: &Client,
        operations: u32,
        count: u32
    ) -> Returned<PipelineResult, PipelineOwner> {
        // SAFETY: the list is an argument, and only this call takes it over.
        let operations = unsafe { AbiList::new(operations, count).into_operations() };
        let results = client.run_pipeline(operations).into_iter();
        let (results, owners): PipelineOwner = results.map(lay_out).unzip();
        Returned::new(AbiList::of(&results), (results, owners))
    }
}

/// Runs one operation. `value` extracts the function's result from the outcome.
fn run<T>(
    client: &Client,
    session_id: AbiString,
    action: Action,
    value: impl FnOnce(OutcomeVariant) -> Option<T>,
) -> *mut Returned<AbiResult<T>> {
    let operation = Operation {
        // SAFETY: the session id is an argument of the exported function that calls this
        // one, and only this call takes it over.
        session_id: unsafe { session_id.into_string() },
        action,
    };
    let (result, owner) = lay_out(client.run(operation));
    let result = match result {
        AbiResult::Ok(outcome) => {
            AbiResult::Ok(value(outcome).expect("each action has one kind of outcome"))
        }
        AbiResult::Err(error) => AbiResult::Err(error),
    };
    Returned::new(result, owner)
}

fn length(outcome: OutcomeVariant) -> Option<u32> {
    match outcome {
        OutcomeVariant::Length(length) => Some(length),
        _ => None,
    }
}

fn string(address: u32, length: u32) -> AbiString {
    AbiString(AbiList::new(address, length))
}

fn option<T>(is_some: u32, value: T) -> AbiOption<T> {
    match is_some {
        0 => AbiOption::None,
        _ => AbiOption::Some(value),
    }
}

impl OperationRecord {
    /// Takes over the session id and the arguments of the action.
    ///
    /// # Safety
    ///
    /// The same as for [`AbiList::into_vec`].
    unsafe fn into_operation(self) -> Operation {
        // SAFETY: session id, messages and lists are parts of the record, which is an
        // argument that is taken over here, each of them once.
        unsafe {
            Operation {
                session_id: self.session_id.into_string(),
                action: match self.action {
                    ActionVariant::Add(message) => Action::Add(message.into_message()),
                    ActionVariant::AddAll(messages) => Action::AddAll(messages.into_messages()),
                    ActionVariant::Get(limit) => Action::Get(limit.into()),
                    ActionVariant::History(limit) => Action::History(limit.into()),
                    ActionVariant::Clear => Action::Clear,
                    ActionVariant::Exists => Action::Exists,
                    ActionVariant::Count => Action::Count,
                },
            }
        }
    }
}

impl AbiList<OperationRecord> {
    /// Takes over the operations.
    ///
    /// # Safety
    ///
    /// The same as for [`AbiList::into_vec`].
    unsafe fn into_operations(self) -> Vec<Operation> {
        // SAFETY: the caller promises what `into_vec` asks for.
        let records = unsafe { self.into_vec() };
        // SAFETY: each record is a part of the list, which is an argument that is taken
        // over here, and the iteration reaches it once.
        let operation = |record: OperationRecord| unsafe { record.into_operation() };
        records.into_iter().map(operation).collect()
    }
}
