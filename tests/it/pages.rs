//! Long sessions are read page by page, as a consistent snapshot.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use session_memory_host::{Action, Message, NewMessage, Options, Outcome, Role};

use crate::common::proxy::{Break, Direction, Fault};
use crate::common::{
    Value, calls, memory, memory_through_proxy, memory_with, operation, refusal, server,
};

/// Longer than the writers need, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A message with this number in its content. Sizes vary.
fn new(number: usize) -> NewMessage {
    NewMessage::user(format!("{number} {}", "x".repeat(number % 400)))
}

fn numbered(numbers: Range<usize>) -> Vec<NewMessage> {
    numbers.map(new).collect()
}

/// The numbers of messages. Checks that they are consecutive.
fn numbers(messages: &[Message]) -> Range<usize> {
    let number = |message: &Message| -> usize {
        let (number, _) = message.content.split_once(' ').unwrap();
        number.parse().unwrap()
    };
    let first = messages.first().map_or(0, number);
    for (at, message) in messages.iter().enumerate() {
        assert_eq!(number(message), first + at);
    }
    first..first + messages.len()
}

#[tokio::test]
async fn a_session_is_read_whole() {
    let server = server();
    let memory = memory(&server).await;
    memory.add_all("s", numbered(0..5000)).await.unwrap();
    // An unreadable entry on the second page.
    let mut redis = server.client().unwrap();
    let set = redis.command(&["LSET", "session:s", "4500", "unreadable"]);
    assert_eq!(set.unwrap(), Value::Simple("OK".to_owned()));
    let readable = [numbered(0..4500), numbered(4501..5000)].concat();
    for (limit, found, skipped, pages) in [
        (None, 4999, 1, 3),
        (Some(5000), 4999, 1, 3),
        (Some(4000), 4000, 1, 3),
        (Some(300), 300, 0, 2),
        (Some(256), 256, 0, 1),
    ] {
        redis.command(&["CONFIG", "RESETSTAT"]).unwrap();
        let history = memory.history("s", limit).await.unwrap();
        assert!(calls(&mut redis, "lrange") >= pages, "{limit:?}");
        assert_eq!((history.total, history.skipped), (5000, skipped));
        let expected = &readable[4999 - found..];
        let contents = |messages: &[Message]| -> Vec<String> {
            let contents = messages.iter().map(|message| message.content.clone());
            contents.collect()
        };
        let expected: Vec<_> = expected.iter().map(|new| new.content.clone()).collect();
        assert_eq!(contents(&history.messages), expected);
        let messages = memory.get("s", limit).await.unwrap();
        assert_eq!(contents(&messages), expected);
    }
}

