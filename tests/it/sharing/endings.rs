//! Calls that end early: their time is over, their instance is lost, or their caller has
//! given up.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use fastrand::Rng;
use session_memory_host::{Action, Error, Options, Role};
use tokio::runtime;
use tokio::select;
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;

use super::{LIMIT, PATIENCE, WORK, begin_add, begin_count, begin_get, guests, one_guest};
use crate::common::{builder, contents, memory_through_proxy, operation, refusal, server, took};

#[tokio::test]
async fn a_call_whose_time_is_over_while_it_waits_is_not_sent() {
    let memory = one_guest(LIMIT).await;
    let begin = Instant::now();
    let first = begin_get(&memory, "sleep 600", None).await;
    let second = begin_get(&memory, "sleep 600", None).await;
    let third = begin_add(&memory, "behave").await;
    first.await.unwrap().unwrap();
    for (call, text) in [
        (
            refusal(second.await.unwrap()),
            "get \"sleep 600\": no reply within 1000 ms, of which other calls took some",
        ),
        (
            refusal(third.await.unwrap()),
            "add to \"behave\": other calls took all of the time",
        ),
    ] {
        assert_eq!(call, ("timeout", text.to_owned()));
        took(begin, LIMIT);
    }
    // The instance had time for the second call and has not received the third.
    assert_eq!(memory.count("behave").await.unwrap(), 4);
}

#[tokio::test]
async fn a_write_whose_time_is_over_in_flight_is_not_known() {
    let memory = one_guest(LIMIT).await;
    let first = begin_get(&memory, "sleep 600", None).await;
    let writes = [
        begin_add(&memory, "sleep 600").await,
        begin_add(&memory, "behave").await,
    ];
    first.await.unwrap().unwrap();
    // It began later, so its time is not over.
    let later = begin_count(&memory, "behave").await;
    for write in writes {
        let (variant, text) = refusal(write.await.unwrap());
        assert_eq!(variant, "outcome-unknown");
        assert!(text.ends_with("no reply within 1000 ms, of which other calls took some"));
    }
    assert_eq!(later.await.unwrap().unwrap(), 5);
}

#[tokio::test]
async fn what_ends_an_instance_is_told_to_each_of_its_calls() {
    let memory = one_guest(PATIENCE).await;
    for order in ["trap", "not-utf8", "omit"] {
        let first = begin_count(&memory, WORK).await;
        let read = begin_count(&memory, "behave").await;
        let ends = begin_get(&memory, order, Some(1)).await;
        let write = begin_add(&memory, "behave").await;
        first.await.unwrap().unwrap();
        let errors = [
            ("count \"behave\": ".to_owned(), read.await.unwrap().err()),
            (format!("get {order:?}: "), ends.await.unwrap().err()),
            ("add to \"behave\": ".to_owned(), write.await.unwrap().err()),
        ];
        for (begin, error) in errors {
            let error = error.unwrap();
            assert!(matches!(error, Error::Component { .. }), "{error:?}");
            assert!(error.to_string().starts_with(&begin), "{error}");
            println!("{error}");
        }
        assert_eq!(memory.count("behave").await.unwrap(), 1, "{order}");
    }

    let first = begin_count(&memory, WORK).await;
    let swapped = begin_count(&memory, "swap").await;
    let beside = begin_count(&memory, "behave").await;
    first.await.unwrap().unwrap();
    let error = swapped.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "count \"swap\": the component failed");
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(reason, "the result is not one of this operation");
    beside.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_takes_the_memory_ends_each_call_by_what_it_does() {
    let memory = guests(PATIENCE).max_instances(1).max_memory(32 << 20);
    let memory = memory.open().await.unwrap();
    let first = begin_count(&memory, WORK).await;
    let read = begin_count(&memory, "behave").await;
    let ends = begin_get(&memory, "grow", Some(1)).await;
    let write = begin_add(&memory, "behave").await;
    first.await.unwrap().unwrap();
    assert_eq!(refusal(read.await.unwrap()).0, "limit-exceeded");
    assert_eq!(refusal(ends.await.unwrap()).0, "limit-exceeded");
    assert_eq!(refusal(write.await.unwrap()).0, "outcome-unknown");
    assert_eq!(memory.count("behave").await.unwrap(), 1);

    let own = [
        operation("behave", Action::Clear),
        operation("trap", Action::Count),
    ];
    let error = memory.pipeline(&own).await.unwrap_err();
    assert!(matches!(error, Error::Component { .. }), "{error:?}");
    let text = "pipeline of 2, first clear \"behave\": ";
    assert!(error.to_string().starts_with(text), "{error}");
    let impatient = guests(Duration::from_millis(300)).open().await.unwrap();
    for (actions, expected) in [
        ([Action::Count, Action::Exists], "timeout"),
        ([Action::Count, Action::Clear], "outcome-unknown"),
    ] {
        let own = actions.map(|action| operation("sleep", action));
        let (variant, text) = refusal(impatient.pipeline(&own).await);
        assert_eq!(variant, expected);
        assert_eq!(
            text,
            "pipeline of 2, first count \"sleep\": the component was stopped after 300 ms"
        );
    }
    assert_eq!(memory.pipeline(&[]).await.unwrap(), []);
}

