//! Measures the workloads in rounds. In a round, the bursts of all contenders alternate, so
//! a disturbance of the machine affects all of them.
//!
//! A process differs from the next one by some per cent throughout its life, because its
//! code and data lie at other addresses. So each round has new processes. The ratio of a
//! round is the median over pairs of nearby bursts. The interval is that of the median of
//! the rounds.

use std::env;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::awake::Awake;
use crate::burst::{BenchOperation, Burst, Result, Sample};
use crate::contender::{Contender, Contenders, Programs};
use crate::pinned::Pinned;
use crate::server::Redis;
use crate::shown::{shown_bytes, shown_count};
use crate::stats::{Estimate, TELLING, median};

/// An operation with its parameters: one section of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The operation that callers repeat.
    pub operation: BenchOperation,
    /// Bytes in the content of a message.
    pub content: usize,
    /// The number of messages to read. If the operation only reads, the session has no
    /// more.
    pub last: u32,
    /// The number of concurrent callers.
    pub callers: usize,
}

impl Workload {
    /// Returns the name of the workload in the report.
    pub fn name(self) -> String {
        let size = shown_bytes(self.content as f64);
        let last = shown_count(self.last as usize);
        let name = match self.operation {
            BenchOperation::Add => format!("add {size}"),
            BenchOperation::Get => format!("get {last} × {size}"),
            BenchOperation::Exists => "exists".to_owned(),
            BenchOperation::Turn => format!("turn: add, get {last} × {size}"),
            BenchOperation::Fresh => "connect, exists".to_owned(),
        };
        match self.callers {
            1 => name,
            callers => format!("{name}, {callers} callers"),
        }
    }
}

/// The amount of measuring.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// The least number of rounds for each workload.
    pub rounds: usize,
    /// No further round begins after this time.
    pub limit: Duration,
    /// The number of bursts of each contender for a workload in a round, unless they take
    /// longer than [`Effort::share`].
    pub bursts: usize,
    /// Milliseconds in which a burst times operations, if it has one caller.
    pub burst_time: u64,
    /// The time for the bursts of a workload in a round. The first burst of each contender is
    /// always run.
    pub share: Duration,
}

/// The results of all contenders for one workload.
pub struct Measured {
    /// The workload.
    pub workload: Workload,
    /// The number of rounds.
    pub rounds: usize,
    /// One row for each contender.
    pub rows: Vec<Row>,
}

/// The results of one contender for one workload.
pub struct Row {
    /// The contender.
    pub contender: Contender,
    /// Nanoseconds: the median of the bursts' medians.
    pub p50: f64,
    /// The same for each round.
    pub p50_by_round: Vec<f64>,
    /// Nanoseconds, over all bursts. `None` if fewer than ten operations are above it.
    pub p99: Option<f64>,
    /// The same for 99.9 %.
    pub p999: Option<f64>,
    /// Operations a second: the median of the bursts.
    pub rate: f64,
    /// Nanoseconds of CPU time for each operation, in the client's process.
    pub client_cpu: f64,
    /// The same for the server.
    pub server_cpu: f64,
    /// The ratio to the floor. With one caller it compares the medians, with more callers
    /// the operations a second.
    pub to_floor: Option<Estimate>,
    /// The ratio to redis-rs, in the same way.
    pub to_redis_rs: Option<Estimate>,
}

impl Measured {
    /// Returns the results of a contender, if it took part.
    pub fn row(&self, contender: Contender) -> Option<&Row> {
        self.rows.iter().find(|row| row.contender == contender)
    }
}

/// The measurement of one workload, over all rounds.
pub struct Measurement {
    workload: Workload,
    taking_part: Vec<Contender>,
    /// One series for each contender.
    series: Vec<Series>,
}

/// Measures each workload until its ratios are exact enough or the time is over.
///
/// # Errors
///
/// Fails when a contender fails.
pub fn measure(
    programs: &Programs<'_>,
    redis: &mut Redis,
    workloads: &[Workload],
    effort: Effort,
) -> Result<Vec<Measured>> {
    let begin = Instant::now();
    let mut measurements: Vec<Measurement> = Vec::new();
    for workload in workloads {
        if reads_only(workload.operation) {
            redis.fill(&session_of(*workload), workload.content, workload.last)?;
        }
        measurements.push(Measurement::new(*workload, programs));
    }
    for round in 0.. {
        let is_open = |measurement: &Measurement| round < effort.rounds || !measurement.is_exact();
        let mut open: Vec<_> = measurements
            .iter_mut()
            .filter(|measurement| is_open(measurement))
            .collect();
        if open.is_empty() || round >= effort.rounds && begin.elapsed() > effort.limit {
            break;
        }
        eprintln!(
            "round {} ({} workloads), {} s since the start",
            round + 1,
            open.len(),
            begin.elapsed().as_secs()
        );
        let mut contenders = Contenders::start(programs)?;
        for measurement in &mut open {
            let workload = measurement.workload.name();
            measurement
                .round(&mut contenders, redis, effort)
                .map_err(|error| format!("{workload}: {error}"))?;
        }
    }
    for workload in workloads {
        redis.forget(&session_of(*workload))?;
    }
    Ok(measurements.iter().map(Measurement::measured).collect())
}

