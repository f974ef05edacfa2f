//! Session Memory: all callers share one `SessionMemory`.

use std::net::SocketAddr;

use session_memory_host::{
    Action, Builder, Connect, Delivery, NewMessage, Operation, Options, Outcome, Role,
    SessionMemory, SessionMemoryPre,
};

use super::TIMEOUT;
use crate::burst::{BenchClient, Result, SessionRef};

/// An application that keeps its sessions with Session Memory.
pub struct Ours {
    memory: SessionMemory,
    /// Opens fresh instances.
    prepared: SessionMemoryPre,
}

impl Ours {
    /// Loads the component and connects.
    ///
    /// # Errors
    ///
    /// Fails when the component cannot be loaded or the server cannot be reached.
    pub async fn open(address: SocketAddr, delivery: Delivery) -> Result<Ours> {
        let prepared = builder(address, delivery, Connect::WithFirstOperation)
            .preallocate(8)
            .prepare()?;
        Ok(Ours {
            memory: builder(address, delivery, Connect::AtOpen).open().await?,
            prepared,
        })
    }
}

/// Returns a builder for a memory on this server. It ignores the environment.
pub fn builder(address: SocketAddr, delivery: Delivery, connect: Connect) -> Builder {
    SessionMemory::builder().environment([]).options(
        Options::new()
            .host(address.ip().to_string())
            .port(address.port())
            .delivery(delivery)
            .connect(connect)
            .operation_timeout(TIMEOUT),
    )
}

impl BenchClient for Ours {
    async fn share(&self) -> Result<Ours> {
        Ok(Ours {
            memory: self.memory.clone(),
            prepared: self.prepared.clone(),
        })
    }

    /// Opens a new instance. Its first operation connects.
    async fn fresh(&self) -> Result<Ours> {
        Ok(Ours {
            memory: self.prepared.open().await?,
            prepared: self.prepared.clone(),
        })
    }

    async fn add(&mut self, session: &SessionRef, content: &str) -> Result<usize> {
        let length = self
            .memory
            .add(&session.id, Role::User, content, None)
            .await?;
        Ok(length as usize)
    }

    async fn get(&mut self, session: &SessionRef, last: u32) -> Result<usize> {
        Ok(self.memory.get(&session.id, Some(last)).await?.len())
    }

    async fn exists(&mut self, session: &SessionRef) -> Result<bool> {
        Ok(self.memory.exists(&session.id).await?)
    }

    /// Runs the add and the get in one round trip.
    async fn turn(&mut self, session: &SessionRef, content: &str, last: u32) -> Result<usize> {
        let operation = |action| Operation {
            session_id: session.id.clone(),
            action,
        };
        let message = NewMessage::user(content);
        let turn = [
            operation(Action::Add(message)),
            operation(Action::Get(Some(last))),
        ];
        let mut results = self.memory.pipeline(&turn).await?.into_iter();
        match (results.next(), results.next()) {
            (Some(Ok(_)), Some(Ok(Outcome::Messages(messages)))) => Ok(messages.len()),
            other => Err(format!("unexpected results of a turn: {other:?}").into()),
        }
    }
}
