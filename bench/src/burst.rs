//! A burst: operations of one contender, timed one by one. `bench/fred` compiles this file
//! too, so the same code times every Rust client.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::runtime::{self, Runtime};
use tokio::sync::Barrier;

/// The error is one line for the person who runs the benchmark.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// An operation that callers repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BenchOperation {
    /// Appends a message and renews the time to live.
    Add,
    /// Reads the last messages.
    Get,
    /// Checks whether the session has messages.
    Exists,
    /// Appends a message, then reads the last ones.
    Turn,
    /// Connects, checks whether the session has messages, disconnects.
    Fresh,
}

/// A Redis client as an application uses it, with the application's own code around it.
pub trait BenchClient: Sized + Send + 'static {
    /// Returns a client for another concurrent caller. It shares the connection if the
    /// library lets callers share one.
    fn share(&self) -> impl Future<Output = Result<Self>> + Send;

    /// Returns a client with a new connection. It shares only what outlives a connection.
    fn fresh(&self) -> impl Future<Output = Result<Self>> + Send;

    /// Runs [`BenchOperation::Add`]. Returns the length of the session.
    fn add(
        &mut self,
        session: &SessionRef,
        content: &str,
    ) -> impl Future<Output = Result<usize>> + Send;

    /// Runs [`BenchOperation::Get`]. Returns the number of messages.
    fn get(
        &mut self,
        session: &SessionRef,
        last: u32,
    ) -> impl Future<Output = Result<usize>> + Send;

    /// Runs [`BenchOperation::Exists`].
    fn exists(&mut self, session: &SessionRef) -> impl Future<Output = Result<bool>> + Send;

    /// Runs [`BenchOperation::Turn`]. Returns the number of messages read.
    fn turn(
        &mut self,
        session: &SessionRef,
        content: &str,
        last: u32,
    ) -> impl Future<Output = Result<usize>> + Send {
        async move {
            self.add(session, content).await?;
            self.get(session, last).await
        }
    }
}

/// A session, by its id and by its key. Clients that know only keys need not build them.
#[derive(Clone, Debug)]
pub struct SessionRef {
    /// The id of the session.
    pub id: String,
    /// The key of the list in Redis.
    pub key: String,
}

impl SessionRef {
    /// Returns the session of a caller. Callers that only read share one session.
    pub fn of(burst: &Burst, caller: usize) -> SessionRef {
        let id = match burst.operation {
            BenchOperation::Add | BenchOperation::Turn => format!("{}-{caller}", burst.session),
            BenchOperation::Get | BenchOperation::Exists | BenchOperation::Fresh => {
                burst.session.clone()
            }
        };
        let key = format!("session:{id}");
        SessionRef { id, key }
    }
}

/// The operations to run in a burst.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Burst {
    /// The operation that each caller repeats.
    pub operation: BenchOperation,
    /// The id of the session. For operations that write, the prefix of the callers' ids.
    pub session: String,
    /// Bytes in the content of a message.
    pub content: usize,
    /// The number of messages to read.
    pub last: u32,
    /// The number of concurrent callers.
    pub callers: usize,
    /// Milliseconds of warm-up.
    pub warm_up: u64,
    /// Milliseconds in which operations are timed.
    pub time: u64,
    /// The least number of timed operations, even if they take longer.
    pub min_operations: usize,
    /// The greatest number of timed operations, and of those in the warm-up.
    pub max_operations: usize,
}

/// A request to a process that runs bursts: one line of JSON on its standard input. The
/// response is a [`Sample`], one line of JSON on its standard output.
#[derive(Debug, Serialize, Deserialize)]
pub struct BurstRequest {
    /// The name of the contender. A process for one contender ignores it.
    pub client: String,
    /// The burst to run.
    pub burst: Burst,
}

/// The measurements of a burst.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Nanoseconds of each timed operation.
    pub nanoseconds: Vec<u64>,
    /// Nanoseconds that all timed operations took, with all callers at once.
    pub elapsed: u64,
    /// Nanoseconds of this process's CPU time in the whole burst.
    pub cpu: u64,
    /// The number of operations in the whole burst, with the warm-up.
    pub operations: usize,
}