impl Measurement {
    fn new(workload: Workload, programs: &Programs<'_>) -> Measurement {
        let taking_part = programs.contenders(workload.operation, workload.callers);
        Measurement {
            workload,
            series: taking_part.iter().map(|_| Series::default()).collect(),
            taking_part,
        }
    }

    /// Runs one round of this workload.
    fn round(
        &mut self,
        contenders: &mut Contenders,
        redis: &mut Redis,
        effort: Effort,
    ) -> Result<()> {
        let workload = self.workload;
        // Many callers leave no core without work. Spinning processes would keep the kernel
        // from moving threads to an idle core.
        let _kept = match workload.callers {
            1 => Some((
                Awake::keep(&env::current_exe()?)?,
                Pinned::keep(redis.process_id()?, contenders.process_ids()),
            )),
            _ => None,
        };
        let rounds = self.series.first().map_or(0, |series| series.rounds.len());
        for series in &mut self.series {
            series.rounds.push(Round::default());
        }
        let begin = Instant::now();
        for number in 0..effort.bursts {
            if number > 0 && begin.elapsed() > effort.share {
                break;
            }
            // Each contender is first as often as the others, and follows each of them.
            for place in 0..self.taking_part.len() {
                let at = (rounds + number + place) % self.taking_part.len();
                let burst = burst(workload, effort, self.taking_part[at]);
                if !reads_only(workload.operation) {
                    prepare_sessions(redis, &burst)?;
                }
                let before = redis.cpu_time()?;
                let sample = contenders.run(self.taking_part[at], &burst)?;
                let server = redis.cpu_time()?.saturating_sub(before).as_nanos() as f64;
                self.series[at].push(&sample, server)?;
                if !reads_only(workload.operation) {
                    redis.clear(&burst)?;
                }
            }
        }
        Ok(())
    }

    /// Whether the intervals of Session Memory's ratios are narrow enough to tell 3 %.
    fn is_exact(&self) -> bool {
        let ours = [Contender::ExactlyOnce, Contender::AtMostOnce];
        let mut ratios = ours
            .into_iter()
            .flat_map(|ours| [(ours, ours.floor()), (ours, Contender::RedisRs)])
            .filter_map(|(ours, other)| self.ratio(ours, other));
        ratios.all(|ratio| ratio.is_within(TELLING))
    }

    /// Returns the ratio of two contenders. With one caller it compares the medians, with
    /// more callers the operations a second.
    fn ratio(&self, contender: Contender, other: Contender) -> Option<Estimate> {
        let series = |contender| {
            let at = self.taking_part.iter().position(|one| *one == contender)?;
            self.series.get(at)
        };
        let (of, to) = (series(contender)?, series(other)?);
        let values = |round: &Round| match self.workload.callers {
            1 => round.p50.clone(),
            _ => round.rate.clone(),
        };
        let ratios = of.rounds.iter().zip(&to.rounds).filter_map(|(of, to)| {
            let pairs = values(of).into_iter().zip(values(to));
            median(pairs.map(|(of, to)| of / to))
        });
        Estimate::of(&ratios.collect::<Vec<_>>())
    }

    /// Returns the results so far.
    fn measured(&self) -> Measured {
        let rows = self.taking_part.iter().zip(&self.series);
        let rows = rows.map(|(contender, series)| {
            let floor = match self.taking_part.contains(&contender.floor()) {
                true => contender.floor(),
                false => Contender::Floor,
            };
            let all = |of: fn(&Round) -> &Vec<f64>| {
                let values = series.rounds.iter().flat_map(of).copied();
                median(values).unwrap_or(f64::NAN)
            };
            Row {
                contender: *contender,
                p50: all(|round| &round.p50),
                p50_by_round: series
                    .rounds
                    .iter()
                    .filter_map(|round| median(round.p50.iter().copied()))
                    .collect(),
                p99: series.quantile(0.99),
                p999: series.quantile(0.999),
                rate: all(|round| &round.rate),
                client_cpu: all(|round| &round.client_cpu),
                server_cpu: all(|round| &round.server_cpu),
                to_floor: self.ratio(*contender, floor),
                to_redis_rs: self.ratio(*contender, Contender::RedisRs),
            }
        });
        Measured {
            workload: self.workload,
            rounds: self.series.first().map_or(0, |series| series.rounds.len()),
            rows: rows.collect(),
        }
    }
}

