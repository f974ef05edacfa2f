//! Networks that forget a connection: nothing comes any more, and nobody says so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use session_memory_host::{Delivery, Options, Role};
use session_memory_tests::proxy::{Action, Direction, Fault};
use session_memory_tests::{Server, refusal, server};

use crate::faults::{Bench, DELIVERIES, Figures, OPERATIONS, Operation};

/// How many connections are silent at a time.
const AT_ONCE: usize = 100;

/// Where something becomes silent.
#[derive(Clone, Copy, Debug)]
struct Place {
    operation: Operation,
    delivery: Delivery,
    fault: Fault,
}

impl Place {
    /// Whether the operation may be sent again after silence.
    fn is_survived(&self) -> bool {
        match self.operation {
            Operation::Clear => false,
            operation => !operation.appends() || self.delivery == Delivery::ExactlyOnce,
        }
    }
}

/// All bytes of all operations, or every so many of them.
async fn places(server: &Server, step: usize) -> Vec<Place> {
    let mut places = Vec::new();
    for delivery in DELIVERIES {
        let mut bench = Bench::new(server, delivery, 5000).await;
        for operation in OPERATIONS {
            let session = bench.session(operation);
            assert!(operation.run(&bench.memory, &session).await.unwrap());
            let whole = bench.proxy.last();
            for (direction, length) in [
                (Direction::Request, whole.request.len()),
                (Direction::Reply, whole.reply.len()),
            ] {
                places.extend((0..length).step_by(step).map(|offset| Place {
                    operation,
                    delivery,
                    fault: Fault {
                        direction,
                        offset,
                        action: Action::Swallow,
                    },
                }));
            }
        }
    }
    places
}

/// Runs each place's operation on a connection that becomes silent there, many at a time.
async fn run(places: Vec<Place>, server: &Server, options: Options) -> Figures {
    let places = Arc::new(Mutex::new(VecDeque::from(places)));
    let mut runs = Vec::new();
    for number in 0..AT_ONCE {
        let delivery = DELIVERIES[number % 2];
        let options = Options {
            delivery: Some(delivery),
            ..options.clone()
        };
        let mut bench = Bench::with(server, options.clone()).await;
        let places = Arc::clone(&places);
        runs.push(tokio::spawn(async move {
            let mut figures = Figures::default();
            loop {
                let place = {
                    let mut places = places.lock().unwrap();
                    let next = places.iter().position(|place| place.delivery == delivery);
                    match next.and_then(|next| places.remove(next)) {
                        Some(place) => place,
                        None => return figures,
                    }
                };
                become_silent(&mut bench, place, &options, &mut figures).await;
            }
        }));
    }
    let mut figures = Figures::default();
    for run in runs {
        figures.add(&run.await.unwrap());
    }
    figures
}

