//! Keeps the server on one core and its clients on another. `cargo xtask bench --against`
//! compiles this file too.
//!
//! Otherwise the kernel puts both on one core or on two, and moves them now and then. With
//! one caller, that changes the ratios: on one core nobody waits for a core to be woken, so
//! everything else has a larger share of the time.

use std::process::{Command, Stdio};
use std::thread;

/// Pins processes to their cores until it is dropped. It does nothing where there is only
/// one core or no `taskset`.
pub struct Pinned {
    processes: Vec<u32>,
    cores: usize,
}

impl Pinned {
    /// Pins the server to the last core and the clients to the first. Only one client works
    /// at a time.
    pub fn keep(server: u32, clients: impl IntoIterator<Item = u32>) -> Pinned {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let mut pinned = Pinned {
            processes: vec![server],
            cores,
        };
        pinned.processes.extend(clients);
        if cores > 1 {
            for process in &pinned.processes {
                let core = if *process == server { cores - 1 } else { 0 };
                allow(*process, &core.to_string());
            }
        }
        pinned
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.cores > 1 {
            for process in &self.processes {
                allow(*process, &format!("0-{}", self.cores - 1));
            }
        }
    }
}

/// Lets all threads of a process run only on these cores. Failures are ignored.
fn allow(process: u32, cores: &str) {
    let _ = Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", cores])
        .arg(process.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}
