//! The contenders: the clients that are compared.

mod floor;
mod natives;
mod ours;
mod redis_rs;
mod worker;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::burst::{BenchOperation, Burst, Result, Sample};
use crate::server::Redis;

pub use floor::Floor;
pub use natives::{Natives, serve};
pub use ours::{Ours, builder};
pub use redis_rs::RedisRs;
pub use worker::WorkerProcess;

/// A client that is compared, with the way in which it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// The component's bytes with exactly-once delivery, prepared beforehand, on a TCP
    /// stream. Replies are only counted.
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
    /// redis-py with hiredis, as a Python program would keep the same sessions.
    RedisPy,
    /// The Redis history of langchain-community.
    LangChain,
}

impl Contender {
    /// All contenders, in the order of the report.
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

    /// Returns the name of the contender in the report.
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

    /// Returns the floor of this contender.
    pub fn floor(self) -> Contender {
        match self {
            Contender::AtMostOnce => Contender::FloorAtMostOnce,
            _ => Contender::Floor,
        }
    }

    /// Whether the contender takes part in bursts of this operation.
    pub fn takes_part(self, operation: BenchOperation, callers: usize) -> bool {
        match self {
            Contender::Floor | Contender::RedisRs | Contender::Fred | Contender::ExactlyOnce => {
                true
            }
            // Only operations that write depend on the delivery.
            Contender::FloorAtMostOnce | Contender::AtMostOnce => {
                matches!(operation, BenchOperation::Add | BenchOperation::Turn)
            }
            // Python runs one thread at a time.
            Contender::RedisPy => callers == 1 && operation != BenchOperation::Fresh,
            // It reads whole sessions only, and has no counterpart of exists.
            Contender::LangChain => {
                callers == 1 && matches!(operation, BenchOperation::Add | BenchOperation::Get)
            }
        }
    }
}

/// The programs that run the contenders, and the server for them.
pub struct Programs<'a> {
    /// The address of the server.
    pub address: SocketAddr,
    /// The program of bench/fred. Without it, fred does not take part.
    pub fred: Option<&'a Path>,
    /// A Python with its clients installed. Without it, they do not take part.
    pub python: Option<&'a Path>,
}

/// The processes of all contenders.
pub struct Contenders {
    natives: WorkerProcess,
    fred: Option<WorkerProcess>,
    python: Option<WorkerProcess>,
}

impl Contenders {
    /// Starts the processes.
    ///
    /// # Errors
    ///
    /// Fails when a process cannot be started.
    pub fn start(programs: &Programs<'_>) -> Result<Contenders> {
        let port = programs.address.port().to_string();
        let natives = {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("serve").arg(programs.address.to_string());
            WorkerProcess::start(&mut command)?
        };
        let fred = |program| WorkerProcess::start(Command::new(program).arg(&port));
        let python = |python| {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/worker.py");
            let mut command = Command::new(python);
            // Every import of langchain-community warns that it is no longer maintained.
            command.args(["-W", "ignore"]).arg(script).arg(&port);
            WorkerProcess::start(&mut command)
        };
        Ok(Contenders {
            natives,
            fred: programs.fred.map(fred).transpose()?,
            python: programs.python.map(python).transpose()?,
        })
    }

    /// Returns the ids of the processes.
    pub fn process_ids(&self) -> Vec<u32> {
        let others = self.fred.iter().chain(&self.python);
        let all = [&self.natives].into_iter().chain(others);
        all.map(WorkerProcess::process_id).collect()
    }

    /// Loads the script of the append into the server. So the first burst finds it there,
    /// as all others do.
    ///
    /// # Errors
    ///
    /// Fails when [`Contenders::run`] fails.
    pub fn load_script(&mut self, redis: &mut Redis) -> Result<()> {
        let burst = Burst {
            operation: BenchOperation::Add,
            session: "write-first".to_owned(),
            content: 100,
            last: 1,
            callers: 1,
            warm_up: 0,
            time: 0,
            min_operations: 1,
            max_operations: 1,
        };
        self.run(Contender::ExactlyOnce, &burst)?;
        redis.clear(&burst)
    }

    /// Runs a burst of a contender.
    ///
    /// # Errors
    ///
    /// Fails when the process of the contender ends or was not started.
    pub fn run(&mut self, contender: Contender, burst: &Burst) -> Result<Sample> {
        let worker = match contender {
            Contender::Fred => self.fred.as_mut(),
            Contender::RedisPy | Contender::LangChain => self.python.as_mut(),
            _ => Some(&mut self.natives),
        };
        let worker = worker.ok_or_else(|| format!("{} was not started", contender.name()))?;
        let sample = worker.run(contender.name(), burst);
        sample.map_err(|error| format!("{}: {error}", contender.name()).into())
    }
}

impl Programs<'_> {
    /// Returns the contenders that take part in bursts of this operation.
    pub fn contenders(&self, operation: BenchOperation, callers: usize) -> Vec<Contender> {
        let is_available = |contender| match contender {
            Contender::Fred => self.fred.is_some(),
            Contender::RedisPy | Contender::LangChain => self.python.is_some(),
            _ => true,
        };
        Contender::ALL
            .into_iter()
            .filter(|contender| {
                is_available(*contender) && contender.takes_part(operation, callers)
            })
            .collect()
    }
}

/// The timeout of an operation or a reply, for all Rust clients.
const TIMEOUT: Duration = Duration::from_secs(60);
