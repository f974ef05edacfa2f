//! `cargo xtask bench --against REV [ROWS]`: compares this version with another one.
//!
//! Each version has its driver (`bench/driver`), a process that runs operations on request.
//! A row of the report is one operation. Its bursts are short and alternate between the two
//! drivers, so a disturbance of the machine affects both.
//!
//! A process differs from the next one by up to 3 % throughout its life, because its code
//! and data lie at other addresses. So both drivers are started anew for each round. The
//! ratio of a round is the median of its pairs of bursts. The 95 % interval is that of the
//! median of the rounds. A row takes part until its interval is narrow enough or the time is
//! over.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use session_memory_test_support::Server;

use crate::awake::Awake;
use crate::pinned::Pinned;
use crate::stats::{Estimate, median};
use crate::{Result, command, instructions, run, setup, step, target_dir};

/// Builds both versions and compares the rows whose names begin with `only`.
pub fn compare(revision: &str, only: &str) -> Result {
    setup::redis()?;
    setup::valgrind();
    let mut rows: Vec<Comparison> = ROWS.map(Comparison::new).into();
    rows.retain(|row| row.operation.starts_with(only));
    if rows.is_empty() {
        return Err(format!("no row has a name that begins with {only}"));
    }
    let other = driver(&commit_of(revision)?)?;
    let this = driver(&working_tree()?)?;
    step("starting a private Redis");
    let server = Server::start(&[]).map_err(|error| error.to_string())?;
    step("measuring, at most eight minutes");
    let begin = Instant::now();
    let mut number = 0;
    while begin.elapsed() < LONGEST && rows.iter().any(|row| !row.is_done()) {
        round([&this, &other], &server, number, &mut rows)?;
        number += 1;
        eprint!("\rround {number}");
    }
    eprintln!();
    println!(
        "{:20}{:>12}{:>12}  ratio (95 % interval)",
        "operation", "this, µs", "other, µs"
    );
    for row in &rows {
        println!("{row}");
    }
    if instructions::can_count() {
        count_instructions([&this, &other], server.port(), only)?;
    }
    Ok(())
}

/// Prints the instructions of each operation outside the kernel, with both versions.
fn count_instructions(programs: [&Path; 2], port: u16, only: &str) -> Result {
    step("counting instructions");
    println!(
        "\n{:20}{:>12}{:>12}  ratio",
        "instructions", "this", "other"
    );
    for operation in instructions::OPERATIONS {
        if !operation.0.starts_with(only) {
            continue;
        }
        if crate::interrupted() {
            return Err("interrupted".to_owned());
        }
        let count = |program| instructions::count(program, port, operation);
        print!("{:20}", operation.0);
        match (count(programs[0])?, count(programs[1])?) {
            (Some(this), Some(other)) => {
                println!("{this:>12.0}{other:>12.0}  {:.3}", this / other);
            }
            _ => println!("  not known to both drivers"),
        }
    }
    Ok(())
}

/// Runs one round of the rows that are not done, with new processes.
fn round(programs: [&Path; 2], server: &Server, number: usize, rows: &mut [Comparison]) -> Result {
    let mut drivers = [
        DriverProcess::start(programs[0], server.port())?,
        DriverProcess::start(programs[1], server.port())?,
    ];
    for row in rows {
        if crate::interrupted() {
            return Err("interrupted".to_owned());
        }
        if row.is_done() {
            continue;
        }
        // Many callers leave no core without work. Spinning processes would keep the kernel
        // from moving threads to an idle core.
        let _kept = match row.callers {
            Callers::One => {
                let clients = drivers.iter().map(|driver| driver.process.id());
                let pinned = Pinned::keep(server.process_id(), clients);
                Some((Awake::keep(programs[0])?, pinned))
            }
            Callers::Many => None,
        };
        row.round(&mut drivers, number)?;
    }
    Ok(())
}

/// The driver's operations, each with the number of operations in a burst. A burst takes
/// some milliseconds.
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

/// The number of concurrent callers.
#[derive(Clone, Copy)]
enum Callers {
    One,
    Many,
}

/// The comparison of one operation: a row of the report.
struct Comparison {
    operation: &'static str,
    /// The number of operations in a burst.
    burst: u32,
    callers: Callers,
    /// The ratio of this version to the other one, for each round.
    ratios: Vec<f64>,
    /// Microseconds of an operation in each burst, with this version and with the other one.
    times: [Vec<f64>; 2],
    /// Whether both drivers know the operation.
    is_known: bool,
}

