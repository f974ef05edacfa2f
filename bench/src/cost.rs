//! Costs other than latency: memory, allocations, the size of the component, and the time
//! to start.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use session_memory_host::{COMPONENT, Connect, Delivery};

use crate::allocations::{self, Allocations};
use crate::burst::{self, BenchClient, BenchOperation, Burst, Result, SessionRef, nanoseconds};
use crate::contender::{Contender, Natives, Ours, RedisRs, builder};
use crate::server::Redis;
use crate::stats::median;

/// All costs.
pub struct Costs {
    /// The memory of gets.
    pub memory: Vec<GetMemory>,
    /// The allocations of operations.
    pub allocations: Vec<AllocationCosts>,
    /// Bytes of the component.
    pub component: usize,
    /// Nanoseconds to compile the component, link it and create an instance.
    pub compile: f64,
    /// Nanoseconds to do the same with the compiled code on disk.
    pub load: f64,
    /// Nanoseconds to create and drop an instance with an open client. The code is loaded,
    /// the room for the instance is allocated, and nothing connects.
    pub instantiate: f64,
    /// Nanoseconds that a process of the command `session-memory exists` takes, with the
    /// compiled code on disk.
    pub command: f64,
    /// Nanoseconds that a process of `session-memory --version` takes.
    pub command_alone: f64,
}

/// The memory of a get at its peak.
pub struct GetMemory {
    /// The number of messages.
    pub messages: u32,
    /// Bytes in the content of a message.
    pub content: usize,
    /// Bytes in the server's reply.
    pub reply: usize,
    /// The least guest memory with which the get succeeds, in bytes.
    pub guest: usize,
    /// The bytes by which a process with the host grows, and one with redis-rs.
    pub process: Option<(u64, u64)>,
}

/// The allocations of one operation.
pub struct AllocationCosts {
    /// The name of the workload.
    pub workload: String,
    /// The allocations and their bytes, for each contender.
    pub by_contender: Vec<(Contender, f64, f64)>,
}

/// Measures all costs.
///
/// # Errors
///
/// Fails when a measurement fails.
pub fn measure(address: SocketAddr, redis: &mut Redis, cli: &Path, quick: bool) -> Result<Costs> {
    let (times, sizes) = match quick {
        true => (2, &[(100, 200)][..]),
        false => (20, &[(1_000, 4_000), (10_000, 200)][..]),
    };
    let mut memory = Vec::new();
    for (messages, content) in sizes {
        redis.fill(SESSION, *content, *messages)?;
        memory.push(GetMemory {
            messages: *messages,
            content: *content,
            reply: Redis::reply_bytes(*content, *messages)?,
            guest: guest_memory(address, *messages)?,
            process: process_memory(address, *messages)?,
        });
    }
    redis.fill(SESSION, 200, 10)?;
    let open = |cached: bool| {
        let runtime = burst::runtime(1)?;
        let builder = builder(address, Delivery::ExactlyOnce, Connect::WithFirstOperation);
        let builder = match cached {
            true => builder,
            false => builder.without_compilation_cache(),
        };
        timed(|| Ok(runtime.block_on(builder.open()).map(drop)?))
    };
    // The first call fills the cache.
    open(true)?;
    let prepared = builder(address, Delivery::ExactlyOnce, Connect::WithFirstOperation)
        .preallocate(1)
        .prepare()?;
    let instantiate = || {
        let runtime = burst::runtime(1)?;
        timed(|| Ok(runtime.block_on(prepared.open()).map(drop)?))
    };
    let command = |arguments: &[&str]| {
        let mut command = Command::new(cli);
        command.args(arguments).stdout(Stdio::null());
        timed(|| match command.status()?.success() {
            true => Ok(()),
            false => Err(format!("{} failed", cli.display()).into()),
        })
    };
    let port = address.port().to_string();
    let exists = ["--host", "127.0.0.1", "--port", &port, "exists", SESSION];
    let costs = Costs {
        memory,
        allocations: allocations(redis, &mut Natives::open(address)?)?,
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

/// Returns the median time of some runs.
fn repeated(times: usize, once: impl Fn() -> Result<f64>) -> Result<f64> {
    let times: Vec<f64> = (0..times).map(|_| once()).collect::<Result<_>>()?;
    Ok(median(times).ok_or("nothing was timed")?)
}

/// Returns the nanoseconds of one run.
fn timed(once: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begin = Instant::now();
    once()?;
    Ok(nanoseconds(begin.elapsed()) as f64)
}

/// Returns the least guest memory with which a get succeeds.
fn guest_memory(address: SocketAddr, messages: u32) -> Result<usize> {
    let runtime = burst::runtime(1)?;
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

/// The size of a page of guest memory.
const PAGE: usize = 64 * 1024;

/// Returns the bytes by which a process grows at the peak of a get: a process with the
/// host, and one with redis-rs. `None` where the operating system does not tell.
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
            false => Err(format!("the process for the memory of {contender} failed").into()),
        }
    };
    Ok(growth("ours")?.zip(growth("redis-rs")?))
}

/// Runs a get and prints the bytes by which this process grew, if the operating system
/// tells. [`process_memory`] starts a process for this.
///
/// # Errors
///
/// Fails when the client fails.
pub fn growth(contender: &str, address: SocketAddr, messages: u32) -> Result<()> {
    burst::runtime(1)?.block_on(async {
        match contender {
            "ours" => get(Ours::open(address, Delivery::ExactlyOnce).await?, messages).await,
            _ => get(RedisRs::open(address).await?, messages).await,
        }
    })
}

async fn get(mut client: impl BenchClient, messages: u32) -> Result<()> {
    let session = SessionRef {
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

/// Returns a field of `/proc/self/status`, in bytes.
fn status(field: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Counts the allocations of operations, for the contenders that run in this process.
fn allocations(redis: &mut Redis, natives: &mut Natives) -> Result<Vec<AllocationCosts>> {
    let contenders = [
        Contender::RedisRs,
        Contender::ExactlyOnce,
        Contender::AtMostOnce,
    ];
    let mut all = Vec::new();
    for (workload, operation) in [
        ("add 200 B", BenchOperation::Add),
        ("get 10 × 200 B", BenchOperation::Get),
        ("exists", BenchOperation::Exists),
    ] {
        let burst = Burst {
            operation,
            session: SESSION.to_owned(),
            content: 200,
            last: 10,
            callers: 1,
            warm_up: 2,
            time: 0,
            min_operations: 100,
            max_operations: 100,
        };
        let mut by_contender = Vec::new();
        for contender in contenders {
            if contender.takes_part(operation, 1) {
                allocations::start_counting();
                let sample = natives.run(contender, &burst);
                let Allocations { count, bytes } = allocations::stop_counting();
                let operations = sample?.operations as f64;
                by_contender.push((
                    contender,
                    count as f64 / operations,
                    bytes as f64 / operations,
                ));
                redis.clear(&burst)?;
            }
        }
        all.push(AllocationCosts {
            workload: workload.to_owned(),
            by_contender,
        });
    }
    Ok(all)
}
