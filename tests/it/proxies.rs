//! A proxy that loses its server after the server has executed a request, and replies
//! with an error of its own.

use std::time::Duration;

use session_memory_host::Delivery;

use crate::common::proxy::{Break, Direction, Fault, beginnings};
use crate::common::rig::{Figures, Rig};
use crate::common::scenario::{SCENARIOS, Scenario};
use crate::common::{DELIVERIES, refusal, server};

/// The errors of twemproxy and Envoy, and one of no known proxy.
const ERRORS: [&str; 3] = [
    "ERR Connection timed out",
    "upstream failure",
    "ERR internal error",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_error_of_a_proxy_does_not_mean_not_applied() {
    let server = server();
    for delivery in DELIVERIES {
        let mut figures = Figures::default();
        let mut rig = Rig::new(&server, delivery, Duration::from_secs(5)).await;
        for scenario in SCENARIOS {
            let beginnings = beginnings(&rig.undisturbed(scenario).await.reply);
            for offset in beginnings.iter().copied() {
                for error in ERRORS {
                    let case = format!("{scenario:?} {delivery:?} {error} at {offset}");
                    let session = rig.session(scenario);
                    rig.proxy.break_next(Fault {
                        direction: Direction::Reply,
                        offset,
                        action: Break::ErrorReply(error),
                    });
                    let carried_out = rig.proxy.carried_out();
                    let result = scenario.run(&rig.memory, &session).await;
                    assert_eq!(rig.proxy.carried_out(), carried_out + 1, "{case}");
                    rig.proxy.break_nothing();
                    figures.faults += 1;
                    let stored = rig.stored(&session);
                    assert!(!figures.count_duplicates(&stored), "{case}: {stored:?}");
                    assert_eq!(stored, scenario.after(), "{case}");
                    // A write that is never sent twice was executed, but its outcome is
                    // unknown. The last reply of a turn is that of its read.
                    let is_write = match scenario {
                        Scenario::Turn => Some(&offset) != beginnings.last(),
                        _ => scenario.writes(),
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
async fn an_error_of_a_proxy_is_retried_three_times() {
    let server = server();
    for delivery in DELIVERIES {
        let mut rig = Rig::new(&server, delivery, Duration::from_secs(5)).await;
        // The two operations of a turn are scenarios of their own.
        let scenarios = SCENARIOS.into_iter().filter(|s| *s != Scenario::Turn);
        for scenario in scenarios {
            let whole = rig.undisturbed(scenario).await;
            let last = *beginnings(&whole.reply).last().unwrap();
            let case = format!("{scenario:?} {delivery:?}");
            let session = rig.session(scenario);
            rig.proxy.plan(move |id| {
                (id.exchange > 0).then_some(Fault {
                    direction: Direction::Reply,
                    offset: last,
                    action: Break::ErrorReply("ERR Connection timed out"),
                })
            });
            let carried_out = rig.proxy.carried_out();
            let (variant, text) = refusal(scenario.run(&rig.memory, &session).await);
            let attempts = rig.proxy.carried_out() - carried_out;
            rig.proxy.break_nothing();
            let stored = rig.stored(&session);
            assert_eq!(stored, scenario.after(), "{case}");
            assert!(
                text.contains("a proxy in front of the server may have sent it"),
                "{case}: {text}"
            );
            let expected = match (scenario.writes(), delivery) {
                (true, Delivery::ExactlyOnce) => ("outcome-unknown", 4),
                (true, Delivery::AtMostOnce) => ("outcome-unknown", 1),
                (false, _) => ("server", 4),
            };
            assert_eq!((variant, attempts), expected, "{case}");
        }
    }
}