impl Comparison {
    fn new((operation, burst, callers): (&'static str, u32, Callers)) -> Comparison {
        Comparison {
            operation,
            burst,
            callers,
            ratios: Vec::new(),
            times: [Vec::new(), Vec::new()],
            is_known: true,
        }
    }

    /// Runs the bursts of one round.
    fn round(&mut self, drivers: &mut [DriverProcess; 2], number: usize) -> Result {
        // The first burst of each driver is slower and not counted.
        for driver in &mut *drivers {
            self.is_known &= driver.burst(self.operation, self.burst)?.is_some();
        }
        if !self.is_known {
            return Ok(());
        }
        let mut ratios = Vec::with_capacity(PAIRS);
        for pair in 0..PAIRS {
            // Both drivers are first equally often.
            let first = (number + pair) % 2;
            let mut times = [0.0; 2];
            for at in [first, 1 - first] {
                let time = drivers[at].burst(self.operation, self.burst)?;
                times[at] = time.unwrap_or(f64::NAN);
                self.times[at].push(times[at] / f64::from(self.burst) / 1000.0);
            }
            ratios.push(times[0] / times[1]);
        }
        self.ratios.extend(median(ratios));
        Ok(())
    }

    /// Whether the row takes part in no further round.
    fn is_done(&self) -> bool {
        let is_narrow = || Estimate::of(&self.ratios).is_some_and(|ratio| ratio.is_within(NARROW));
        !self.is_known || self.ratios.len() >= LEAST_ROUNDS && is_narrow()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:20}", self.operation)?;
        if !self.is_known {
            return write!(f, "  not known to both drivers");
        }
        let times = self
            .times
            .each_ref()
            .map(|times| median(times.iter().copied()));
        match (times, Estimate::of(&self.ratios)) {
            ([Some(this), Some(other)], Some(ratio)) => {
                write!(f, "{this:>12.1}{other:>12.1}  {ratio:.3}")
            }
            _ => write!(f, "  not measured"),
        }
    }
}

/// Returns the commit of a revision.
fn commit_of(revision: &str) -> Result<String> {
    git(&["rev-parse", "--verify", &format!("{revision}^{{commit}}")])
        .map_err(|_| format!("{revision} is not a revision of this repository"))
}

/// Returns a commit with the contents of the working tree. It lacks files that were never
/// added to Git.
fn working_tree() -> Result<String> {
    // Git requires an author, even for a commit on no branch.
    let author = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"];
    match git(&[&author[..], &["stash", "create"]].concat())? {
        unchanged if unchanged.is_empty() => commit_of("HEAD"),
        commit => Ok(commit),
    }
}

/// Returns the driver of a commit. It is built once and kept under the hash of the commit's
/// tree.
fn driver(commit: &str) -> Result<PathBuf> {
    let folder = target_dir()?.join("against");
    let content = git(&["rev-parse", &format!("{commit}^{{tree}}")])?;
    let driver = folder.join(format!("driver-{content}"));
    if driver.is_file() {
        return Ok(driver);
    }
    step(&format!(
        "building {commit}; the first time this takes some minutes"
    ));
    // All versions are built at the same path, so the same code has the same bytes. Code
    // that lies elsewhere can take 2 % more or less. Cargo distinguishes the versions only by
    // the times of their files, so these must be newer than any earlier build.
    let tree = folder.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree).map_err(|error| format!("{}: {error}", tree.display()))?;
    }
    run(command("git")
        .args(["clone", "--quiet", "--shared", "--no-checkout", "."])
        .arg(&tree))?;
    run(Command::new("git")
        .arg("-C")
        .arg(&tree)
        .args(["checkout", "--quiet", "--detach", commit]))?;
    if !tree.join("bench/driver").is_dir() {
        return Err(format!(
            "{commit} has no bench/driver, and cannot be compared"
        ));
    }
    let target_dir = folder.join("target");
    let package = "session-memory-bench-driver";
    run(Command::new("cargo")
        .current_dir(&tree)
        .args(["build", "--quiet", "--locked", "--profile", PROFILE])
        .args(["--package", package, "--target-dir"])
        .arg(&target_dir))?;
    let built = target_dir.join(PROFILE).join(package);
    fs::copy(&built, &driver).map_err(|error| format!("{}: {error}", driver.display()))?;
    Ok(driver)
}

/// Returns the output of a Git command.
fn git(arguments: &[&str]) -> Result<String> {
    let output = command("git")
        .args(arguments)
        .stderr(Stdio::null())
        .output()
        .map_err(|error| format!("git: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(format!("`git {}` failed", arguments.join(" "))),
    }
}

/// A running driver.
struct DriverProcess {
    process: Child,
    requests: ChildStdin,
    responses: BufReader<ChildStdout>,
}

impl DriverProcess {
    fn start(program: &Path, port: u16) -> Result<DriverProcess> {
        let mut process = Command::new(program)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let (Some(requests), Some(responses)) = (process.stdin.take(), process.stdout.take())
        else {
            return Err("the driver has no standard input or output".to_owned());
        };
        Ok(DriverProcess {
            process,
            requests,
            responses: BufReader::new(responses),
        })
    }

    /// Returns the nanoseconds that `count` operations take together. `None` if the driver
    /// does not know the operation.
    fn burst(&mut self, operation: &str, count: u32) -> Result<Option<f64>> {
        let mut response = String::new();
        writeln!(self.requests, "{operation} {count}")
            .and_then(|()| self.responses.read_line(&mut response))
            .map_err(|error| format!("the driver: {error}"))?;
        match response.trim() {
            "unknown" => Ok(None),
            nanoseconds => match nanoseconds.parse() {
                Ok(nanoseconds) => Ok(Some(nanoseconds)),
                Err(_) => Err(format!("the driver failed at {operation}")),
            },
        }
    }
}

impl Drop for DriverProcess {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The build profile. With the usual one, another version builds within a minute or two.
const PROFILE: &str = "release";

/// A row is done when half the width of its interval is at most this fraction of the ratio.
const NARROW: f64 = 0.01;
/// The interval of fewer rounds is not reliable.
const LEAST_ROUNDS: usize = 10;
/// No further round begins after this time.
const LONGEST: Duration = Duration::from_secs(8 * 60);
/// The number of pairs of bursts of a row in a round.
const PAIRS: usize = 16;
