//! Runs operations of Session Memory on request and reports their times.
//!
//! Each version of Session Memory has its driver. The library's interface changes between
//! versions. The protocol of the driver does not, so versions can be compared.
//!
//! The argument is the port of a Redis server on 127.0.0.1. A request is a line on standard
//! input: an operation and a count. The response is a line on standard output: the
//! nanoseconds that all these operations took together. The response is `unknown` if the
//! driver does not know the operation. With the argument `spin`, the driver spins until its
//! standard input ends, which keeps a core awake.
//!
//! | operation | timed work |
//! |---|---|
//! | `add`, `add-at-most-once` | an append of 200 bytes to a session of at most 20 messages |
//! | `get-10`, `get-1000` | the read of the last messages, of 200 bytes each |
//! | `get-10000` | the read of a whole session, without a limit |
//! | `history-10` | the same as `get-10`, with the total and the time to live |
//! | `turn` | an append and the read of the last ten messages, in one pipeline |
//! | `exists` | the check whether a session exists |
//! | `fresh` | a new instance with a new connection, and `exists` |
//! | `add-64-callers`, `turn-64-callers` | 64 callers at once, each with its own session |
//! | `add-64-one-session` | 64 callers at once, all with the same session |
//!
//! A single caller runs its operations one after the other, on a runtime of one thread.
//! Many callers share a runtime of two threads and the count.

#[path = "../../src/spin.rs"]
mod spin;

use std::collections::HashSet;
use std::io::{self, BufRead, Write};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use std::{env, error};

use session_memory_host::{
    Action, Builder, Connect, Delivery, NewMessage, Operation, Options, Role, SessionMemory,
    SessionMemoryPre,
};
use tokio::runtime::{Builder as RuntimeBuilder, Runtime};
use tokio::task::JoinSet;

type Result<T> = std::result::Result<T, Box<dyn error::Error + Send + Sync>>;

fn main() -> Result<()> {
    let argument = env::args()
        .nth(1)
        .ok_or("usage: driver PORT, or: driver spin")?;
    if argument == "spin" {
        spin::until_input_ends();
        return Ok(());
    }
    let mut driver = Driver::open(argument.parse()?)?;
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (operation, count) = line.split_once(' ').ok_or("expected: OPERATION COUNT")?;
        match driver.run(operation, count.parse()?)? {
            Some(time) => writeln!(out, "{}", time.as_nanos())?,
            None => writeln!(out, "unknown")?,
        }
        out.flush()?;
    }
    Ok(())
}

/// Runs the requests.
struct Driver {
    // Fields are dropped in order: each caller before its runtime.
    single: Single,
    runtime: Runtime,
    many: Many,
    many_runtime: Runtime,
}

impl Driver {
    fn open(port: u16) -> Result<Driver> {
        let runtime = RuntimeBuilder::new_current_thread().enable_all().build()?;
        let single = runtime.block_on(Single::open(port))?;
        let mut many_runtime = RuntimeBuilder::new_multi_thread();
        let many_runtime = many_runtime.worker_threads(2).enable_all().build()?;
        let many = many_runtime.block_on(Many::open(port))?;
        Ok(Driver {
            single,
            runtime,
            many,
            many_runtime,
        })
    }

    /// Returns the time that `count` operations take together. `None` if the operation is
    /// unknown.
    fn run(&mut self, operation: &str, count: u32) -> Result<Option<Duration>> {
        let (kind, sharing) = match operation {
            "add-64-callers" => (Kind::Add, Sharing::Nothing),
            "add-64-one-session" => (Kind::Add, Sharing::Session),
            "turn-64-callers" => (Kind::Turn, Sharing::Nothing),
            _ => return self.runtime.block_on(self.single.run(operation, count)),
        };
        let burst = self.many.burst(kind, sharing, count);
        Ok(Some(self.many_runtime.block_on(burst)?))
    }
}

/// One caller that waits for each result.
struct Single {
    memory: SessionMemory,
    at_most_once: SessionMemory,
    prepared: SessionMemoryPre,
    /// The sessions to read that were already written.
    filled: HashSet<&'static str>,
    content: String,
    appended: u32,
}

