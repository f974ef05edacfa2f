//! Providers of Redis that cap replies: some refuse a larger reply, some cut it. Sessions
//! can still be read, as a consistent snapshot.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use session_memory_host::{
    Action, Delivery, History, Message, NewMessage, Options, Outcome, SessionMemory,
};
use tokio::task::JoinHandle;

use crate::common::proxy::frame_end;
use crate::common::{DELIVERIES, Server, builder, memory, operation, peer, refusal, server};

/// The most bytes of a reply.
const CAP: usize = 1 << 20;

/// What happens to a larger reply.
#[derive(Clone, Copy, Debug)]
enum Cap {
    /// An error reply takes its place.
    Refuses,
    /// The connection is closed after [`CAP`] bytes of it.
    Cuts,
}

const CAPS: [Cap; 2] = [Cap::Refuses, Cap::Cuts];

/// A relay between a memory and a server that caps replies.
struct Relay {
    port: u16,
    /// The number of replies that were too large.
    capped: Arc<AtomicUsize>,
}

impl Relay {
    fn start(server: &Server, cap: Cap) -> Relay {
        let address = server.address();
        let capped = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&capped);
        let port = peer(move |component| {
            // The component and the server may hang up.
            let _ = relay(&component, address, cap, &count);
        });
        Relay { port, capped }
    }

    async fn memory(&self, options: Options) -> SessionMemory {
        builder(self.port, options).open().await.unwrap()
    }

    fn capped(&self) -> usize {
        self.capped.load(SeqCst)
    }
}

fn relay(
    component: &TcpStream,
    server: SocketAddr,
    cap: Cap,
    capped: &AtomicUsize,
) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    component.set_nodelay(true)?;
    server.set_nodelay(true)?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &*component, &mut &server);
            let _ = server.shutdown(Shutdown::Both);
        });
        let ended = carry_replies(component, &server, cap, capped);
        component.shutdown(Shutdown::Both)?;
        ended
    })
}

fn carry_replies(
    mut component: &TcpStream,
    mut server: &TcpStream,
    cap: Cap,
    capped: &AtomicUsize,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    while let size @ 1.. = server.read(&mut buffer)? {
        bytes.extend_from_slice(&buffer[..size]);
        while let Some(end) = frame_end(&bytes) {
            let reply: Vec<u8> = bytes.drain(..end).collect();
            if reply.len() <= CAP {
                component.write_all(&reply)?;
                continue;
            }
            capped.fetch_add(1, SeqCst);
            match cap {
                Cap::Refuses => component.write_all(
                    format!(
                        "-ERR max request size exceeded. Limit: {CAP} bytes, Actual: {} bytes\r\n",
                        reply.len()
                    )
                    .as_bytes(),
                )?,
                Cap::Cuts => return component.write_all(&reply[..CAP]),
            }
        }
    }
    Ok(())
}

/// A message with this number in its content, and a size.
fn new(number: usize, size: usize) -> NewMessage {
    let number = number.to_string();
    NewMessage::user(format!("{number} {}", "x".repeat(size - number.len() - 1)))
}

/// About 5 MB. In some places 16 messages fit in a reply, in others not.
fn mixed() -> Vec<NewMessage> {
    let size = |number| match number {
        200..205 => 300_000,
        _ if number % 40 == 0 => 300_000,
        _ => 200 + number * 37 % 40 * 150,
    };
    (0..400).map(|number| new(number, size(number))).collect()
}

/// One of these messages fits in a reply, two do not.
fn large() -> Vec<NewMessage> {
    (0..9).map(|number| new(number, 600_000 + number)).collect()
}

async fn store(server: &Server, session: &str, messages: &[NewMessage]) {
    let memory = memory(server).await;
    for message in messages.chunks(20) {
        memory.add_all(session, message).await.unwrap();
    }
}

fn options(delivery: Delivery) -> Options {
    // A read takes a moment, on a busy machine even more.
    Options::new()
        .delivery(delivery)
        .operation_timeout(Duration::from_millis(20_000))
}

/// Checks that these are the last messages of a session, up to the limit. Does not print
/// their contents.
fn are_last(found: &[Message], of: &[NewMessage], limit: Option<u32>, case: &str) {
    let first = limit.map_or(0, |limit| of.len().saturating_sub(limit as usize));
    let contents = found.iter().map(|message| &message.content);
    let expected = of[first..].iter().map(|message| &message.content);
    let count = found.len();
    assert!(contents.eq(expected), "{case}: {count} of {}", of.len());
}

fn is_history(history: &History, of: &[NewMessage], limit: Option<u32>, case: &str) {
    are_last(&history.messages, of, limit, case);
    let numbers = (history.total as usize, history.skipped);
    assert_eq!(numbers, (of.len(), 0), "{case}");
    let ttl = history.ttl.unwrap().as_secs();
    assert!((3000..=3600).contains(&ttl), "{case}: {ttl}");
}

