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
use crate::operation::{Action, History, Operation};
use crate::options::{Delivery, Options, Password, Provider, Settings, TtlPolicy};
use crate::random;

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
                Provider::Redis => Memory::Redis(RefCell::new(Client::open(settings.clone())?)),
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
        self.append(&session_id, &[message])
            .map_err(|error| error.during("add to", &session_id).into())
    }

    fn add_all(
        &self,
        session_id: String,
        messages: Vec<types::NewMessage>,
    ) -> Result<u32, types::Error> {
        let messages: Vec<_> = messages.into_iter().map(NewMessage::from).collect();
        self.append(&session_id, &messages)
            .map_err(|error| error.during("add-all to", &session_id).into())
    }

    fn get(
        &self,
        session_id: String,
        limit: Option<u32>,
    ) -> Result<Vec<types::Message>, types::Error> {
        let get = |key: &str, deadline: &Deadline| match &self.memory {
            Memory::Redis(client) => client.borrow_mut().get(key, limit, deadline),
            Memory::InMemory => {
                let now = clock::monotonic();
                Ok(sessions()
                    .history(&self.settings, key, limit, now)?
                    .messages)
            }
        };
        let messages = self.run("get", &session_id, get)?;
        Ok(messages.into_iter().map(types::Message::from).collect())
    }

    fn history(
        &self,
        session_id: String,
        limit: Option<u32>,
    ) -> Result<types::History, types::Error> {
        let history = |key: &str, deadline: &Deadline| match &self.memory {
            Memory::Redis(client) => client.borrow_mut().history(key, limit, deadline),
            Memory::InMemory => sessions().history(&self.settings, key, limit, clock::monotonic()),
        };
        Ok(self.run("history of", &session_id, history)?.into())
    }

    fn clear(&self, session_id: String) -> Result<(), types::Error> {
        self.run("clear", &session_id, |key, deadline| match &self.memory {
            Memory::Redis(client) => client.borrow_mut().clear(key, deadline),
            Memory::InMemory => {
                sessions().clear(key);
                Ok(())
            }
        })
    }

    fn exists(&self, session_id: String) -> Result<bool, types::Error> {
        Ok(self.run("exists", &session_id, |key, deadline| {
            self.length(key, deadline)
        })? > 0)
    }

    fn count(&self, session_id: String) -> Result<u32, types::Error> {
        self.run("count", &session_id, |key, deadline| {
            self.length(key, deadline)
        })
    }

    fn pipeline(
        &self,
        operations: Vec<types::Operation>,
    ) -> Vec<Result<types::Outcome, types::Error>> {
        operations
            .into_iter()
            .map(|operation| self.operate(operation.into()))
            .collect()
    }
}

impl Open {
    fn operate(&self, operation: Operation) -> Result<types::Outcome, types::Error> {
        use memory::GuestClient;

        let id = operation.session_id;
        Ok(match operation.action {
            Action::Add(message) => types::Outcome::Length(
                self.append(&id, &[message])
                    .map_err(|error| types::Error::from(error.during("add to", &id)))?,
            ),
            Action::AddAll(messages) => types::Outcome::Length(
                self.append(&id, &messages)
                    .map_err(|error| types::Error::from(error.during("add-all to", &id)))?,
            ),
            Action::Get(limit) => types::Outcome::Messages(self.get(id, limit)?),
            Action::History(limit) => types::Outcome::History(self.history(id, limit)?),
            Action::Clear => {
                self.clear(id)?;
                types::Outcome::Cleared
            }
            Action::Exists => types::Outcome::Exists(self.exists(id)?),
            Action::Count => types::Outcome::Length(self.count(id)?),
        })
    }

    fn append(&self, session_id: &str, messages: &[NewMessage]) -> Result<u32, Error> {
        let deadline = self.deadline();
        let key = self.settings.key(session_id)?;
        room_for(messages)?;
        let timestamp = clock::timestamp();
        let encode = |message: &NewMessage| {
            let id = match self.settings.delivery {
                Delivery::ExactlyOnce => Some(random::id()),
                Delivery::AtMostOnce => None,
            };
            message.encode(&timestamp, id.as_deref(), self.settings.max_message_bytes)
        };
        let elements: Vec<_> = messages.iter().map(encode).collect::<Result<_, _>>()?;
        match &self.memory {
            Memory::Redis(client) => client.borrow_mut().append(&key, &elements, &deadline),
            Memory::InMemory if elements.is_empty() => self.length(&key, &deadline),
            Memory::InMemory => {
                Ok(sessions().append(&self.settings, &key, elements, clock::monotonic()))
            }
        }
    }

    fn length(&self, key: &str, deadline: &Deadline) -> Result<u32, Error> {
        match &self.memory {
            Memory::Redis(client) => client.borrow_mut().length(key, deadline),
            Memory::InMemory => Ok(sessions().length(key, clock::monotonic())),
        }
    }

    /// An operation's time runs from when it is called.
    fn deadline(&self) -> Deadline {
        Deadline::after(self.settings.operation_timeout)
    }

    fn run<T>(
        &self,
        operation: &str,
        session_id: &str,
        on_key: impl FnOnce(&str, &Deadline) -> Result<T, Error>,
    ) -> Result<T, types::Error> {
        let deadline = self.deadline();
        let key = self.settings.key(session_id);
        let result = key.and_then(|key| on_key(&key, &deadline));
        result.map_err(|error| error.during(operation, session_id).into())
    }
}

/// Whether there is memory for the elements and the request: running out of it is
/// a trap.
fn room_for(messages: &[NewMessage]) -> Result<(), Error> {
    let bytes = |message: &NewMessage| {
        message.content.len() + message.metadata.as_ref().map_or(0, String::len)
    };
    let bytes: usize = messages.iter().map(bytes).sum();
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
            lazy_connect: options.lazy_connect,
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
