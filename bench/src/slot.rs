//! A slot: one contender's turn in a round. The program for fred compiles this file
//! too, so that every Rust client is timed by the same lines.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::runtime::{self, Runtime};
use tokio::sync::Barrier;

/// What went wrong, in a line for the person who ran the benchmark.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What a caller asks of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Appends a message and renews the time to live.
    Add,
    /// Reads the last messages.
    Get,
    /// Asks whether the session has messages.
    Exists,
    /// Appends a message, then reads the last ones.
    Turn,
    /// Connects, asks whether the session has messages, disconnects.
    Fresh,
}

/// A client as its user has it, with what its user writes around it.
pub trait Client: Sized + Send + 'static {
    /// A client for one more concurrent caller, which shares what the clients of
    /// this library share.
    fn share(&self) -> impl Future<Output = Result<Self>> + Send;

    /// A client that shares nothing but what outlives a connection.
    fn fresh(&self) -> impl Future<Output = Result<Self>> + Send;

    /// [`Operation::Add`]; answers the length of the session.
    fn add(
        &mut self,
        session: &Session,
        content: &str,
    ) -> impl Future<Output = Result<usize>> + Send;

    /// [`Operation::Get`]; answers how many messages there are.
    fn get(&mut self, session: &Session, last: u32) -> impl Future<Output = Result<usize>> + Send;

    /// [`Operation::Exists`].
    fn exists(&mut self, session: &Session) -> impl Future<Output = Result<bool>> + Send;

    /// [`Operation::Turn`]; answers how many messages were read.
    fn turn(
        &mut self,
        session: &Session,
        content: &str,
        last: u32,
    ) -> impl Future<Output = Result<usize>> + Send {
        async move {
            self.add(session, content).await?;
            self.get(session, last).await
        }
    }
}

/// A session by its id and by its key, so that no client has to put the key
/// together.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// The name of the list.
    pub key: String,
}

impl Session {
    /// The session of a caller. Those who only read read the same one.
    pub fn of(slot: &Slot, caller: usize) -> Session {
        let id = match slot.operation {
            Operation::Add | Operation::Turn => format!("{}-{caller}", slot.session),
            Operation::Get | Operation::Exists | Operation::Fresh => slot.session.clone(),
        };
        let key = format!("session:{id}");
        Session { id, key }
    }
}

/// What is to be done in a slot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Slot {
    /// What each caller asks for, again and again.
    pub operation: Operation,
    /// The id of the session, or what the ids of the callers' sessions begin with.
    pub session: String,
    /// Bytes of a message's content.
    pub content: usize,
    /// How many messages are read.
    pub last: u32,
    /// How many callers there are at once.
    pub callers: usize,
    /// Milliseconds before operations are timed.
    pub warm_up: u64,
    /// Milliseconds in which they are.
    pub time: u64,
    /// How many are timed at least, whatever time they take.
    pub at_least: usize,
    /// How many are timed at the most, and for warming up.
    pub at_most: usize,
}

/// What a slot came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// What each timed operation took.
    pub nanoseconds: Vec<u64>,
    /// What they took together, with all callers at once.
    pub elapsed: u64,
    /// CPU time of this process in all of the slot.
    pub cpu: u64,
    /// Operations in all of the slot, timed or not.
    pub operations: usize,
}

/// A runtime for so many callers: one thread for one caller, two for more.
///
/// # Errors
///
/// What the operating system says.
pub fn runtime(callers: usize) -> Result<Runtime> {
    let mut builder = match callers {
        1 => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    Ok(builder.worker_threads(2).enable_all().build()?)
}

/// Runs a slot.
///
/// # Errors
///
/// That of the first operation that fails, or a result that is not as expected.
pub async fn run<C: Client>(client: &mut C, slot: &Slot) -> Result<Sample> {
    let cpu = cpu_time();
    let mut sample = if slot.callers == 1 {
        let mut caller = Caller::new(slot, 0);
        caller.warm_up(client).await?;
        let begin = Instant::now();
        caller.timed(client).await?;
        let elapsed = nanoseconds(begin.elapsed());
        caller.sample(elapsed)
    } else {
        together(client, slot).await?
    };
    sample.cpu = nanoseconds(cpu_time().saturating_sub(cpu));
    Ok(sample)
}

/// All callers of a slot at once.
async fn together<C: Client>(client: &C, slot: &Slot) -> Result<Sample> {
    let start = Arc::new(Barrier::new(slot.callers + 1));
    let mut tasks = Vec::new();
    for number in 0..slot.callers {
        let mut client = client.share().await?;
        let mut caller = Caller::new(slot, number);
        let start = Arc::clone(&start);
        tasks.push(tokio::spawn(async move {
            let warm = caller.warm_up(&mut client).await;
            start.wait().await;
            warm?;
            caller.timed(&mut client).await?;
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

/// One who asks, waits for the answer, and asks again.
struct Caller {
    slot: Slot,
    session: Session,
    content: String,
    nanoseconds: Vec<u64>,
    operations: usize,
}

impl Caller {
    fn new(slot: &Slot, number: usize) -> Caller {
        Caller {
            session: Session::of(slot, number),
            content: content(slot.content),
            slot: slot.clone(),
            nanoseconds: Vec::with_capacity(1 << 14),
            operations: 0,
        }
    }

    async fn warm_up<C: Client>(&mut self, client: &mut C) -> Result<()> {
        let until = Instant::now() + Duration::from_millis(self.slot.warm_up);
        while self.operations == 0
            || (Instant::now() < until && self.operations < self.slot.at_most)
        {
            self.operate(client).await?;
        }
        Ok(())
    }

    async fn timed<C: Client>(&mut self, client: &mut C) -> Result<()> {
        let mut now = Instant::now();
        let until = now + Duration::from_millis(self.slot.time);
        while self.nanoseconds.len() < self.slot.at_least
            || (now < until && self.nanoseconds.len() < self.slot.at_most)
        {
            let begin = Instant::now();
            self.operate(client).await?;
            now = Instant::now();
            self.nanoseconds.push(nanoseconds(now - begin));
        }
        Ok(())
    }

    async fn operate<C: Client>(&mut self, client: &mut C) -> Result<()> {
        self.operations += 1;
        // No two messages of a conversation are the same.
        self.content
            .replace_range(..NUMBER, &number(self.operations));
        let Slot {
            operation, last, ..
        } = self.slot;
        let session = &self.session;
        let as_expected = match operation {
            Operation::Add => client.add(session, &self.content).await? > 0,
            Operation::Get => client.get(session, last).await? == last as usize,
            Operation::Exists => client.exists(session).await?,
            Operation::Turn => client.turn(session, &self.content, last).await? == last as usize,
            Operation::Fresh => client.fresh().await?.exists(session).await?,
        };
        if !as_expected {
            return Err(format!("the answer to {operation:?} is not as expected").into());
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

/// Digits with which a content begins.
pub const NUMBER: usize = 8;

/// The number of a message, as its content begins with it.
pub fn number(message: usize) -> String {
    format!("{:0NUMBER$}", message % 10_usize.pow(NUMBER as u32))
}

/// What a person or a model might write: a number, prose in lines, and now and then
/// quotation marks, which JSON escapes. All of it is ASCII.
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

/// CPU time that this process has used.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// A duration as a whole number.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
