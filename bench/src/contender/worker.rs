//! A contender in a process of its own: a line of JSON on its standard input says
//! what is to be done in a slot, one on its standard output what it came to.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Serialize;

use crate::slot::{Result, Sample, Slot};

/// The process.
pub struct Worker {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

#[derive(Serialize)]
struct Request<'a> {
    client: &'a str,
    slot: &'a Slot,
}

impl Worker {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn start(command: &mut Command) -> Result<Worker> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        let requests = process.stdin.take().ok_or("it has no standard input")?;
        let answers = process.stdout.take().ok_or("it has no standard output")?;
        Ok(Worker {
            process,
            requests,
            answers: BufReader::new(answers),
        })
    }

    /// Its process.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Gives one of its clients a slot.
    ///
    /// # Errors
    ///
    /// When it answers something else than a sample. What went wrong is on standard
    /// error then.
    pub fn run(&mut self, client: &str, slot: &Slot) -> Result<Sample> {
        let mut line = serde_json::to_string(&Request { client, slot })?;
        line.push('\n');
        self.requests.write_all(line.as_bytes())?;
        line.clear();
        self.answers.read_line(&mut line)?;
        if line.is_empty() {
            return Err("its process has ended".into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
