//! The exported resource: the choice of the provider. Reads the environment and the
//! time.

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::bindings::wasi::cli::environment::get_environment;
use crate::bindings::{endings, sessions};
use crate::client::Client;
use crate::clock::{self, Deadline};
use crate::error::Error;
use crate::message::NewMessage;
use crate::messages::Messages;
use crate::operation::{Action, Operation, Outcome};
use crate::options::{Options, Provider, Settings};
use crate::pipeline::Pipeline;
use crate::random;
use crate::session::Stamp;

/// An open client.
pub struct Open {
    settings: Settings,
    memory: Memory,
}

enum Memory {
    Redis(RefCell<Client>),
    InMemory,
}

impl Open {
    /// Opens a client with these options and those of the environment.
    pub fn new(options: Options) -> Result<Open, Error> {
        let settings = Settings::resolve(options, &get_environment())?;
        let memory = match settings.provider {
            Provider::Redis => Memory::Redis(RefCell::new(Client::open(&settings)?)),
            Provider::InMemory => Memory::InMemory,
        };
        Ok(Open { settings, memory })
    }

    /// Runs one operation.
    pub fn one(&self, operation: Operation) -> Result<Outcome<Messages>, Error> {
        let mut results = self.run([operation].into());
        results.pop().expect("an operation has a result")
    }

    /// Runs operations together; each has its result.
    pub fn run(&self, operations: Vec<Operation>) -> Vec<Result<Outcome<Messages>, Error>> {
        // The time of the operations runs from when they are called.
        let deadline = Deadline::after(self.settings.operation_timeout);
        if let Err(error) = room_for(&operations) {
            let failed = |operation: &Operation| {
                Err(error
                    .clone()
                    .during(operation.action.name(), &operation.session_id))
            };
            return operations.iter().map(failed).collect();
        }
        let appends =
            |operation: &Operation| matches!(operation.action, Action::Add(_) | Action::AddAll(_));
        let timestamp = match operations.iter().any(appends) {
            true => clock::timestamp(),
            false => String::new(),
        };
        let mut endings = endings();
        let stamp = Stamp {
            timestamp: &timestamp,
            id: random::id,
            endings: &endings,
        };
        match &self.memory {
            Memory::Redis(client) => {
                let mut pipeline = Pipeline::new(operations, &self.settings, stamp);
                client
                    .borrow_mut()
                    .run(&mut pipeline, &self.settings, &deadline);
                pipeline.keep_in_mind(&mut endings);
                pipeline.results().collect()
            }
            Memory::InMemory => {
                let now = clock::monotonic();
                let operate = |operation| sessions().operate(&self.settings, operation, stamp, now);
                operations.into_iter().map(operate).collect()
            }
        }
    }
}

/// Whether there is memory for the elements and the request: running out of it is
/// a trap.
fn room_for(operations: &[Operation]) -> Result<(), Error> {
    let bytes = |message: &NewMessage| {
        message.content.len()
            + message
                .metadata
                .as_ref()
                .map_or(0, |metadata| metadata.len())
    };
    let bytes: usize = operations
        .iter()
        .map(|operation| match &operation.action {
            Action::Add(message) => bytes(message),
            Action::AddAll(messages) => messages.iter().map(bytes).sum(),
            _ => 0,
        })
        .sum();
    Vec::<u8>::new()
        .try_reserve_exact(bytes.saturating_mul(2))
        .map_err(|_| Error::LimitExceeded("the messages take more memory than is left".into()))
}
