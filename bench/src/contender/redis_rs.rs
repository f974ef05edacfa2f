//! redis-rs: all callers share one multiplexed connection.

use std::net::SocketAddr;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncCommands, AsyncConnectionConfig, Client as Target, IntoConnectionInfo};

use super::TIMEOUT;
use crate::burst::{BenchClient, Result, SessionRef};
use crate::element;

/// An application that keeps its sessions with redis-rs.
pub struct RedisRs {
    target: Target,
    connection: MultiplexedConnection,
}

impl RedisRs {
    /// Connects.
    ///
    /// # Errors
    ///
    /// Fails when redis-rs cannot connect.
    pub async fn open(address: SocketAddr) -> Result<RedisRs> {
        let tcp = TcpSettings::default().set_nodelay(true);
        let server = (address.ip().to_string(), address.port())
            .into_connection_info()?
            .set_tcp_settings(tcp);
        RedisRs::connect(Target::open(server)?).await
    }

    async fn connect(target: Target) -> Result<RedisRs> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(TIMEOUT));
        let connection = target
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        Ok(RedisRs { target, connection })
    }
}

impl BenchClient for RedisRs {
    async fn share(&self) -> Result<RedisRs> {
        Ok(RedisRs {
            target: self.target.clone(),
            connection: self.connection.clone(),
        })
    }

    async fn fresh(&self) -> Result<RedisRs> {
        RedisRs::connect(self.target.clone()).await
    }

    async fn add(&mut self, session: &SessionRef, content: &str) -> Result<usize> {
        let element = element::encode(content)?;
        let (length,) = redis::pipe()
            .atomic()
            .rpush(&session.key, element)
            .expire(&session.key, TTL)
            .ignore()
            .query_async(&mut self.connection)
            .await?;
        Ok(length)
    }

    async fn get(&mut self, session: &SessionRef, last: u32) -> Result<usize> {
        let elements: Vec<String> = self
            .connection
            .lrange(&session.key, -isize::try_from(last)?, -1)
            .await?;
        Ok(element::decode(&elements)?.len())
    }

    async fn exists(&mut self, session: &SessionRef) -> Result<bool> {
        Ok(self.connection.exists(&session.key).await?)
    }
}

/// The time to live of a session, in seconds.
const TTL: i64 = 3600;
