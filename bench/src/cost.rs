//! What else it costs: memory, allocations, the size of the component, and the time
//! to start.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use session_memory_host::{COMPONENT, Connect, Delivery};

use crate::allocations::{self, Allocations};
use crate::contender::{Contender, Natives, Ours, RedisRs, builder};
use crate::server::Redis;
use crate::slot::{self, Client, Operation, Result, Session, Slot, nanoseconds};
use crate::stats::median;

/// All of it.
pub struct Costs {
    /// Memory of gets.
    pub memory: Vec<Memory>,
    /// Allocations of operations.
    pub allocations: Vec<Counted>,
    /// Bytes of the component.
    pub component: usize,
    /// Nanoseconds to compile the component, link it and make an instance.
    pub compile: f64,
    /// Nanoseconds of the same with the compiled code on disk.
    pub load: f64,
    /// Nanoseconds to make an instance with an open client, and to drop it; of code
    /// that is loaded, in a place set aside, without a connection.
    pub instantiate: f64,
    /// Nanoseconds of a whole process of the command that asks whether a session
    /// exists, the compiled code on disk.
    pub command: f64,
    /// Nanoseconds of a process of the same command that only says its version.
    pub command_alone: f64,
}

/// What a get takes at its peak.
pub struct Memory {
    /// Messages.
    pub messages: u32,
    /// Bytes of a message's content.
    pub content: usize,
    /// Bytes of the server's reply.
    pub reply: usize,
    /// Bytes of the guest's memory with which it succeeds.
    pub guest: usize,
    /// Bytes by which the process with the host grows, and one with redis-rs.
    pub process: Option<(u64, u64)>,
}

/// Allocations of an operation.
pub struct Counted {
    /// Which operation.
    pub work: String,
    /// Those in the process of each contender.
    pub of: Vec<(Contender, f64, f64)>,
}

/// Measures all of it.
///
/// # Errors
///
/// That of the first measurement that fails.
pub fn measure(address: SocketAddr, redis: &mut Redis, cli: &Path, quick: bool) -> Result<Costs> {
    let (times, sizes) = match quick {
        true => (2, &[(100, 200)][..]),
        false => (20, &[(1_000, 4_000), (10_000, 200)][..]),
    };
    let mut memory = Vec::new();
    for (messages, content) in sizes {
        redis.fill(SESSION, *content, *messages)?;
        memory.push(Memory {
            messages: *messages,
            content: *content,
            reply: Redis::reply_bytes(*content, *messages)?,
            guest: guest_memory(address, *messages)?,
            process: process_memory(address, *messages)?,
        });
    }
    redis.fill(SESSION, 200, 10)?;
    let open = |cached: bool| {
        let runtime = slot::runtime(1)?;
        let builder = builder(address, Delivery::ExactlyOnce, Connect::WithFirstOperation);
        let builder = match cached {
            true => builder,
            false => builder.without_compilation_cache(),
        };
        timed(|| Ok(runtime.block_on(builder.open()).map(drop)?))
    };
    // The first one leaves it in the cache.
    open(true)?;
    let prepared = builder(address, Delivery::ExactlyOnce, Connect::WithFirstOperation)
        .preallocate(1)
        .prepare()?;
    let instantiate = || {
        let runtime = slot::runtime(1)?;
        timed(|| Ok(runtime.block_on(prepared.open()).map(drop)?))
    };
    let command = |arguments: &[&str]| {
        let mut command = Command::new(cli);
        command.args(arguments).stdout(Stdio::null());
        timed(|| match command.status()?.success() {
            true => Ok(()),
            false => Err(format!("{} has failed", cli.display()).into()),
        })
    };
    let port = address.port().to_string();
    let exists = ["--host", "127.0.0.1", "--port", &port, "exists", SESSION];
    let costs = Costs {
        memory,
        allocations: counted(redis, &mut Natives::open(address)?)?,
        component: COMPONENT.len(),
        compile: repeated(times.min(5), || open(false))?,
        load: repeated(times, || open(true))?,
        instantiate: repeated(10 * times, instantiate)?,
        command: repeated(times, || command(&exists))?,
        command_alone: repeated(times, || command(&["--version"]))?,
    };
    redis.forget(SESSION)?;
    Ok(costs)
}

const SESSION: &str = "costs";

