//! The report, in Markdown.

use std::fmt::Write;
use std::fs;
use std::thread::available_parallelism;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::DateTime;

use crate::contender::Contender;
use crate::cost::Costs;
use crate::rounds::{Effort, Measured, Row};
use crate::shown::{shown_bytes, shown_count, shown_rate, shown_time};
use crate::stats::Estimate;
use crate::targets::{Quantity, Target, targets};

/// The contents of the report.
pub struct Report<'a> {
    /// The results of all workloads.
    pub all: &'a [Measured],
    /// Memory, allocations, size and start-up time.
    pub costs: &'a Costs,
    /// The driver's operations, each with its instructions.
    pub instructions: &'a [(&'static str, f64)],
    /// The server's name and version.
    pub server: String,
    /// Whether the run was a quick one.
    pub quick: bool,
    /// The amount of measuring.
    pub effort: Effort,
    /// What this run left out, each with the reason.
    pub left_out: &'a [String],
    /// The file names of the plots, with their titles.
    pub plots: &'a [(&'static str, &'static str)],
}

impl Report<'_> {
    /// Returns the whole text.
    pub fn text(&self) -> String {
        let mut text = format!("# Benchmark\n\n{INTRODUCTION}\n");
        if self.quick {
            text += "\n**This was a quick run, to check that the benchmark works. Its figures mean nothing.**\n";
        }
        text += &self.machine();
        text += METHOD;
        let Effort {
            rounds,
            bursts,
            burst_time,
            ..
        } = self.effort;
        let most = self.all.iter().map(|measured| measured.rounds).max();
        let _ = write!(
            text,
            "\nThis run: {rounds} to {} rounds for each workload. In a round, a contender had at \
             most {bursts} bursts of {burst_time} ms, or three times as long with more than one \
             caller.\n",
            most.unwrap_or_default()
        );
        for left_out in self.left_out {
            let _ = write!(text, "\nLeft out: {left_out}.\n");
        }
        for (file, title) in self.plots {
            let _ = write!(text, "\n![{title}]({file})\n");
        }
        text += "\n## Latency\n";
        self.tables(&mut text, |callers| callers == 1);
        text += "\n## Throughput\n\nThe ratios compare operations a second: more is better.\n";
        self.tables(&mut text, |callers| callers > 1);
        text += &self.memory();
        text += &self.allocations();
        text += &self.instructions();
        text += &self.start();
        text += &target_table(&targets(self.all, self.costs));
        text
    }

    fn machine(&self) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let date = i64::try_from(now.as_secs())
            .ok()
            .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
            .unwrap_or_default();
        let cores = available_parallelism().map_or(0, usize::from);
        let cpu = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        });
        let cpu = cpu.unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        // Without the suffix of a distribution.
        let kernel = kernel.trim().split('-').next().unwrap_or_default();
        let mut versions = vec![self.server.clone()];
        for (lock, package, name) in [
            (WORKSPACE_LOCK, "wasmtime", "wasmtime"),
            (WORKSPACE_LOCK, "tokio", "tokio"),
            (WORKSPACE_LOCK, "redis", "redis-rs"),
            (WORKSPACE_LOCK, "serde_json", "serde_json"),
            (FRED_LOCK, "fred", "fred"),
        ] {
            if let Some(version) = locked(lock, package) {
                versions.push(format!("{name} {version}"));
            }
        }
        for line in PYTHON.lines() {
            let (package, version) = line.split_once("==").unwrap_or((line, ""));
            let name = match package {
                "redis" => "redis-py",
                package => package,
            };
            versions.push(format!("{name} {version}"));
        }
        format!(
            "\n| | |\n|---|---|\n| date | {} |\n| machine | {cores} cores, {cpu}; {} {} |\n\
             | versions | {} |\n",
            date.date_naive(),
            std::env::consts::OS,
            kernel,
            versions.join(", "),
        )
    }

    fn tables(&self, text: &mut String, callers: impl Fn(usize) -> bool) {
        for measured in self.all {
            if callers(measured.workload.callers) {
                let _ = write!(
                    text,
                    "\n### {}\n\n{}",
                    measured.workload.name(),
                    table(measured)
                );
            }
        }
    }

    fn memory(&self) -> String {
        let mut text = "\n## Memory\n\nThe guest's memory is the smallest limit with which the \
             get succeeds. The growth of a process is the peak of its resident set during its \
             first get, less the resident set before. For ours, it includes the guest's \
             memory.\n\n\
             | get | reply | guest | to the reply | process, ours | process, redis-rs |\n\
             |---|--:|--:|--:|--:|--:|\n"
            .to_owned();
        for memory in &self.costs.memory {
            let (ours, redis_rs) = match memory.process {
                Some((ours, redis_rs)) => (shown_bytes(ours as f64), shown_bytes(redis_rs as f64)),
                None => (NONE.to_owned(), NONE.to_owned()),
            };
            let _ = writeln!(
                text,
                "| {} × {} | {} | {} | {:.2} | {ours} | {redis_rs} |",
                shown_count(memory.messages as usize),
                shown_bytes(memory.content as f64),
                shown_bytes(memory.reply as f64),
                shown_bytes(memory.guest as f64),
                memory.guest as f64 / memory.reply as f64,
            );
        }
        text
    }

    fn allocations(&self) -> String {
        let mut text = "\n## Allocations\n\nThe allocations of one operation in the client's \
             process, without those inside the guest's memory.\n\n| work | contender | allocations | bytes |\n\
             |---|---|--:|--:|\n"
            .to_owned();
        for costs in &self.costs.allocations {
            for (contender, count, bytes) in &costs.by_contender {
                let _ = writeln!(
                    text,
                    "| {} | {} | {count:.0} | {} |",
                    costs.workload,
                    contender.name(),
                    shown_bytes(*bytes),
                );
            }
        }
        text
    }

    fn instructions(&self) -> String {
        if self.instructions.is_empty() {
            return String::new();
        }
        let mut text = "\n## Instructions\n\nThe instructions of one operation in the process of \
             `bench/driver`, outside the kernel (`valgrind --tool=callgrind`). Messages have \
             200 bytes and no metadata. Runs differ by less than 2 %, whatever else the machine \
             does. Instructions do not predict times.\n\n\
             | operation | instructions |\n|---|--:|\n"
            .to_owned();
        for (operation, instructions) in self.instructions {
            let instructions = shown_count(instructions.round() as usize);
            let _ = writeln!(text, "| {operation} | {instructions} |");
        }
        text
    }

    fn start(&self) -> String {
        let costs = self.costs;
        let mut text = "\n## Size and start\n\n| | |\n|---|--:|\n".to_owned();
        for (name, value) in [
            ("the component", shown_bytes(costs.component as f64)),
            (
                "compile it, link it, create an instance",
                shown_time(costs.compile),
            ),
            (
                "the same, with the compiled code on disk",
                shown_time(costs.load),
            ),
            (
                "create and drop an instance, with the code loaded",
                shown_time(costs.instantiate),
            ),
            (
                "a process of `session-memory exists`, with the compiled code on disk",
                shown_time(costs.command),
            ),
            (
                "a process of `session-memory --version`",
                shown_time(costs.command_alone),
            ),
        ] {
            let _ = writeln!(text, "| {name} | {value} |");
        }
        text
    }
}

