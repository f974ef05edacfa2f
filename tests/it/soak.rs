//! Load, with something going wrong ten times a second: for five seconds, or for as
//! long as `cargo xtask soak` is told.

use std::collections::{HashMap, HashSet};
use std::env;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use session_memory_host::{Delivery, Message, NewMessage, Options, Role, SessionMemory};

use crate::common::proxy::{Action, Direction, Fault, Proxy};
use crate::common::{Value, builder, contents, server};

/// For how many seconds; five if it is not set.
const SECONDS: &str = "SOAK_SECONDS";
const FAULT_EVERY: Duration = Duration::from_millis(100);
/// Between operations, so that the tests next to this one have time as well.
const PAUSE: Duration = Duration::from_millis(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_under_faults_loses_and_duplicates_nothing() {
    let seconds: NonZero<u32> = match env::var(SECONDS) {
        Ok(seconds) => seconds
            .parse()
            .unwrap_or_else(|error| panic!("{SECONDS} is {seconds:?}: {error}")),
        Err(_) => NonZero::new(5).unwrap(),
    };
    let seconds = seconds.get();
    let time = Duration::from_secs(seconds.into());
    let server = server();
    let proxy = Proxy::start(server.address());
    let due = Arc::new(Mutex::new(None));
    let mut clients = Vec::new();
    let over = Arc::new(AtomicBool::new(false));
    // Three clients share sessions, and one has no company and no scripts.
    for (name, group, delivery) in [
        ("a", "shared", Delivery::ExactlyOnce),
        ("b", "shared", Delivery::ExactlyOnce),
        ("c", "shared", Delivery::ExactlyOnce),
        ("d", "own", Delivery::AtMostOnce),
    ] {
        let options = Options {
            delivery: Some(delivery),
            operation_timeout: Some(2000),
            // All messages are still there at the end.
            session_ttl: Some(seconds.saturating_add(3600)),
            ..Options::default()
        };
        let memory = builder(proxy.port(), options).open().await.unwrap();
        let client = Load {
            name,
            group,
            delivery,
            memory,
            sent: Vec::new(),
            figures: Figures::default(),
        };
        clients.push(tokio::spawn(client.run(Arc::clone(&over))));
    }
    proxy.plan({
        let due = Arc::clone(&due);
        move |_| due.lock().unwrap().take()
    });
    let begin = Instant::now();
    let mut rng = Rng::with_seed(1);
    while begin.elapsed() < time {
        tokio::time::sleep(FAULT_EVERY).await;
        *due.lock().unwrap() = Some(random_fault(&mut rng));
    }
    over.store(true, SeqCst);
    let mut figures = Figures::default();
    let mut sent = Vec::new();
    for client in clients {
        let client = client.await.unwrap();
        figures.add(&client.figures);
        sent.extend(client.sent);
    }
    proxy.settle().await;

    let mut redis = server.client().unwrap();
    let mut stored: HashMap<String, Vec<String>> = HashMap::new();
    for message in &sent {
        let session = stored.entry(message.session.clone()).or_insert_with(|| {
            let key = format!("session:{}", message.session);
            let contents = contents(&mut redis, &key);
            if !contents.is_empty() {
                let ttl = redis.command(&["TTL", &key]).unwrap();
                assert!(matches!(ttl, Value::Integer(1..)), "{key}: {ttl:?}");
            }
            contents
        });
        let times = session.iter().filter(|c| **c == message.content).count();
        figures.lost += usize::from(message.acknowledged && times == 0);
        figures.resurrected += usize::from(message.refused && times > 0);
        figures.duplicated += usize::from(times > 1);
    }
    // Those of one client were acknowledged in the order of their numbers. One whose
    // outcome was unknown may have come later.
    let acknowledged = sent.iter().filter(|message| message.acknowledged);
    let acknowledged: HashSet<&String> = acknowledged.map(|message| &message.content).collect();
    for (session, contents) in &stored {
        for client in ["a", "b", "c", "d"] {
            let numbers: Vec<u32> = contents
                .iter()
                .filter(|content| acknowledged.contains(content))
                .filter_map(|content| content.strip_prefix(client)?.trim().parse().ok())
                .collect();
            assert!(numbers.is_sorted(), "{session}, {client}: {numbers:?}");
        }
    }
    println!(
        "soak of {seconds} s: {} faults in {} operations; messages acknowledged {}, unknown {}, \
         refused {}; lost {}, duplicated {}, refused and yet there {}, replies misdelivered {}",
        proxy.carried_out(),
        figures.operations,
        figures.acknowledged,
        figures.unknown,
        figures.refused,
        figures.lost,
        figures.duplicated,
        figures.resurrected,
        figures.misdelivered
    );
    // Of about ten faults and several hundred messages a second, so many at the least,
    // also on a busy machine.
    let seconds = seconds as usize;
    assert!(proxy.carried_out() >= 2 * seconds, "too few faults");
    assert!(
        figures.acknowledged >= 20 * seconds,
        "too few messages acknowledged"
    );
    let wrong = [
        figures.lost,
        figures.duplicated,
        figures.resurrected,
        figures.misdelivered,
    ];
    assert_eq!(wrong, [0; 4]);
}

/// A client at work.
struct Load {
    name: &'static str,
    group: &'static str,
    delivery: Delivery,
    memory: SessionMemory,
    sent: Vec<Sent>,
    figures: Figures,
}

/// A message, and what was said about it.
struct Sent {
    session: String,
    content: String,
    acknowledged: bool,
    refused: bool,
}

#[derive(Default)]
struct Figures {
    operations: usize,
    acknowledged: usize,
    unknown: usize,
    refused: usize,
    lost: usize,
    duplicated: usize,
    resurrected: usize,
    misdelivered: usize,
}

impl Figures {
    fn add(&mut self, other: &Figures) {
        self.operations += other.operations;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.misdelivered += other.misdelivered;
    }
}

impl Load {
    async fn run(mut self, over: Arc<AtomicBool>) -> Load {
        let mut number = 0;
        while !over.load(SeqCst) {
            // Many sessions, so that none grows long.
            let session = format!("{} {}", self.group, number / 100);
            let count = if number % 10 == 0 { 3 } else { 1 };
            let contents: Vec<String> = (number..number + count)
                .map(|number| format!("{} {number}", self.name))
                .collect();
            number += count;
            self.write(&session, contents).await;
            self.read(&session).await;
            tokio::time::sleep(PAUSE).await;
        }
        self
    }

    async fn write(&mut self, session: &str, contents: Vec<String>) {
        self.figures.operations += 1;
        let result = match &contents[..] {
            [content] => self.memory.add(session, Role::User, content, None).await,
            contents => {
                let messages: Vec<_> = contents
                    .iter()
                    .map(|content| NewMessage {
                        role: Role::Assistant,
                        content: content.clone(),
                        metadata: None,
                    })
                    .collect();
                self.memory.add_all(session, &messages).await
            }
        };
        let variant = result.as_ref().err().map_or("", |error| error.variant());
        match variant {
            "" => self.figures.acknowledged += contents.len(),
            "outcome-unknown" => self.figures.unknown += contents.len(),
            "unavailable" | "timeout" => self.figures.refused += contents.len(),
            _ => panic!("{} {:?}: {result:?}", self.name, self.delivery),
        }
        self.sent.extend(contents.into_iter().map(|content| Sent {
            session: session.to_owned(),
            content,
            acknowledged: variant.is_empty(),
            refused: ["unavailable", "timeout"].contains(&variant),
        }));
    }

    /// Reads and looks whether it is this session that it was given, with all that
    /// this client was told is there.
    async fn read(&mut self, session: &str) {
        self.figures.operations += 1;
        let messages = match self.memory.get(session, None).await {
            Ok(messages) => messages,
            Err(error) => {
                let variant = error.variant();
                assert!(["timeout", "unavailable"].contains(&variant), "{error}");
                return;
            }
        };
        let own: Vec<&str> = messages
            .iter()
            .map(|message: &Message| message.content.as_str())
            .filter(|content| content.starts_with(self.name))
            .collect();
        // Sessions follow one another.
        let sent = self.sent.iter().rev();
        let of_session = sent.take_while(|sent| sent.session == session);
        let mut told = of_session.filter(|sent| sent.acknowledged);
        let complete = told.all(|sent| own.contains(&sent.content.as_str()));
        let mut members = messages.iter().map(|message| &message.content);
        let company = if self.group == "own" { "d" } else { "abc" };
        let proper = members.all(|content| content.starts_with(|c| company.contains(c)));
        self.figures.misdelivered += usize::from(!(complete && proper));
    }
}

fn random_fault(rng: &mut Rng) -> Fault {
    let (direction, offset) = if rng.bool() {
        (Direction::Request, rng.usize(..200))
    } else {
        (Direction::Reply, rng.usize(..6))
    };
    let action = match rng.u32(..20) {
        0..8 => Action::Cut,
        8..13 => Action::Reset,
        13..15 => Action::Late(Duration::from_millis(20)),
        15..17 => Action::Delay(Duration::from_millis(50)),
        17..19 => Action::Trickle(Duration::from_micros(500)),
        _ => Action::Swallow,
    };
    Fault {
        direction,
        offset,
        action,
    }
}
