//! `cargo xtask bench --against REV`: this version and another one by turns.
//!
//! Each version has its driver (`bench/driver`), a process that runs operations as it is
//! told. A row of the report is one operation. Its bursts are short, and alternate between
//! the two drivers, so that what disturbs the machine disturbs both. A row goes on until
//! the 95 % interval of its ratio is within 3 % of the ratio, or its time is over.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use session_memory_test_support::Server;

use crate::{Result, checkout, command, run, setup, step, target_dir};

/// Builds the two versions and compares them.
///
/// With `only`, the rows whose names begin with it.
pub fn compare(revision: &str, only: &str) -> Result {
    setup::redis()?;
    let folder = target_dir()?.join("against");
    let other = checkout_of(revision, &folder)?;
    step(&format!(
        "building {revision}; the first time this takes some minutes"
    ));
    let other = driver(&other, &folder.join("other"))?;
    step("building this version");
    let this = driver(&checkout(), &folder.join("this"))?;
    step("starting a private Redis");
    let server = Server::start(&[]).map_err(|error| error.to_string())?;
    let mut drivers = [
        Driver::start(&this, server.port())?,
        Driver::start(&other, server.port())?,
    ];
    step("measuring, at most a minute a row");
    println!(
        "{:20}{:>12}{:>12}  ratio, and its 95 % interval",
        "operation", "this, µs", "other, µs"
    );
    for (operation, burst, callers) in ROWS {
        if !operation.starts_with(only) {
            continue;
        }
        // Many callers leave no core without work. What spins would keep the kernel from
        // moving a thread to a core that is idle.
        let _awake = match callers {
            Callers::One => keep_awake(&this)?,
            Callers::Many => Vec::new(),
        };
        let row = row(&mut drivers, operation, burst)?;
        if crate::interrupted() {
            return Err("interrupted".to_owned());
        }
        println!("{operation:20}{row}");
    }
    Ok(())
}

/// The operations of the driver, and how many of them a burst has: some milliseconds.
const ROWS: [(&str, u32, Callers); 12] = [
    ("add", 100, Callers::One),
    ("add-at-most-once", 100, Callers::One),
    ("get-10", 100, Callers::One),
    ("get-1000", 6, Callers::One),
    ("get-10000", 1, Callers::One),
    ("history-10", 100, Callers::One),
    ("turn", 60, Callers::One),
    ("exists", 150, Callers::One),
    ("fresh", 20, Callers::One),
    ("add-64-callers", 640, Callers::Many),
    ("add-64-one-session", 640, Callers::Many),
    ("turn-64-callers", 640, Callers::Many),
];

#[derive(Clone, Copy)]
enum Callers {
    One,
    Many,
}

/// One row, from the operation on.
fn row(drivers: &mut [Driver; 2], operation: &str, burst: u32) -> Result<String> {
    let begin = Instant::now();
    // The first burst of each is slower, and not counted.
    let mut known = true;
    for driver in &mut *drivers {
        known &= driver.burst(operation, burst)?.is_some();
    }
    if !known {
        return Ok("  not known to both".to_owned());
    }
    let (mut ratios, mut times) = (Vec::new(), [Vec::new(), Vec::new()]);
    loop {
        // Each of them is as often the first.
        let first = ratios.len() % 2;
        let mut pair = [0.0; 2];
        for at in [first, 1 - first] {
            pair[at] = drivers[at].burst(operation, burst)?.unwrap_or(f64::NAN);
            times[at].push(pair[at] / f64::from(burst));
        }
        ratios.push(pair[0] / pair[1]);
        let is_over = begin.elapsed() > LONGEST_ROW;
        if ratios.len() % PAIRS != 0 && !is_over {
            continue;
        }
        let ratio = median(&mut ratios.clone());
        let (low, high) = interval(&ratios);
        let is_exact = high - low <= 2.0 * EXACT * ratio;
        if is_exact || is_over {
            let [this, other] = times.map(|mut times| median(&mut times) / 1000.0);
            let note = if is_exact { "" } else { "  wider than 3 %" };
            return Ok(format!(
                "{this:>12.1}{other:>12.1}  {ratio:.3} [{low:.3}, {high:.3}]{note}"
            ));
        }
    }
}