#[tokio::test]
async fn in_a_pipeline_it_is_read_where_its_turn_is() {
    let server = server();
    let memory = memory(&server).await;
    memory.add_all("s", numbered(0..1000)).await.unwrap();
    let operations = [
        operation("s", Action::Get(None)),
        operation("s", Action::Add(new(1000))),
        operation("s", Action::Get(None)),
    ];
    let results = memory.pipeline(&operations).await.unwrap();
    let [
        Ok(Outcome::Messages(before)),
        Ok(_),
        Ok(Outcome::Messages(after)),
    ] = &results[..]
    else {
        panic!("{results:?}");
    };
    assert_eq!((numbers(before), numbers(after)), (0..1000, 0..1001));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_read_is_one_snapshot_while_others_append() {
    let server = server();
    // Each append removes the oldest message.
    let options = Options::new().max_messages(2000);
    let writer = memory_with(&server, options).await;
    writer.add_all("s", numbered(0..2000)).await.unwrap();
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    let writing = tokio::spawn(async move {
        let mut number = 2000;
        while !IS_OVER.load(Relaxed) {
            let content = new(number).content;
            let added = writer.add("s", Role::User, &content, None).await;
            assert_eq!(added.unwrap(), 2000);
            number += 1;
            // Varies the time, so that it is not always between two pages.
            tokio::time::sleep(Duration::from_micros(500 * (number % 9) as u64)).await;
        }
        number
    });
    let memory = memory(&server).await;
    let mut last = 2000;
    let begin = Instant::now();
    for round in 0.. {
        if round >= 200 && last >= 2100 {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "it never was appended to");
        let messages = match round % 3 {
            0 => memory.get("s", None).await.unwrap(),
            1 => memory.get("s", Some(2000)).await.unwrap(),
            _ => memory.history("s", None).await.unwrap().messages,
        };
        let numbers = numbers(&messages);
        assert_eq!(numbers.len(), 2000);
        assert!(numbers.end >= last);
        last = numbers.end;
    }
    IS_OVER.store(true, Relaxed);
    let end = writing.await.unwrap();
    assert!(end >= last, "{last} of {end}");
    println!("{} appended while they were read", last - 2000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_cleared_meanwhile_is_there_or_not() {
    let server = server();
    let writer = memory(&server).await;
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    let writing = tokio::spawn(async move {
        let mut from = 0;
        while !IS_OVER.load(Relaxed) {
            let added = writer.add_all("s", numbered(from..from + 1500)).await;
            assert_eq!(added.unwrap(), 1500);
            tokio::time::sleep(Duration::from_millis(from as u64 % 7)).await;
            writer.clear("s").await.unwrap();
            from += 1501;
        }
    });
    let memory = memory(&server).await;
    let (mut found, mut cleared) = (0, 0);
    let begin = Instant::now();
    for round in 0.. {
        if round >= 300 && found >= 50 && cleared >= 50 {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{found} there, {cleared} not");
        let limit = [None, Some(1400), Some(1500)][round % 3];
        let messages = memory.get("s", limit).await.unwrap();
        if !messages.is_empty() {
            let numbers = numbers(&messages);
            assert_eq!(numbers.len(), limit.unwrap_or(1500) as usize);
            assert_eq!(numbers.end % 1501, 1500);
            found += 1;
        } else {
            cleared += 1;
        }
    }
    IS_OVER.store(true, Relaxed);
    writing.await.unwrap();
    println!("{found} there, {cleared} not");
}

#[tokio::test]
async fn all_pages_together_are_limited() {
    let server = server();
    let options = Options::new().max_reply_bytes(300_000);
    let memory = memory_with(&server, options).await;
    memory.add_all("s", numbered(0..1000)).await.unwrap();
    let limited = (
        "limit-exceeded",
        "get \"s\": the reply is larger than 300000 bytes (max-reply-bytes)".to_owned(),
    );
    assert_eq!(refusal(memory.get("s", None).await), limited);
    assert_eq!(refusal(memory.get("s", Some(999)).await), limited);
    let messages = memory.get("s", Some(600)).await.unwrap();
    assert_eq!(numbers(&messages), 400..1000);
}

#[tokio::test]
async fn a_page_that_is_lost_is_asked_for_again() {
    let server = server();
    let (proxy, memory) = memory_through_proxy(&server, Options::default()).await;
    for chunk in 0..3 {
        let messages = numbered(1000 * chunk..1000 * (chunk + 1));
        memory.add_all("s", messages).await.unwrap();
    }
    for (done, (page, direction, offset)) in [
        (0, Direction::Reply, 5000),
        (1, Direction::Reply, 0),
        (1, Direction::Reply, 100_000),
        (2, Direction::Request, 10),
    ]
    .into_iter()
    .enumerate()
    {
        let mut pages = 0;
        proxy.plan(move |id| {
            let is_it = id.exchange > 0 && pages == page;
            pages += usize::from(id.exchange > 0);
            is_it.then_some(Fault {
                direction,
                offset,
                action: Break::Cut,
            })
        });
        let messages = memory.get("s", None).await.unwrap();
        assert_eq!(numbers(&messages), 0..3000);
        assert_eq!(proxy.carried_out(), done + 1, "{page}");
    }
    assert_eq!(memory.count("s").await.unwrap(), 3000);
}
