//! The errors of the command, and their exit codes.

use std::process::ExitCode;
use std::{error, fmt, io};

use session_memory_host::Error;

/// Why the command fails.
#[derive(Debug)]
pub enum CommandError {
    /// An option or environment variable is not allowed.
    Setting(Error),
    Memory(Error),
    Input {
        what: String,
        source: io::Error,
    },
    Output(io::Error),
    Runtime(io::Error),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Setting(error) | CommandError::Memory(error) => {
                write!(f, "{}: {error}", error.variant())?;
                // A cause of several lines is a backtrace.
                let mut next = error::Error::source(error);
                while let Some(cause) = next {
                    let text = cause.to_string();
                    if !text.contains('\n') {
                        write!(f, ": {text}")?;
                    }
                    next = cause.source();
                }
                Ok(())
            }
            CommandError::Input { what, source } => write!(f, "input: {what}: {source}"),
            CommandError::Output(source) => write!(f, "output: {source}"),
            CommandError::Runtime(source) => write!(f, "runtime: {source}"),
        }
    }
}

impl error::Error for CommandError {}

impl CommandError {
    /// 2 for wrong usage, as clap does; 1 for anything else.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            CommandError::Setting(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

impl From<Error> for CommandError {
    fn from(error: Error) -> CommandError {
        CommandError::Memory(error)
    }
}
