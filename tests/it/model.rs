//! Random operations of several clients under random faults, against a model.

use std::collections::HashMap;
use std::env;
use std::slice;
use std::time::Duration;

use fastrand::Rng;
use session_memory_host::{Delivery, Error, NewMessage, Options, Role, SessionMemory};

use crate::common::proxy::{Break, Direction, Fault, Proxy};
use crate::common::{builder, contents_with_ttl, server};

/// The environment variable with the seed of a run to repeat.
const SEED: &str = "MODEL_SEED";

#[tokio::test]
async fn random_operations_under_random_faults_keep_to_the_model() {
    let seed = match env::var(SEED) {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => fastrand::u64(..),
    };
    println!("{SEED}={seed}");
    // Concurrently, because some requests are swallowed and wait for a timeout.
    let run = |delivery| async move { run(&mut Rng::with_seed(seed), delivery).await };
    tokio::join!(run(Delivery::ExactlyOnce), run(Delivery::AtMostOnce));
}

async fn run(rng: &mut Rng, delivery: Delivery) {
    let server = server();
    let proxy = Proxy::start(server.address());
    let mut redis = server.client().unwrap();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        // On a busy machine even an operation without a fault takes a while.
        let options = Options::new()
            .delivery(delivery)
            .operation_timeout(Duration::from_millis(1500))
            .response_timeout(Duration::from_millis(100));
        clients.push(builder(proxy.port(), options).open().await.unwrap());
    }
    let mut model: HashMap<&str, Vec<String>> = HashMap::new();
    let (mut acknowledged, mut unknown, mut refused) = (0, 0, 0);
    for step in 0..STEPS {
        let client = &clients[rng.usize(..clients.len())];
        let session = SESSIONS[rng.usize(..SESSIONS.len())];
        let call = ModelCall::random(rng, step);
        let faults = random_faults(rng);
        let case = format!("step {step}: {call:?} on {session}, {delivery:?}, {faults:?}");
        // Each fault of a step is injected at most once, one an exchange, handshakes
        // included.
        let mut left = faults.into_iter();
        proxy.plan(move |_| left.next().flatten());

        let before = model.entry(session).or_default().clone();
        let after = call.applied_to(&before);
        let result = call.run(client, session, &before).await;
        proxy.break_nothing();
        proxy.settle().await;
        let stored = contents_with_ttl(&mut redis, session, &case);
        match result {
            Ok(right) => {
                assert!(right, "{case}: a wrong result");
                assert_eq!(stored, after, "{case}: acknowledged");
                acknowledged += 1;
            }
            Err(error) => match error.variant() {
                "outcome-unknown" => {
                    assert!(
                        stored == after || stored == before,
                        "{case}: {error}: {before:?} became {stored:?}"
                    );
                    unknown += 1;
                }
                "unavailable" | "timeout" => {
                    assert_eq!(stored, before, "{case}: {error}");
                    refused += 1;
                }
                _ => panic!("{case}: {error}"),
            },
        }
        model.insert(session, stored);
    }
    println!(
        "random operations, {delivery:?}: {STEPS} by {CLIENTS} clients, {} faults; \
         acknowledged {acknowledged}, unknown {unknown}, refused {refused}; \
         lost 0, duplicated 0, misdelivered 0",
        proxy.carried_out()
    );
}

const STEPS: usize = 400;
const CLIENTS: usize = 4;
const SESSIONS: [&str; 3] = ["one", "two", "three"];

#[derive(Debug)]
enum ModelCall {
    Add(String),
    AddAll(Vec<String>),
    Get(Option<u32>),
    History,
    Clear,
    Exists,
    Count,
}

impl ModelCall {
    fn random(rng: &mut Rng, step: usize) -> ModelCall {
        match rng.u32(..20) {
            0..8 => ModelCall::Add(step.to_string()),
            8..11 => {
                let messages = 0..rng.u32(1..5);
                ModelCall::AddAll(messages.map(|n| format!("{step} {n}")).collect())
            }
            11..14 => ModelCall::Get(rng.bool().then(|| rng.u32(1..10))),
            14..16 => ModelCall::History,
            16 => ModelCall::Clear,
            17 => ModelCall::Exists,
            _ => ModelCall::Count,
        }
    }

    /// The messages in the session after the call.
    fn applied_to(&self, before: &[String]) -> Vec<String> {
        match self {
            ModelCall::Add(content) => [before, slice::from_ref(content)].concat(),
            ModelCall::AddAll(contents) => [before, contents].concat(),
            ModelCall::Clear => Vec::new(),
            _ => before.to_vec(),
        }
    }

    /// Runs the call. Returns whether its result is the right one.
    async fn run(
        &self,
        memory: &SessionMemory,
        session: &str,
        before: &[String],
    ) -> Result<bool, Error> {
        let length = self.applied_to(before).len() as u32;
        Ok(match self {
            ModelCall::Add(content) => {
                memory.add(session, Role::User, content, None).await? == length
            }
            ModelCall::AddAll(contents) => {
                let messages = contents.iter().map(|content| {
                    NewMessage::assistant(content.clone()).with_metadata(r#"{"a": 1}"#)
                });
                let messages: Vec<_> = messages.collect();
                memory.add_all(session, messages).await? == length
            }
            ModelCall::Get(limit) => {
                let messages = memory.get(session, *limit).await?;
                let limit = limit.map_or(usize::MAX, |limit| limit as usize);
                let from = before.len().saturating_sub(limit);
                messages.iter().map(|m| &m.content).eq(&before[from..])
            }
            ModelCall::History => {
                let history = memory.history(session, None).await?;
                history.messages.iter().map(|m| &m.content).eq(before)
                    && (history.total, history.skipped) == (length, 0)
                    && history.ttl.is_none() == before.is_empty()
            }
            ModelCall::Clear => memory.clear(session).await.map(|()| true)?,
            ModelCall::Exists => memory.exists(session).await? != before.is_empty(),
            ModelCall::Count => memory.count(session).await? == length,
        })
    }
}

/// The faults of a step, one for each exchange. Later exchanges have none.
fn random_faults(rng: &mut Rng) -> Vec<Option<Fault>> {
    let exchanges = 0..rng.usize(..4);
    exchanges
        .map(|_| rng.bool().then(|| random_fault(rng)))
        .collect()
}

fn random_fault(rng: &mut Rng) -> Fault {
    let direction = if rng.bool() {
        Direction::Request
    } else {
        Direction::Reply
    };
    // Most replies are short.
    let longest = [8, 64, 512][rng.usize(..3)];
    let action = match rng.u32(..20) {
        0..8 => Break::Cut,
        8..14 => Break::Reset,
        14..17 => Break::Delay(Duration::from_millis(rng.u64(1..30))),
        17..19 => Break::Trickle(Duration::from_micros(rng.u64(1..300))),
        _ => Break::Swallow,
    };
    Fault {
        direction,
        offset: rng.usize(..longest),
        action,
    }
}
