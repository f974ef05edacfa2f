//! The clients that are linked into this program.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;

use serde::Deserialize;
use session_memory_host::Delivery;
use tokio::runtime::Runtime;

use super::{Contender, Floor, Ours, RedisRs};
use crate::slot::{self, Result, Sample, Slot};

/// Those for one caller and those for many, each on a runtime of its own.
pub struct Natives {
    one_caller: Clients,
    many_callers: Clients,
}

struct Clients {
    runtime: Runtime,
    floor: Floor,
    floor_at_most_once: Floor,
    redis_rs: RedisRs,
    exactly_once: Ours,
    at_most_once: Ours,
}

impl Natives {
    /// Connects all of them.
    ///
    /// # Errors
    ///
    /// When one cannot connect.
    pub fn open(address: SocketAddr) -> Result<Natives> {
        Ok(Natives {
            one_caller: Clients::open(address, 1)?,
            many_callers: Clients::open(address, 2)?,
        })
    }

    /// Gives a contender a slot.
    ///
    /// # Errors
    ///
    /// As [`slot::run`], and for a contender that has a program of its own.
    pub fn run(&mut self, contender: Contender, slot: &Slot) -> Result<Sample> {
        let clients = match slot.callers {
            1 => &mut self.one_caller,
            _ => &mut self.many_callers,
        };
        let runtime = &clients.runtime;
        match contender {
            Contender::Floor => runtime.block_on(slot::run(&mut clients.floor, slot)),
            Contender::FloorAtMostOnce => {
                runtime.block_on(slot::run(&mut clients.floor_at_most_once, slot))
            }
            Contender::RedisRs => runtime.block_on(slot::run(&mut clients.redis_rs, slot)),
            Contender::ExactlyOnce => runtime.block_on(slot::run(&mut clients.exactly_once, slot)),
            Contender::AtMostOnce => runtime.block_on(slot::run(&mut clients.at_most_once, slot)),
            Contender::Fred | Contender::RedisPy | Contender::LangChain => {
                Err(format!("{} has a program of its own", contender.name()).into())
            }
        }
    }
}

impl Clients {
    fn open(address: SocketAddr, callers: usize) -> Result<Clients> {
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

#[derive(Deserialize)]
struct Request {
    client: String,
    slot: Slot,
}

/// What a process of these clients does: it runs the slots that standard input asks for.
///
/// # Errors
///
/// That of the first slot that fails.
pub fn serve(address: SocketAddr) -> Result<()> {
    let mut natives = Natives::open(address)?;
    for line in io::stdin().lock().lines() {
        let Request { client, slot } = serde_json::from_str(&line?)?;
        let contender = Contender::ALL
            .into_iter()
            .find(|contender| contender.name() == client)
            .ok_or_else(|| format!("no client is called {client}"))?;
        let mut sample = serde_json::to_string(&natives.run(contender, &slot)?)?;
        sample.push('\n');
        io::stdout().write_all(sample.as_bytes())?;
    }
    Ok(())
}
