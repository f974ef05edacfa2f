//! Load with ten faults a second, for five seconds, or for the time given to
//! `cargo xtask soak`.

use std::collections::{HashMap, HashSet};
use std::env;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use session_memory_host::{Delivery, Message, NewMessage, Options, Role, SessionMemory};

use crate::common::proxy::{Break, Direction, Fault, Proxy};
use crate::common::{Value, builder, contents, server};

/// The environment variable with the seconds to run. Five if it is not set.
const SECONDS: &str = "SOAK_SECONDS";
const FAULT_EVERY: Duration = Duration::from_millis(100);
/// The pause between operations, which leaves time to concurrent tests.
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
    // Three clients share sessions. One has sessions of its own, and uses no scripts.
    for (name, group, delivery) in [
        ("a", "shared", Delivery::ExactlyOnce),
        ("b", "shared", Delivery::ExactlyOnce),
        ("c", "shared", Delivery::ExactlyOnce),
        ("d", "own", Delivery::AtMostOnce),
    ] {
        let options = Options::new()
            .delivery(delivery)
            .operation_timeout(Duration::from_millis(2000))
            // Messages must not expire before the end.
            .session_ttl(time + Duration::from_secs(3600));
        let memory = builder(proxy.port(), options).open().await.unwrap();
        let client = SoakWorker {
            name,
            group,
            delivery,
            memory,
            sent: Vec::new(),
            totals: Totals::default(),
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
    let mut totals = Totals::default();
    let mut sent = Vec::new();
    for client in clients {
        let client = client.await.unwrap();
        totals.add(&client.totals);
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
        totals.lost += usize::from(message.acknowledged && times == 0);
        totals.resurrected += usize::from(message.refused && times > 0);
        totals.duplicated += usize::from(times > 1);
    }
    // The acknowledged messages of a client must be in the order of their numbers. A
    // message whose outcome was unknown may have been stored later.
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
        totals.operations,
        totals.acknowledged,
        totals.unknown,
        totals.refused,
        totals.lost,
        totals.duplicated,
        totals.resurrected,
        totals.misdelivered
    );
    // There are about ten faults and several hundred messages a second. Even a busy
    // machine reaches these numbers.
    let seconds = seconds as usize;
    assert!(proxy.carried_out() >= 2 * seconds, "too few faults");
    assert!(
        totals.acknowledged >= 20 * seconds,
        "too few messages acknowledged"
    );
    let wrong = [
        totals.lost,
        totals.duplicated,
        totals.resurrected,
        totals.misdelivered,
    ];
    assert_eq!(wrong, [0; 4]);
}

/// A client that writes and reads.
struct SoakWorker {
    name: &'static str,
    group: &'static str,
    delivery: Delivery,
    memory: SessionMemory,
    sent: Vec<SentMessages>,
    totals: Totals,
}

/// A message and the result of its append.
struct SentMessages {
    session: String,
    content: String,
    acknowledged: bool,
    refused: bool,
}

#[derive(Default)]
struct Totals {
    operations: usize,
    acknowledged: usize,
    unknown: usize,
    refused: usize,
    lost: usize,
    duplicated: usize,
    resurrected: usize,
    misdelivered: usize,
}

impl Totals {
    fn add(&mut self, other: &Totals) {
        self.operations += other.operations;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.misdelivered += other.misdelivered;
    }
}

impl SoakWorker {
    async fn run(mut self, over: Arc<AtomicBool>) -> SoakWorker {
        let mut number = 0;
        while !over.load(SeqCst) {
            // Many sessions, so that all stay short.
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
        self.totals.operations += 1;
        let result = match &contents[..] {
            [content] => self.memory.add(session, Role::User, content, None).await,
            contents => {
                let messages: Vec<_> = contents
                    .iter()
                    .map(|content| NewMessage::assistant(content.clone()))
                    .collect();
                self.memory.add_all(session, messages).await
            }
        };
        let variant = result.as_ref().err().map_or("", |error| error.variant());
        match variant {
            "" => self.totals.acknowledged += contents.len(),
            "outcome-unknown" => self.totals.unknown += contents.len(),
            "unavailable" | "timeout" => self.totals.refused += contents.len(),
            _ => panic!("{} {:?}: {result:?}", self.name, self.delivery),
        }
        self.sent
            .extend(contents.into_iter().map(|content| SentMessages {
                session: session.to_owned(),
                content,
                acknowledged: variant.is_empty(),
                refused: ["unavailable", "timeout"].contains(&variant),
            }));
    }

    /// Reads a session. Checks that it is the right one, with all acknowledged messages
    /// of this client.
    async fn read(&mut self, session: &str) {
        self.totals.operations += 1;
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
        // The messages of a session are consecutive.
        let sent = self.sent.iter().rev();
        let of_session = sent.take_while(|sent| sent.session == session);
        let mut told = of_session.filter(|sent| sent.acknowledged);
        let complete = told.all(|sent| own.contains(&sent.content.as_str()));
        let mut members = messages.iter().map(|message| &message.content);
        let company = if self.group == "own" { "d" } else { "abc" };
        let proper = members.all(|content| content.starts_with(|c| company.contains(c)));
        self.totals.misdelivered += usize::from(!(complete && proper));
    }
}

fn random_fault(rng: &mut Rng) -> Fault {
    let (direction, offset) = if rng.bool() {
        (Direction::Request, rng.usize(..200))
    } else {
        (Direction::Reply, rng.usize(..6))
    };
    let action = match rng.u32(..20) {
        0..8 => Break::Cut,
        8..13 => Break::Reset,
        13..15 => Break::Late(Duration::from_millis(20)),
        15..17 => Break::Delay(Duration::from_millis(50)),
        17..19 => Break::Trickle(Duration::from_micros(500)),
        _ => Break::Swallow,
    };
    Fault {
        direction,
        offset,
        action,
    }
}
