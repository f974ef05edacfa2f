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
use crate::targets::{Target, Unit, targets};

/// All that a report says.
pub struct Report<'a> {
    /// Every work.
    pub all: &'a [Measured],
    /// Everything else.
    pub costs: &'a Costs,
    /// Operations of the driver, and the instructions of each.
    pub instructions: &'a [(&'static str, f64)],
    /// The server's name and version.
    pub server: String,
    /// Whether it is the report of a quick run.
    pub quick: bool,
    /// How it was measured.
    pub effort: Effort,
    /// Those who did not take part, each with the reason.
    pub left_out: &'a [String],
    /// The names of the plots' files, each with its title.
    pub plots: &'a [(&'static str, &'static str)],
}

impl Report<'_> {
    /// The whole text.
    pub fn text(&self) -> String {
        let mut text = format!("# Benchmark\n\n{INTRODUCTION}\n");
        if self.quick {
            text += "\n**This was a quick run, to see that it works: its figures say nothing.**\n";
        }
        text += &self.machine();
        text += METHOD;
        let Effort {
            rounds,
            turns,
            time,
            ..
        } = self.effort;
        let most = self.all.iter().map(|measured| measured.rounds).max();
        let _ = write!(
            text,
            "\nThis run: {rounds} to {} rounds a work, of at most {turns} turns a contender, of \
             {time} ms each, three times that with more than one caller.\n",
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
        text += "\n## Throughput\n\nRatios are those of operations a second: more is better.\n";
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
        // Without what a distribution adds.
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
            if callers(measured.work.callers) {
                let _ = write!(
                    text,
                    "\n### {}\n\n{}",
                    measured.work.name(),
                    table(measured)
                );
            }
        }
    }

    fn memory(&self) -> String {
        let mut text = "\n## Memory\n\nThe guest's memory is the least that it must be granted \
             for the get to succeed. A process grows by what its resident set has at the peak of \
             its first get beyond what it had before; for ours, that includes the guest.\n\n\
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
        let mut text = "\n## Allocations\n\nAn operation's, in the process; the guest's own are \
             in its memory and not among them.\n\n| work | contender | allocations | bytes |\n\
             |---|---|--:|--:|\n"
            .to_owned();
        for counted in &self.costs.allocations {
            for (contender, count, bytes) in &counted.of {
                let _ = writeln!(
                    text,
                    "| {} | {} | {count:.0} | {} |",
                    counted.work,
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
        let mut text =
            "\n## Instructions\n\nAn operation's, outside of the kernel, in the process \
             of `bench/driver`, whose messages have 200 bytes and no metadata (`valgrind \
             --tool=callgrind`). They differ by less than 2 % from one run to the next, whatever \
             the machine does; times cannot be told from them.\n\n\
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
        for (what, value) in [
            ("the component", shown_bytes(costs.component as f64)),
            (
                "compile it, link it, make an instance",
                shown_time(costs.compile),
            ),
            (
                "the same with the compiled code on disk",
                shown_time(costs.load),
            ),
            (
                "make an instance of code that is loaded, and drop it",
                shown_time(costs.instantiate),
            ),
            (
                "the command asks exists, whole process, compiled code on disk",
                shown_time(costs.command),
            ),
            (
                "the command says its version, whole process",
                shown_time(costs.command_alone),
            ),
        ] {
            let _ = writeln!(text, "| {what} | {value} |");
        }
        text
    }
}

/// A work's table.
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

/// The line of a work for the terminal.
pub fn line(measured: &Measured) -> String {
    let one_caller = measured.work.callers == 1;
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

/// The table of what is to be reached.
pub fn target_table(targets: &[Target]) -> String {
    let mut text = "\n## Targets\n\nRatios of latencies are those of medians with one caller; of \
         the guest's memory it is the greatest. What is reached is said of the whole \
         interval.\n\n| work | measured | must | aim | reached? |\n\
         |---|--:|--:|--:|---|\n"
        .to_owned();
    for target in targets {
        let shown = |value: f64| match target.unit {
            Unit::Ratio => format!("{value:.2}"),
            Unit::Bytes => shown_bytes(value),
            Unit::Time => shown_time(value),
        };
        let measured = |estimate: Estimate| match estimate.low < estimate.high {
            true => estimate.to_string(),
            false => shown(estimate.median),
        };
        let is_reached = match (target.is_reached(), target.is_aim_reached()) {
            (_, Some(true)) => "yes, the aim too",
            (Some(true), _) => "yes",
            (Some(false), _) => "no",
            (None, _) if target.measured.is_some() => "cannot be told",
            (None, _) => "not measured",
        };
        let side = target.good.sign();
        let _ = writeln!(
            text,
            "| {} | {} | {side} {} | {side} {} | {is_reached} |",
            target.work,
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

/// The version of a package in a `Cargo.lock`.
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
`cargo xtask bench` has written this file. It says what Session Memory costs beside other \
clients of Redis that do the same work, on one machine and in one run; what holds elsewhere are \
the ratios, not the times.";

const METHOD: &str = "
One private Redis on the loopback interface, nothing on disk. Where there is `chrt` and one caller, \
processes of the idle class keep the cores awake in between; where there is `taskset`, the server \
has a core of its own then, and the clients have another. The work is done in rounds. Each has \
new processes, since one differs from the next by some per cent for as long as it lives. In a round \
every contender has several short turns at each work, in an order that rotates. A turn begins with \
a fourth of its time to warm up. p50 is the median of the turns' medians; p99 and p99.9 are those \
of all operations of all turns, where there were enough of them. CPU times are of the whole turn, \
an operation; the client's is that of its process, all threads.

A ratio, to the floor and to redis-rs, is that of a turn to the other's turn next to it. Shown are \
the median, and its 95 % interval in parentheses: a bootstrap of the medians of the rounds. A work \
takes part until the intervals of ours are within 3 % of the ratio, or the time is over; a ratio \
whose interval is wider has a `*`. What the interval does not know of is the next build: the same \
source can take 2 % more or less when its code lies elsewhere; nor another machine.

- **floor**: the bytes that the component sends, but a long session in one `LRANGE`, built \
before, on a Tokio TCP stream with `TCP_NODELAY`; of the replies nothing but the end is looked for. With more callers, each has a \
connection. A turn is one write. The ids of messages are counted up, since the script would find \
the message otherwise.
- **redis-rs**: a multiplexed connection, which all callers share; `TCP_NODELAY`, RESP2. An add \
is `MULTI`, `RPUSH`, `EXPIRE`, `EXEC` in one write (`pipe().atomic()`), whatever delivery it is \
compared with; a get is `LRANGE` and `serde_json::from_str` of every element into a struct of \
owned fields, metadata left as text; exists is `EXISTS`; a turn is an add, then a get.
- **fred**: the same with fred's client and its transactions, in a process of its own: it \
and the component need features of redis-protocol that exclude one another.
- **ours**: one `SessionMemory`, which all callers share. The floor of at-most-once delivery is \
a floor of its own.
- **redis-py**: `RPUSH`, then `EXPIRE`, two round trips, and `LRANGE` with `json.loads`; with \
hiredis, in a process of its own, timed there.
- **langchain**: `RedisChatMessageHistory` of langchain-community, which sends `LPUSH`, then \
`EXPIRE`, and reads whole sessions in a form of its own.

Messages have prose with line ends and quotation marks. In sessions that are read, every second \
message has metadata. One caller runs on Tokio's current-thread runtime, more on the \
multi-thread one with two workers, all Rust clients alike. `connect, exists` is a new connection \
for each call, with the library's defaults, and for ours a new instance of the component too. \
Python takes part with one caller only.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::Work;
    use crate::slot::Operation;
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
            work: Work {
                operation: Operation::Add,
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
    fn targets_say_whether_they_are_reached() {
        let target = |interval: Option<(f64, f64)>| Target {
            work: "add",
            measured: interval.map(|(low, high)| Estimate {
                median: f64::midpoint(low, high),
                low,
                high,
            }),
            must: 1.1,
            aim: 0.95,
            good: Good::Below,
            unit: Unit::Ratio,
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
                "| add | 1.10 (1.00–1.20) * | ≤ 1.10 | ≤ 0.95 | cannot be told |",
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