#[tokio::test]
async fn a_capped_session_is_read_whole() {
    let server = server();
    let sessions = [("mixed", mixed()), ("large", large())];
    for (session, messages) in &sessions {
        store(&server, session, messages).await;
    }
    for cap in CAPS {
        for delivery in DELIVERIES {
            let relay = Relay::start(&server, cap);
            let memory = relay.memory(options(delivery)).await;
            for (session, messages) in &sessions {
                for limit in [None, Some(3), Some(230), Some(1000)] {
                    let case = &format!("{cap:?}, {delivery:?}, {session}, {limit:?}");
                    let before = relay.capped();
                    let found = memory.get(session, limit).await;
                    are_last(&found.expect(case), messages, limit, case);
                    let after_get = relay.capped();
                    let history = memory.history(session, limit).await;
                    is_history(&history.expect(case), messages, limit, case);
                    // The last three mixed messages fit.
                    let fits = *session == "mixed" && limit == Some(3);
                    assert_eq!(after_get == before, fits, "{case}");
                    assert_eq!(relay.capped() == after_get, fits, "{case}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_capped_read_in_a_pipeline_has_what_is_ahead_of_it() {
    for cap in CAPS {
        for delivery in DELIVERIES {
            let case = &format!("{cap:?}, {delivery:?}");
            let server = server();
            let (mut mixed, large) = (mixed(), large());
            store(&server, "mixed", &mixed).await;
            store(&server, "large", &large).await;
            let relay = Relay::start(&server, cap);
            let memory = relay.memory(options(delivery)).await;
            mixed.push(new(400, 1000));
            let results = memory
                .pipeline(&[
                    operation("mixed", Action::Count),
                    operation("mixed", Action::Add(mixed[400].clone())),
                    operation("mixed", Action::Get(None)),
                    operation("other", Action::Add(new(0, 100))),
                    operation("large", Action::History(Some(5))),
                    operation("mixed", Action::History(None)),
                    operation("large", Action::Get(Some(1))),
                    operation("other", Action::Count),
                ])
                .await
                .unwrap();
            let [
                Ok(Outcome::Length(400)),
                Ok(Outcome::Length(401)),
                Ok(Outcome::Messages(all)),
                other,
                Ok(Outcome::History(five)),
                Ok(Outcome::History(history)),
                Ok(Outcome::Messages(one)),
                Ok(Outcome::Length(1)),
            ] = &results[..]
            else {
                let errors: Vec<_> = results.iter().map(|result| result.as_ref().err()).collect();
                panic!("{case}: {errors:?}");
            };
            // Its reply came after the cut, and with at-most-once delivery it is not sent
            // again.
            let is_lost = matches!((cap, delivery), (Cap::Cuts, Delivery::AtMostOnce));
            match other {
                Ok(Outcome::Length(1)) => assert!(!is_lost, "{case}"),
                Err(error) => assert!(
                    is_lost && error.variant() == "outcome-unknown",
                    "{case}: {error}"
                ),
                other => panic!("{case}: {other:?}"),
            }
            are_last(all, &mixed, None, case);
            is_history(five, &large, Some(5), case);
            is_history(history, &mixed, None, case);
            are_last(one, &large, Some(1), case);
            assert!(relay.capped() > 2, "{case}");
            // The retries of reads appended nothing again.
            let stored = memory.count("mixed").await.unwrap();
            assert_eq!(stored, 401, "{case}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capped_session_is_read_as_of_one_moment_while_it_grows() {
    for cap in CAPS {
        let server = server();
        let mut all = mixed();
        store(&server, "s", &all).await;
        all.extend((400..4000).map(|number| new(number, 200 + number % 700)));
        let relay = Relay::start(&server, cap);
        let memory = relay.memory(Options::default()).await;
        let begin = Instant::now();
        memory.get("s", None).await.unwrap();
        let undisturbed = begin.elapsed();
        let writer = Writer::start(&server, &all, undisturbed).await;

        let mut read = 0;
        for round in 0..12 {
            read += usize::from(writer.is_read(&memory, round).await);
        }
        let came = writer.acknowledged.load(SeqCst) - 400;
        // Now there may be no pause that is long enough.
        writer.hurries.store(true, SeqCst);
        let impatient = Options::new().operation_timeout(Duration::from_millis(1000));
        let impatient = relay.memory(impatient).await;
        let mut hurried = 0;
        for round in 0..3 {
            hurried += usize::from(writer.is_read(&impatient, round).await);
        }
        let end = writer.end().await;
        println!(
            "{cap:?}: of 12 reads {read} ended in time while {came} messages came, of 3 \
             {hurried} while {} came; one that is not disturbed took {undisturbed:?}",
            end - 400 - came
        );
        assert!(read > 0 && came > 0, "{cap:?}: {read}, {came}");
        let messages = memory.get("s", None).await.unwrap();
        are_last(&messages, &all[..end], None, "at the end");
    }
}

/// Appends messages to the session `s`, one after the other.
struct Writer {
    all: Arc<[NewMessage]>,
    /// The number of messages sent, and acknowledged.
    sent: Arc<AtomicUsize>,
    acknowledged: Arc<AtomicUsize>,
    hurries: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Starts after the first 400 messages. `read` is the time that a read takes.
    async fn start(server: &Server, all: &[NewMessage], read: Duration) -> Writer {
        let memory = memory(server).await;
        let all: Arc<[NewMessage]> = all.into();
        let sent = Arc::new(AtomicUsize::new(400));
        let acknowledged = Arc::new(AtomicUsize::new(400));
        let hurries = Arc::new(AtomicBool::new(false));
        let is_over = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn({
            let (all, sent, acknowledged) = (all.clone(), sent.clone(), acknowledged.clone());
            let (hurries, is_over) = (hurries.clone(), is_over.clone());
            async move {
                for (number, message) in all.iter().enumerate().skip(400) {
                    if is_over.load(SeqCst) {
                        return;
                    }
                    sent.store(number + 1, SeqCst);
                    let message = std::slice::from_ref(message);
                    let added = memory.add_all("s", message).await.unwrap();
                    assert_eq!(added as usize, number + 1);
                    acknowledged.store(number + 1, SeqCst);
                    // Mostly too short for a read, sometimes long enough.
                    let part = match hurries.load(SeqCst) {
                        true => 0.1,
                        false => 3.0 * fastrand::f64().powi(2),
                    };
                    tokio::time::sleep(read.mul_f64(part)).await;
                }
                panic!("there are no more messages");
            }
        });
        Writer {
            all,
            sent,
            acknowledged,
            hurries,
            is_over,
            task,
        }
    }

    /// Returns whether the session is read in time. If it is, checks that it is a
    /// consistent snapshot.
    async fn is_read(&self, memory: &SessionMemory, round: usize) -> bool {
        let limit = [None, Some(390), None][round % 3];
        let from = self.acknowledged.load(SeqCst);
        let begin = Instant::now();
        let result = match round % 3 {
            2 => memory.history("s", limit).await.map(|history| {
                assert_eq!(history.total as usize, history.messages.len());
                history.messages
            }),
            _ => memory.get("s", limit).await,
        };
        let taken = begin.elapsed();
        let to = self.sent.load(SeqCst);
        let case = &format!("{round}, {from} to {to}");
        let messages = match result {
            Ok(messages) => messages,
            Err(error) => {
                assert_eq!(error.variant(), "timeout", "{case}: {error}");
                assert!(taken < Duration::from_secs(7), "{case}: {taken:?}");
                return false;
            }
        };
        let (number, _) = messages.last().unwrap().content.split_once(' ').unwrap();
        let end = number.parse::<usize>().unwrap() + 1;
        assert!((from..=to).contains(&end), "{case}: {end}");
        are_last(&messages, &self.all[..end], limit, case);
        true
    }

    /// Ends it and returns the number of messages.
    async fn end(self) -> usize {
        self.is_over.store(true, SeqCst);
        self.task.await.unwrap();
        self.acknowledged.load(SeqCst)
    }
}

#[tokio::test]
async fn a_message_above_the_cap_is_an_error_and_the_newer_ones_are_read() {
    let server = server();
    // As large as a message may be by default, so that the whole reply is too large.
    let messages: Vec<_> = (0..40)
        .map(|number| new(number, if number == 20 { CAP } else { 500 }))
        .collect();
    store(&server, "s", &messages).await;
    for delivery in DELIVERIES {
        let relay = Relay::start(&server, Cap::Refuses);
        let memory = relay.memory(options(delivery)).await;
        for limit in [None, Some(30), Some(300)] {
            let begin = Instant::now();
            let error_text = "the server's provider limits how large a request and a reply may be";
            let (variant, text) = refusal(memory.get("s", limit).await);
            assert_eq!(
                (variant, text),
                ("limit-exceeded", format!("get \"s\": {error_text}"))
            );
            let (variant, text) = refusal(memory.history("s", limit).await);
            let expected = ("limit-exceeded", format!("history of \"s\": {error_text}"));
            assert_eq!((variant, text), expected);
            let taken = begin.elapsed();
            assert!(taken < Duration::from_secs(10), "{taken:?}");
        }
        let newer = memory.get("s", Some(19)).await.unwrap();
        are_last(&newer, &messages, Some(19), "the newer ones");
        assert_eq!(memory.count("s").await.unwrap(), 40);
    }

    // A reply that is cut is requested a few more times. The rest of the pipeline goes
    // on.
    let relay = Relay::start(&server, Cap::Cuts);
    let memory = relay.memory(Options::default()).await;
    let error_text =
        "get \"s\": an entry is too large for something between the server and the component";
    let (variant, text) = refusal(memory.get("s", None).await);
    assert_eq!((variant, &*text), ("limit-exceeded", error_text));
    let operations = [
        operation("s", Action::Get(Some(30))),
        operation("t", Action::Add(new(0, 5))),
    ];
    let results = memory.pipeline(&operations).await.unwrap();
    let error = results[0].as_ref().unwrap_err();
    assert_eq!(
        (error.variant(), error.text()),
        ("limit-exceeded", error_text)
    );
    assert_eq!(results[1], Ok(Outcome::Length(1)));
    let newer = memory.get("s", Some(19)).await.unwrap();
    are_last(&newer, &messages, Some(19), "the newer ones");
}