/// Returns the table of a workload.
fn table(measured: &Measured) -> String {
    let mut text = "| contender | p50 | p99 | p99.9 | operations/s | CPU, client | CPU, server \
         | to the floor | to redis-rs |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for row in &measured.rows {
        let Row {
            contender,
            p50,
            p99,
            p999,
            rate,
            client_cpu,
            server_cpu,
            to_floor,
            to_redis_rs,
            ..
        } = row;
        let [p50, client_cpu, server_cpu] =
            [p50, client_cpu, server_cpu].map(|time| shown_time(*time));
        let [p99, p999] = [p99, p999].map(|time| time.map_or(NONE.to_owned(), shown_time));
        let _ = writeln!(
            text,
            "| {} | {p50} | {p99} | {p999} | {} | {client_cpu} | {server_cpu} | {} | {} |",
            contender.name(),
            shown_rate(*rate),
            shown_ratio(*to_floor),
            shown_ratio(*to_redis_rs),
        );
    }
    text
}

/// Returns the line of a workload for the terminal.
pub fn line(measured: &Measured) -> String {
    let one_caller = measured.workload.callers == 1;
    let shown = |row: &Row| {
        let value = match one_caller {
            true => shown_time(row.p50),
            false => format!("{}/s", shown_rate(row.rate)),
        };
        let ratio = match (row.contender, row.to_redis_rs) {
            (Contender::RedisRs, _) | (_, None) => String::new(),
            (_, Some(ratio)) => format!(" ×{ratio}"),
        };
        format!("{} {value}{ratio}", row.contender.name())
    };
    let rows: Vec<String> = measured.rows.iter().map(shown).collect();
    rows.join(" | ")
}

