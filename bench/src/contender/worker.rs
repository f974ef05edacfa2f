//! A process that runs bursts: requests go to its standard input, responses come from its
//! standard output, each one line of JSON.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::burst::{Burst, BurstRequest, Result, Sample};

/// A running process.
pub struct WorkerProcess {
    process: Child,
    requests: ChildStdin,
    responses: BufReader<ChildStdout>,
}

impl WorkerProcess {
    /// Starts the process.
    ///
    /// # Errors
    ///
    /// Fails when the program cannot be started.
    pub fn start(command: &mut Command) -> Result<WorkerProcess> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        let requests = process
            .stdin
            .take()
            .ok_or("the process has no standard input")?;
        let responses = process
            .stdout
            .take()
            .ok_or("the process has no standard output")?;
        Ok(WorkerProcess {
            process,
            requests,
            responses: BufReader::new(responses),
        })
    }

    /// Returns the id of the process.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Runs a burst of the named client.
    ///
    /// # Errors
    ///
    /// Fails when the response is not a sample. The process has then printed the reason to
    /// standard error.
    pub fn run(&mut self, client: &str, burst: &Burst) -> Result<Sample> {
        let mut line = serde_json::to_string(&BurstRequest {
            client: client.to_owned(),
            burst: burst.clone(),
        })?;
        line.push('\n');
        self.requests.write_all(line.as_bytes())?;
        line.clear();
        self.responses.read_line(&mut line)?;
        if line.is_empty() {
            return Err("the process has ended".into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
