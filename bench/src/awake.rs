//! Keeps the cores awake. A core with nothing to do falls asleep, and on a virtual
//! machine waking it takes longer than most of what is measured here: whether a
//! contender pays for that depends on a few microseconds more or less.

use std::hint::spin_loop;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::slot::Result;

/// A process for each core that spins when nothing else runs there, until this is
/// dropped or the process that holds it ends. None where there is no `chrt`.
pub struct Awake {
    spinning: Vec<Child>,
}

impl Awake {
    /// Starts them.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn keep() -> Result<Awake> {
        let mut awake = Awake {
            spinning: Vec::new(),
        };
        for _ in 0..thread::available_parallelism()?.get() {
            // The idle class gives way to others at once, which low priority does not.
            let mut command = Command::new("chrt");
            command.args(["--idle", "0"]).arg(std::env::current_exe()?);
            match command.arg("spin").stdin(Stdio::piped()).spawn() {
                Ok(child) => awake.spinning.push(child),
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.spinning {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What such a process does: it spins until its standard input ends.
pub fn spin() {
    let waiting = thread::spawn(|| io::stdin().read(&mut [0]));
    while !waiting.is_finished() {
        spin_loop();
    }
}