/// Returns a runtime for the callers: one thread for one caller, two for more.
///
/// # Errors
///
/// Fails when the operating system refuses a resource.
pub fn runtime(callers: usize) -> Result<Runtime> {
    let mut builder = match callers {
        1 => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    Ok(builder.worker_threads(2).enable_all().build()?)
}

/// Runs a burst.
///
/// # Errors
///
/// Fails when an operation fails or has an unexpected result.
pub async fn run<C: BenchClient>(client: &mut C, burst: &Burst) -> Result<Sample> {
    let cpu = cpu_time();
    let mut sample = if burst.callers == 1 {
        let mut caller = Caller::new(burst, 0);
        caller.warm_up(client).await?;
        let begin = Instant::now();
        caller.run_timed(client).await?;
        let elapsed = nanoseconds(begin.elapsed());
        caller.sample(elapsed)
    } else {
        run_concurrently(client, burst).await?
    };
    sample.cpu = nanoseconds(cpu_time().saturating_sub(cpu));
    Ok(sample)
}

/// Runs all callers of a burst at once.
async fn run_concurrently<C: BenchClient>(client: &C, burst: &Burst) -> Result<Sample> {
    let start = Arc::new(Barrier::new(burst.callers + 1));
    let mut tasks = Vec::new();
    for number in 0..burst.callers {
        let mut client = client.share().await?;
        let mut caller = Caller::new(burst, number);
        let start = Arc::clone(&start);
        tasks.push(tokio::spawn(async move {
            let warm = caller.warm_up(&mut client).await;
            start.wait().await;
            warm?;
            caller.run_timed(&mut client).await?;
            Result::Ok(caller)
        }));
    }
    start.wait().await;
    let begin = Instant::now();
    let mut sample = Sample::default();
    for task in tasks {
        let caller = task.await??.sample(0);
        sample.nanoseconds.extend(caller.nanoseconds);
        sample.operations += caller.operations;
    }
    sample.elapsed = nanoseconds(begin.elapsed());
    Ok(sample)
}

/// A caller that repeats an operation and waits for each result.
struct Caller {
    burst: Burst,
    session: SessionRef,
    content: String,
    nanoseconds: Vec<u64>,
    operations: usize,
}

impl Caller {
    fn new(burst: &Burst, number: usize) -> Caller {
        Caller {
            session: SessionRef::of(burst, number),
            content: content(burst.content),
            burst: burst.clone(),
            nanoseconds: Vec::with_capacity(1 << 14),
            operations: 0,
        }
    }

    async fn warm_up<C: BenchClient>(&mut self, client: &mut C) -> Result<()> {
        let until = Instant::now() + Duration::from_millis(self.burst.warm_up);
        while self.operations == 0
            || (Instant::now() < until && self.operations < self.burst.max_operations)
        {
            self.operate(client).await?;
        }
        Ok(())
    }

    async fn run_timed<C: BenchClient>(&mut self, client: &mut C) -> Result<()> {
        let mut now = Instant::now();
        let until = now + Duration::from_millis(self.burst.time);
        while self.nanoseconds.len() < self.burst.min_operations
            || (now < until && self.nanoseconds.len() < self.burst.max_operations)
        {
            let begin = Instant::now();
            self.operate(client).await?;
            now = Instant::now();
            self.nanoseconds.push(nanoseconds(now - begin));
        }
        Ok(())
    }

    async fn operate<C: BenchClient>(&mut self, client: &mut C) -> Result<()> {
        self.operations += 1;
        // In a real conversation no two messages are the same.
        self.content
            .replace_range(..NUMBER, &number(self.operations));
        let Burst {
            operation, last, ..
        } = self.burst;
        let session = &self.session;
        let as_expected = match operation {
            BenchOperation::Add => client.add(session, &self.content).await? > 0,
            BenchOperation::Get => client.get(session, last).await? == last as usize,
            BenchOperation::Exists => client.exists(session).await?,
            BenchOperation::Turn => {
                client.turn(session, &self.content, last).await? == last as usize
            }
            BenchOperation::Fresh => client.fresh().await?.exists(session).await?,
        };
        if !as_expected {
            return Err(format!("{operation:?} has an unexpected result").into());
        }
        Ok(())
    }

    fn sample(self, elapsed: u64) -> Sample {
        Sample {
            nanoseconds: self.nanoseconds,
            elapsed,
            cpu: 0,
            operations: self.operations,
        }
    }
}

/// The number of digits at the start of a content.
pub const NUMBER: usize = 8;

/// Returns the digits at the start of a message's content.
pub fn number(message: usize) -> String {
    format!("{:0NUMBER$}", message % 10_usize.pow(NUMBER as u32))
}

/// Returns a content such as a person or a model might write, in ASCII. It has a number,
/// lines of prose, and some quotation marks, which JSON escapes.
pub fn content(bytes: usize) -> String {
    const TEXT: &str = "Retrieval-augmented generation looks up what is known first, and answers \
                        then.\nAn answer is \"grounded\" if it keeps to what was found, and says \
                        where that is from.\n";
    number(0)
        .chars()
        .chain(TEXT.chars().cycle())
        .take(bytes)
        .collect()
}

/// Returns the CPU time that this process has used.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// Converts a duration to whole nanoseconds.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
