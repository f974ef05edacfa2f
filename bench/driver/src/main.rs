//! Runs operations of Session Memory as it is told, and tells how long they took.
//!
//! Versions of Session Memory are compared by their drivers, since the library's interface
//! changes and this protocol does not. The argument is the port of a Redis server on
//! 127.0.0.1. Each line of standard input is an operation and a count; the line that
//! answers it is the nanoseconds that so many of them took together, one after the other.
//! An operation that the driver does not know is answered by `unknown`. With the argument
//! `spin` it does nothing, without a rest, until its standard input ends: that keeps a core
//! awake.
//!
//! | operation | what is timed |
//! |---|---|
//! | `add`, `add-at-most-once` | an append of 200 bytes to a session of at most 20 messages |
//! | `get-10`, `get-1000` | the read of the last messages, of 200 bytes each |
//! | `history-10` | the same with the total and the time to live |
//! | `turn` | an append and the read of the last ten messages, in one pipeline |
//! | `exists` | whether a session exists |
//! | `fresh` | a new instance with a new connection, and `exists` |

use std::hint::spin_loop;
use std::io::{self, BufRead, Write};
use std::net::Ipv4Addr;
use std::time::Instant;
use std::{env, error, thread};

use session_memory_host::{
    Action, Builder, Connect, Delivery, NewMessage, Operation, Options, Role, SessionMemory,
    SessionMemoryPre,
};

type Result<T> = std::result::Result<T, Box<dyn error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let argument = env::args()
        .nth(1)
        .ok_or("usage: driver PORT, or: driver spin")?;
    if argument == "spin" {
        let waiting = thread::spawn(|| io::stdin().lines().count());
        while !waiting.is_finished() {
            spin_loop();
        }
        return Ok(());
    }
    let mut driver = Driver::open(argument.parse()?).await?;
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (operation, count) = line.split_once(' ').ok_or("expected: OPERATION COUNT")?;
        match driver.run(operation, count.parse()?).await? {
            Some(nanoseconds) => writeln!(out, "{nanoseconds}")?,
            None => writeln!(out, "unknown")?,
        }
        out.flush()?;
    }
    Ok(())
}

struct Driver {
    memory: SessionMemory,
    at_most_once: SessionMemory,
    prepared: SessionMemoryPre,
    content: String,
    appended: u32,
}

impl Driver {
    async fn open(port: u16) -> Result<Driver> {
        let at_most_once = builder(port, Delivery::AtMostOnce, Connect::AtOpen);
        let memory = builder(port, Delivery::ExactlyOnce, Connect::AtOpen);
        let prepared = builder(port, Delivery::ExactlyOnce, Connect::WithFirstOperation);
        let mut driver = Driver {
            memory: memory.open().await?,
            at_most_once: at_most_once.open().await?,
            prepared: prepared.preallocate(8).prepare()?,
            content: String::new(),
            appended: 0,
        };
        driver.fill().await?;
        Ok(driver)
    }

    /// Makes the sessions that are read.
    async fn fill(&mut self) -> Result<()> {
        for (session, count) in [("ten", 10), ("thousand", 1000)] {
            self.memory.clear(session).await?;
            let messages: Vec<_> = (0..count).map(|number| message(&text(number))).collect();
            self.memory.add_all(session, messages).await?;
        }
        self.content = text(0);
        Ok(())
    }

    async fn run(&mut self, operation: &str, count: u32) -> Result<Option<u128>> {
        let begin = Instant::now();
        for _ in 0..count {
            match operation {
                "add" => {
                    let session = self.session();
                    let content = &self.content;
                    self.memory.add(&session, Role::User, content, None).await?;
                }
                "add-at-most-once" => {
                    let session = self.session();
                    let memory = &self.at_most_once;
                    memory
                        .add(&session, Role::User, &self.content, None)
                        .await?;
                }
                "get-10" => drop(self.memory.get("ten", Some(10)).await?),
                "get-1000" => drop(self.memory.get("thousand", Some(1000)).await?),
                "history-10" => drop(self.memory.history("ten", Some(10)).await?),
                "turn" => {
                    let session_id = self.session();
                    let add = Action::Add(message(&self.content));
                    let turn = [add, Action::Get(Some(10))].map(|action| Operation {
                        session_id: session_id.clone(),
                        action,
                    });
                    for result in self.memory.pipeline(&turn).await? {
                        result?;
                    }
                }
                "exists" => drop(self.memory.exists("ten").await?),
                "fresh" => drop(self.prepared.open().await?.exists("ten").await?),
                _ => return Ok(None),
            }
        }
        Ok(Some(begin.elapsed().as_nanos()))
    }

    /// A session for an append, which gets no more than twenty.
    fn session(&mut self) -> String {
        self.appended += 1;
        format!("{} {}", std::process::id(), self.appended / 20)
    }
}

fn builder(port: u16, delivery: Delivery, connect: Connect) -> Builder {
    SessionMemory::builder().environment([]).options(
        Options::new()
            .host(Ipv4Addr::LOCALHOST.to_string())
            .port(port)
            .delivery(delivery)
            .connect(connect),
    )
}

fn message(content: &str) -> NewMessage {
    NewMessage::user(content)
}

/// A text of 200 bytes that differs from the others.
fn text(number: u32) -> String {
    format!("{number:08} {}", "What is RAG? ".repeat(15))[..200].to_owned()
}
