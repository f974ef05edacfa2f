//! Rounds: in each, every contender has its turns on the same work, so that what
//! disturbs the machine disturbs all of them.
//!
//! One process differs from the next by some per cent, for as long as it lives: its code
//! and its data lie at other addresses. So each round has new processes. A ratio is that
//! of two turns which follow each other, and a round's is the median of those. The
//! interval is that of the median of the rounds.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::awake::Awake;
use crate::contender::{Contender, Contenders, Programs};
use crate::pinned::Pinned;
use crate::server::Redis;
use crate::shown::{shown_bytes, shown_count};
use crate::slot::{Operation, Result, Sample, Slot};
use crate::stats::{Estimate, TELLING, median};

/// What is measured at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// What callers ask for.
    pub operation: Operation,
    /// Bytes of a message's content.
    pub content: usize,
    /// How many messages are read; where there is reading only, the session holds
    /// no more.
    pub last: u32,
    /// How many callers there are at once.
    pub callers: usize,
}

impl Work {
    /// What it is called.
    pub fn name(self) -> String {
        let size = shown_bytes(self.content as f64);
        let last = shown_count(self.last as usize);
        let what = match self.operation {
            Operation::Add => format!("add {size}"),
            Operation::Get => format!("get {last} × {size}"),
            Operation::Exists => "exists".to_owned(),
            Operation::Turn => format!("turn: add, get {last} × {size}"),
            Operation::Fresh => "connect, exists".to_owned(),
        };
        match self.callers {
            1 => what,
            callers => format!("{what}, {callers} callers"),
        }
    }
}

/// How much time is spent.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How often every work is measured at least.
    pub rounds: usize,
    /// After which time no round begins beyond these.
    pub limit: Duration,
    /// How often every contender has its turn at a work in a round, unless that takes
    /// longer than [`Effort::share`].
    pub turns: usize,
    /// Milliseconds of a turn of one caller in which operations are timed.
    pub time: u64,
    /// How long the turns at a work may take in a round, but for the first of each.
    pub share: Duration,
}

/// What all contenders came to.
pub struct Measured {
    /// What they did.
    pub work: Work,
    /// In how many rounds.
    pub rounds: usize,
    /// Each of them.
    pub rows: Vec<Row>,
}

/// What one contender came to.
pub struct Row {
    /// Which one.
    pub contender: Contender,
    /// Nanoseconds, the median of the turns' medians.
    pub p50: f64,
    /// The same of each round.
    pub p50_by_round: Vec<f64>,
    /// Nanoseconds, of all turns; none if ten operations would not be above it.
    pub p99: Option<f64>,
    /// The same.
    pub p999: Option<f64>,
    /// Operations a second, the median of the turns.
    pub rate: f64,
    /// Nanoseconds of CPU time an operation, in the client's process.
    pub client_cpu: f64,
    /// The same of the server.
    pub server_cpu: f64,
    /// Ratio to the floor: of the medians with one caller, of the operations a
    /// second with more.
    pub to_floor: Option<Estimate>,
    /// The same to redis-rs.
    pub to_redis_rs: Option<Estimate>,
}

impl Measured {
    /// What a contender came to, if it took part.
    pub fn row(&self, contender: Contender) -> Option<&Row> {
        self.rows.iter().find(|row| row.contender == contender)
    }
}

/// A work that is being measured.
pub struct Measurement {
    work: Work,
    taking_part: Vec<Contender>,
    /// Of each contender.
    series: Vec<Series>,
}

/// Measures works, each until its ratios can be told or the time is over.
///
/// # Errors
///
/// That of the first contender that fails.
pub fn measure(
    programs: &Programs<'_>,
    redis: &mut Redis,
    works: &[Work],
    effort: Effort,
) -> Result<Vec<Measured>> {
    let begin = Instant::now();
    let mut measurements: Vec<Measurement> = Vec::new();
    for work in works {
        if reads_only(work.operation) {
            redis.fill(&session_of(*work), work.content, work.last)?;
        }
        measurements.push(Measurement::new(*work, programs));
    }
    for round in 0.. {
        let is_open = |measurement: &Measurement| round < effort.rounds || !measurement.can_tell();
        let mut open: Vec<_> = measurements
            .iter_mut()
            .filter(|work| is_open(work))
            .collect();
        if open.is_empty() || round >= effort.rounds && begin.elapsed() > effort.limit {
            break;
        }
        eprintln!(
            "round {} of {} works, {} s since the start",
            round + 1,
            open.len(),
            begin.elapsed().as_secs()
        );
        let mut contenders = Contenders::start(programs)?;
        for measurement in &mut open {
            let work = measurement.work.name();
            measurement
                .round(&mut contenders, redis, effort)
                .map_err(|error| format!("{work}: {error}"))?;
        }
    }
    for work in works {
        redis.forget(&session_of(*work))?;
    }
    Ok(measurements.iter().map(Measurement::measured).collect())
}

impl Measurement {
    fn new(work: Work, programs: &Programs<'_>) -> Measurement {
        let taking_part = programs.contenders(work.operation, work.callers);
        Measurement {
            work,
            series: taking_part.iter().map(|_| Series::default()).collect(),
            taking_part,
        }
    }