/// The median time of so many.
fn repeated(times: usize, once: impl Fn() -> Result<f64>) -> Result<f64> {
    let times: Vec<f64> = (0..times).map(|_| once()).collect::<Result<_>>()?;
    Ok(median(times).ok_or("nothing was timed")?)
}

fn timed(once: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begin = Instant::now();
    once()?;
    Ok(nanoseconds(begin.elapsed()) as f64)
}

/// The least memory that a guest must be granted for a get to succeed.
fn guest_memory(address: SocketAddr, messages: u32) -> Result<usize> {
    let runtime = slot::runtime(1)?;
    let get = |bytes| {
        runtime.block_on(async {
            let builder = builder(address, Delivery::ExactlyOnce, Connect::WithFirstOperation)
                .max_memory(bytes);
            let memory = builder.open().await?;
            memory.get(SESSION, Some(messages)).await
        })
    };
    let mut enough = 1 << 30;
    get(enough)?;
    let mut too_little = 0;
    while enough - too_little > PAGE {
        let middle = too_little.midpoint(enough) / PAGE * PAGE;
        match get(middle) {
            Ok(_) => enough = middle,
            Err(_) => too_little = middle,
        }
    }
    Ok(enough)
}

/// Memory of a guest comes in pages.
const PAGE: usize = 64 * 1024;

/// By how much a process grows at the peak of a get: one with the host, and one with
/// redis-rs. None where the system does not say.
fn process_memory(address: SocketAddr, messages: u32) -> Result<Option<(u64, u64)>> {
    let growth = |contender: &str| -> Result<Option<u64>> {
        let output = Command::new(std::env::current_exe()?)
            .args([
                "growth",
                contender,
                &address.to_string(),
                &messages.to_string(),
            ])
            .stderr(Stdio::inherit())
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        match output.status.success() {
            true => Ok(text.trim().parse().ok()),
            false => Err(format!("the process that gets with {contender} has failed").into()),
        }
    };
    Ok(growth("ours")?.zip(growth("redis-rs")?))
}

/// What the process is for that [`process_memory`] starts: it prints by how many
/// bytes it grows when it gets, if it can know.
///
/// # Errors
///
/// The client's.
pub fn growth(contender: &str, address: SocketAddr, messages: u32) -> Result<()> {
    slot::runtime(1)?.block_on(async {
        match contender {
            "ours" => get(Ours::open(address, Delivery::ExactlyOnce).await?, messages).await,
            _ => get(RedisRs::open(address).await?, messages).await,
        }
    })
}

async fn get(mut client: impl Client, messages: u32) -> Result<()> {
    let session = Session {
        id: SESSION.to_owned(),
        key: format!("session:{SESSION}"),
    };
    client.exists(&session).await?;
    let before = status("VmRSS:");
    client.get(&session, messages).await?;
    if let Some(growth) = status("VmHWM:")
        .zip(before)
        .map(|(peak, before)| peak - before)
    {
        println!("{growth}");
    }
    Ok(())
}

/// A field of what Linux knows of this process, in bytes.
fn status(field: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Allocations of operations, of those contenders that run in this process.
fn counted(redis: &mut Redis, natives: &mut Natives) -> Result<Vec<Counted>> {
    let of = [
        Contender::RedisRs,
        Contender::ExactlyOnce,
        Contender::AtMostOnce,
    ];
    let mut all = Vec::new();
    for (work, operation) in [
        ("add 200 B", Operation::Add),
        ("get 10 × 200 B", Operation::Get),
        ("exists", Operation::Exists),
    ] {
        let slot = Slot {
            operation,
            session: SESSION.to_owned(),
            content: 200,
            last: 10,
            callers: 1,
            warm_up: 2,
            time: 0,
            at_least: 100,
            at_most: 100,
        };
        let mut counted = Vec::new();
        for contender in of {
            if contender.does(operation, 1) {
                allocations::count();
                let sample = natives.run(contender, &slot);
                let Allocations { count, bytes } = allocations::counted();
                let operations = sample?.operations as f64;
                counted.push((
                    contender,
                    count as f64 / operations,
                    bytes as f64 / operations,
                ));
                redis.clear(&slot)?;
            }
        }
        all.push(Counted {
            work: work.to_owned(),
            of: counted,
        });
    }
    Ok(all)
}
