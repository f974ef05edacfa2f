//! The targets for Session Memory.

use crate::burst::BenchOperation::{Add, Fresh, Get, Turn};
use crate::contender::Contender::{AtMostOnce, ExactlyOnce};
use crate::cost::Costs;
use crate::rounds::{Measured, Workload};
use crate::stats::Estimate;

/// A target with the measured value.
pub struct Target {
    /// The name of the target in the report.
    pub name: &'static str,
    /// The measured value. `None` if this run did not measure it.
    pub measured: Option<Estimate>,
    /// The bound that must be kept.
    pub must: f64,
    /// The bound to aim at.
    pub aim: f64,
    /// The good side of both bounds.
    pub good: Good,
    /// The kind of value.
    pub quantity: Quantity,
}

/// The good side of a bound.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Good {
    /// The bound and below.
    Below,
    /// The bound and above.
    Above,
}

impl Good {
    /// Returns the sign before a bound.
    pub fn sign(self) -> &'static str {
        match self {
            Good::Below => "≤",
            Good::Above => "≥",
        }
    }
}

/// The kind of a measured value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// A ratio.
    Ratio,
    /// Bytes.
    Bytes,
    /// Nanoseconds.
    Time,
}

impl Target {
    /// Whether the bound is kept. `None` if the bound is inside the interval.
    pub fn is_reached(&self) -> Option<bool> {
        self.is_within(self.must)
    }

    /// Whether the aim is reached. `None` if the aim is inside the interval.
    pub fn is_aim_reached(&self) -> Option<bool> {
        self.is_within(self.aim)
    }

    fn is_within(&self, bound: f64) -> Option<bool> {
        let Estimate { low, high, .. } = self.measured?;
        let (best, worst) = match self.good {
            Good::Below => (low <= bound, high <= bound),
            Good::Above => (high >= bound, low >= bound),
        };
        (best == worst).then_some(best)
    }
}

/// Returns all targets.
pub fn targets(all: &[Measured], costs: &Costs) -> Vec<Target> {
    let row = |operation, content, last, callers, contender| {
        let workload = Workload {
            operation,
            content,
            last,
            callers,
        };
        all.iter()
            .find(|measured| measured.workload == workload)?
            .row(contender)
    };
    let to_redis_rs = |operation, content, last, callers, contender| {
        row(operation, content, last, callers, contender)?.to_redis_rs
    };
    let to_floor = |contender| row(Add, 200, 10, 1, contender)?.to_floor;
    let p50_of_get = |last| Some(&row(Get, 200, last, 1, ExactlyOnce)?.p50_by_round);
    let growth = || {
        let rounds = p50_of_get(100_000)?.iter().zip(p50_of_get(1_000)?);
        Estimate::of(&rounds.map(|(long, short)| long / short).collect::<Vec<_>>())
    };
    // For counts, and for medians that are far from their bounds.
    let exact = |value| Estimate {
        median: value,
        low: value,
        high: value,
    };
    let guest_memory = costs
        .memory
        .iter()
        .map(|memory| memory.guest as f64 / memory.reply as f64)
        .reduce(f64::max);
    let target = |name, measured, must, aim| Target {
        name,
        measured,
        must,
        aim,
        good: Good::Below,
        quantity: Quantity::Ratio,
    };
    vec![
        target(
            "add 200 B, exactly once, to redis-rs",
            to_redis_rs(Add, 200, 10, 1, ExactlyOnce),
            1.10,
            0.95,
        ),
        target(
            "add 200 B, at most once, to redis-rs",
            to_redis_rs(Add, 200, 10, 1, AtMostOnce),
            1.00,
            0.95,
        ),
        target(
            "add 200 B, exactly once, to its floor",
            to_floor(ExactlyOnce),
            1.30,
            1.15,
        ),
        target(
            "add 200 B, at most once, to its floor",
            to_floor(AtMostOnce),
            1.30,
            1.15,
        ),
        target(
            "get 10 × 200 B, to redis-rs",
            to_redis_rs(Get, 200, 10, 1, ExactlyOnce),
            1.00,
            0.90,
        ),
        target(
            "get 1,000 × 200 B, to redis-rs",
            to_redis_rs(Get, 200, 1_000, 1, ExactlyOnce),
            1.10,
            0.80,
        ),
        target(
            "get 1,000 × 4 KB, to redis-rs",
            to_redis_rs(Get, 4_000, 1_000, 1, ExactlyOnce),
            1.10,
            0.90,
        ),
        target(
            "turn, 200 B, exactly once, to redis-rs in two round trips",
            to_redis_rs(Turn, 200, 10, 1, ExactlyOnce),
            0.60,
            0.55,
        ),
        Target {
            good: Good::Above,
            ..target(
                "add 200 B, 64 callers, exactly once, operations a second to redis-rs",
                to_redis_rs(Add, 200, 10, 64, ExactlyOnce),
                1.0,
                1.3,
            )
        },
        target(
            "new instance and connection, exists, to redis-rs with a new connection",
            to_redis_rs(Fresh, 200, 10, 1, ExactlyOnce),
            1.15,
            1.00,
        ),
        target(
            "get 100,000 × 200 B, to get 1,000 × 200 B",
            growth(),
            110.0,
            110.0,
        ),
        target(
            "guest's memory of a get at its peak, to the bytes of the reply",
            guest_memory.map(exact),
            3.0,
            2.0,
        ),
        Target {
            quantity: Quantity::Bytes,
            ..target(
                "size of the component",
                Some(exact(costs.component as f64)),
                200e3,
                120e3,
            )
        },
        Target {
            quantity: Quantity::Time,
            ..target(
                "a process of the command that asks exists",
                Some(exact(costs.command)),
                25e6,
                12e6,
            )
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_reached_if_the_whole_interval_is_on_its_good_side() {
        for (good, interval, expected) in [
            (Good::Below, Some((0.9, 1.0)), Some(true)),
            (Good::Below, Some((0.99, 1.01)), None),
            (Good::Below, Some((1.01, 1.02)), Some(false)),
            (Good::Above, Some((1.0, 1.1)), Some(true)),
            (Good::Above, Some((0.99, 1.01)), None),
            (Good::Above, Some((0.98, 0.99)), Some(false)),
            (Good::Below, None, None),
        ] {
            let target = Target {
                name: "",
                measured: interval.map(|(low, high)| Estimate {
                    median: f64::midpoint(low, high),
                    low,
                    high,
                }),
                must: 1.0,
                aim: 1.0,
                good,
                quantity: Quantity::Ratio,
            };
            assert_eq!(target.is_reached(), expected);
            assert_eq!(target.is_aim_reached(), expected);
        }
    }
}
