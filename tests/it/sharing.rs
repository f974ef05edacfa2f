//! Concurrent calls share instances and pipelines, and do not affect one another.

mod endings;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use session_memory_host::{
    Action, Builder, Connect, Error, GRACE, NewMessage, Options, Outcome, Provider, Role,
    SessionMemory,
};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::timeout;

use crate::common::proxy::Proxy;
use crate::common::{GUEST, builder, contents, memory, operation, refusal, server, took};

/// The time limit of a call, [`GRACE`] included, where the test is about the limit.
const LIMIT: Duration = Duration::from_secs(1);
/// Longer than any call takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// Keeps an instance busy until the calls of a test are queued, even on a busy machine.
const WORK: &str = "sleep 200";

/// The guest that does what the session id says, see `tests/guest`, with a time limit for
/// its calls, [`GRACE`] included.
fn guests(limit: Duration) -> Builder {
    let options = Options::new().operation_timeout(limit - GRACE);
    SessionMemory::builder()
        .component_bytes(GUEST)
        .environment([])
        .options(options)
}

/// A guest with one instance, which has had one call.
async fn one_guest(limit: Duration) -> SessionMemory {
    let memory = guests(limit).max_instances(1).open().await.unwrap();
    memory.count("behave").await.unwrap();
    memory
}

type PendingCall<T> = JoinHandle<Result<T, Error>>;

/// Begins a call, and returns when it waits. On one thread, calls are queued in the order
/// in which they began.
async fn begin<T: Send + 'static>(
    call: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> PendingCall<T> {
    let task = tokio::spawn(call);
    yield_now().await;
    task
}

async fn begin_count(memory: &SessionMemory, order: &'static str) -> PendingCall<u32> {
    let memory = memory.clone();
    begin(async move { memory.count(order).await }).await
}

async fn begin_get(
    memory: &SessionMemory,
    order: &'static str,
    limit: Option<u32>,
) -> PendingCall<usize> {
    let memory = memory.clone();
    begin(async move { Ok(memory.get(order, limit).await?.len()) }).await
}

async fn begin_add(memory: &SessionMemory, order: &'static str) -> PendingCall<u32> {
    let memory = memory.clone();
    begin(async move { memory.add(order, Role::User, "x", None).await }).await
}

#[tokio::test]
async fn a_lone_call_takes_no_detour() {
    let memory = one_guest(PATIENCE).await;
    assert_eq!(memory.count("together").await.unwrap(), 1);
    let mut call = Box::pin(memory.get(WORK, None));
    // Polls the call once.
    let waits = timeout(Duration::ZERO, &mut call).await;
    assert!(waits.is_err());
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
    call.await.unwrap();
    assert_eq!(memory.count("together").await.unwrap(), 1);
}

#[tokio::test]
async fn calls_that_wait_go_out_together() {
    let memory = one_guest(PATIENCE).await;
    let first = begin_count(&memory, WORK).await;
    let mut waiting = Vec::new();
    for _ in 0..200 {
        waiting.push(begin_count(&memory, "together").await);
    }
    assert_eq!(first.await.unwrap().unwrap(), 2);
    let mut together = Vec::new();
    for call in waiting {
        together.push(call.await.unwrap().unwrap());
    }
    assert_eq!(together, [[128; 128].as_slice(), &[72; 72]].concat());
    assert_eq!(memory.count("behave").await.unwrap(), 203);
}

#[tokio::test]
async fn large_calls_go_out_with_few() {
    let memory = one_guest(PATIENCE).await;
    let first = begin_count(&memory, WORK).await;
    let mut waiting = Vec::new();
    // Half of a pipeline's limit, all of it, and more.
    for kibibytes in [128, 127, 127, 127, 300, 1] {
        let memory = memory.clone();
        let call = async move {
            let message = NewMessage::user("x".repeat(kibibytes << 10));
            memory.add_all("together", &[message]).await
        };
        waiting.push(begin(call).await);
    }
    first.await.unwrap().unwrap();
    let mut together = Vec::new();
    for call in waiting {
        together.push(call.await.unwrap().unwrap());
    }
    assert_eq!(together, [2, 2, 2, 2, 1, 1]);
}

