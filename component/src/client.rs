//! The exported resource: the choice of the provider. Reads the environment and the
//! time.

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::bindings::wasi::cli::environment::get_environment;
use crate::bindings::{recent, sessions};
use crate::redis::RedisClient;
use crate::wasi::clock::{self, Deadline};
use crate::wasi::random;
use session_memory_core::error::Error;
use session_memory_core::in_memory;
use session_memory_core::message::{Messages, NewMessage};
use session_memory_core::operation::{Operation, Outcome, Stamp};
use session_memory_core::options::{Options, Provider, Settings};
use session_memory_core::retry::Pipeline;

/// An open client.
pub struct Client {
    settings: Settings,
    memory: Memory,
}

enum Memory {
    Redis(RefCell<RedisClient>),
    InMemory,
}

impl Client {
    /// Opens a client with these options and those of the environment.
    pub fn new(options: Options) -> Result<Client, Error> {
        let settings = Settings::resolve(options, &get_environment())?;
        let memory = match settings.provider {
            Provider::Redis => Memory::Redis(RefCell::new(RedisClient::open(&settings)?)),
            Provider::InMemory => Memory::InMemory,
        };
        Ok(Client { settings, memory })
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
        let appends = |operation: &Operation| !operation.action.new_messages().is_empty();
        let timestamp = match operations.iter().any(appends) {
            true => clock::timestamp(),
            false => String::new(),
        };
        let mut recent = recent();
        let stamp = Stamp {
            timestamp: &timestamp,
            id: random::id,
            recent: &recent,
        };
        match &self.memory {
            Memory::Redis(client) => {
                let mut pipeline = Pipeline::new(operations, &self.settings, stamp);
                client
                    .borrow_mut()
                    .run(&mut pipeline, &self.settings, &deadline);
                pipeline.remember(&mut recent);
                pipeline.results().collect()
            }
            Memory::InMemory => {
                let now = clock::monotonic();
                let mut store = sessions();
                let run =
                    |operation| in_memory::run(&mut store, &self.settings, operation, stamp, now);
                operations.iter().map(run).collect()
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
    let messages = operations
        .iter()
        .flat_map(|operation| operation.action.new_messages());
    let bytes: usize = messages.map(bytes).sum();
    Vec::<u8>::new()
        .try_reserve_exact(bytes.saturating_mul(2))
        .map_err(|_| Error::LimitExceeded("the messages take more memory than is left".into()))
}
