//! Session Memory side by side with other clients of Redis that do the same work:
//! one run, one private server, every contender in every round, so that ratios hold
//! on a machine that does other things too. `cargo xtask bench` starts it.
//!
//! ```text
//! rounds          a work, again and again: who has a turn when, and the ratios
//!   contender     those who are compared
//!     slot        one contender's turn: the loop that times it
//!     element     what clients without this project write around their library
//!   server        what lies in Redis, and the time that it uses
//!   stats         medians, spreads
//! cost            memory, allocations, size, start
//!   allocations   the allocator that counts them
//! awake           cores that do not fall asleep in between
//! targets         what is to be reached
//! report, plot    what is shown of it
//! ```

mod allocations;
mod awake;
mod contender;
mod cost;
mod element;
mod plot;
mod report;
mod rounds;
mod server;
mod slot;
mod stats;
mod targets;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use clap::{Args, Parser};

use awake::Awake;
use contender::{Contenders, Worker};
use report::Report;
use rounds::{Effort, Work};
use server::Redis;
use slot::{Operation, Result};

/// Compares Session Memory with other clients of Redis. `cargo xtask bench` does all
/// that this needs.
#[derive(Parser)]
enum Cli {
    /// Measures, and writes the report.
    Run(Run),
    /// Spins until standard input ends.
    Spin,
    /// Prints by how many bytes this process grows when it reads a session.
    Growth {
        contender: String,
        address: SocketAddr,
        messages: u32,
    },
}

#[derive(Args)]
struct Run {
    /// The server; sessions that begin with `read-`, `write-` and `costs` are lost.
    address: SocketAddr,
    /// The folder of the report and the plots.
    #[arg(long)]
    output: PathBuf,
    /// The command `session-memory`.
    #[arg(long)]
    cli: PathBuf,
    /// The program that takes part for fred.
    #[arg(long)]
    fred: Option<PathBuf>,
    /// A Python that has what bench/python/requirements.txt says.
    #[arg(long)]
    python: Option<PathBuf>,
    /// Little of everything, to see that it works.
    #[arg(long)]
    quick: bool,
    /// Nothing but the works whose names begin with this, and no report.
    #[arg(long)]
    only: Option<String>,
}

fn main() -> ExitCode {
    let result = match Cli::parse() {
        Cli::Run(run) => bench(&run),
        Cli::Spin => {
            awake::spin();
            Ok(())
        }
        Cli::Growth {
            contender,
            address,
            messages,
        } => cost::growth(&contender, address, messages),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(run: &Run) -> Result<()> {
    let begin = Instant::now();
    let mut left_out = Vec::new();
    let mut redis = Redis::connect(run.address)?;
    let mut contenders = open(run, &mut left_out)?;
    contenders.load_script(&mut redis)?;

    let mut works = works(run.quick);
    if let Some(only) = &run.only {
        works.retain(|work| work.name().starts_with(only));
    }
    let effort = match run.quick {
        true => Effort { rounds: 2, time: 4 },
        false => Effort {
            rounds: 15,
            time: 60,
        },
    };
    let mut all = Vec::new();
    for (number, work) in works.iter().enumerate() {
        let effort = match work.last {
            100_000.. => Effort {
                rounds: effort.rounds.min(5),
                ..effort
            },
            _ => effort,
        };
        eprint!("[{}/{}] {} ...", number + 1, works.len() + 1, work.name());
        // More callers leave no core without work, and what spins would keep the kernel
        // from moving a thread to where it finds one.
        let _awake = match work.callers {
            1 => Some(Awake::keep()?),
            _ => None,
        };
        let measured = rounds::measure(&mut contenders, &mut redis, *work, effort)?;
        eprintln!(" {} s since the start", begin.elapsed().as_secs());
        println!("{}: {}", work.name(), report::line(&measured));
        all.push(measured);
    }
    if run.only.is_some() {
        return Ok(());
    }
    eprintln!("[{0}/{0}] memory, size, start ...", works.len() + 1);
    let _awake = Awake::keep()?;
    let costs = cost::measure(
        run.address,
        &mut redis,
        &mut contenders,
        &run.cli,
        run.quick,
    )?;

    fs::create_dir_all(&run.output)?;
    plot::draw(&all, &run.output)?;
    let report = Report {
        all: &all,
        costs: &costs,
        server: redis.version()?,
        quick: run.quick,
        effort,
        left_out: &left_out,
        plots: &plot::PLOTS,
    };
    fs::write(run.output.join("report.md"), report.text())?;
    match run.quick {
        true => eprintln!("it works; of a quick run, the figures say nothing"),
        false => println!("{}", report::target_table(&targets::targets(&all, &costs))),
    }
    eprintln!("{} s", begin.elapsed().as_secs());
    Ok(())
}

/// All contenders whose programs are there.
fn open(run: &Run, left_out: &mut Vec<String>) -> Result<Contenders> {
    let port = run.address.port().to_string();
    let fred = match &run.fred {
        Some(program) => Some(Worker::start(Command::new(program).arg(&port))?),
        None => {
            left_out.push("fred, which was not built".to_owned());
            None
        }
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/worker.py");
    let python = match &run.python {
        Some(python) => {
            let mut command = Command::new(python);
            // langchain-community says with every import that it is not cared for.
            command.args(["-W", "ignore"]).arg(script).arg(&port);
            Some(Worker::start(&mut command)?)
        }
        None => {
            left_out.push("Python's clients, which were not installed".to_owned());
            None
        }
    };
    Contenders::open(run.address, fred, python)
}

/// What is measured, in the order of the report.
fn works(quick: bool) -> Vec<Work> {
    let work = |operation, content, last, callers| Work {
        operation,
        content,
        last,
        callers,
    };
    let (sizes, lengths, callers) = match quick {
        true => (&[200, 10_000][..], &[100, 1_000][..], &[8][..]),
        false => (
            &[100, 200, 1_000, 10_000, 100_000, 1_000_000][..],
            &[100, 1_000, 10_000, 100_000][..],
            &[8, 64][..],
        ),
    };
    let mut works = Vec::new();
    let by_size = |operation| sizes.iter().map(move |size| work(operation, *size, 10, 1));
    works.extend(by_size(Operation::Add));
    works.extend(by_size(Operation::Get));
    works.extend(by_size(Operation::Turn));
    works.extend(
        lengths
            .iter()
            .map(|length| work(Operation::Get, 200, *length, 1)),
    );
    if !quick {
        works.push(work(Operation::Get, 4_000, 1_000, 1));
    }
    works.push(work(Operation::Exists, 200, 10, 1));
    works.push(work(Operation::Fresh, 200, 10, 1));
    for callers in callers {
        for operation in [
            Operation::Add,
            Operation::Get,
            Operation::Exists,
            Operation::Turn,
        ] {
            works.push(work(operation, 200, 10, *callers));
        }
    }
    works
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn works_are_measured_once() {
        for quick in [true, false] {
            let works = works(quick);
            for (number, work) in works.iter().enumerate() {
                assert!(!works[..number].contains(work), "{}", work.name());
            }
        }
    }
}
