//! Those who are compared.

mod floor;
mod natives;
mod ours;
mod redis_rs;
mod worker;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::server::Redis;
use crate::slot::{Operation, Result, Sample, Slot};

pub use floor::Floor;
pub use natives::{Natives, serve};
pub use ours::{Ours, builder};
pub use redis_rs::RedisRs;
pub use worker::Worker;

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// The bytes that the component sends with exactly-once delivery, built before,
    /// on a TCP stream; replies are only counted.
    Floor,
    /// The same for at-most-once delivery.
    FloorAtMostOnce,
    /// redis-rs and serde_json.
    RedisRs,
    /// fred and serde_json.
    Fred,
    /// Session Memory with exactly-once delivery.
    ExactlyOnce,
    /// Session Memory with at-most-once delivery.
    AtMostOnce,
    /// redis-py with hiredis, as the Python client of the sessions uses it.
    RedisPy,
    /// The Redis history of langchain-community.
    LangChain,
}

impl Contender {
    /// In the order in which they are shown.
    pub const ALL: [Contender; 8] = [
        Contender::Floor,
        Contender::FloorAtMostOnce,
        Contender::RedisRs,
        Contender::Fred,
        Contender::ExactlyOnce,
        Contender::AtMostOnce,
        Contender::RedisPy,
        Contender::LangChain,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Contender::Floor => "floor",
            Contender::FloorAtMostOnce => "floor, at most once",
            Contender::RedisRs => "redis-rs",
            Contender::Fred => "fred",
            Contender::ExactlyOnce => "ours, exactly once",
            Contender::AtMostOnce => "ours, at most once",
            Contender::RedisPy => "redis-py",
            Contender::LangChain => "langchain",
        }
    }

    /// The floor that it is compared with.
    pub fn floor(self) -> Contender {
        match self {
            Contender::AtMostOnce => Contender::FloorAtMostOnce,
            _ => Contender::Floor,
        }
    }

    /// Whether it takes part in such a slot.
    pub fn does(self, operation: Operation, callers: usize) -> bool {
        match self {
            Contender::Floor | Contender::RedisRs | Contender::Fred | Contender::ExactlyOnce => {
                true
            }
            // The delivery makes a difference to what writes only.
            Contender::FloorAtMostOnce | Contender::AtMostOnce => {
                matches!(operation, Operation::Add | Operation::Turn)
            }
            // One thread at a time runs Python.
            Contender::RedisPy => callers == 1 && operation != Operation::Fresh,
            // It reads whole sessions, and has nothing like exists.
            Contender::LangChain => {
                callers == 1 && matches!(operation, Operation::Add | Operation::Get)
            }
        }
    }
}

/// What the processes of the contenders are started from.
pub struct Programs<'a> {
    /// The server's.
    pub address: SocketAddr,
    /// The program for fred; without it, fred does not take part.
    pub fred: Option<&'a Path>,
    /// A Python that has the clients for Python; without it, they do not take part.
    pub python: Option<&'a Path>,
}

/// The processes of all contenders.
pub struct Contenders {
    natives: Worker,
    fred: Option<Worker>,
    python: Option<Worker>,
}

impl Contenders {
    /// Starts them.
    ///
    /// # Errors
    ///
    /// When one cannot be started.
    pub fn start(programs: &Programs<'_>) -> Result<Contenders> {
        let port = programs.address.port().to_string();
        let natives = {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("serve").arg(programs.address.to_string());
            Worker::start(&mut command)?
        };
        let fred = |program| Worker::start(Command::new(program).arg(&port));
        let python = |python| {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/worker.py");
            let mut command = Command::new(python);
            // langchain-community says with every import that it is not cared for.
            command.args(["-W", "ignore"]).arg(script).arg(&port);
            Worker::start(&mut command)
        };
        Ok(Contenders {
            natives,
            fred: programs.fred.map(fred).transpose()?,
            python: programs.python.map(python).transpose()?,
        })
    }

    /// Their processes.
    pub fn process_ids(&self) -> Vec<u32> {
        let others = self.fred.iter().chain(&self.python);
        let all = [&self.natives].into_iter().chain(others);
        all.map(Worker::process_id).collect()
    }

    /// Leaves the script of the append on the server: whoever comes first finds it
    /// there, as all but the first do.
    ///
    /// # Errors
    ///
    /// As [`Contenders::run`].
    pub fn load_script(&mut self, redis: &mut Redis) -> Result<()> {
        let slot = Slot {
            operation: Operation::Add,
            session: "write-first".to_owned(),
            content: 100,
            last: 1,
            callers: 1,
            warm_up: 0,
            time: 0,
            at_least: 1,
            at_most: 1,
        };
        self.run(Contender::ExactlyOnce, &slot)?;
        redis.clear(&slot)
    }

    /// Gives a contender a slot.
    ///
    /// # Errors
    ///
    /// When its process ends, or has no program.
    pub fn run(&mut self, contender: Contender, slot: &Slot) -> Result<Sample> {
        let worker = match contender {
            Contender::Fred => self.fred.as_mut(),
            Contender::RedisPy | Contender::LangChain => self.python.as_mut(),
            _ => Some(&mut self.natives),
        };
        let worker = worker.ok_or("its program is not there")?;
        let sample = worker.run(contender.name(), slot);
        sample.map_err(|error| format!("{}: {error}", contender.name()).into())
    }
}

impl Programs<'_> {
    /// The contenders that take part in such a slot.
    pub fn contenders(&self, operation: Operation, callers: usize) -> Vec<Contender> {
        let is_there = |contender| match contender {
            Contender::Fred => self.fred.is_some(),
            Contender::RedisPy | Contender::LangChain => self.python.is_some(),
            _ => true,
        };
        Contender::ALL
            .into_iter()
            .filter(|contender| is_there(*contender) && contender.does(operation, callers))
            .collect()
    }
}

/// For an operation and for a reply, with every Rust client.
const TIMEOUT: Duration = Duration::from_secs(60);