#[tokio::test]
async fn a_long_read_goes_alone_and_in_its_turn() {
    let memory = one_guest(PATIENCE).await;
    let first = begin_count(&memory, WORK).await;
    let before = [
        begin_count(&memory, "together").await,
        begin_count(&memory, "together").await,
    ];
    let short = begin_get(&memory, "together", Some(100)).await;
    let reads = [
        begin_get(&memory, "sleep 1000", None).await,
        begin_get(&memory, "sleep 50", Some(101)).await,
    ];
    let own = [
        operation("together", Action::Count),
        operation("together", Action::Count),
    ];
    let pipeline = begin({
        let memory = memory.clone();
        async move { memory.pipeline(&own).await }
    });
    let pipeline = pipeline.await;
    let behind = begin_count(&memory, "together").await;
    first.await.unwrap().unwrap();
    let begin = Instant::now();
    for call in before {
        assert_eq!(call.await.unwrap().unwrap(), 3);
    }
    short.await.unwrap().unwrap();
    let long = Duration::from_millis(1000);
    assert!(begin.elapsed() < long, "they were sent with a long read");
    for read in reads {
        read.await.unwrap().unwrap();
    }
    // A caller's own pipeline is sent with others, like a single operation.
    let two = [Ok(Outcome::Length(3)), Ok(Outcome::Length(3))];
    assert_eq!(pipeline.await.unwrap().unwrap(), two);
    took(begin, long + Duration::from_millis(50));
    assert_eq!(behind.await.unwrap().unwrap(), 3);
}

#[tokio::test]
async fn a_long_call_does_not_hold_up_the_others() {
    let memory = guests(PATIENCE).max_instances(2).open().await.unwrap();
    let long = begin_get(&memory, "sleep 1000", None).await;
    let begin = Instant::now();
    for n in 1..=10 {
        assert_eq!(memory.count("behave").await.unwrap(), n);
    }
    assert!(begin.elapsed() < Duration::from_millis(1000));
    assert!(!long.is_finished());
    long.await.unwrap().unwrap();
}

#[tokio::test]
async fn there_are_no_more_instances_than_allowed() {
    let server = server();
    for instances in [0, 1, 3] {
        let proxy = Proxy::start(server.address());
        let memory = builder(proxy.port(), Options::default()).max_instances(instances);
        let memory = memory.open().await.unwrap();
        let mut calls = JoinSet::new();
        for _ in 0..50 {
            let memory = memory.clone();
            calls.spawn(async move { memory.count("s").await.unwrap() });
        }
        let mut most = 0;
        while calls.join_next().await.is_some() {
            most = most.max(proxy.connections());
        }
        assert_eq!(most, instances.max(1));
    }
}

#[tokio::test]
async fn more_calls_than_may_wait_are_refused() {
    let memory = guests(PATIENCE)
        .max_instances(1)
        .max_waiting(3)
        .open()
        .await;
    let memory = memory.unwrap();
    let first = begin_count(&memory, WORK).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(begin_count(&memory, "together").await);
    }
    let refused = memory.add("s", Role::User, "x", None).await;
    assert_eq!(
        refusal(refused),
        (
            "unavailable",
            "add to \"s\": 3 calls are waiting, allowed are 3 (max_waiting)".to_owned()
        )
    );
    // A call that is given up frees its place in the queue.
    waiting.remove(1).abort();
    yield_now().await;
    waiting.push(begin_count(&memory, "together").await);
    first.await.unwrap().unwrap();
    for call in waiting {
        assert_eq!(call.await.unwrap().unwrap(), 3);
    }
    // The refused call and the call that was given up were not sent.
    assert_eq!(memory.count("behave").await.unwrap(), 5);
}

