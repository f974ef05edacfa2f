//! The command as a person or a script runs it, against real Redis servers.

#![allow(clippy::unwrap_used, reason = "a test ends there, and says where")]

mod first_connection;
mod outputs;
mod secrets;

use std::env;
use std::process::Command;

/// The path of the command.
const PROGRAM: &str = env!("CARGO_BIN_EXE_session-memory");

/// The command with arguments, and without the environment variables that it reads.
fn session_memory<W: AsRef<str>>(arguments: &[W]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments.iter().map(AsRef::as_ref))
        .env_clear();
    // The compiled component is cached there.
    for variable in ["HOME", "XDG_CACHE_HOME"] {
        if let Some(value) = env::var_os(variable) {
            command.env(variable, value);
        }
    }
    command
}