impl Single {
    async fn open(port: u16) -> Result<Single> {
        let at_most_once = builder(port, Delivery::AtMostOnce, Connect::AtOpen);
        let memory = builder(port, Delivery::ExactlyOnce, Connect::AtOpen);
        let prepared = builder(port, Delivery::ExactlyOnce, Connect::WithFirstOperation);
        Ok(Single {
            memory: memory.open().await?,
            at_most_once: at_most_once.open().await?,
            prepared: prepared.preallocate(8).prepare()?,
            filled: HashSet::new(),
            content: text(0),
            appended: 0,
        })
    }

    /// Writes the session that an operation reads, before its first read.
    async fn fill(&mut self, operation: &str) -> Result<()> {
        let (session, count) = match operation {
            "get-10" | "history-10" | "exists" | "fresh" => ("ten", 10),
            "get-1000" => ("thousand", 1000),
            "get-10000" => ("ten thousand", 10_000),
            _ => return Ok(()),
        };
        if self.filled.insert(session) {
            self.memory.clear(session).await?;
            let messages: Vec<_> = (0..count).map(|number| message(&text(number))).collect();
            for messages in messages.chunks(1000) {
                self.memory.add_all(session, messages).await?;
            }
        }
        Ok(())
    }

    async fn run(&mut self, operation: &str, count: u32) -> Result<Option<Duration>> {
        self.fill(operation).await?;
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
                "get-10000" => drop(self.memory.get("ten thousand", None).await?),
                "history-10" => drop(self.memory.history("ten", Some(10)).await?),
                "turn" => {
                    let session = self.session();
                    turn(&self.memory, &session, &self.content).await?;
                }
                "exists" => drop(self.memory.exists("ten").await?),
                "fresh" => drop(self.prepared.open().await?.exists("ten").await?),
                _ => return Ok(None),
            }
        }
        Ok(Some(begin.elapsed()))
    }

    /// Returns the session for an append. Each session gets at most 20 messages.
    fn session(&mut self) -> String {
        self.appended += 1;
        format!("{} {}", std::process::id(), self.appended / 20)
    }
}

/// Many concurrent callers. Each waits for its own results.
struct Many {
    memory: SessionMemory,
}

/// The operation of many callers.
#[derive(Clone, Copy)]
enum Kind {
    Add,
    Turn,
}

/// What many callers share.
#[derive(Clone, Copy)]
enum Sharing {
    Nothing,
    Session,
}

impl Many {
    async fn open(port: u16) -> Result<Many> {
        let memory = builder(port, Delivery::ExactlyOnce, Connect::AtOpen);
        Ok(Many {
            memory: memory.open().await?,
        })
    }

    /// Returns the time in which all callers together run `count` operations.
    async fn burst(&self, kind: Kind, sharing: Sharing, count: u32) -> Result<Duration> {
        let session = |caller: u32| match sharing {
            Sharing::Nothing => format!("{} many {caller}", std::process::id()),
            Sharing::Session => format!("{} many", std::process::id()),
        };
        // Each burst begins with empty sessions.
        for caller in 0..CALLERS {
            self.memory.clear(&session(caller)).await?;
        }
        let begin = Instant::now();
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let memory = self.memory.clone();
            let session = session(caller);
            callers.spawn(async move {
                let content = text(caller);
                for _ in 0..count.div_ceil(CALLERS) {
                    match kind {
                        Kind::Add => {
                            memory.add(&session, Role::User, &content, None).await?;
                        }
                        Kind::Turn => turn(&memory, &session, &content).await?,
                    }
                }
                Result::Ok(())
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller??;
        }
        Ok(begin.elapsed())
    }
}

/// Appends a message and reads the last ten in one pipeline.
async fn turn(memory: &SessionMemory, session: &str, content: &str) -> Result<()> {
    let add = Action::Add(message(content));
    let turn = [add, Action::Get(Some(10))].map(|action| Operation {
        session_id: session.to_owned(),
        action,
    });
    for result in memory.pipeline(&turn).await? {
        result?;
    }
    Ok(())
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

/// Returns a text of 200 bytes, different for each number.
fn text(number: u32) -> String {
    format!("{number:08} {}", "What is RAG? ".repeat(15))[..200].to_owned()
}

/// The number of callers in [`Many`].
const CALLERS: u32 = 64;
