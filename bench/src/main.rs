//! Compares Session Memory with other Redis clients that do the same work.
//!
//! All contenders use one private server and take part in every round. So the ratios
//! also hold on a machine that does other things. `cargo xtask bench` starts this program.
//!
//! ```text
//! rounds          repeats the workloads, orders the bursts, computes the ratios
//!   contender     the clients that are compared, in their own processes
//!     burst       the loop that times the operations of one contender
//!     element     JSON as a program without Session Memory writes and reads it
//!   server        the sessions in Redis, and the server's CPU time
//!   stats         medians with 95 % intervals
//!   awake, spin   keeps the cores awake
//!   pinned        one core for the server, another one for its clients
//! cost            memory, allocations, size, start-up time
//!   allocations   the allocator that counts allocations
//! instructions    instructions of an operation
//! targets         targets for Session Memory
//! report, plot    the report and its plots
//!   shown         formats numbers with units
//! ```

mod allocations;
mod awake;
mod burst;
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
mod spin;
mod stats;
mod targets;

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser};

use awake::Awake;
use burst::{BenchOperation, Result};
use contender::{Contenders, Programs};
use report::Report;
use rounds::{Effort, Workload};
use server::Redis;

/// Compares Session Memory with other Redis clients. `cargo xtask bench` builds and starts
/// everything that this program needs.
#[derive(Parser)]
enum Arguments {
    /// Measures everything and writes the report.
    Run(Run),
    /// Runs the bursts requested on standard input, with the clients linked into this program.
    Serve { address: SocketAddr },
    /// Spins until standard input ends.
    Spin,
    /// Prints the bytes by which this process grows when it reads a session.
    Growth {
        contender: String,
        address: SocketAddr,
        messages: u32,
    },
}

#[derive(Args)]
struct Run {
    /// The server. Sessions that begin with `read-`, `write-` and `costs` are deleted.
    address: SocketAddr,
    /// The folder for the report and the plots.
    #[arg(long)]
    output: PathBuf,
    /// The program `session-memory`.
    #[arg(long)]
    cli: PathBuf,
    /// The program of bench/driver, to count its instructions.
    #[arg(long)]
    driver: PathBuf,
    /// The program of bench/fred.
    #[arg(long)]
    fred: Option<PathBuf>,
    /// A Python with the packages of bench/python/requirements.txt.
    #[arg(long)]
    python: Option<PathBuf>,
    /// Measures a little of everything, to check that the benchmark works.
    #[arg(long)]
    quick: bool,
    /// Measures only the workloads whose names begin with this, and writes no report.
    #[arg(long)]
    only: Option<String>,
}

fn main() -> ExitCode {
    let result = match Arguments::parse() {
        Arguments::Run(run) => bench(&run),
        Arguments::Serve { address } => contender::serve(address),
        Arguments::Spin => {
            spin::until_input_ends();
            Ok(())
        }
        Arguments::Growth {
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
        left_out.push("fred (not built)".to_owned());
    }
    if run.python.is_none() {
        left_out.push("the Python clients (not installed)".to_owned());
    }
    let programs = Programs {
        address: run.address,
        fred: run.fred.as_deref(),
        python: run.python.as_deref(),
    };
    let mut redis = Redis::connect(run.address)?;
    Contenders::start(&programs)?.load_script(&mut redis)?;

    let mut workloads = workloads(run.quick);
    if let Some(only) = &run.only {
        workloads.retain(|workload| workload.name().starts_with(only));
    }
    let effort = match run.quick {
        true => Effort {
            rounds: 2,
            limit: Duration::ZERO,
            bursts: 1,
            burst_time: 4,
            share: Duration::ZERO,
        },
        false => Effort {
            rounds: 8,
            limit: Duration::from_secs(9 * 60),
            bursts: 4,
            burst_time: 12,
            share: Duration::from_secs(2),
        },
    };
    let all = rounds::measure(&programs, &mut redis, &workloads, effort)?;
    for measured in &all {
        println!("{}: {}", measured.workload.name(), report::line(measured));
    }
    if run.only.is_some() {
        return Ok(());
    }
    eprintln!("measuring memory, allocations and start-up");
    let costs = {
        let _awake = Awake::keep(&env::current_exe()?)?;
        cost::measure(run.address, &mut redis, &run.cli, run.quick)?
    };
    eprintln!("counting instructions");
    let instructions = match instructions::can_count() {
        true => instructions(run)?,
        false => {
            let hint = instructions::INSTALL_HINT;
            left_out.push(format!("instructions (to count them, {hint})"));
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
        true => eprintln!("the benchmark works; the figures of a quick run mean nothing"),
        false => println!("{}", report::target_table(&targets::targets(&all, &costs))),
    }
    eprintln!("finished after {} s", begin.elapsed().as_secs());
    Ok(())
}

/// Counts the instructions of the driver's operations. A quick run counts two operations.
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

/// Returns the workloads in the order of the report.
fn workloads(quick: bool) -> Vec<Workload> {
    let workload = |operation, content, last, callers| Workload {
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
    let mut workloads = Vec::new();
    let by_size = |operation| {
        sizes
            .iter()
            .map(move |size| workload(operation, *size, 10, 1))
    };
    workloads.extend(by_size(BenchOperation::Add));
    workloads.extend(by_size(BenchOperation::Get));
    workloads.extend(by_size(BenchOperation::Turn));
    workloads.extend(
        lengths
            .iter()
            .map(|length| workload(BenchOperation::Get, 200, *length, 1)),
    );
    if !quick {
        workloads.push(workload(BenchOperation::Get, 4_000, 1_000, 1));
    }
    workloads.push(workload(BenchOperation::Exists, 200, 10, 1));
    workloads.push(workload(BenchOperation::Fresh, 200, 10, 1));
    for callers in callers {
        for operation in [
            BenchOperation::Add,
            BenchOperation::Get,
            BenchOperation::Exists,
            BenchOperation::Turn,
        ] {
            workloads.push(workload(operation, 200, 10, *callers));
        }
    }
    workloads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_workload_is_measured_twice() {
        for quick in [true, false] {
            let workloads = workloads(quick);
            for (number, workload) in workloads.iter().enumerate() {
                assert!(
                    !workloads[..number].contains(workload),
                    "{}",
                    workload.name()
                );
            }
        }
    }
}