/// The 95 % interval of the median, by bootstrap.
fn interval(ratios: &[f64]) -> (f64, f64) {
    let mut rng = fastrand::Rng::with_seed(ratios.len() as u64);
    let mut medians: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let mut sample: Vec<f64> = ratios
                .iter()
                .map(|_| ratios[rng.usize(..ratios.len())])
                .collect();
            median(&mut sample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    (medians[SAMPLES / 40], medians[SAMPLES - 1 - SAMPLES / 40])
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// The working tree of a revision, below the target folder.
fn checkout_of(revision: &str, folder: &Path) -> Result<PathBuf> {
    let git = |arguments: &[&str]| {
        let mut git = command("git");
        git.args(arguments);
        git
    };
    let parsed = git(&["rev-parse", "--verify", "--quiet"])
        .arg(format!("{revision}^{{commit}}"))
        .output()
        .map_err(|error| format!("git: {error}"))?;
    if !parsed.status.success() {
        return Err(format!("{revision} is no revision of this repository"));
    }
    let commit = String::from_utf8_lossy(&parsed.stdout).trim().to_owned();
    let tree = folder.join(&commit);
    if !tree.is_dir() {
        let clone = ["clone", "--quiet", "--shared", "--no-checkout", "."];
        run(git(&clone).arg(&tree))?;
        run(Command::new("git")
            .arg("-C")
            .arg(&tree)
            .args(["checkout", "--quiet", "--detach", &commit]))?;
    }
    if !tree.join("bench/driver").is_dir() {
        return Err(format!(
            "{revision} has no bench/driver, and cannot be compared"
        ));
    }
    Ok(tree)
}

/// Builds the driver of a working tree; returns where it is kept.
fn driver(tree: &Path, place: &Path) -> Result<PathBuf> {
    let target_dir = target_dir()?;
    let package = "session-memory-bench-driver";
    run(Command::new("cargo")
        .current_dir(tree)
        .args(["build", "--quiet", "--locked", "--profile", PROFILE])
        .args(["--package", package, "--target-dir"])
        // One folder for both: most of what they depend on is the same.
        .arg(&target_dir))?;
    let built = target_dir.join(PROFILE).join(package);
    fs::create_dir_all(place.parent().unwrap_or(place))
        .and_then(|()| fs::copy(&built, place))
        .map_err(|error| format!("{}: {error}", place.display()))?;
    Ok(place.to_owned())
}

/// A process for each core that spins when nothing else runs there. A core that sleeps
/// takes longer to wake than most operations take, and which of the drivers pays for that
/// is chance. None where there is no `chrt`.
fn keep_awake(program: &Path) -> Result<Vec<Spinning>> {
    let cores = thread::available_parallelism().map_err(|error| error.to_string())?;
    let mut awake = Vec::new();
    for _ in 0..cores.get() {
        // The idle class gives way to others at once, which low priority does not.
        let mut command = Command::new("chrt");
        command.args(["--idle", "0"]).arg(program).arg("spin");
        match command.stdin(Stdio::piped()).spawn() {
            Ok(process) => awake.push(Spinning(process)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(format!("chrt: {error}")),
        }
    }
    Ok(awake)
}

struct Spinning(Child);

impl Drop for Spinning {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A driver at work.
struct Driver {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Driver {
    fn start(program: &Path, port: u16) -> Result<Driver> {
        let mut process = Command::new(program)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let (Some(orders), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("the driver has no standard input or output".to_owned());
        };
        Ok(Driver {
            process,
            orders,
            answers: BufReader::new(answers),
        })
    }

    /// The nanoseconds that so many operations take together; none if the driver does not
    /// know the operation.
    fn burst(&mut self, operation: &str, count: u32) -> Result<Option<f64>> {
        let mut answer = String::new();
        writeln!(self.orders, "{operation} {count}")
            .and_then(|()| self.answers.read_line(&mut answer))
            .map_err(|error| format!("the driver: {error}"))?;
        match answer.trim() {
            "unknown" => Ok(None),
            answer => match answer.parse() {
                Ok(nanoseconds) => Ok(Some(nanoseconds)),
                Err(_) => Err(format!("the driver ended at {operation}")),
            },
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// That of everything else, so that another version takes a minute or two to build.
const PROFILE: &str = "release";

/// What an interval may be wide, to each side and relative to its ratio.
const EXACT: f64 = 0.03;
const LONGEST_ROW: Duration = Duration::from_secs(60);
/// Pairs of bursts between two looks at the interval.
const PAIRS: usize = 50;
/// Of the bootstrap.
const SAMPLES: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        for (values, expected) in [
            (&mut [3.0, 1.0, 2.0][..], 2.0),
            (&mut [4.0, 1.0, 2.0, 3.0], 2.5),
        ] {
            assert!((median(values) - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn the_interval_holds_the_median_and_shrinks_with_more_pairs() {
        let ratios = |count: u32| -> Vec<f64> {
            (0..count)
                .map(|n| 1.0 + f64::from(n % 11) / 100.0)
                .collect()
        };
        let (low, high) = interval(&ratios(22));
        assert!(low <= 1.05 && 1.05 <= high, "{low} {high}");
        let (least, most) = interval(&ratios(1100));
        assert!(most - least < high - low, "{least} {most}");
    }
}
