//! Rounds: in each, every contender has its turn on the same work, so that what
//! disturbs the machine disturbs all of them. Ratios are those of a round.

use hdrhistogram::Histogram;

use crate::contender::{Contender, Contenders};
use crate::server::Redis;
use crate::slot::{Operation, Result, Sample, Slot};
use crate::stats::{Spread, median, shown_bytes, shown_count};

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
    /// How often every contender has its turn.
    pub rounds: usize,
    /// Milliseconds of a turn of one caller in which operations are timed.
    pub time: u64,
}

/// What all contenders came to.
pub struct Measured {
    /// What they did.
    pub work: Work,
    /// Each of them.
    pub rows: Vec<Row>,
}

/// What one contender came to.
pub struct Row {
    /// Which one.
    pub contender: Contender,
    /// Nanoseconds, the median of the rounds' medians.
    pub p50: f64,
    /// Nanoseconds, of all rounds; none if ten operations would not be above it.
    pub p99: Option<f64>,
    /// The same.
    pub p999: Option<f64>,
    /// Operations a second, the median of the rounds.
    pub rate: f64,
    /// Nanoseconds of CPU time an operation, in the client's process.
    pub client_cpu: f64,
    /// The same of the server.
    pub server_cpu: f64,
    /// Ratio to the floor: of the medians with one caller, of the operations a
    /// second with more.
    pub to_floor: Option<Spread>,
    /// The same to redis-rs.
    pub to_redis_rs: Option<Spread>,
}

impl Measured {
    /// What a contender came to, if it took part.
    pub fn row(&self, contender: Contender) -> Option<&Row> {
        self.rows.iter().find(|row| row.contender == contender)
    }
}

/// Measures a work.
///
/// # Errors
///
/// That of the first contender that fails.
pub fn measure(
    contenders: &mut Contenders,
    redis: &mut Redis,
    work: Work,
    effort: Effort,
) -> Result<Measured> {
    let taking_part = contenders.of(work.operation, work.callers);
    let mut series: Vec<Series> = taking_part.iter().map(|_| Series::default()).collect();
    if reads_only(work.operation) {
        redis.fill(&session_of(work), work.content, work.last)?;
    }
    for round in 0..effort.rounds {
        // Each begins as often as the others, and follows each of them.
        for turn in 0..taking_part.len() {
            let at = (round + turn) % taking_part.len();
            let slot = slot(work, effort, taking_part[at]);
            if !reads_only(work.operation) {
                begin_sessions(redis, &slot)?;
            }
            let before = redis.cpu_time()?;
            let sample = contenders
                .run(taking_part[at], &slot)
                .map_err(|error| format!("{}: {error}", work.name()))?;
            let server = redis.cpu_time()?.saturating_sub(before).as_nanos() as f64;
            series[at].push(&sample, server)?;
            if !reads_only(work.operation) {
                redis.clear(&slot)?;
            }
        }
    }
    redis.forget(&session_of(work))?;
    Ok(measured(work, &taking_part, &series))
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
        warm_up: time / 5,
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

/// What a contender came to in each round.
#[derive(Default)]
struct Series {
    p50: Vec<f64>,
    rate: Vec<f64>,
    client_cpu: Vec<f64>,
    server_cpu: Vec<f64>,
    all: Option<Histogram<u64>>,
}

impl Series {
    fn push(&mut self, sample: &Sample, server_cpu: f64) -> Result<()> {
        let mut histogram = Histogram::<u64>::new(3)?;
        for nanoseconds in &sample.nanoseconds {
            histogram.record(*nanoseconds)?;
        }
        self.p50.push(histogram.value_at_quantile(0.5) as f64);
        self.rate
            .push(sample.nanoseconds.len() as f64 * 1e9 / sample.elapsed as f64);
        self.client_cpu
            .push(sample.cpu as f64 / sample.operations as f64);
        self.server_cpu.push(server_cpu / sample.operations as f64);
        match &mut self.all {
            Some(all) => all.add(&histogram)?,
            none => *none = Some(histogram),
        }
        Ok(())
    }
}

fn measured(work: Work, taking_part: &[Contender], series: &[Series]) -> Measured {
    let of = |contender| {
        let at = taking_part.iter().position(|other| *other == contender)?;
        series.get(at)
    };
    let ratio = |of: &Series, to: Option<&Series>| match work.callers {
        1 => Spread::of_ratios(&of.p50, &to?.p50),
        _ => Spread::of_ratios(&of.rate, &to?.rate),
    };
    let rows = taking_part.iter().zip(series).map(|(contender, series)| {
        let quantile = |quantile: f64| {
            let all = series.all.as_ref()?;
            let above = all.len() as f64 * (1.0 - quantile);
            (above.round() >= 10.0).then(|| all.value_at_quantile(quantile) as f64)
        };
        let median = |values| median(values).unwrap_or(f64::NAN);
        let floor = of(contender.floor()).or_else(|| of(Contender::Floor));
        Row {
            contender: *contender,
            p50: median(&series.p50),
            p99: quantile(0.99),
            p999: quantile(0.999),
            rate: median(&series.rate),
            client_cpu: median(&series.client_cpu),
            server_cpu: median(&series.server_cpu),
            to_floor: ratio(series, floor),
            to_redis_rs: ratio(series, of(Contender::RedisRs)),
        }
    });
    Measured {
        work,
        rows: rows.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(p50: &[f64], rate: &[f64]) -> Series {
        Series {
            p50: p50.to_vec(),
            rate: rate.to_vec(),
            ..Series::default()
        }
    }

    #[test]
    fn one_caller_is_compared_by_latency_and_more_by_throughput() {
        let contenders = [Contender::Floor, Contender::RedisRs, Contender::ExactlyOnce];
        let series = [
            series(&[10.0, 10.0, 10.0], &[4.0, 4.0, 4.0]),
            series(&[20.0, 40.0, 20.0], &[2.0, 2.0, 2.0]),
            series(&[20.0, 20.0, 30.0], &[3.0, 3.0, 1.0]),
        ];
        for (callers, to_floor, to_redis_rs) in [(1, 2.0, 1.0), (8, 0.75, 1.5)] {
            let work = Work {
                operation: Operation::Add,
                content: 200,
                last: 10,
                callers,
            };
            let measured = measured(work, &contenders, &series);
            let row = measured.row(Contender::ExactlyOnce).expect("it took part");
            assert_eq!(row.to_floor.map(|spread| spread.median), Some(to_floor));
            assert_eq!(
                row.to_redis_rs.map(|spread| spread.median),
                Some(to_redis_rs)
            );
        }
    }
}
