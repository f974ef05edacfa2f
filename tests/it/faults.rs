//! What becomes of an operation when something breaks on the way, at any byte of
//! it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::common::proxy::{Action, Direction, Fault, Proxy, framing};
use crate::common::{
    RedisClient, Server, builder, contents_with_ttl, ends_by_itself, refusal, server,
};
use session_memory_host as host;
use session_memory_host::{Delivery, Error, NewMessage, Options, Outcome, Role, SessionMemory};
use tokio::task::{JoinSet, LocalSet};

pub(crate) const DELIVERIES: [Delivery; 2] = [Delivery::ExactlyOnce, Delivery::AtMostOnce];

pub(crate) const OPERATIONS: [Operation; 8] = [
    Operation::Add,
    Operation::AddAll,
    Operation::Turn,
    Operation::Get,
    Operation::History,
    Operation::Clear,
    Operation::Exists,
    Operation::Count,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    AddAll,
    /// A pipeline that adds a message and gets the last ones.
    Turn,
    Get,
    History,
    Clear,
    Exists,
    Count,
}

impl Operation {
    /// What the session holds before it.
    pub(crate) fn before(self) -> &'static [&'static str] {
        match self {
            Operation::Add | Operation::AddAll | Operation::Turn => &[],
            _ => &["one", "two"],
        }
    }

    /// What the session holds when it has been applied.
    pub(crate) fn after(self) -> &'static [&'static str] {
        match self {
            Operation::Add | Operation::Turn => &["new"],
            Operation::AddAll => &["first", "second", "third"],
            Operation::Clear => &[],
            _ => self.before(),
        }
    }

    pub(crate) fn appends(self) -> bool {
        matches!(self, Operation::Add | Operation::AddAll | Operation::Turn)
    }

    pub(crate) fn writes(self) -> bool {
        self.appends() || self == Operation::Clear
    }

    /// The error when the server never answers.
    fn unanswered(self) -> &'static str {
        if self.writes() {
            "outcome-unknown"
        } else {
            "timeout"
        }
    }

    /// Runs it. Answers whether it was answered as it should be.
    pub(crate) async fn run(self, memory: &SessionMemory, session: &str) -> Result<bool, Error> {
        Ok(match self {
            Operation::Add => memory.add(session, Role::User, "new", None).await? == 1,
            Operation::AddAll => {
                let messages = self.after().iter().map(|content| NewMessage {
                    role: Role::Assistant,
                    content: (*content).to_owned(),
                    metadata: None,
                });
                let messages: Vec<_> = messages.collect();
                memory.add_all(session, &messages).await? == 3
            }
            Operation::Turn => {
                let message = NewMessage {
                    role: Role::User,
                    content: "new".to_owned(),
                    metadata: None,
                };
                let turn = [
                    operation(session, host::Action::Add(message)),
                    operation(session, host::Action::Get(Some(10))),
                ];
                let mut results = memory.pipeline(&turn).await?.into_iter();
                let (added, got) = (results.next().unwrap()?, results.next().unwrap()?);
                let Outcome::Messages(messages) = got else {
                    panic!("{got:?}");
                };
                added == Outcome::Length(1) && messages.iter().map(|m| &m.content).eq(self.after())
            }
            Operation::Get => {
                let messages = memory.get(session, None).await?;
                messages.iter().map(|m| &m.content).eq(self.before())
            }
            Operation::History => {
                let history = memory.history(session, None).await?;
                let ttl = history.ttl_seconds.is_some_and(|ttl| ttl <= 3600);
                history
                    .messages
                    .iter()
                    .map(|m| &m.content)
                    .eq(self.before())
                    && (history.total, history.skipped, ttl) == (2, 0, true)
            }
            Operation::Clear => memory.clear(session).await.map(|()| true)?,
            Operation::Exists => memory.exists(session).await?,
            Operation::Count => memory.count(session).await? == 2,
        })
    }
}

fn operation(session: &str, action: host::Action) -> host::Operation {
    host::Operation {
        session_id: session.to_owned(),
        action,
    }
}

/// A memory whose way to the server can be broken.
pub(crate) struct Bench {
    pub(crate) proxy: Proxy,
    pub(crate) memory: SessionMemory,
    redis: RedisClient,
    name: String,
    sessions: usize,
}