/// Returns the table of the targets.
pub fn target_table(targets: &[Target]) -> String {
    let mut text = "\n## Targets\n\nRatios of latencies compare the medians with one caller. The \
         ratio of the guest's memory is the greatest one. A target is reached if the whole \
         interval reaches it.\n\n| work | measured | must | aim | reached? |\n\
         |---|--:|--:|--:|---|\n"
        .to_owned();
    for target in targets {
        let shown = |value: f64| match target.quantity {
            Quantity::Ratio => format!("{value:.2}"),
            Quantity::Bytes => shown_bytes(value),
            Quantity::Time => shown_time(value),
        };
        let measured = |estimate: Estimate| match estimate.low < estimate.high {
            true => estimate.to_string(),
            false => shown(estimate.median),
        };
        let is_reached = match (target.is_reached(), target.is_aim_reached()) {
            (_, Some(true)) => "yes, the aim too",
            (Some(true), _) => "yes",
            (Some(false), _) => "no",
            (None, _) if target.measured.is_some() => "undecided",
            (None, _) => "not measured",
        };
        let side = target.good.sign();
        let _ = writeln!(
            text,
            "| {} | {} | {side} {} | {side} {} | {is_reached} |",
            target.name,
            target.measured.map_or(NONE.to_owned(), measured),
            shown(target.must),
            shown(target.aim),
        );
    }
    text
}

fn shown_ratio(ratio: Option<Estimate>) -> String {
    ratio.map_or(NONE.to_owned(), |ratio| ratio.to_string())
}

/// Returns the version of a package in a `Cargo.lock`.
fn locked<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let name = format!("name = \"{name}\"");
    let mut lines = lock.lines().skip_while(|line| **line != name);
    lines
        .nth(1)?
        .strip_prefix("version = \"")?
        .strip_suffix('"')
}

const NONE: &str = "–";

const WORKSPACE_LOCK: &str = include_str!("../../Cargo.lock");
const FRED_LOCK: &str = include_str!("../fred/Cargo.lock");
const PYTHON: &str = include_str!("../python/requirements.txt");

const INTRODUCTION: &str = "\
`cargo xtask bench` writes this file. It compares the cost of Session Memory with that of other \
Redis clients that do the same work, on one machine and in one run. Only the ratios carry over to \
other machines, not the times.";

const METHOD: &str = "
One private Redis runs on the loopback interface and keeps nothing on disk. With one caller, \
processes of the idle class keep the cores awake, where there is `chrt`. The server then has a \
core of its own, and the clients have another, where there is `taskset`. The work is done in \
rounds. Each round has new processes, because one process differs from the next by some per cent \
throughout its life. In a round, every contender has several short bursts of each workload, in an \
order that rotates. A burst begins with a warm-up of a fourth of its time. p50 is the median of \
the bursts' medians. p99 and p99.9 are those of all operations of all bursts, if there were \
enough. CPU times are per operation, over the whole burst. The client's is that of its process, \
all threads.

A ratio, to the floor or to redis-rs, compares a burst with the other contender's nearby burst. \
The table shows the median and, in parentheses, its 95 % interval: a bootstrap of the medians of \
the rounds. A workload takes part until the intervals of ours are within 3 % of the ratio, or the \
time is over. A `*` marks a wider interval. The interval does not cover another build or another \
machine: the same source can take 2 % more or less when its code lies elsewhere.