#[tokio::test]
async fn calls_are_executed_in_order_of_arrival() {
    let server = server();
    let memory = builder(server.port(), Options::default()).max_instances(1);
    let memory = memory.open().await.unwrap();
    let mut calls = Vec::new();
    for n in 0..300 {
        let memory = memory.clone();
        let call = async move { memory.add("s", Role::User, &n.to_string(), None).await };
        calls.push(begin(call).await);
    }
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap() as usize, n + 1);
    }
    let stored = contents(&mut server.client().unwrap(), "session:s");
    assert!(stored.into_iter().eq((0..300).map(|n| n.to_string())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_caller_gets_its_own_result() {
    let server = server();
    let memory = memory(&server).await;
    let mut callers = JoinSet::new();
    for caller in 0..64 {
        let memory = memory.clone();
        callers.spawn(async move {
            let session = format!("s{caller}");
            for n in 1..=20 {
                let content = format!("{caller} {n}");
                let length = memory.add(&session, Role::User, &content, None).await;
                assert_eq!(length.unwrap(), n);
                let last = memory.get(&session, Some(1)).await.unwrap();
                assert_eq!(last[0].content, content);
                let limit = [None, Some(3)][n as usize % 2];
                let history = memory.history(&session, limit).await.unwrap();
                assert_eq!(history.total, n);
                assert!(memory.exists(&session).await.unwrap());
            }
            memory.clear(&session).await.unwrap();
            assert_eq!(memory.count(&session).await.unwrap(), 0);
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
}

#[tokio::test]
async fn in_memory_is_one_instance_however_many_call() {
    let options = Options::new().provider(Provider::InMemory);
    let builder = || {
        let builder = SessionMemory::builder().environment([]);
        builder.options(options.clone()).max_instances(4)
    };
    let memory = builder().open().await.unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let memory = memory.clone();
        calls.spawn(async move { memory.add("s", Role::User, "x", None).await.unwrap() });
    }
    let lengths: HashSet<u32> = calls.join_all().await.into_iter().collect();
    assert_eq!(lengths, (1..=100).collect());

    // When that instance is lost, waiting and later calls return an error.
    let memory = builder().component_bytes(GUEST).open().await.unwrap();
    let first = begin_count(&memory, "sleep").await;
    let waiting = begin_count(&memory, "behave").await;
    first.abort();
    for call in [waiting.await.unwrap(), memory.count("behave").await] {
        let (variant, text) = refusal(call);
        assert_eq!(variant, "unavailable");
        assert!(text.contains("the sessions are gone"), "{text}");
    }
}

#[tokio::test]
async fn a_prepared_memory_is_opened_as_often_as_wanted() {
    let server = server();
    let proxy = Proxy::start(server.address());
    let options = Options::new().connect(Connect::AtFirstOperation);
    let prepared = builder(proxy.port(), options).prepare().unwrap();
    let one = prepared.open().await.unwrap();
    let two = prepared.open().await.unwrap();
    assert_eq!(proxy.connections(), 0);
    assert_eq!(one.add("s", Role::User, "x", None).await.unwrap(), 1);
    assert_eq!(two.count("s").await.unwrap(), 1);
    assert_eq!(proxy.connections(), 2);

    let prepared = builder(proxy.port(), Options::default()).prepare().unwrap();
    let _three = prepared.open().await.unwrap();
    assert_eq!(proxy.connections(), 3);
}

#[tokio::test]
async fn there_are_as_many_instances_as_were_preallocated() {
    let prepared = guests(PATIENCE).preallocate(2).prepare().unwrap();
    for _ in 0..3 {
        let one = prepared.open().await.unwrap();
        let _two = prepared.open().await.unwrap();
        let error = prepared.open().await.unwrap_err();
        assert!(matches!(error, Error::Component { .. }), "{error:?}");
        println!("{error}");
        // An instance that ends frees its place.
        assert!(one.get("trap", None).await.is_err());
        assert_eq!(one.count("behave").await.unwrap(), 1);
    }
}