impl Bench {
    pub(crate) async fn new(
        server: &Server,
        delivery: Delivery,
        operation_timeout: Duration,
    ) -> Bench {
        let options = Options {
            delivery: Some(delivery),
            operation_timeout: Some(operation_timeout.as_millis() as u32),
            ..Options::default()
        };
        Bench::with(server, options).await
    }

    pub(crate) async fn with(server: &Server, options: Options) -> Bench {
        let proxy = Proxy::start(server.address());
        let memory = builder(proxy.port(), options).open().await.unwrap();
        Bench::of(server, proxy, memory).await
    }

    /// With a memory that reaches the server by the proxy.
    pub(crate) async fn of(server: &Server, proxy: Proxy, memory: SessionMemory) -> Bench {
        // The server knows the script from here on.
        memory.add("known", Role::User, "x", None).await.unwrap();
        // No two proxies have one port.
        let name = proxy.port().to_string();
        Bench {
            proxy,
            memory,
            redis: server.client().unwrap(),
            name,
            sessions: 0,
        }
    }

    /// A new session that holds what the operation expects there. All have names of
    /// one length.
    pub(crate) fn session(&mut self, operation: Operation) -> String {
        self.sessions += 1;
        let session = format!("{} {:06}", self.name, self.sessions);
        let key = format!("session:{session}");
        for content in operation.before() {
            let element = format!(r#"{{"role":"user","content":"{content}"}}"#);
            self.redis.command(&["RPUSH", &key, &element]).unwrap();
            self.redis.command(&["EXPIRE", &key, "3600"]).unwrap();
        }
        session
    }

    /// What lies on the server, which must have a time to live.
    pub(crate) fn stored(&mut self, session: &str) -> Vec<String> {
        contents_with_ttl(&mut self.redis, session, "under a fault")
    }

    /// Runs the operation under a fault, and checks what it came to. Answers
    /// whether the fault was carried out.
    async fn run(
        &mut self,
        operation: Operation,
        delivery: Delivery,
        fault: Fault,
        figures: &mut Figures,
    ) -> bool {
        let case = format!("{operation:?} {delivery:?} {fault:?}");
        let session = self.session(operation);
        let carried_out = self.proxy.carried_out();
        self.proxy.break_next(fault);
        let result = operation.run(&self.memory, &session).await;
        self.proxy.settle().await;
        self.proxy.break_nothing();
        if self.proxy.carried_out() == carried_out {
            assert!(result.unwrap(), "{case}");
            return false;
        }
        figures.faults += 1;

        let stored = self.stored(&session);
        let applied = stored == operation.after();
        assert!(
            applied || stored == operation.before() || figures.counts(&stored),
            "{case}: {stored:?}"
        );
        let may_fail = operation.appends() && delivery == Delivery::AtMostOnce;
        match result {
            Ok(right) => {
                assert!(right, "{case}: a wrong answer");
                figures.acknowledged += 1;
                figures.lost += usize::from(!applied);
            }
            Err(error) if may_fail && error.variant() == "outcome-unknown" => figures.unknown += 1,
            Err(error) if may_fail && ["unavailable", "timeout"].contains(&error.variant()) => {
                figures.refused += 1;
                assert!(!applied, "{case}: {error}, and yet it was");
            }
            Err(error) => panic!("{case}: {error}"),
        }

        // A connection's end takes a moment to be noticed.
        tokio::time::sleep(Duration::from_millis(2)).await;
        if operation.writes() {
            let before = stored.len();
            let next = self.memory.add(&session, Role::User, "next", None).await;
            assert_eq!(
                next.unwrap_or_else(|error| panic!("after {case}: {error}")) as usize,
                before + 1,
                "after {case}"
            );
            let now = self.stored(&session);
            assert_eq!(now.len(), before + 1, "after {case}: {now:?}");
            assert_eq!(now[before], "next", "after {case}");
        } else {
            let next = self.memory.count(&session).await;
            assert_eq!(
                next.unwrap_or_else(|error| panic!("after {case}: {error}")),
                2,
                "after {case}"
            );
        }
        true
    }
}

#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) faults: usize,
    pub(crate) acknowledged: usize,
    pub(crate) unknown: usize,
    pub(crate) refused: usize,
    pub(crate) lost: usize,
    pub(crate) duplicated: usize,
}