- **floor**: sends the component's bytes, prepared beforehand, on a Tokio TCP stream with \
`TCP_NODELAY`, and reads a long session with one `LRANGE`. It only looks for the end of the \
replies. Each concurrent caller has its own connection. A turn is one write. The ids of messages \
are counted up, because the script would otherwise find the message in the list.
- **redis-rs**: a multiplexed connection that all callers share, with `TCP_NODELAY` and RESP2. An \
add is `MULTI`, `RPUSH`, `EXPIRE`, `EXEC` in one write (`pipe().atomic()`), for comparison with \
either delivery. A get is `LRANGE` and `serde_json::from_str` of every element into a struct of \
owned fields. Metadata stays text. Exists is `EXISTS`. A turn is an add, then a get.
- **fred**: the same with fred's client and its transactions. It has its own process, because it \
and the component need features of redis-protocol that exclude one another.
- **ours**: one `SessionMemory` that all callers share. At-most-once delivery has a floor of its \
own.
- **redis-py**: `RPUSH`, then `EXPIRE`, in two round trips, and `LRANGE` with `json.loads`. It \
uses hiredis, and runs and is timed in its own process.
- **langchain**: `RedisChatMessageHistory` of langchain-community. It sends `LPUSH`, then \
`EXPIRE`, and reads whole sessions in its own format.

Messages contain prose with line breaks and quotation marks. In sessions that are only read, every \
second message has metadata. One caller runs on Tokio's current-thread runtime, more callers on \
the multi-thread runtime with two workers, for all Rust clients. `connect, exists` uses a new \
connection for each call, with the library's defaults. For ours it also uses a new instance of the \
component. Python takes part with one caller only.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burst::BenchOperation;
    use crate::rounds::Workload;
    use crate::targets::Good;

    #[test]
    fn tables_have_a_line_for_each_contender() {
        let row = Row {
            contender: Contender::RedisRs,
            p50: 24_000.0,
            p99: Some(50_000.0),
            p999: None,
            rate: 40_123.4,
            client_cpu: 12_000.0,
            server_cpu: 6_000.0,
            to_floor: None,
            to_redis_rs: Estimate::of(&[1.0, 1.0]),
            p50_by_round: Vec::new(),
        };
        let measured = Measured {
            workload: Workload {
                operation: BenchOperation::Add,
                content: 200,
                last: 10,
                callers: 1,
            },
            rounds: 2,
            rows: vec![row],
        };
        let table = table(&measured);
        let last = table.lines().last();
        assert_eq!(
            last,
            Some(
                "| redis-rs | 24 µs | 50 µs | – | 40,123 | 12 µs | 6 µs | – | \
                 1.00 (1.00–1.00) |"
            )
        );
        assert_eq!(line(&measured), "redis-rs 24 µs");
    }

    #[test]
    fn the_table_shows_whether_targets_are_reached() {
        let target = |interval: Option<(f64, f64)>| Target {
            name: "add",
            measured: interval.map(|(low, high)| Estimate {
                median: f64::midpoint(low, high),
                low,
                high,
            }),
            must: 1.1,
            aim: 0.95,
            good: Good::Below,
            quantity: Quantity::Ratio,
        };
        for (measured, expected) in [
            (
                Some((0.9, 0.9)),
                "| add | 0.90 | ≤ 1.10 | ≤ 0.95 | yes, the aim too |",
            ),
            (
                Some((0.94, 0.96)),
                "| add | 0.95 (0.94–0.96) | ≤ 1.10 | ≤ 0.95 | yes |",
            ),
            (
                Some((1.0, 1.2)),
                "| add | 1.10 (1.00–1.20) * | ≤ 1.10 | ≤ 0.95 | undecided |",
            ),
            (Some((1.2, 1.2)), "| add | 1.20 | ≤ 1.10 | ≤ 0.95 | no |"),
            (None, "| add | – | ≤ 1.10 | ≤ 0.95 | not measured |"),
        ] {
            let table = target_table(&[target(measured)]);
            assert_eq!(table.lines().last(), Some(expected));
        }
    }

    #[test]
    fn versions_are_in_the_lock_file() {
        let lock = "name = \"redis-protocol\"\nversion = \"6.0.0\"\n\n\
                    name = \"redis\"\nversion = \"1.8.1\"\n";
        assert_eq!(locked(lock, "redis"), Some("1.8.1"));
        assert_eq!(locked(lock, "fred"), None);
    }
}
