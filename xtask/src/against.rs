//! `cargo xtask bench --against REV [ROWS]`: this version and another one by turns.
//!
//! Each version has its driver (`bench/driver`), a process that runs operations as it is
//! told. A row of the report is one operation. Its bursts are short, and alternate between
//! the two drivers, so that what disturbs the machine disturbs both.
//!
//! One process differs from the next by up to 3 %, for as long as it lives: its code and
//! its data lie at other addresses. So both drivers are started anew for each round. The
//! ratio of a round is the median of its pairs of bursts, and the 95 % interval is that of
//! the median of the rounds. A row takes part until its interval is narrow enough, or the
//! time is over.

use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use session_memory_test_support::Server;

use crate::pinned::Pinned;
use crate::stats::{Estimate, median};
use crate::{Result, command, instructions, run, setup, step, target_dir};

/// Builds the two versions and compares them, by the rows whose names begin with `only`.
pub fn compare(revision: &str, only: &str) -> Result {
    setup::redis()?;
    setup::valgrind();
    let mut rows: Vec<Row> = ROWS.map(Row::new).into();
    rows.retain(|row| row.operation.starts_with(only));
    if rows.is_empty() {
        return Err(format!("no row begins with {only}"));
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
        "{:20}{:>12}{:>12}  ratio, and its 95 % interval",
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

/// Prints what an operation executes outside of the kernel, with both versions.
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
            _ => println!("  not known to both"),
        }
    }
    Ok(())
}

/// One round of the rows that are not exact yet, with new processes.
fn round(programs: [&Path; 2], server: &Server, number: usize, rows: &mut [Row]) -> Result {
    let mut drivers = [
        Driver::start(programs[0], server.port())?,
        Driver::start(programs[1], server.port())?,
    ];
    for row in rows {
        if crate::interrupted() {
            return Err("interrupted".to_owned());
        }
        if row.is_done() {
            continue;
        }
        // Many callers leave no core without work. What spins would keep the kernel from
        // moving a thread to a core that is idle.
        let _kept = match row.callers {
            Callers::One => {
                let clients = drivers.iter().map(|driver| driver.process.id());
                let pinned = Pinned::keep(server.process_id(), clients);
                Some((keep_awake(programs[0])?, pinned))
            }
            Callers::Many => None,
        };
        row.round(&mut drivers, number)?;
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

/// One operation, and what both versions took for it.
struct Row {
    operation: &'static str,
    burst: u32,
    callers: Callers,
    /// Of this version to the other one, by rounds.
    ratios: Vec<f64>,
    /// Microseconds of an operation with this version and with the other one, by bursts.
    times: [Vec<f64>; 2],
    /// Whether both drivers know the operation.
    is_known: bool,
}

impl Row {
    fn new((operation, burst, callers): (&'static str, u32, Callers)) -> Row {
        Row {
            operation,
            burst,
            callers,
            ratios: Vec::new(),
            times: [Vec::new(), Vec::new()],
            is_known: true,
        }
    }

    fn round(&mut self, drivers: &mut [Driver; 2], number: usize) -> Result {
        // The first burst of each is slower, and not counted.
        for driver in &mut *drivers {
            self.is_known &= driver.burst(self.operation, self.burst)?.is_some();
        }
        if !self.is_known {
            return Ok(());
        }
        let mut ratios = Vec::with_capacity(PAIRS);
        for pair in 0..PAIRS {
            // Each of them is as often the first.
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

    /// Whether it takes part in no further round.
    fn is_done(&self) -> bool {
        let is_narrow = || Estimate::of(&self.ratios).is_some_and(|ratio| ratio.is_within(NARROW));
        !self.is_known || self.ratios.len() >= LEAST_ROUNDS && is_narrow()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:20}", self.operation)?;
        if !self.is_known {
            return write!(f, "  not known to both");
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

/// The commit of a revision.
fn commit_of(revision: &str) -> Result<String> {
    git(&["rev-parse", "--verify", &format!("{revision}^{{commit}}")])
        .map_err(|_| format!("{revision} is no revision of this repository"))
}

/// A commit of what is in the working tree. Git knows nothing of a file that was never
/// added.
fn working_tree() -> Result<String> {
    // The commit belongs to nobody, and needs an author all the same.
    let author = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"];
    match git(&[&author[..], &["stash", "create"]].concat())? {
        unchanged if unchanged.is_empty() => commit_of("HEAD"),
        commit => Ok(commit),
    }
}

/// The driver of a commit, which is built once and kept by what the commit holds.
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
    // All versions are built at the same path: code that is the same has the same bytes
    // then, and code that lies elsewhere can take 2 % more or less. Cargo tells them apart
    // by the times of their files alone, so these must be newer than any earlier build.
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

/// What a command of Git prints.
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

/// The half of the interval, as a part of the ratio, with which a row takes part no more.
const NARROW: f64 = 0.01;
/// An interval of less is not to be believed.
const LEAST_ROUNDS: usize = 10;
const LONGEST: Duration = Duration::from_secs(8 * 60);
/// Pairs of bursts of a row in a round.
const PAIRS: usize = 16;
