//! The exported interface: WIT types to ours and back, and the choice of the
//! provider. Reads the environment and the time.

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::bindings::contract::{memory, types};
use crate::bindings::wasi::cli::environment::get_environment;
use crate::bindings::{Component, sessions};
use crate::client::Client;
use crate::clock::{self, Deadline};
use crate::error::Error;
use crate::message::{Message, NewMessage, Role};
use crate::operation::{Action, History, Operation, Outcome};
use crate::options::{Connect, Delivery, Options, Password, Provider, Settings, TtlPolicy};
use crate::pipeline::Pipeline;
use crate::random;
use crate::session::Stamp;

impl memory::Guest for Component {
    type Client = Open;
}

/// An open client.
pub struct Open {
    settings: Settings,
    memory: Memory,
}

enum Memory {
    Redis(RefCell<Client>),
    InMemory,
}

impl memory::GuestClient for Open {
    fn open(options: types::Options) -> Result<memory::Client, types::Error> {
        let open = || {
            let settings = Settings::resolve(options.into(), &get_environment())?;
            let memory = match settings.provider {
                Provider::Redis => Memory::Redis(RefCell::new(Client::open(&settings)?)),
                Provider::InMemory => Memory::InMemory,
            };
            Ok(memory::Client::new(Open { settings, memory }))
        };
        open().map_err(|error: Error| error.into())
    }

    fn add(
        &self,
        session_id: String,
        role: types::Role,
        content: String,
        metadata: Option<String>,
    ) -> Result<u32, types::Error> {
        let message = NewMessage {
            role: role.into(),
            content,
            metadata,
        };
        self.length(session_id, Action::Add(message))
    }

    fn add_all(
        &self,
        session_id: String,
        messages: Vec<types::NewMessage>,
    ) -> Result<u32, types::Error> {
        let messages = messages.into_iter().map(NewMessage::from).collect();
        self.length(session_id, Action::AddAll(messages))
    }

    fn get(
        &self,
        session_id: String,
        limit: Option<u32>,
    ) -> Result<Vec<types::Message>, types::Error> {
        match self.one(session_id, Action::Get(limit))? {
            Outcome::Messages(messages) => {
                Ok(messages.into_iter().map(types::Message::from).collect())
            }
            _ => unreachable!("get answers messages"),
        }
    }

    fn history(
        &self,
        session_id: String,
        limit: Option<u32>,
    ) -> Result<types::History, types::Error> {
        match self.one(session_id, Action::History(limit))? {
            Outcome::History(history) => Ok(history.into()),
            _ => unreachable!("history answers a history"),
        }
    }

    fn clear(&self, session_id: String) -> Result<(), types::Error> {
        self.one(session_id, Action::Clear).map(|_| ())
    }

    fn exists(&self, session_id: String) -> Result<bool, types::Error> {
        match self.one(session_id, Action::Exists)? {
            Outcome::Exists(exists) => Ok(exists),
            _ => unreachable!("exists answers a bool"),
        }
    }

    fn count(&self, session_id: String) -> Result<u32, types::Error> {
        self.length(session_id, Action::Count)
    }

    fn pipeline(
        &self,
        operations: Vec<types::Operation>,
    ) -> Vec<Result<types::Outcome, types::Error>> {
        let operations = operations.into_iter().map(Operation::from).collect();
        self.run(operations)
            .into_iter()
            .map(|result| match result {
                Ok(outcome) => Ok(outcome.into()),
                Err(error) => Err(error.into()),
            })
            .collect()
    }
}

impl Open {
    fn length(&self, session_id: String, action: Action) -> Result<u32, types::Error> {
        match self.one(session_id, action)? {
            Outcome::Length(length) => Ok(length),
            _ => unreachable!("appends and count answer a length"),
        }
    }

    fn one(&self, session_id: String, action: Action) -> Result<Outcome, types::Error> {
        let mut results = self.run([Operation { session_id, action }].into());
        let result = results.pop().expect("an operation has a result");
        result.map_err(types::Error::from)
    }

