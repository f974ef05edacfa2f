//! Keeps the cores awake. `cargo xtask bench --against` compiles this file too.
//!
//! A core with nothing to do falls asleep. On a virtual machine, waking it takes longer
//! than most of what is measured. A few microseconds decide which contender pays for that.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

/// One process for each core. It spins when nothing else runs there, until this value is
/// dropped or this program ends. There are none where there is no `chrt`.
pub struct Awake {
    spinning: Vec<Child>,
}

impl Awake {
    /// Starts the processes. `program` is a program that spins when its argument is `spin`.
    ///
    /// # Errors
    ///
    /// Fails when a process cannot be started.
    pub fn keep(program: &Path) -> Result<Awake, String> {
        let cores = thread::available_parallelism().map_err(|error| error.to_string())?;
        let mut awake = Awake {
            spinning: Vec::new(),
        };
        for _ in 0..cores.get() {
            // The idle class gives way to others at once. Low priority does not.
            let mut command = Command::new("chrt");
            command.args(["--idle", "0"]).arg(program).arg("spin");
            match command.stdin(Stdio::piped()).spawn() {
                Ok(child) => awake.spinning.push(child),
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(format!("chrt: {error}")),
            }
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.spinning {
            // The process may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
