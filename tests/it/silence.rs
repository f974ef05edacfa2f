//! Networks that drop a connection without a word.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use session_memory_host::{Delivery, Error, Options, Role};

use crate::common::proxy::{Break, Direction, Fault, Proxy};
use crate::common::rig::{Figures, Rig};
use crate::common::scenario::{SCENARIOS, Scenario};
use crate::common::{BlackHole, DELIVERIES, Server, builder, peer, refusal, server};

/// A name whose addresses the host sets.
const NAME: &str = "redis.internal";
const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// The number of concurrent silent connections.
const AT_ONCE: usize = 100;

/// The byte of a scenario at which the connection becomes silent.
#[derive(Clone, Copy, Debug)]
struct Silence {
    scenario: Scenario,
    delivery: Delivery,
    fault: Fault,
}

impl Silence {
    /// Whether the operation may be sent again after the silence.
    fn is_repeatable(&self) -> bool {
        self.scenario.is_repeatable(self.delivery)
    }
}

/// All bytes of all scenarios, or one of every `step`.
async fn silences(server: &Server, step: usize) -> Vec<Silence> {
    let mut silences = Vec::new();
    for delivery in DELIVERIES {
        let mut rig = Rig::new(server, delivery, Duration::from_secs(5)).await;
        for scenario in SCENARIOS {
            let whole = rig.undisturbed(scenario).await;
            for (direction, length) in whole.lengths() {
                silences.extend((0..length).step_by(step).map(|offset| Silence {
                    scenario,
                    delivery,
                    fault: Fault {
                        direction,
                        offset,
                        action: Break::Swallow,
                    },
                }));
            }
        }
    }
    silences
}

/// What a retry finds.
#[derive(Clone, Copy)]
enum Failover {
    /// The server, over a new connection.
    Connection,
    /// The server at another address, to which its name has moved.
    Address,
}

/// Runs each scenario on a connection that becomes silent at its byte, many concurrently.
async fn run(
    silences: Vec<Silence>,
    server: &Server,
    options: Options,
    failover: Failover,
) -> Figures {
    let silences = Arc::new(Mutex::new(VecDeque::from(silences)));
    let mut runs = Vec::new();
    for number in 0..AT_ONCE {
        let delivery = DELIVERIES[number % 2];
        let options = options.clone().delivery(delivery);
        let mut network = Network::new(server, options.clone(), failover).await;
        let silences = Arc::clone(&silences);
        runs.push(tokio::spawn(async move {
            let mut figures = Figures::default();
            loop {
                let silence = {
                    let mut silences = silences.lock().unwrap();
                    let next = silences
                        .iter()
                        .position(|silence| silence.delivery == delivery);
                    match next.and_then(|next| silences.remove(next)) {
                        Some(silence) => silence,
                        None => return figures,
                    }
                };
                network.become_silent(silence, &options, &mut figures).await;
            }
        }));
    }
    let mut figures = Figures::default();
    for run in runs {
        figures.add(&run.await.unwrap());
    }
    figures
}

/// A memory and its connections to the server.
struct Network {
    rig: Rig,
    /// The address that the server's name moves to when the first one is dead. `None` if
    /// only connections are dropped.
    other: Option<Proxy>,
}

impl Network {
    async fn new(server: &Server, options: Options, failover: Failover) -> Network {
        if let Failover::Connection = failover {
            return Network {
                rig: Rig::with(server, options).await,
                other: None,
            };
        }
        let proxy = Proxy::start(server.address());
        let other = SocketAddr::from((OTHER, proxy.port()));
        let other = Proxy::start_at(other, server.address());
        let options = options.host(NAME.to_owned());
        let memory = builder(proxy.port(), options).resolve(NAME, [FIRST]);
        let memory = memory.open().await.unwrap();
        Network {
            rig: Rig::of(server, proxy, memory).await,
            other: Some(other),
        }
    }

    async fn become_silent(&mut self, silence: Silence, options: &Options, figures: &mut Figures) {
        let Silence {
            scenario,
            delivery,
            fault,
        } = silence;
        let rig = &mut self.rig;
        let case = format!("{scenario:?} {delivery:?} {fault:?}");
        let session = rig.session(scenario);
        if let Some(other) = &self.other {
            // Moves the name back to the first address.
            rig.memory.resolve(NAME, [FIRST]);
            other.close_all();
            while other.connections() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            rig.memory.count("known").await.unwrap();
            let mut dies = None;
            rig.proxy.plan(move |id| {
                let dead = Fault {
                    offset: 0,
                    direction: Direction::Request,
                    ..fault
                };
                Some(*dies.get_or_insert(if id.exchange > 0 { fault } else { dead }))
            });
            rig.memory.resolve(NAME, [OTHER]);
        } else {
            rig.proxy.break_next(fault);
        }
        let begin = Instant::now();
        let result = scenario.run(&rig.memory, &session).await;
        let taken = begin.elapsed();
        rig.proxy.break_nothing();
        let (_, applied) = rig.stored_after_fault(scenario, &session, &case, figures);
        check(silence, result, taken, applied, options, figures);
    }
}