    fn run(&self, operations: Vec<Operation>) -> Vec<Result<Outcome, Error>> {
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
        let timestamp = clock::timestamp();
        let stamp = Stamp {
            timestamp: &timestamp,
            id: random::id,
        };
        match &self.memory {
            Memory::Redis(client) => {
                let mut pipeline = Pipeline::new(operations, &self.settings, stamp);
                client
                    .borrow_mut()
                    .run(&mut pipeline, &self.settings, &deadline);
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
        message.content.len() + message.metadata.as_ref().map_or(0, String::len)
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

impl From<types::Options> for Options {
    fn from(options: types::Options) -> Options {
        Options {
            provider: options.provider.map(|provider| match provider {
                types::Provider::Redis => Provider::Redis,
                types::Provider::InMemory => Provider::InMemory,
            }),
            host: options.host,
            port: options.port,
            username: options.username,
            password: options.password.map(Password::from),
            db: options.db,
            session_ttl: options.session_ttl,
            ttl_policy: options.ttl_policy.map(|policy| match policy {
                types::TtlPolicy::Sliding => TtlPolicy::Sliding,
                types::TtlPolicy::Fixed => TtlPolicy::Fixed,
                types::TtlPolicy::None => TtlPolicy::None,
            }),
            delivery: options.delivery.map(|delivery| match delivery {
                types::Delivery::ExactlyOnce => Delivery::ExactlyOnce,
                types::Delivery::AtMostOnce => Delivery::AtMostOnce,
            }),
            key_prefix: options.key_prefix,
            connect_timeout: options.connect_timeout,
            connect: options.connect.map(|connect| match connect {
                types::Connect::AtOpen => Connect::AtOpen,
                types::Connect::AtFirstOperation => Connect::AtFirstOperation,
                types::Connect::WithFirstOperation => Connect::WithFirstOperation,
            }),
            operation_timeout: options.operation_timeout,
            max_messages: options.max_messages,
            max_message_bytes: options.max_message_bytes,
            max_reply_bytes: options.max_reply_bytes,
        }
    }
}

impl From<types::Role> for Role {
    fn from(role: types::Role) -> Role {
        match role {
            types::Role::User => Role::User,
            types::Role::Assistant => Role::Assistant,
        }
    }
}

impl From<types::NewMessage> for NewMessage {
    fn from(message: types::NewMessage) -> NewMessage {
        NewMessage {
            role: message.role.into(),
            content: message.content,
            metadata: message.metadata,
        }
    }
}

impl From<types::Operation> for Operation {
    fn from(operation: types::Operation) -> Operation {
        Operation {
            session_id: operation.session_id,
            action: match operation.action {
                types::Action::Add(message) => Action::Add(message.into()),
                types::Action::AddAll(messages) => {
                    Action::AddAll(messages.into_iter().map(NewMessage::from).collect())
                }
                types::Action::Get(limit) => Action::Get(limit),
                types::Action::History(limit) => Action::History(limit),
                types::Action::Clear => Action::Clear,
                types::Action::Exists => Action::Exists,
                types::Action::Count => Action::Count,
            },
        }
    }
}

impl From<Message> for types::Message {
    fn from(message: Message) -> types::Message {
        types::Message {
            role: match message.role {
                Role::User => types::Role::User,
                Role::Assistant => types::Role::Assistant,
            },
            content: message.content,
            timestamp: message.timestamp,
            metadata: message.metadata,
            id: message.id,
        }
    }
}

impl From<Outcome> for types::Outcome {
    fn from(outcome: Outcome) -> types::Outcome {
        match outcome {
            Outcome::Length(length) => types::Outcome::Length(length),
            Outcome::Messages(messages) => {
                types::Outcome::Messages(messages.into_iter().map(types::Message::from).collect())
            }
            Outcome::History(history) => types::Outcome::History(history.into()),
            Outcome::Cleared => types::Outcome::Cleared,
            Outcome::Exists(exists) => types::Outcome::Exists(exists),
        }
    }
}

impl From<History> for types::History {
    fn from(history: History) -> types::History {
        types::History {
            messages: history
                .messages
                .into_iter()
                .map(types::Message::from)
                .collect(),
            total: history.total,
            skipped: history.skipped,
            ttl_seconds: history.ttl_seconds,
        }
    }
}

impl From<Error> for types::Error {
    fn from(error: Error) -> types::Error {
        match error {
            Error::InvalidArgument(text) => types::Error::InvalidArgument(text),
            Error::Unavailable(text) => types::Error::Unavailable(text),
            Error::Timeout(text) => types::Error::Timeout(text),
            Error::OutcomeUnknown(text) => types::Error::OutcomeUnknown(text),
            Error::AccessDenied(text) => types::Error::AccessDenied(text),
            Error::WrongType(text) => types::Error::WrongType(text),
            Error::LimitExceeded(text) => types::Error::LimitExceeded(text),
            Error::Protocol(text) => types::Error::Protocol(text),
            Error::Server { code, message } => {
                types::Error::Server(types::ServerError { code, message })
            }
            Error::Other(text) => types::Error::Other(text),
        }
    }
}
