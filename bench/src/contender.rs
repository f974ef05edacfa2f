//! Those who are compared.

mod floor;
mod ours;
mod redis_rs;
mod worker;

use std::net::SocketAddr;
use std::time::Duration;

use session_memory_host::Delivery;
use tokio::runtime::Runtime;

use crate::server::Redis;
use crate::slot::{self, Operation, Result, Sample, Slot};

pub use floor::Floor;
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

/// The clients of all of them, open.
pub struct Contenders {
    one_caller: Natives,
    many_callers: Natives,
    fred: Option<Worker>,
    python: Option<Worker>,
}

impl Contenders {
    /// Connects them. Those whose program is not given do not take part.
    ///
    /// # Errors
    ///
    /// When one cannot be started or cannot connect.
    pub fn open(
        address: SocketAddr,
        fred: Option<Worker>,
        python: Option<Worker>,
    ) -> Result<Contenders> {
        Ok(Contenders {
            one_caller: Natives::open(address, 1)?,
            many_callers: Natives::open(address, 2)?,
            fred,
            python,
        })
    }

    /// Leaves the script of the append on the server: whoever comes first finds it
    /// there, as all but the first do.
    ///
    /// # Errors
    ///
    /// As [`slot::run`].
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

    /// Those who take part in such a slot.
    pub fn of(&self, operation: Operation, callers: usize) -> Vec<Contender> {
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

    /// Gives a contender a slot.
    ///
    /// # Errors
    ///
    /// As [`slot::run`].
    pub fn run(&mut self, contender: Contender, slot: &Slot) -> Result<Sample> {
        let natives = match slot.callers {
            1 => &mut self.one_caller,
            _ => &mut self.many_callers,
        };
        let sample = match contender {
            Contender::Floor => natives
                .runtime
                .block_on(slot::run(&mut natives.floor, slot)),
            Contender::FloorAtMostOnce => natives
                .runtime
                .block_on(slot::run(&mut natives.floor_at_most_once, slot)),
            Contender::RedisRs => natives
                .runtime
                .block_on(slot::run(&mut natives.redis_rs, slot)),
            Contender::ExactlyOnce => natives
                .runtime
                .block_on(slot::run(&mut natives.exactly_once, slot)),
            Contender::AtMostOnce => natives
                .runtime
                .block_on(slot::run(&mut natives.at_most_once, slot)),
            Contender::Fred => worker(&mut self.fred)?.run("fred", slot),
            Contender::RedisPy | Contender::LangChain => {
                worker(&mut self.python)?.run(contender.name(), slot)
            }
        };
        sample.map_err(|error| format!("{}: {error}", contender.name()).into())
    }
}

fn worker(worker: &mut Option<Worker>) -> Result<&mut Worker> {
    Ok(worker.as_mut().ok_or("its program is not there")?)
}

/// For an operation and for a reply, with every Rust client.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Those that run in this process, on one runtime.
struct Natives {
    runtime: Runtime,
    floor: Floor,
    floor_at_most_once: Floor,
    redis_rs: RedisRs,
    exactly_once: Ours,
    at_most_once: Ours,
}

impl Natives {
    fn open(address: SocketAddr, callers: usize) -> Result<Natives> {
        let runtime = slot::runtime(callers)?;
        let (floor, floor_at_most_once, redis_rs, exactly_once, at_most_once) =
            runtime.block_on(async {
                Result::Ok((
                    Floor::open(address, Delivery::ExactlyOnce).await?,
                    Floor::open(address, Delivery::AtMostOnce).await?,
                    RedisRs::open(address).await?,
                    Ours::open(address, Delivery::ExactlyOnce).await?,
                    Ours::open(address, Delivery::AtMostOnce).await?,
                ))
            })?;
        Ok(Natives {
            runtime,
            floor,
            floor_at_most_once,
            redis_rs,
            exactly_once,
            at_most_once,
        })
    }
}
