//! fred, side by side with Session Memory: a process that is told on its standard
//! input what to do in a slot, and answers on its standard output what it came to.
//!
//! It is one of its own since the component and fred cannot be compiled into one
//! program. What times it and what its user writes are the benchmark's own files.

#[path = "../../src/element.rs"]
mod element;
#[expect(
    dead_code,
    reason = "the id of a session is for those who know sessions"
)]
#[path = "../../src/slot.rs"]
mod slot;

use std::env;
use std::io::{self, BufRead, Write};
use std::time::Duration;

use fred::prelude::{
    Builder, Client as Connection, ClientLike, Config, KeysInterface, ListInterface, ServerConfig,
    TcpConfig, TransactionInterface, Value,
};
use serde::Deserialize;

use slot::{Client, Result, Session, Slot};

/// What a line of the standard input says.
#[derive(Deserialize)]
struct Request {
    slot: Slot,
}

fn main() -> Result<()> {
    let port = env::args()
        .nth(1)
        .ok_or("the port of the server is missing")?;
    let port = port.parse()?;
    let one = slot::runtime(1)?;
    let many = slot::runtime(2)?;
    let mut one_caller = one.block_on(Fred::open(port))?;
    let mut many_callers = many.block_on(Fred::open(port))?;
    for line in io::stdin().lock().lines() {
        let Request { slot } = serde_json::from_str(&line?)?;
        let sample = match slot.callers {
            1 => one.block_on(slot::run(&mut one_caller, &slot))?,
            _ => many.block_on(slot::run(&mut many_callers, &slot))?,
        };
        let mut answer = serde_json::to_string(&sample)?;
        answer.push('\n');
        io::stdout().write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// A program that keeps its sessions with fred: one connection, which all callers
/// share.
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

impl Client for Fred {
    async fn share(&self) -> Result<Fred> {
        Ok(Fred {
            port: self.port,
            connection: self.connection.clone(),
        })
    }

    async fn fresh(&self) -> Result<Fred> {
        Fred::open(self.port).await
    }

    async fn add(&mut self, session: &Session, content: &str) -> Result<usize> {
        let element = element::encode(content)?;
        let transaction = self.connection.multi();
        let _: () = transaction.rpush(&session.key, element).await?;
        let _: () = transaction.expire(&session.key, TTL, None).await?;
        let (length, _): (usize, Value) = transaction.exec(true).await?;
        Ok(length)
    }

    async fn get(&mut self, session: &Session, last: u32) -> Result<usize> {
        let elements: Vec<String> = self
            .connection
            .lrange(&session.key, -i64::from(last), -1)
            .await?;
        Ok(element::decode(&elements)?.len())
    }

    async fn exists(&mut self, session: &Session) -> Result<bool> {
        Ok(self.connection.exists(&session.key).await?)
    }
}

const TIMEOUT: Duration = Duration::from_secs(60);
const TTL: i64 = 3600;
