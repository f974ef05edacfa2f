//! The clients that are linked into this program.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;

use session_memory_host::Delivery;
use tokio::runtime::Runtime;

use super::{Contender, Floor, Ours, RedisRs};
use crate::burst::{self, Burst, BurstRequest, Result, Sample};

/// All linked clients, once for one caller and once for many callers.
pub struct Natives {
    one_caller: Clients,
    many_callers: Clients,
}

/// The clients on one runtime.
struct Clients {
    runtime: Runtime,
    floor: Floor,
    floor_at_most_once: Floor,
    redis_rs: RedisRs,
    exactly_once: Ours,
    at_most_once: Ours,
}

impl Natives {
    /// Connects all clients.
    ///
    /// # Errors
    ///
    /// Fails when a client cannot connect.
    pub fn open(address: SocketAddr) -> Result<Natives> {
        Ok(Natives {
            one_caller: Clients::open(address, 1)?,
            many_callers: Clients::open(address, 2)?,
        })
    }

    /// Runs a burst of a contender.
    ///
    /// # Errors
    ///
    /// Fails when [`burst::run`] fails, or when the contender has its own program.
    pub fn run(&mut self, contender: Contender, burst: &Burst) -> Result<Sample> {
        let clients = match burst.callers {
            1 => &mut self.one_caller,
            _ => &mut self.many_callers,
        };
        let runtime = &clients.runtime;
        match contender {
            Contender::Floor => runtime.block_on(burst::run(&mut clients.floor, burst)),
            Contender::FloorAtMostOnce => {
                runtime.block_on(burst::run(&mut clients.floor_at_most_once, burst))
            }
            Contender::RedisRs => runtime.block_on(burst::run(&mut clients.redis_rs, burst)),
            Contender::ExactlyOnce => {
                runtime.block_on(burst::run(&mut clients.exactly_once, burst))
            }
            Contender::AtMostOnce => runtime.block_on(burst::run(&mut clients.at_most_once, burst)),
            Contender::Fred | Contender::RedisPy | Contender::LangChain => {
                Err(format!("{} has its own program", contender.name()).into())
            }
        }
    }
}

impl Clients {
    fn open(address: SocketAddr, callers: usize) -> Result<Clients> {
        let runtime = burst::runtime(callers)?;
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
        Ok(Clients {
            runtime,
            floor,
            floor_at_most_once,
            redis_rs,
            exactly_once,
            at_most_once,
        })
    }
}

/// Runs the bursts requested on standard input, until it ends.
///
/// # Errors
///
/// Fails when a request is malformed or a burst fails.
pub fn serve(address: SocketAddr) -> Result<()> {
    let mut natives = Natives::open(address)?;
    for line in io::stdin().lock().lines() {
        let BurstRequest { client, burst } = serde_json::from_str(&line?)?;
        let contender = Contender::ALL
            .into_iter()
            .find(|contender| contender.name() == client)
            .ok_or_else(|| format!("no contender has the name {client}"))?;
        let mut sample = serde_json::to_string(&natives.run(contender, &burst)?)?;
        sample.push('\n');
        io::stdout().write_all(sample.as_bytes())?;
    }
    Ok(())
}
