//! Session Memory side by side with other clients of Redis that do the same work:
//! one run, one private server, every contender in every round, so that ratios hold
//! on a machine that does other things too. `cargo xtask bench` starts it.
//!
//! ```text
//! rounds          works, again and again: who has a turn when, and the ratios
//!   contender     those who are compared, in processes of their own
//!     slot        one contender's turn: the loop that times it
//!     element     what clients without this project write around their library
//!   server        what lies in Redis, and the time that it uses
//!   stats         medians, and their 95 % intervals
//!   awake         cores that do not fall asleep in between
//!   pinned        a core for the server and one for its clients
//! cost            memory, allocations, size, start
//!   allocations   the allocator that counts them
//! instructions    what an operation executes
//! targets         what is to be reached
//! report, plot    what is shown of it
//!   shown         numbers with units
//! ```

mod allocations;
mod awake;
mod contender;
mod cost;
mod element;
mod instructions;
mod pinned;
mod plot;
mod report;
mod rounds;
mod server;
mod shown;
mod slot;
mod stats;
mod targets;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser};

use awake::Awake;
use contender::{Contenders, Programs};
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
    /// Runs the slots that standard input asks for, with the clients of this program.
    Serve { address: SocketAddr },
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
    /// The program of bench/driver, whose instructions are counted.
    #[arg(long)]
    driver: PathBuf,
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
        Cli::Serve { address } => contender::serve(address),
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
    if run.fred.is_none() {
        left_out.push("fred, which was not built".to_owned());
    }
    if run.python.is_none() {
        left_out.push("Python's clients, which were not installed".to_owned());
    }
    let programs = Programs {
        address: run.address,
        fred: run.fred.as_deref(),
        python: run.python.as_deref(),
    };
    let mut redis = Redis::connect(run.address)?;
    Contenders::start(&programs)?.load_script(&mut redis)?;

    let mut works = works(run.quick);
    if let Some(only) = &run.only {
        works.retain(|work| work.name().starts_with(only));
    }
    let effort = match run.quick {
        true => Effort {
            rounds: 2,
            limit: Duration::ZERO,
            turns: 1,
            time: 4,
            share: Duration::ZERO,
        },
        false => Effort {
            rounds: 8,
            limit: Duration::from_secs(9 * 60),
            turns: 4,
            time: 12,
            share: Duration::from_secs(2),
        },
    };
    let all = rounds::measure(&programs, &mut redis, &works, effort)?;
    for measured in &all {
        println!("{}: {}", measured.work.name(), report::line(measured));
    }
    if run.only.is_some() {
        return Ok(());
    }
    eprintln!("memory, size, start");
    let costs = {
        let _awake = Awake::keep()?;
        cost::measure(run.address, &mut redis, &run.cli, run.quick)?
    };
    eprintln!("instructions");
    let instructions = match instructions::can_count() {
        true => instructions(run)?,
        false => {
            let hint = instructions::INSTALL_HINT;
            left_out.push(format!("instructions; to count them, {hint}"));
            Vec::new()
        }
    };

    fs::create_dir_all(&run.output)?;
    plot::draw(&all, &run.output)?;
    let report = Report {
        all: &all,
        costs: &costs,
        instructions: &instructions,
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

/// What the operations of the driver execute; of a quick run the first two.
fn instructions(run: &Run) -> Result<Vec<(&'static str, f64)>> {
    let count = match run.quick {
        true => 2,
        false => instructions::OPERATIONS.len(),
    };
    let mut counted = Vec::new();
    for operation in &instructions::OPERATIONS[..count] {
        let instructions = instructions::count(&run.driver, run.address.port(), *operation)?;
        counted.extend(instructions.map(|instructions| (operation.0, instructions)));
    }
    Ok(counted)
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
