//! The resource `client`: chooses the provider, resolves the options, starts the
//! deadline.

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use session_memory_core::error::Error;
use session_memory_core::ids::Id;
use session_memory_core::in_memory;
use session_memory_core::message::{Messages, NewMessage};
use session_memory_core::operation::{Operation, Outcome, Stamp};
use session_memory_core::options::{Options, Provider, Settings};
use session_memory_core::retry::Pipeline;

use crate::redis::RedisClient;
use crate::state::{ids, recent_appends, store};
use crate::transport::deadline::Deadline;
use crate::wasi::environment::variables;
use crate::wasi::{clock, random};

/// An open client.
pub struct Client {
    settings: Settings,
    provider: ProviderState,
}

/// The provider, with its state for one client.
enum ProviderState {
    Redis(RefCell<RedisClient>),
    InMemory,
}

impl Client {
    /// Opens a client with these options. What they leave out comes from the environment.
    pub fn open(options: Options) -> Result<Client, Error> {
        let settings = Settings::resolve(options, &variables())?;
        let provider = match settings.provider {
            Provider::Redis => ProviderState::Redis(RefCell::new(RedisClient::open(&settings)?)),
            Provider::InMemory => ProviderState::InMemory,
        };
        Ok(Client { settings, provider })
    }

    /// Runs one operation.
    pub fn run(&self, operation: Operation) -> Result<Outcome<Messages>, Error> {
        let mut results = self.run_pipeline([operation].into());
        results.pop().expect("an operation has a result")
    }

    /// Runs operations together. Returns the result of each, in their order.
    pub fn run_pipeline(
        &self,
        operations: Vec<Operation>,
    ) -> Vec<Result<Outcome<Messages>, Error>> {
        let deadline = Deadline::after(self.settings.operation_timeout);
        if let Err(error) = check_memory(&operations) {
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
        let mut recent = recent_appends();
        let stamp = Stamp {
            timestamp: &timestamp,
            id: new_id,
            recent: &recent,
        };
        match &self.provider {
            ProviderState::Redis(client) => {
                let mut pipeline = Pipeline::new(operations, &self.settings, stamp);
                client
                    .borrow_mut()
                    .run(&mut pipeline, &self.settings, &deadline);
                pipeline.remember(&mut recent);
                pipeline.results().collect()
            }
            ProviderState::InMemory => {
                let now = clock::monotonic();
                let mut store = store();
                let run =
                    |operation| in_memory::run(&mut store, &self.settings, operation, stamp, now);
                operations.iter().map(run).collect()
            }
        }
    }
}

/// Returns an id that no other message has.
fn new_id() -> Id {
    ids().next(random::number)
}

/// Checks that there is memory for the elements and the request, because running out of
/// memory traps.
fn check_memory(operations: &[Operation]) -> Result<(), Error> {
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