/// Checks the result of an operation that met silence.
fn check(
    silence: Silence,
    result: Result<bool, Error>,
    taken: Duration,
    applied: bool,
    options: &Options,
    figures: &mut Figures,
) {
    let case = format!("{silence:?}");
    match result {
        Ok(right) => {
            assert!(right, "{case}: a wrong result");
            figures.acknowledged += 1;
            figures.lost += usize::from(!applied);
            assert!(taken < SURVIVED, "{case}: {taken:?}");
        }
        Err(error) if silence.is_repeatable() => panic!("{case}: {error}"),
        Err(error) => {
            let deadline = options.operation_timeout.unwrap_or(Duration::from_secs(5));
            assert!(taken >= deadline * 9 / 10, "{case}: {taken:?}");
            match error.variant() {
                "outcome-unknown" => figures.unknown += 1,
                "timeout" => {
                    figures.refused += 1;
                    // In a turn it may be the error of the read.
                    assert!(
                        !applied || silence.scenario == Scenario::Turn,
                        "{case}: {error}, and yet it was"
                    );
                }
                _ => panic!("{case}: {error}"),
            }
        }
    }
}

/// An operation that may be sent again ends well before this, at the default deadline of
/// five seconds.
const SURVIVED: Duration = Duration::from_millis(2500);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn silence_at_every_byte_is_survived() {
    let server = server();
    let silences = silences(&server, 1).await;
    let (survived, others): (Vec<_>, Vec<_>) =
        silences.into_iter().partition(Silence::is_repeatable);
    let options = Options::new().response_timeout(Duration::from_millis(100));
    let expected = survived.len();
    let figures = run(survived, &server, options.clone(), Failover::Connection).await;
    figures.report("silence at every byte, what may be sent again");
    assert_eq!(figures.acknowledged, expected);

    // These operations wait until their deadline.
    let options = options.operation_timeout(Duration::from_millis(700));
    let figures = run(others, &server, options, Failover::Connection).await;
    figures.report("silence at every byte, what must not be sent again");
    assert_eq!(figures.acknowledged, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn silence_at_the_default_response_timeout_is_survived() {
    let server = server();
    let mut silences = silences(&server, 16).await;
    silences.retain(Silence::is_repeatable);
    let expected = silences.len();
    let figures = run(silences, &server, Options::default(), Failover::Connection).await;
    figures.report("silence at every sixteenth byte, at the defaults");
    assert_eq!(figures.acknowledged, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_name_that_moved_is_followed() {
    let server = server();
    let mut silences = silences(&server, 16).await;
    silences.retain(Silence::is_repeatable);
    let expected = silences.len();
    let figures = run(silences, &server, Options::default(), Failover::Address).await;
    figures.report("a name that moved, at every sixteenth byte");
    assert_eq!(figures.acknowledged, expected);
}

#[tokio::test]
async fn an_address_that_swallows_everything_costs_a_quarter_of_a_second_once() {
    let server = server();
    let _black_hole = BlackHole::open((OTHER, server.port()).into());
    let options = Options::new()
        .host(NAME.to_owned())
        .max_idle(Duration::from_millis(1));
    let begin = Instant::now();
    let memory = builder(server.port(), options).resolve(NAME, [OTHER, FIRST]);
    let memory = memory.open().await.unwrap();
    let first = begin.elapsed();
    // Each operation connects again.
    let begin = Instant::now();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert!(!memory.exists("s").await.unwrap());
    }
    let others = begin.elapsed() / 10;
    println!("the first connection took {first:?}, the others {others:?} each");
    assert!(first >= Duration::from_millis(250), "{first:?}");
    assert!(first < Duration::from_millis(2000), "{first:?}");
    assert!(others < Duration::from_millis(200), "{others:?}");
}

#[tokio::test]
async fn an_address_at_which_the_server_is_silent_is_tried_last() {
    let server = server();
    let proxy = Proxy::start(server.address());
    let other = SocketAddr::from((OTHER, proxy.port()));
    let other = Proxy::start_at(other, server.address());
    let options = Options::new()
        .host(NAME.to_owned())
        .response_timeout(Duration::from_millis(100));
    let memory = builder(proxy.port(), options).resolve(NAME, [FIRST, OTHER]);
    let memory = memory.open().await.unwrap();
    // It still accepts connections, and is silent on all of them.
    proxy.plan(|_| {
        Some(Fault {
            direction: Direction::Request,
            offset: 0,
            action: Break::Swallow,
        })
    });
    let exchanges = proxy.exchanges();
    for expected in 1..4 {
        let length = memory.add("s", Role::User, "x", None).await.unwrap();
        assert_eq!(length, expected);
    }
    assert_eq!(proxy.exchanges(), exchanges + 1);
    assert_eq!(other.connections(), 1);
}

#[tokio::test]
async fn a_server_that_is_silent_on_every_connection_costs_the_deadline_and_four_connections() {
    let server = server();
    for (scenario, expected) in [
        (Scenario::Add, "outcome-unknown"),
        (Scenario::Get, "timeout"),
    ] {
        let options = Options::new()
            .response_timeout(Duration::from_millis(100))
            .operation_timeout(Duration::from_millis(1500));
        let mut rig = Rig::with(&server, options).await;
        let session = rig.session(scenario);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::clone(&seen);
        rig.proxy.plan(move |id| {
            connections.lock().unwrap().push(id.connection);
            Some(Fault {
                direction: Direction::Reply,
                offset: 0,
                action: Break::Swallow,
            })
        });
        let begin = Instant::now();
        let (variant, text) = refusal(scenario.run(&rig.memory, &session).await);
        let taken = begin.elapsed();
        assert!(taken >= Duration::from_millis(1400), "{taken:?}");
        assert!(taken < Duration::from_secs(4), "{taken:?}");
        assert_eq!(variant, expected, "{text}");
        assert_eq!(*seen.lock().unwrap(), [0, 1, 2, 3], "{text}");
    }
}

#[tokio::test]
async fn a_reply_that_trickles_is_no_silence() {
    let server = server();
    let options = Options::new().response_timeout(Duration::from_millis(300));
    let mut rig = Rig::with(&server, options).await;
    let session = rig.session(Scenario::Get);
    let exchanges = rig.proxy.exchanges();
    rig.proxy.break_next(Fault {
        direction: Direction::Reply,
        offset: 0,
        action: Break::Trickle(Duration::from_millis(10)),
    });
    let begin = Instant::now();
    let result = Scenario::Get.run(&rig.memory, &session).await;
    assert!(result.unwrap());
    let taken = begin.elapsed();
    assert!(taken > Duration::from_millis(600), "{taken:?}");
    assert_eq!(rig.proxy.exchanges(), exchanges + 1, "it was retried");
}

#[tokio::test]
async fn an_upload_that_moves_is_no_silence() {
    const SIZE: usize = 24 << 20;
    let requests = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&requests);
    let port = peer(move |mut connection| {
        let mut buffer = vec![0; 1 << 19];
        let _ = connection.read(&mut buffer);
        let _ = connection.write_all(b"+PONG\r\n");
        let mut received = 0;
        while received < SIZE {
            // Reads half of it slowly. The buffers on the way hold less than the other
            // half.
            if received < SIZE / 2 {
                thread::sleep(Duration::from_millis(50));
            }
            match connection.read(&mut buffer) {
                Ok(read @ 1..) => received += read,
                _ => return,
            }
        }
        *counted.lock().unwrap() += 1;
        let _ = connection.write_all(b":1\r\n");
        let _ = connection.read(&mut buffer);
    });
    let options = Options::new()
        .max_message_bytes(u32::MAX)
        .response_timeout(Duration::from_millis(500))
        .operation_timeout(Duration::from_millis(20_000));
    let memory = builder(port, options).open().await.unwrap();
    let content = "x".repeat(SIZE);
    let begin = Instant::now();
    let length = memory.add("s", Role::User, &content, None).await;
    assert_eq!(length.unwrap(), 1);
    let taken = begin.elapsed();
    assert!(taken > Duration::from_millis(1000), "{taken:?}");
    assert_eq!(*requests.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_clear_is_not_sent_again_after_silence() {
    let server = server();
    let options = Options::new()
        .response_timeout(Duration::from_millis(100))
        .operation_timeout(Duration::from_millis(600));
    let mut rig = Rig::with(&server, options).await;
    let session = rig.session(Scenario::Clear);
    let exchanges = rig.proxy.exchanges();
    rig.proxy.break_next(Fault {
        direction: Direction::Reply,
        offset: 0,
        action: Break::Swallow,
    });
    let (variant, text) = refusal(rig.memory.clear(&session).await);
    assert_eq!(variant, "outcome-unknown");
    assert_eq!(
        text,
        format!("clear \"{session}\": no reply within 600 ms after the request was sent")
    );
    assert_eq!(rig.proxy.exchanges(), exchanges + 1);
    rig.proxy.break_nothing();
    rig.memory
        .add(&session, Role::User, "next", None)
        .await
        .unwrap();
    assert_eq!(rig.stored(&session), ["next"]);
}