#[tokio::test]
async fn a_call_that_is_given_up_changes_nothing_for_the_others() {
    let memory = one_guest(PATIENCE).await;
    let first = begin_count(&memory, WORK).await;
    let kept = begin_count(&memory, "together").await;
    let waiting = begin_add(&memory, "trap").await;
    let in_flight = begin_add(&memory, WORK).await;
    let behind = begin_count(&memory, "together").await;
    // Given up in the queue: it is not sent.
    waiting.abort();
    first.await.unwrap().unwrap();
    sleep(Duration::from_millis(20)).await;
    // Given up in flight: the instance continues.
    in_flight.abort();
    assert_eq!(kept.await.unwrap().unwrap(), 3);
    assert_eq!(behind.await.unwrap().unwrap(), 3);
    assert_eq!(memory.count("behave").await.unwrap(), 6);

    // Given up while it has the instance to itself: the instance is discarded, and the
    // waiting calls use another one.
    let own_turn = begin_count(&memory, "sleep").await;
    let waiting = [
        begin_count(&memory, "together").await,
        begin_count(&memory, "behave").await,
    ];
    own_turn.abort();
    for call in waiting {
        assert_eq!(call.await.unwrap().unwrap(), 2);
    }
}

/// Yields to other tasks this many times.
async fn patience(turns: u32) {
    for _ in 0..turns {
        yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_anywhere_loses_and_duplicates_nothing() {
    let server = server();
    for instances in [1, 2] {
        let memory = builder(server.port(), Options::default()).max_instances(instances);
        let memory = memory.open().await.unwrap();
        let mut callers = JoinSet::new();
        for caller in 0..32_u64 {
            let memory = memory.clone();
            callers.spawn(async move {
                let mut rng = Rng::with_seed(caller);
                let session = format!("{instances} {caller}");
                let mut sent = Vec::new();
                for n in 0..60 {
                    let content = format!("{caller} {n}");
                    let call = memory.add(&session, Role::User, &content, None);
                    let acknowledged = if rng.bool() {
                        call.await.unwrap();
                        true
                    } else {
                        let turns = rng.u32(..30);
                        select! {
                            length = call => length.map(|_| true).unwrap(),
                            () = patience(turns) => false,
                        }
                    };
                    sent.push((content, acknowledged));
                }
                (session, sent)
            });
        }
        let mut redis = server.client().unwrap();
        let (mut acknowledged, mut given_up) = (0, 0);
        let mut all = Vec::new();
        while let Some(caller) = callers.join_next().await {
            all.push(caller.unwrap());
        }
        for (session, sent) in all {
            let stored = contents(&mut redis, &format!("session:{session}"));
            let once: HashSet<&String> = stored.iter().collect();
            assert_eq!(once.len(), stored.len(), "{session}: {stored:?}");
            for (content, was_acknowledged) in &sent {
                assert!(
                    !was_acknowledged || once.contains(content),
                    "{content} is lost"
                );
                acknowledged += usize::from(*was_acknowledged);
                given_up += usize::from(!was_acknowledged);
            }
            assert!(
                stored
                    .iter()
                    .all(|content| sent.iter().any(|(own, _)| own == content))
            );
        }
        println!(
            "{instances} instances: {acknowledged} acknowledged, {given_up} given up; \
             lost 0, duplicated 0, misdelivered 0"
        );
        assert!(acknowledged > 500 && given_up > 100);
    }
}

#[tokio::test]
async fn giving_up_all_calls_and_the_memory_closes_the_connections() {
    let server = server();
    let (proxy, memory) = memory_through_proxy(&server, Options::default()).await;
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let memory = memory.clone();
        calls.spawn(async move { memory.count("s").await.unwrap() });
    }
    yield_now().await;
    calls.shutdown().await;
    drop(memory);
    let begin = Instant::now();
    while proxy.connections() > 0 {
        assert!(begin.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn calls_get_an_error_when_the_runtime_shuts_down() {
    let new = || {
        let mut runtime = runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap()
    };
    let (one, other) = (new(), new());
    let memory = one.block_on(one_guest(PATIENCE));
    // The first call and the first queued call belong to the runtime that is shut down.
    one.block_on(async {
        begin_count(&memory, "sleep").await;
        begin_count(&memory, "behave").await;
    });
    let waiting = other.block_on(begin_count(&memory, "behave"));
    drop(one);
    let result = other.block_on(waiting).unwrap();
    if result.is_err() {
        let text = "count \"behave\": the task that served the calls that wait was ended";
        assert_eq!(refusal(result), ("unavailable", text.to_owned()));
    }
    other.block_on(memory.count("behave")).unwrap();
}
