//! The result of each operation when the connection breaks at any byte.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use session_memory_host::{Delivery, Role};
use tokio::task::{JoinSet, LocalSet};

use crate::common::proxy::{Break, Direction, Fault, framing};
use crate::common::rig::{Figures, Rig};
use crate::common::scenario::{SCENARIOS, Scenario};
use crate::common::{DELIVERIES, ends_by_itself, refusal, server};

impl Rig {
    /// Runs the scenario with a fault and checks the result. Returns whether the fault
    /// was carried out.
    async fn run(
        &mut self,
        scenario: Scenario,
        delivery: Delivery,
        fault: Fault,
        figures: &mut Figures,
    ) -> bool {
        let case = format!("{scenario:?} {delivery:?} {fault:?}");
        let session = self.session(scenario);
        let carried_out = self.proxy.carried_out();
        self.proxy.break_next(fault);
        let result = scenario.run(&self.memory, &session).await;
        self.proxy.settle().await;
        self.proxy.break_nothing();
        if self.proxy.carried_out() == carried_out {
            assert!(result.unwrap(), "{case}");
            return false;
        }
        let (stored, applied) = self.stored_after_fault(scenario, &session, &case, figures);
        let may_fail = scenario.appends() && delivery == Delivery::AtMostOnce;
        match result {
            Ok(right) => {
                assert!(right, "{case}: a wrong result");
                figures.acknowledged += 1;
                figures.lost += usize::from(!applied);
            }
            Err(error) if may_fail && error.variant() == "outcome-unknown" => figures.unknown += 1,
            Err(error) if may_fail && ["unavailable", "timeout"].contains(&error.variant()) => {
                figures.refused += 1;
                assert!(!applied, "{case}: {error}, and yet it was");
            }
            Err(error) => panic!("{case}: {error}"),
        }

        // The component notices the end of a connection after a moment.
        tokio::time::sleep(Duration::from_millis(2)).await;
        if scenario.writes() {
            let before = stored.len();
            let next = self.memory.add(&session, Role::User, "next", None).await;
            assert_eq!(
                next.unwrap_or_else(|error| panic!("after {case}: {error}")) as usize,
                before + 1,
                "after {case}"
            );
            let now = self.stored(&session);
            assert_eq!(now.len(), before + 1, "after {case}: {now:?}");
            assert_eq!(now[before], "next", "after {case}");
        } else {
            let next = self.memory.count(&session).await;
            assert_eq!(
                next.unwrap_or_else(|error| panic!("after {case}: {error}")),
                2,
                "after {case}"
            );
        }
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cut_at_every_byte_of_every_operation() {
    let server = server();
    for delivery in DELIVERIES {
        let mut runs = Vec::new();
        for scenario in SCENARIOS {
            let mut rig = Rig::new(&server, delivery, PATIENCE).await;
            runs.push(tokio::spawn(async move {
                let mut figures = Figures::default();
                let whole = rig.undisturbed(scenario).await;
                for (direction, length) in whole.lengths() {
                    for action in [Break::Cut, Break::Reset] {
                        let mut offset = 0;
                        let mut fault = Fault {
                            direction,
                            offset,
                            action,
                        };
                        while rig.run(scenario, delivery, fault, &mut figures).await {
                            offset += 1;
                            fault.offset = offset;
                        }
                        assert!(
                            offset > length,
                            "{scenario:?} was cut up to {offset} of {length}"
                        );
                    }
                }
                figures
            }));
        }
        let mut figures = Figures::default();
        for run in runs {
            figures.add(&run.await.unwrap());
        }
        figures.report(&format!("cuts at every byte, {delivery:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_append_that_arrives_after_its_retry_is_there_once() {
    let server = server();
    let mut runs = Vec::new();
    for delivery in DELIVERIES {
        for scenario in [Scenario::Add, Scenario::AddAll] {
            let mut rig = Rig::new(&server, delivery, PATIENCE).await;
            runs.push(tokio::spawn(async move {
                let mut figures = Figures::default();
                for offset in (0..).step_by(16) {
                    let fault = Fault {
                        direction: Direction::Request,
                        offset,
                        action: Break::Late(Duration::from_millis(30)),
                    };
                    if !rig.run(scenario, delivery, fault, &mut figures).await {
                        return figures;
                    }
                }
                figures
            }));
        }
    }
    let mut figures = Figures::default();
    for run in runs {
        figures.add(&run.await.unwrap());
    }
    figures.report("requests that arrive late");
}

#[tokio::test]
async fn silence_ends_with_the_deadline() {
    side_by_side(silence).await;
}

/// Runs every scenario with either delivery concurrently, because each one waits for its
/// deadline. They begin one after the other, so that their deadlines do not pass all at
/// once.
async fn side_by_side<F>(case: impl Fn(Rig, Scenario, Delivery) -> F)
where
    F: Future<Output = ()> + 'static,
{
    let server = server();
    let local = LocalSet::new();
    let mut runs = JoinSet::new();
    for delivery in DELIVERIES {
        for scenario in SCENARIOS {
            let rig = Rig::new(&server, delivery, DEADLINE).await;
            let wait = DEADLINE / 16 * runs.len() as u32;
            let run = case(rig, scenario, delivery);
            let later = async move {
                tokio::time::sleep(wait).await;
                run.await;
            };
            runs.spawn_local_on(later, &local);
        }
    }
    local.run_until(runs.join_all()).await;
}

async fn silence(mut rig: Rig, scenario: Scenario, delivery: Delivery) {
    for (direction, offset, reaches) in [
        (Direction::Request, 0, false),
        (Direction::Request, 10, false),
        (Direction::Reply, 0, true),
        (Direction::Reply, 2, true),
    ] {
        let case = format!("{scenario:?} {delivery:?} {direction:?} {offset}");
        let mut session = String::new();
        let result = ends_by_itself(DEADLINE, async || {
            session = rig.session(scenario);
            rig.proxy.break_next(Fault {
                direction,
                offset,
                action: Break::Swallow,
            });
            scenario.run(&rig.memory, &session).await
        });
        assert_eq!(
            refusal(result.await).0,
            scenario.error_without_reply(),
            "{case}"
        );
        let expected = if reaches {
            scenario.after()
        } else {
            scenario.before()
        };
        assert_eq!(rig.stored(&session), expected, "{case}");
        let session = rig.session(scenario);
        assert!(
            scenario.run(&rig.memory, &session).await.unwrap(),
            "after {case}"
        );
    }
}

#[tokio::test]
async fn a_trickle_ends_with_the_deadline() {
    side_by_side(trickle).await;
}

async fn trickle(mut rig: Rig, scenario: Scenario, delivery: Delivery) {
    let whole = rig.undisturbed(scenario).await;
    for (direction, length) in whole.lengths() {
        let case = format!("{scenario:?} {delivery:?} {direction:?}");
        let whole = APART * length as u32;
        let in_time = whole < DEADLINE / 2;
        let at_least = if in_time { whole } else { DEADLINE };
        let mut session = String::new();
        let result = ends_by_itself(at_least, async || {
            session = rig.session(scenario);
            rig.proxy.break_next(Fault {
                direction,
                offset: 0,
                action: Break::Trickle(APART),
            });
            scenario.run(&rig.memory, &session).await
        });
        let result = result.await;
        if in_time {
            assert!(result.unwrap(), "{case}");
            continue;
        }
        assert!(whole > 2 * DEADLINE, "{case}");
        // The append's reply is complete long before the read's.
        let expected = match (scenario, delivery, direction) {
            (Scenario::Turn, Delivery::ExactlyOnce, Direction::Reply) => "timeout",
            _ => scenario.error_without_reply(),
        };
        assert_eq!(refusal(result).0, expected, "{case}");
        let expected = match direction {
            Direction::Request => scenario.before(),
            Direction::Reply => scenario.after(),
        };
        assert_eq!(rig.stored(&session), expected, "{case}");
    }
}

/// Flips every bit of every framing byte of a reply. Contents are left out: the protocol
/// has no checksum, so a message with another letter looks like any message.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_garbled_reply_is_never_taken_for_another() {
    let server = server();
    let mut runs = Vec::new();
    for delivery in DELIVERIES {
        for scenario in SCENARIOS {
            // An id that is read back sometimes has one more digit.
            if scenario == Scenario::Turn || delivery == Delivery::AtMostOnce && !scenario.appends()
            {
                continue;
            }
            let mut rig = Rig::new(&server, delivery, DEADLINE).await;
            runs.push(tokio::spawn(async move {
                let replies = rig.undisturbed(scenario).await.reply;
                let mut garbled = 0;
                for offset in framing(&replies) {
                    for bit in 0..8 {
                        let case = format!(
                            "{scenario:?} {delivery:?} bit {bit} of {offset} in {}",
                            replies.escape_ascii()
                        );
                        let session = rig.session(scenario);
                        rig.proxy.break_next(Fault {
                            direction: Direction::Reply,
                            offset,
                            action: Break::Garble(1 << bit),
                        });
                        let carried_out = rig.proxy.carried_out();
                        match scenario.run(&rig.memory, &session).await {
                            Ok(right) => assert!(right, "{case}: a wrong result"),
                            // A longer reply is waited for.
                            Err(error) => assert!(
                                ["protocol", "limit-exceeded", "timeout", "outcome-unknown"]
                                    .contains(&error.variant()),
                                "{case}: {error}"
                            ),
                        }
                        assert_eq!(rig.proxy.carried_out(), carried_out + 1, "{case}");
                        assert_eq!(rig.stored(&session), scenario.after(), "{case}");
                        garbled += 1;
                    }
                }
                garbled
            }));
        }
    }
    let mut garbled = 0;
    for run in runs {
        garbled += run.await.unwrap();
    }
    println!("bits of replies garbled: {garbled}, wrong results: 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_that_is_dropped_at_any_await_leaves_no_reply_behind() {
    let server = server();
    let mut runs = Vec::new();
    for delivery in DELIVERIES {
        for scenario in SCENARIOS {
            for direction in [Direction::Request, Direction::Reply] {
                let rig = Rig::new(&server, delivery, PATIENCE).await;
                runs.push(tokio::spawn(dropped(rig, scenario, delivery, direction)));
            }
        }
    }
    let mut dropped = 0;
    for run in runs {
        dropped += run.await.unwrap();
    }
    println!("calls dropped at an await: {dropped}, replies misdelivered: 0");
}

/// Drops an operation after 0, 1, 2 polls and so on, until it completes. Returns the
/// number of drops.
async fn dropped(
    mut rig: Rig,
    scenario: Scenario,
    delivery: Delivery,
    direction: Direction,
) -> usize {
    let other = rig.session(Scenario::Add);
    let theirs = rig.memory.add(&other, Role::User, "theirs", None).await;
    theirs.unwrap();
    let mut polls = 0;
    loop {
        let case = format!("{scenario:?} {delivery:?} after {polls} polls, {direction:?}");
        let session = rig.session(scenario);
        // A slow connection means more polls.
        rig.proxy.break_next(Fault {
            direction,
            offset: 0,
            action: Break::Trickle(Duration::from_micros(300)),
        });
        let result = polled(scenario.run(&rig.memory, &session), polls).await;
        rig.proxy.break_nothing();
        let messages = rig.memory.get(&other, None).await.unwrap();
        assert!(
            messages.iter().map(|m| &m.content).eq(["theirs"]),
            "{case}: {messages:?}"
        );
        assert_eq!(rig.memory.count(&other).await.unwrap(), 1, "{case}");
        // The dropped operation's connection may still be closing.
        while result.is_none() && rig.proxy.connections() > 1 {
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        let stored = rig.stored(&session);
        let either = [scenario.before(), scenario.after()];
        assert!(
            either.iter().any(|either| stored == *either),
            "{case}: {stored:?}"
        );
        if let Some(result) = result {
            assert!(result.unwrap(), "{case}");
            return polls;
        }
        polls += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_after_a_timeout_is_retried() {
    let server = server();
    let mut runs = Vec::new();
    for scenario in SCENARIOS {
        let rig = Rig::new(&server, Delivery::ExactlyOnce, DEADLINE).await;
        runs.push(tokio::spawn(after_a_timeout(rig, scenario)));
    }
    for run in runs {
        run.await.unwrap();
    }
}

async fn after_a_timeout(mut rig: Rig, scenario: Scenario) {
    let session = rig.session(scenario);
    rig.proxy.break_next(Fault {
        direction: Direction::Reply,
        offset: 0,
        action: Break::Swallow,
    });
    let result = scenario.run(&rig.memory, &session).await;
    assert_eq!(refusal(result).0, scenario.error_without_reply());

    // The instance was discarded with its connection, and now the first exchange of the
    // new connection is lost as well.
    let session = rig.session(scenario);
    let mut fault = Some(Fault {
        direction: Direction::Reply,
        offset: 0,
        action: Break::Cut,
    });
    rig.proxy.plan(move |_| fault.take());
    let carried_out = rig.proxy.carried_out();
    let result = scenario.run(&rig.memory, &session).await;
    assert!(result.unwrap(), "{scenario:?}");
    assert_eq!(rig.proxy.carried_out(), carried_out + 1);
    assert_eq!(rig.stored(&session), scenario.after());
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_is_replaced_at_once() {
    let server = server();
    for delivery in DELIVERIES {
        let mut rig = Rig::new(&server, delivery, PATIENCE).await;
        for scenario in SCENARIOS {
            let session = rig.session(scenario);
            rig.proxy.close_all();
            while rig.proxy.connections() > 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            // Nothing was awaited since, so the runtime cannot have noticed.
            let result = scenario.run(&rig.memory, &session).await;
            assert!(result.unwrap(), "{scenario:?} {delivery:?}");
            assert_eq!(rig.stored(&session), scenario.after());
        }
    }
}

/// Returns the output of a future that needs no more polls than given.
async fn polled<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Long enough for an operation that succeeds, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(1);
/// Long enough for any operation, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// The time between two bytes of a trickle.
const APART: Duration = Duration::from_millis(66);
