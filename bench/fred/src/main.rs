//! fred, compared with Session Memory: a process that runs bursts. Requests come from its
//! standard input, responses go to its standard output.
//!
//! It is a program of its own because the component and fred cannot be compiled into one
//! program. It shares the benchmark's files for the timing and the JSON.

#[expect(
    dead_code,
    reason = "fred needs no session ids, and this process has one client"
)]
#[path = "../../src/burst.rs"]
mod burst;
#[path = "../../src/element.rs"]
mod element;

use std::env;
use std::io::{self, BufRead, Write};
use std::time::Duration;

use burst::{BenchClient, BurstRequest, Result, SessionRef};
use fred::prelude::{
    Builder, Client as Connection, ClientLike, Config, KeysInterface, ListInterface, ServerConfig,
    TcpConfig, TransactionInterface, Value,
};

fn main() -> Result<()> {
    let port = env::args()
        .nth(1)
        .ok_or("usage: session-memory-bench-fred PORT")?;
    let port = port.parse()?;
    let one = burst::runtime(1)?;
    let many = burst::runtime(2)?;
    let mut one_caller = one.block_on(Fred::open(port))?;
    let mut many_callers = many.block_on(Fred::open(port))?;
    for line in io::stdin().lock().lines() {
        let BurstRequest { burst, .. } = serde_json::from_str(&line?)?;
        let sample = match burst.callers {
            1 => one.block_on(burst::run(&mut one_caller, &burst))?,
            _ => many.block_on(burst::run(&mut many_callers, &burst))?,
        };
        let mut response = serde_json::to_string(&sample)?;
        response.push('\n');
        io::stdout().write_all(response.as_bytes())?;
    }
    Ok(())
}

/// An application that keeps its sessions with fred. All callers share one connection.
struct Fred {
    port: u16,
    connection: Connection,
}

impl Fred {
    async fn open(port: u16) -> Result<Fred> {
        let mut builder = Builder::from_config(Config {
            server: ServerConfig::new_centralized("127.0.0.1", port),
            ..Config::default()
        });
        builder.with_connection_config(|config| {
            config.tcp = TcpConfig {
                nodelay: Some(true),
                ..TcpConfig::default()
            };
        });
        builder.with_performance_config(|config| config.default_command_timeout = TIMEOUT);
        let connection = builder.build()?;
        connection.init().await?;
        Ok(Fred { port, connection })
    }
}

impl BenchClient for Fred {
    async fn share(&self) -> Result<Fred> {
        Ok(Fred {
            port: self.port,
            connection: self.connection.clone(),
        })
    }

    async fn fresh(&self) -> Result<Fred> {
        Fred::open(self.port).await
    }

    async fn add(&mut self, session: &SessionRef, content: &str) -> Result<usize> {
        let element = element::encode(content)?;
        let transaction = self.connection.multi();
        let _: () = transaction.rpush(&session.key, element).await?;
        let _: () = transaction.expire(&session.key, TTL, None).await?;
        let (length, _): (usize, Value) = transaction.exec(true).await?;
        Ok(length)
    }

    async fn get(&mut self, session: &SessionRef, last: u32) -> Result<usize> {
        let elements: Vec<String> = self
            .connection
            .lrange(&session.key, -i64::from(last), -1)
            .await?;
        Ok(element::decode(&elements)?.len())
    }

    async fn exists(&mut self, session: &SessionRef) -> Result<bool> {
        Ok(self.connection.exists(&session.key).await?)
    }
}

/// The timeout of a command.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The time to live of a session, in seconds.
const TTL: i64 = 3600;