fn reads_only(operation: BenchOperation) -> bool {
    !matches!(operation, BenchOperation::Add | BenchOperation::Turn)
}

/// Returns the id of the session that all callers read.
fn session_of(workload: Workload) -> String {
    format!("read-{}-{}", workload.last, workload.content)
}

fn burst(workload: Workload, effort: Effort, contender: Contender) -> Burst {
    let session = match reads_only(workload.operation) {
        true => session_of(workload),
        false => format!("write-{contender:?}"),
    };
    // A closed connection keeps its port for a minute, so few connections are made.
    let max_operations = match workload.operation {
        BenchOperation::Fresh => 100,
        _ => 1 << 20,
    };
    // Callers that share two threads need more time until each has run.
    let time = match workload.callers {
        1 => effort.burst_time,
        _ => effort.burst_time * 3,
    };
    Burst {
        operation: workload.operation,
        session,
        content: workload.content,
        last: workload.last,
        callers: workload.callers,
        warm_up: time / 4,
        time,
        // More rounds time slow operations more often.
        min_operations: 2,
        max_operations,
    }
}

/// Prepares the sessions that a burst writes to: empty, or with the messages that a turn
/// reads.
fn prepare_sessions(redis: &mut Redis, burst: &Burst) -> Result<()> {
    redis.clear(burst)?;
    if burst.operation == BenchOperation::Turn {
        for caller in 0..burst.callers {
            redis.fill(
                &format!("{}-{caller}", burst.session),
                burst.content,
                burst.last,
            )?;
        }
    }
    Ok(())
}

/// The measurements of one contender.
#[derive(Default)]
struct Series {
    rounds: Vec<Round>,
    all: Option<Histogram<u64>>,
}

/// The measurements of a round, one value for each burst.
#[derive(Default)]
struct Round {
    p50: Vec<f64>,
    rate: Vec<f64>,
    client_cpu: Vec<f64>,
    server_cpu: Vec<f64>,
}

impl Series {
    /// Adds a burst to the last round.
    fn push(&mut self, sample: &Sample, server_cpu: f64) -> Result<()> {
        let mut histogram = Histogram::<u64>::new(3)?;
        for nanoseconds in &sample.nanoseconds {
            histogram.record(*nanoseconds)?;
        }
        let round = self.rounds.last_mut().ok_or("no round has begun")?;
        round.p50.push(histogram.value_at_quantile(0.5) as f64);
        round
            .rate
            .push(sample.nanoseconds.len() as f64 * 1e9 / sample.elapsed as f64);
        round
            .client_cpu
            .push(sample.cpu as f64 / sample.operations as f64);
        round.server_cpu.push(server_cpu / sample.operations as f64);
        match &mut self.all {
            Some(all) => all.add(&histogram)?,
            none => *none = Some(histogram),
        }
        Ok(())
    }

    /// Returns a quantile of all operations. `None` if fewer than ten are above it.
    fn quantile(&self, quantile: f64) -> Option<f64> {
        let all = self.all.as_ref()?;
        let above = all.len() as f64 * (1.0 - quantile);
        (above.round() >= 10.0).then(|| all.value_at_quantile(quantile) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(p50: &[f64], rate: &[f64]) -> Series {
        let rounds = p50.iter().zip(rate).map(|(p50, rate)| Round {
            // The last burst of each round was disturbed.
            p50: vec![*p50, *p50, 1e9],
            rate: vec![*rate, *rate, 1e-9],
            ..Round::default()
        });
        Series {
            rounds: rounds.collect(),
            all: None,
        }
    }

    #[test]
    fn one_caller_is_compared_by_latency_and_more_by_throughput() {
        for (callers, to_floor, to_redis_rs) in [(1, 2.0, 1.0), (8, 0.75, 1.5)] {
            let measurement = Measurement {
                workload: Workload {
                    operation: BenchOperation::Add,
                    content: 200,
                    last: 10,
                    callers,
                },
                taking_part: vec![Contender::Floor, Contender::RedisRs, Contender::ExactlyOnce],
                series: vec![
                    series(&[10.0, 10.0, 10.0], &[4.0, 4.0, 4.0]),
                    series(&[20.0, 40.0, 20.0], &[2.0, 2.0, 2.0]),
                    series(&[20.0, 20.0, 30.0], &[3.0, 3.0, 1.0]),
                ],
            };
            let measured = measurement.measured();
            let row = measured.row(Contender::ExactlyOnce).expect("it took part");
            assert_eq!(row.to_floor.map(|ratio| ratio.median), Some(to_floor));
            assert_eq!(row.to_redis_rs.map(|ratio| ratio.median), Some(to_redis_rs));
            // The rounds differ by half.
            assert!(!measurement.is_exact());
        }
    }
}