impl Figures {
    /// Counts a message that is there more than once.
    pub(crate) fn counts(&mut self, stored: &[String]) -> bool {
        let twice = (1..stored.len()).any(|n| stored[..n].contains(&stored[n]));
        self.duplicated += usize::from(twice);
        twice
    }

    pub(crate) fn add(&mut self, other: &Figures) {
        self.faults += other.faults;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
    }

    pub(crate) fn report(&self, what: &str) {
        println!(
            "{what}: {} tried; operations acknowledged {}, unknown {}, refused {}; \
             lost {}, duplicated {}",
            self.faults, self.acknowledged, self.unknown, self.refused, self.lost, self.duplicated
        );
        assert_eq!((self.lost, self.duplicated), (0, 0), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cut_at_every_byte_of_every_operation() {
    let server = server();
    for delivery in DELIVERIES {
        let mut runs = Vec::new();
        for operation in OPERATIONS {
            let mut bench = Bench::new(&server, delivery, PATIENCE).await;
            runs.push(tokio::spawn(async move {
                let mut figures = Figures::default();
                let session = bench.session(operation);
                assert!(operation.run(&bench.memory, &session).await.unwrap());
                let whole = bench.proxy.last();
                for (direction, length) in [
                    (Direction::Request, whole.request.len()),
                    (Direction::Reply, whole.reply.len()),
                ] {
                    for action in [Action::Cut, Action::Reset] {
                        let mut offset = 0;
                        let mut fault = Fault {
                            direction,
                            offset,
                            action,
                        };
                        while bench.run(operation, delivery, fault, &mut figures).await {
                            offset += 1;
                            fault.offset = offset;
                        }
                        assert!(
                            offset > length,
                            "{operation:?} was cut up to {offset} of {length}"
                        );
                    }
                }
                figures
            }));
        }
        let mut figures = Figures::default();
        for run in runs {
            figures.add(&run.await.unwrap());
        }
        figures.report(&format!("cuts at every byte, {delivery:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_append_that_arrives_after_its_retry_is_there_once() {
    let server = server();
    let mut runs = Vec::new();
    for delivery in DELIVERIES {
        for operation in [Operation::Add, Operation::AddAll] {
            let mut bench = Bench::new(&server, delivery, PATIENCE).await;
            runs.push(tokio::spawn(async move {
                let mut figures = Figures::default();
                for offset in (0..).step_by(16) {
                    let fault = Fault {
                        direction: Direction::Request,
                        offset,
                        action: Action::Late(Duration::from_millis(30)),
                    };
                    if !bench.run(operation, delivery, fault, &mut figures).await {
                        return figures;
                    }
                }
                figures
            }));
        }
    }
    let mut figures = Figures::default();
    for run in runs {
        figures.add(&run.await.unwrap());
    }
    figures.report("requests that arrive late");
}

#[tokio::test]
async fn silence_ends_with_the_deadline() {
    side_by_side(silence).await;
}

/// Every operation with either delivery, side by side, since each one waits for its
/// deadline. They begin one after the other, so that those deadlines do not pass all at
/// once.
async fn side_by_side<F>(case: impl Fn(Bench, Operation, Delivery) -> F)
where
    F: Future<Output = ()> + 'static,
{
    let server = server();
    let local = LocalSet::new();
    let mut runs = JoinSet::new();
    for delivery in DELIVERIES {
        for operation in OPERATIONS {
            let bench = Bench::new(&server, delivery, DEADLINE).await;
            let wait = DEADLINE / 16 * runs.len() as u32;
            let run = case(bench, operation, delivery);
            let later = async move {
                tokio::time::sleep(wait).await;
                run.await;
            };
            runs.spawn_local_on(later, &local);
        }
    }
    local.run_until(runs.join_all()).await;
}

async fn silence(mut bench: Bench, operation: Operation, delivery: Delivery) {
    for (direction, offset, reaches) in [
        (Direction::Request, 0, false),
        (Direction::Request, 10, false),
        (Direction::Reply, 0, true),
        (Direction::Reply, 2, true),
    ] {
        let case = format!("{operation:?} {delivery:?} {direction:?} {offset}");
        let mut session = String::new();
        let result = ends_by_itself(DEADLINE, async || {
            session = bench.session(operation);
            bench.proxy.break_next(Fault {
                direction,
                offset,
                action: Action::Swallow,
            });
            operation.run(&bench.memory, &session).await
        });
        assert_eq!(refusal(result.await).0, operation.unanswered(), "{case}");
        let expected = if reaches {
            operation.after()
        } else {
            operation.before()
        };
        assert_eq!(bench.stored(&session), expected, "{case}");
        let session = bench.session(operation);
        assert!(
            operation.run(&bench.memory, &session).await.unwrap(),
            "after {case}"
        );
    }
}

#[tokio::test]
async fn a_trickle_ends_with_the_deadline() {
    side_by_side(trickle).await;
}

async fn trickle(mut bench: Bench, operation: Operation, delivery: Delivery) {
    let session = bench.session(operation);
    assert!(operation.run(&bench.memory, &session).await.unwrap());
    let whole = bench.proxy.last();
    for (direction, length) in [
        (Direction::Request, whole.request.len()),
        (Direction::Reply, whole.reply.len()),
    ] {
        let case = format!("{operation:?} {delivery:?} {direction:?}");
        let whole = APART * length as u32;
        let in_time = whole < DEADLINE / 2;
        let at_least = if in_time { whole } else { DEADLINE };
        let mut session = String::new();
        let result = ends_by_itself(at_least, async || {
            session = bench.session(operation);
            bench.proxy.break_next(Fault {
                direction,
                offset: 0,
                action: Action::Trickle(APART),
            });
            operation.run(&bench.memory, &session).await
        });
        let result = result.await;
        if in_time {
            assert!(result.unwrap(), "{case}");
            continue;
        }
        assert!(whole > 2 * DEADLINE, "{case}");
        // The reply to one command is whole long before the other one.
        let expected = match (operation, delivery, direction) {
            (Operation::Turn, Delivery::ExactlyOnce, Direction::Reply) => "timeout",
            _ => operation.unanswered(),
        };
        assert_eq!(refusal(result).0, expected, "{case}");
        let expected = match direction {
            Direction::Request => operation.before(),
            Direction::Reply => operation.after(),
        };
        assert_eq!(bench.stored(&session), expected, "{case}");
    }
}

/// Every bit of every byte that says what a reply is and how long. Those of its
/// contents are left out: the protocol has no checksum, and a message in which a
/// letter is another one looks like any message.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_garbled_reply_is_never_taken_for_another() {
    let server = server();
    let mut runs = Vec::new();
    for delivery in DELIVERIES {
        for operation in OPERATIONS {
            // An id that is read back has one more digit from time to time.
            if operation == Operation::Turn
                || delivery == Delivery::AtMostOnce && !operation.appends()
            {
                continue;
            }
            let mut bench = Bench::new(&server, delivery, DEADLINE).await;
            runs.push(tokio::spawn(async move {
                let session = bench.session(operation);
                assert!(operation.run(&bench.memory, &session).await.unwrap());
                let replies = bench.proxy.last().reply;
                let mut garbled = 0;
                for offset in framing(&replies) {
                    for bit in 0..8 {
                        let case = format!(
                            "{operation:?} {delivery:?} bit {bit} of {offset} in {}",
                            replies.escape_ascii()
                        );
                        let session = bench.session(operation);
                        bench.proxy.break_next(Fault {
                            direction: Direction::Reply,
                            offset,
                            action: Action::Garble(1 << bit),
                        });
                        let carried_out = bench.proxy.carried_out();
                        match operation.run(&bench.memory, &session).await {
                            Ok(right) => assert!(right, "{case}: a wrong answer"),
                            // A longer one is waited for.
                            Err(error) => assert!(
                                ["protocol", "limit-exceeded", "timeout", "outcome-unknown"]
                                    .contains(&error.variant()),
                                "{case}: {error}"
                            ),
                        }
                        assert_eq!(bench.proxy.carried_out(), carried_out + 1, "{case}");
                        assert_eq!(bench.stored(&session), operation.after(), "{case}");
                        garbled += 1;
                    }
                }
                garbled
            }));
        }
    }
    let mut garbled = 0;
    for run in runs {
        garbled += run.await.unwrap();
    }
    println!("bits of replies garbled: {garbled}, wrong answers: 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_that_is_dropped_at_any_await_leaves_no_reply_behind() {
    let server = server();
    let mut runs = Vec::new();
    for delivery in DELIVERIES {
        for operation in OPERATIONS {
            for direction in [Direction::Request, Direction::Reply] {
                let bench = Bench::new(&server, delivery, PATIENCE).await;
                runs.push(tokio::spawn(dropped(bench, operation, delivery, direction)));
            }
        }
    }
    let mut dropped = 0;
    for run in runs {
        dropped += run.await.unwrap();
    }
    println!("calls dropped at an await: {dropped}, replies misdelivered: 0");
}

/// Drops an operation after 0, 1, 2 polls and so on, until it needs no more. Returns how
/// often it was dropped.
async fn dropped(
    mut bench: Bench,
    operation: Operation,
    delivery: Delivery,
    direction: Direction,
) -> usize {
    let other = bench.session(Operation::Add);
    let theirs = bench.memory.add(&other, Role::User, "theirs", None).await;
    theirs.unwrap();
    let mut polls = 0;
    loop {
        let case = format!("{operation:?} {delivery:?} after {polls} polls, {direction:?}");
        let session = bench.session(operation);
        // The slower it is, the more often it is polled.
        bench.proxy.break_next(Fault {
            direction,
            offset: 0,
            action: Action::Trickle(Duration::from_micros(300)),
        });
        let result = polled(operation.run(&bench.memory, &session), polls).await;
        bench.proxy.break_nothing();
        let messages = bench.memory.get(&other, None).await.unwrap();
        assert!(
            messages.iter().map(|m| &m.content).eq(["theirs"]),
            "{case}: {messages:?}"
        );
        assert_eq!(bench.memory.count(&other).await.unwrap(), 1, "{case}");
        // What was given up may still be on its way.
        while result.is_none() && bench.proxy.connections() > 1 {
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        let stored = bench.stored(&session);
        let either = [operation.before(), operation.after()];
        assert!(
            either.iter().any(|either| stored == *either),
            "{case}: {stored:?}"
        );
        if let Some(result) = result {
            assert!(result.unwrap(), "{case}");
            return polls;
        }
        polls += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_timeout_is_tried_again_as_well() {
    let server = server();
    let mut runs = Vec::new();
    for operation in OPERATIONS {
        let bench = Bench::new(&server, Delivery::ExactlyOnce, DEADLINE).await;
        runs.push(tokio::spawn(after_a_timeout(bench, operation)));
    }
    for run in runs {
        run.await.unwrap();
    }
}

async fn after_a_timeout(mut bench: Bench, operation: Operation) {
    let session = bench.session(operation);
    bench.proxy.break_next(Fault {
        direction: Direction::Reply,
        offset: 0,
        action: Action::Swallow,
    });
    let result = operation.run(&bench.memory, &session).await;
    assert_eq!(refusal(result).0, operation.unanswered());

    // The component has been given up with its connection, and now the first
    // one of the new one is lost, too.
    let session = bench.session(operation);
    let mut fault = Some(Fault {
        direction: Direction::Reply,
        offset: 0,
        action: Action::Cut,
    });
    bench.proxy.plan(move |_| fault.take());
    let carried_out = bench.proxy.carried_out();
    let result = operation.run(&bench.memory, &session).await;
    assert!(result.unwrap(), "{operation:?}");
    assert_eq!(bench.proxy.carried_out(), carried_out + 1);
    assert_eq!(bench.stored(&session), operation.after());
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_is_replaced_at_once() {
    let server = server();
    for delivery in DELIVERIES {
        let mut bench = Bench::new(&server, delivery, PATIENCE).await;
        for operation in OPERATIONS {
            let session = bench.session(operation);
            bench.proxy.close_all();
            while bench.proxy.connections() > 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            // Nothing was awaited since, so the runtime has had no occasion to look.
            let result = operation.run(&bench.memory, &session).await;
            assert!(result.unwrap(), "{operation:?} {delivery:?}");
            assert_eq!(bench.stored(&session), operation.after());
        }
    }
}

/// The output of a future, if it takes no more polls than that.
async fn polled<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Long enough for what is to succeed within it, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(1);
/// A deadline that nothing runs into, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between the bytes of a trickle.
const APART: Duration = Duration::from_millis(66);
