//! The exports of the component as generated functions, and conversions of their types.

#![allow(missing_docs, reason = "wit/ documents the contract")]

use std::time::Duration;

use session_memory_core::error::Error as MemoryError;
use session_memory_core::message::{Message, NewMessage, Role};
use session_memory_core::operation::{Action, History, Operation, Outcome};
use session_memory_core::options::{Connect, Delivery, Options, Password, Provider, TtlPolicy};

wasmtime::component::bindgen!({
    path: "../wit",
    inline: "
        package edge:session-memory-host;

        // What the component exports. The linker provides what it imports.
        world exports {
            export edge:session-memory/types@0.1.0;
            export edge:session-memory/memory@0.1.0;
        }
    ",
    world: "edge:session-memory-host/exports",
    exports: { default: async },
});

pub(crate) use exports::edge::session_memory::{memory, types};

impl From<&Options> for types::Options {
    /// Converts options that [`Settings::resolve`] has accepted.
    ///
    /// [`Settings::resolve`]: session_memory_core::options::Settings::resolve
    fn from(options: &Options) -> types::Options {
        let seconds = |duration: Duration| duration.as_secs() as u32;
        let milliseconds = |duration: Duration| duration.as_millis() as u32;
        types::Options {
            provider: options.provider.map(|provider| match provider {
                Provider::Redis => types::Provider::Redis,
                Provider::InMemory => types::Provider::InMemory,
            }),
            host: options.host.clone(),
            port: options.port,
            username: options.username.clone(),
            password: options
                .password
                .as_ref()
                .map(|password: &Password| password.reveal().to_owned()),
            db: options.db,
            session_ttl: options.session_ttl.map(seconds),
            ttl_policy: options.ttl_policy.map(|policy| match policy {
                TtlPolicy::Sliding => types::TtlPolicy::Sliding,
                TtlPolicy::Fixed => types::TtlPolicy::Fixed,
                TtlPolicy::None => types::TtlPolicy::None,
            }),
            delivery: options.delivery.map(|delivery| match delivery {
                Delivery::ExactlyOnce => types::Delivery::ExactlyOnce,
                Delivery::AtMostOnce => types::Delivery::AtMostOnce,
            }),
            key_prefix: options.key_prefix.clone(),
            connect_timeout: options.connect_timeout.map(milliseconds),
            connect: options.connect.map(|connect| match connect {
                Connect::AtOpen => types::Connect::AtOpen,
                Connect::AtFirstOperation => types::Connect::AtFirstOperation,
                Connect::WithFirstOperation => types::Connect::WithFirstOperation,
            }),
            operation_timeout: options.operation_timeout.map(milliseconds),
            response_timeout: options.response_timeout.map(milliseconds),
            max_idle: options.max_idle.map(milliseconds),
            max_messages: options.max_messages,
            max_message_bytes: options.max_message_bytes,
            max_reply_bytes: options.max_reply_bytes,
        }
    }
}

impl From<Role> for types::Role {
    fn from(role: Role) -> types::Role {
        match role {
            Role::User => types::Role::User,
            Role::Assistant => types::Role::Assistant,
            _ => unreachable!("the contract has no other role"),
        }
    }
}

impl From<NewMessage> for types::NewMessage {
    fn from(message: NewMessage) -> types::NewMessage {
        types::NewMessage {
            role: message.role.into(),
            content: message.content,
            metadata: message.metadata,
        }
    }
}

impl From<Operation> for memory::Operation {
    fn from(operation: Operation) -> memory::Operation {
        memory::Operation {
            session_id: operation.session_id,
            action: match operation.action {
                Action::Add(message) => memory::Action::Add(message.into()),
                Action::AddAll(messages) => memory::Action::AddAll(
                    messages.into_iter().map(types::NewMessage::from).collect(),
                ),
                Action::Get(limit) => memory::Action::Get(limit),
                Action::History(limit) => memory::Action::History(limit),
                Action::Clear => memory::Action::Clear,
                Action::Exists => memory::Action::Exists,
                Action::Count => memory::Action::Count,
                _ => unreachable!("the contract has no other action"),
            },
        }
    }
}

impl From<memory::Outcome> for Outcome {
    fn from(outcome: memory::Outcome) -> Outcome {
        match outcome {
            memory::Outcome::Length(length) => Outcome::Length(length),
            memory::Outcome::Messages(messages) => {
                Outcome::Messages(messages.into_iter().map(Message::from).collect())
            }
            memory::Outcome::History(history) => Outcome::History(history.into()),
            memory::Outcome::Cleared => Outcome::Cleared,
            memory::Outcome::Exists(exists) => Outcome::Exists(exists),
        }
    }
}

impl From<types::Message> for Message {
    fn from(message: types::Message) -> Message {
        let role = match message.role {
            types::Role::User => Role::User,
            types::Role::Assistant => Role::Assistant,
        };
        let mut read = Message::new(role, message.content, message.timestamp);
        read.metadata = message.metadata;
        read.id = message.id;
        read
    }
}

impl From<types::History> for History {
    fn from(history: types::History) -> History {
        let messages = history.messages.into_iter().map(Message::from).collect();
        let mut read = History::new(messages, history.total);
        read.skipped = history.skipped;
        read.ttl = history
            .ttl_seconds
            .map(|ttl| Duration::from_secs(ttl.into()));
        read
    }
}

impl From<types::Error> for MemoryError {
    fn from(error: types::Error) -> MemoryError {
        match error {
            types::Error::InvalidArgument(text) => MemoryError::InvalidArgument(text),
            types::Error::Unavailable(text) => MemoryError::Unavailable(text),
            types::Error::Timeout(text) => MemoryError::Timeout(text),
            types::Error::OutcomeUnknown(text) => MemoryError::OutcomeUnknown(text),
            types::Error::AccessDenied(text) => MemoryError::AccessDenied(text),
            types::Error::WrongType(text) => MemoryError::WrongType(text),
            types::Error::LimitExceeded(text) => MemoryError::LimitExceeded(text),
            types::Error::Protocol(text) => MemoryError::Protocol(text),
            types::Error::Server(types::ServerError { code, message }) => {
                MemoryError::Server { code, message }
            }
            types::Error::Other(text) => MemoryError::Other(text),
        }
    }
}
