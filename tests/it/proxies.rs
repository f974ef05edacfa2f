//! A proxy that loses its server after the server has executed a request, and answers
//! with an error of its own.

use std::time::Duration;

use crate::common::proxy::{Action, Direction, Fault, beginnings};
use crate::common::{refusal, server};
use session_memory_host::Delivery;

use crate::faults::{Bench, DELIVERIES, Figures, OPERATIONS, Operation};

/// As seen of twemproxy and Envoy, and of nobody that is known.
const ANSWERS: [&str; 3] = [
    "ERR Connection timed out",
    "upstream failure",
    "ERR internal error",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_proxy_answers_for_the_server_does_not_mean_not_applied() {
    let server = server();
    for delivery in DELIVERIES {
        let mut figures = Figures::default();
        let mut bench = Bench::new(&server, delivery, Duration::from_secs(5)).await;
        for operation in OPERATIONS {
            let session = bench.session(operation);
            assert!(operation.run(&bench.memory, &session).await.unwrap());
            let beginnings = beginnings(&bench.proxy.last().reply);
            for offset in beginnings.iter().copied() {
                for answer in ANSWERS {
                    let case = format!("{operation:?} {delivery:?} {answer} at {offset}");
                    let session = bench.session(operation);
                    bench.proxy.break_next(Fault {
                        direction: Direction::Reply,
                        offset,
                        action: Action::Answer(answer),
                    });
                    let carried_out = bench.proxy.carried_out();
                    let result = operation.run(&bench.memory, &session).await;
                    assert_eq!(bench.proxy.carried_out(), carried_out + 1, "{case}");
                    bench.proxy.break_nothing();
                    figures.faults += 1;
                    let stored = bench.stored(&session);
                    assert!(!figures.counts(&stored), "{case}: {stored:?}");
                    assert_eq!(stored, operation.after(), "{case}");
                    // A write that is never sent twice has been executed, and nobody knows. The
                    // last reply of a turn is that of its read.
                    let is_write = match operation {
                        Operation::Turn => Some(&offset) != beginnings.last(),
                        _ => operation.writes(),
                    };
                    if is_write && delivery == Delivery::AtMostOnce {
                        assert_eq!(refusal(result).0, "outcome-unknown", "{case}");
                        figures.unknown += 1;
                    } else {
                        assert!(result.unwrap(), "{case}");
                        figures.acknowledged += 1;
                    }
                }
            }
        }
        figures.report(&format!("errors of a proxy after execution, {delivery:?}"));
    }
}

#[tokio::test]
async fn a_proxy_that_goes_on_answering_is_asked_three_times_more() {
    let server = server();
    for delivery in DELIVERIES {
        let mut bench = Bench::new(&server, delivery, Duration::from_secs(5)).await;
        // The two of a turn are here by themselves.
        let operations = OPERATIONS.into_iter().filter(|o| *o != Operation::Turn);
        for operation in operations {
            let session = bench.session(operation);
            assert!(operation.run(&bench.memory, &session).await.unwrap());
            let last = *beginnings(&bench.proxy.last().reply).last().unwrap();
            let case = format!("{operation:?} {delivery:?}");
            let session = bench.session(operation);
            bench.proxy.plan(move |place| {
                (place.exchange > 0).then_some(Fault {
                    direction: Direction::Reply,
                    offset: last,
                    action: Action::Answer("ERR Connection timed out"),
                })
            });
            let carried_out = bench.proxy.carried_out();
            let (variant, text) = refusal(operation.run(&bench.memory, &session).await);
            let tries = bench.proxy.carried_out() - carried_out;
            bench.proxy.break_nothing();
            let stored = bench.stored(&session);
            assert_eq!(stored, operation.after(), "{case}");
            assert!(
                text.contains("a proxy before the server may have sent it"),
                "{case}: {text}"
            );
            let expected = match (operation.writes(), delivery) {
                (true, Delivery::ExactlyOnce) => ("outcome-unknown", 4),
                (true, Delivery::AtMostOnce) => ("outcome-unknown", 1),
                (false, _) => ("server", 4),
            };
            assert_eq!((variant, tries), expected, "{case}");
        }
    }
}
