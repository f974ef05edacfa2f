//! Keeps a client and its server on cores of their own. `cargo xtask bench --against`
//! compiles this file too.
//!
//! Left alone, the kernel puts the two on one core or on two, and changes its mind. With
//! one caller that decides what a ratio comes to: on one core nobody waits for a core to be
//! woken, and everything else counts for more.

use std::process::{Command, Stdio};
use std::thread;

/// Processes that stay on their cores until this is dropped. Where there is one core, or no
/// `taskset`, they go where they like.
pub struct Pinned {
    processes: Vec<u32>,
    cores: usize,
}

impl Pinned {
    /// Puts the server on the last core and the clients, of which one works at a time, on
    /// the first.
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

/// Lets a process run on these cores alone, with all its threads. What does not work is
/// left as it is.
fn allow(process: u32, cores: &str) {
    let _ = Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", cores])
        .arg(process.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}