    /// A round of this work.
    fn round(
        &mut self,
        contenders: &mut Contenders,
        redis: &mut Redis,
        effort: Effort,
    ) -> Result<()> {
        let work = self.work;
        // More callers leave no core without work, and what spins would keep the kernel
        // from moving a thread to where it finds one.
        let _kept = match work.callers {
            1 => Some((
                Awake::keep()?,
                Pinned::keep(redis.process_id()?, contenders.process_ids()),
            )),
            _ => None,
        };
        let rounds = self.series.first().map_or(0, |series| series.rounds.len());
        for series in &mut self.series {
            series.rounds.push(Round::default());
        }
        let begin = Instant::now();
        for turn in 0..effort.turns {
            if turn > 0 && begin.elapsed() > effort.share {
                break;
            }
            // Each begins as often as the others, and follows each of them.
            for place in 0..self.taking_part.len() {
                let at = (rounds + turn + place) % self.taking_part.len();
                let slot = slot(work, effort, self.taking_part[at]);
                if !reads_only(work.operation) {
                    begin_sessions(redis, &slot)?;
                }
                let before = redis.cpu_time()?;
                let sample = contenders.run(self.taking_part[at], &slot)?;
                let server = redis.cpu_time()?.saturating_sub(before).as_nanos() as f64;
                self.series[at].push(&sample, server)?;
                if !reads_only(work.operation) {
                    redis.clear(&slot)?;
                }
            }
        }
        Ok(())
    }

    /// Whether the ratios of Session Memory are narrow enough to tell 3 %.
    fn can_tell(&self) -> bool {
        let ours = [Contender::ExactlyOnce, Contender::AtMostOnce];
        let mut ratios = ours
            .into_iter()
            .flat_map(|ours| [(ours, ours.floor()), (ours, Contender::RedisRs)])
            .filter_map(|(ours, other)| self.ratio(ours, other));
        ratios.all(|ratio| ratio.is_within(TELLING))
    }

    /// The ratio of two contenders: of the medians with one caller, of the operations a
    /// second with more.
    fn ratio(&self, contender: Contender, other: Contender) -> Option<Estimate> {
        let series = |contender| {
            let at = self.taking_part.iter().position(|one| *one == contender)?;
            self.series.get(at)
        };
        let (of, to) = (series(contender)?, series(other)?);
        let values = |round: &Round| match self.work.callers {
            1 => round.p50.clone(),
            _ => round.rate.clone(),
        };
        let ratios = of.rounds.iter().zip(&to.rounds).filter_map(|(of, to)| {
            let pairs = values(of).into_iter().zip(values(to));
            median(pairs.map(|(of, to)| of / to))
        });
        Estimate::of(&ratios.collect::<Vec<_>>())
    }

    /// What all contenders came to so far.
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
            work: self.work,
            rounds: self.series.first().map_or(0, |series| series.rounds.len()),
            rows: rows.collect(),
        }
    }
}

fn reads_only(operation: Operation) -> bool {
    !matches!(operation, Operation::Add | Operation::Turn)
}

/// Those who only read, read the same session.
fn session_of(work: Work) -> String {
    format!("read-{}-{}", work.last, work.content)
}

fn slot(work: Work, effort: Effort, contender: Contender) -> Slot {
    let session = match reads_only(work.operation) {
        true => session_of(work),
        false => format!("write-{contender:?}"),
    };
    // What takes long is timed a few times at least, and more often by more rounds;
    // a closed connection keeps its port for a minute.
    let at_most = match work.operation {
        Operation::Fresh => 100,
        _ => 1 << 20,
    };
    // Callers who share two threads need more time until all had their turn.
    let time = match work.callers {
        1 => effort.time,
        _ => effort.time * 3,
    };
    Slot {
        operation: work.operation,
        session,
        content: work.content,
        last: work.last,
        callers: work.callers,
        warm_up: time / 4,
        time,
        at_least: 2,
        at_most,
    }
}

/// Sessions for those who write: empty, or with what a turn is to read.
fn begin_sessions(redis: &mut Redis, slot: &Slot) -> Result<()> {
    redis.clear(slot)?;
    if slot.operation == Operation::Turn {
        for caller in 0..slot.callers {
            redis.fill(
                &format!("{}-{caller}", slot.session),
                slot.content,
                slot.last,
            )?;
        }
    }
    Ok(())
}

/// What a contender came to.
#[derive(Default)]
struct Series {
    rounds: Vec<Round>,
    all: Option<Histogram<u64>>,
}

/// What it came to in each turn of a round.
#[derive(Default)]
struct Round {
    p50: Vec<f64>,
    rate: Vec<f64>,
    client_cpu: Vec<f64>,
    server_cpu: Vec<f64>,
}

impl Series {
    /// Adds a turn of the last round.
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

    /// Of all operations; none if ten would not be above it.
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
            // The last turn of each round was disturbed.
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
                work: Work {
                    operation: Operation::Add,
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
            // From one round to the next they differ by half.
            assert!(!measurement.can_tell());
        }
    }
}