async fn become_silent(bench: &mut Bench, place: Place, options: &Options, figures: &mut Figures) {
    let Place {
        operation,
        delivery,
        fault,
    } = place;
    let case = format!("{operation:?} {delivery:?} {fault:?}");
    let session = bench.session(operation);
    bench.proxy.break_next(fault);
    let begin = Instant::now();
    let result = operation.run(&bench.memory, &session).await;
    let taken = begin.elapsed();
    bench.proxy.break_nothing();
    figures.faults += 1;
    let stored = bench.stored(&session);
    let applied = stored == operation.after();
    assert!(
        applied || stored == operation.before() || figures.counts(&stored),
        "{case}: {stored:?}"
    );
    match result {
        Ok(right) => {
            assert!(right, "{case}: a wrong answer");
            figures.acknowledged += 1;
            figures.lost += usize::from(!applied);
            assert!(taken < SURVIVED, "{case}: {taken:?}");
        }
        Err(error) if place.is_survived() => panic!("{case}: {error}"),
        Err(error) => {
            let deadline = options.operation_timeout.unwrap_or(5000);
            assert!(
                taken >= Duration::from_millis(deadline.into()) * 9 / 10,
                "{case}: {taken:?}"
            );
            match error.variant() {
                "outcome-unknown" => figures.unknown += 1,
                "timeout" => {
                    figures.refused += 1;
                    // Of a turn it may be the error of its read.
                    assert!(
                        !applied || operation == Operation::Turn,
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
    let places = places(&server, 1).await;
    let (survived, others): (Vec<_>, Vec<_>) = places.into_iter().partition(Place::is_survived);
    let options = Options {
        response_timeout: Some(100),
        ..Options::default()
    };
    let expected = survived.len();
    let figures = run(survived, &server, options.clone()).await;
    figures.report("silence at every byte, what may be sent again");
    assert_eq!(figures.acknowledged, expected);

    // These wait until their deadline.
    let options = Options {
        operation_timeout: Some(700),
        ..options
    };
    let figures = run(others, &server, options).await;
    figures.report("silence at every byte, what must not be sent again");
    assert_eq!(figures.acknowledged, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn silence_at_the_default_response_timeout_is_survived() {
    let server = server();
    let mut places = places(&server, 16).await;
    places.retain(Place::is_survived);
    let expected = places.len();
    let figures = run(places, &server, Options::default()).await;
    figures.report("silence at every sixteenth byte, at the defaults");
    assert_eq!(figures.acknowledged, expected);
}

#[tokio::test]
async fn a_server_that_is_silent_on_every_connection_costs_the_deadline_and_four_connections() {
    let server = server();
    for (operation, expected) in [
        (Operation::Add, "outcome-unknown"),
        (Operation::Get, "timeout"),
    ] {
        let options = Options {
            response_timeout: Some(100),
            operation_timeout: Some(1500),
            ..Options::default()
        };
        let mut bench = Bench::with(&server, options).await;
        let session = bench.session(operation);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::clone(&seen);
        bench.proxy.plan(move |place| {
            connections.lock().unwrap().push(place.connection);
            Some(Fault {
                direction: Direction::Reply,
                offset: 0,
                action: Action::Swallow,
            })
        });
        let begin = Instant::now();
        let (variant, text) = refusal(operation.run(&bench.memory, &session).await);
        let taken = begin.elapsed();
        assert!(taken >= Duration::from_millis(1400), "{taken:?}");
        assert!(taken < Duration::from_secs(4), "{taken:?}");
        assert_eq!(variant, expected, "{text}");
        assert_eq!(*seen.lock().unwrap(), [0, 1, 2, 3], "{text}");
    }
}

#[tokio::test]
async fn bytes_that_move_are_no_silence() {
    // A reply that takes several times the response timeout, byte by byte.
    let server = server();
    let options = Options {
        response_timeout: Some(200),
        ..Options::default()
    };
    for operation in [Operation::Get, Operation::Add] {
        let mut bench = Bench::with(&server, options.clone()).await;
        for direction in [Direction::Request, Direction::Reply] {
            let session = bench.session(operation);
            let exchanges = bench.proxy.exchanges();
            bench.proxy.break_next(Fault {
                direction,
                offset: 0,
                action: Action::Trickle(Duration::from_millis(if direction == Direction::Reply {
                    40
                } else {
                    0
                })),
            });
            assert!(operation.run(&bench.memory, &session).await.unwrap());
            bench.proxy.break_nothing();
            let exchanges = bench.proxy.exchanges() - exchanges;
            assert_eq!(exchanges, 1, "{operation:?} {direction:?}: tried again");
            assert_eq!(bench.stored(&session), operation.after());
        }
    }
}

#[tokio::test]
async fn a_clear_is_not_sent_again_after_silence() {
    let server = server();
    let options = Options {
        response_timeout: Some(100),
        operation_timeout: Some(600),
        ..Options::default()
    };
    let mut bench = Bench::with(&server, options).await;
    let session = bench.session(Operation::Clear);
    let exchanges = bench.proxy.exchanges();
    bench.proxy.break_next(Fault {
        direction: Direction::Reply,
        offset: 0,
        action: Action::Swallow,
    });
    let (variant, text) = refusal(bench.memory.clear(&session).await);
    assert_eq!(variant, "outcome-unknown");
    assert_eq!(
        text,
        format!("clear \"{session}\": no answer within 600 ms after the request was sent")
    );
    assert_eq!(bench.proxy.exchanges(), exchanges + 1);
    bench.proxy.break_nothing();
    bench
        .memory
        .add(&session, Role::User, "next", None)
        .await
        .unwrap();
    assert_eq!(bench.stored(&session), ["next"]);
}
