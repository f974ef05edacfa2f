//! The `session-memory` command: conversation memory from the shell.

mod arguments;
mod command;
mod error;
mod memory;
mod output;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use arguments::{NOT_SHOWN, OptionArgs, may_hold_a_password, without_secrets};
use command::Command;
use error::CommandError;
use memory::prepare;

/// Conversation memory for AI agents, kept in Redis by a sandboxed WebAssembly
/// component.
///
/// An option that is not given has the value of its environment variable. The
/// password comes from REDIS_PASSWORD or --password-file, never from an argument.
///
/// Exit codes: 0 for success, 2 for an argument or a setting that is not allowed, 1
/// for any other error.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    options: OptionArgs,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => without_secrets(error).exit(),
    };
    let files = [&cli.options.component, &cli.options.password_file];
    let files = files.into_iter().flatten();
    let hidden: Vec<String> = files
        .map(|file| file.display().to_string())
        .filter(|file| may_hold_a_password(file))
        .collect();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has read enough.
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            let mut text = error.to_string();
            for file in hidden {
                text = text.replace(&file, NOT_SHOWN);
            }
            // Without standard error, only the exit code reports the failure.
            let _ = writeln!(io::stderr(), "error: {text}");
            error.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CommandError::Runtime)?;
    let result = prepare(cli.options).and_then(|memory| runtime.block_on(cli.command.run(&memory)));
    // Does not wait for a name lookup that continues after its deadline.
    runtime.shutdown_background();
    result
}
