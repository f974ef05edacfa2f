//! The `session-memory` command: conversation memory from the shell.

mod arguments;
mod error;
mod memory;
mod output;

use std::io::{self, BufWriter, Read, Write};
use std::process::ExitCode;

use clap::Parser;
use session_memory_host::MemoryError;

use arguments::{Cli, Command, NOT_SHOWN, ReadArgs, may_hold_a_password, without_secrets};
use error::CommandError;
use memory::{open, prepare};
use output::{print_history, print_history_as_json, print_messages, print_messages_as_json};

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
            // Without a standard error, the exit code has to do.
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
    let result = runtime.block_on(operate(cli));
    // Does not wait for a name lookup that continues after its deadline.
    runtime.shutdown_background();
    result
}

/// Does what the arguments ask for, and prints the result.
async fn operate(cli: Cli) -> Result<(), CommandError> {
    let mut out = BufWriter::new(io::stdout().lock());
    // Everything that can fail without a connection comes before it.
    let prepared = prepare(cli.options)?;
    let content = match &cli.command {
        Command::Add { content, .. } => Some(content_of(content.as_deref())?),
        _ => None,
    };
    let memory = open(&prepared).await?;
    match cli.command {
        Command::Add {
            session,
            role,
            metadata,
            ..
        } => {
            let content = content.unwrap_or_default();
            let role = role.into();
            let length = memory
                .add(&session, role, &content, metadata.as_deref())
                .await?;
            writeln!(out, "{length}")
        }
        Command::Get(ReadArgs {
            session,
            limit,
            json,
        }) => {
            let messages = memory.get(&session, limit).await?;
            match json {
                true => print_messages_as_json(&mut out, &messages),
                false => print_messages(&mut out, &messages),
            }
        }
        Command::History(ReadArgs {
            session,
            limit,
            json,
        }) => {
            let history = memory.history(&session, limit).await?;
            match json {
                true => print_history_as_json(&mut out, &history),
                false => print_history(&mut out, &history),
            }
        }
        Command::Clear { session } => {
            memory.clear(&session).await?;
            Ok(())
        }
        Command::Exists { session } => writeln!(out, "{}", memory.exists(&session).await?),
        Command::Count { session } => writeln!(out, "{}", memory.count(&session).await?),
    }
    .and_then(|()| out.flush())
    .map_err(CommandError::Output)
}

/// The content of a message: the argument, or standard input.
fn content_of(argument: Option<&str>) -> Result<String, CommandError> {
    match argument {
        Some(content) if content != "-" => Ok(content.to_owned()),
        _ => {
            let mut content = Vec::new();
            io::stdin()
                .read_to_end(&mut content)
                .map_err(|source| CommandError::Input {
                    what: "standard input".to_owned(),
                    source,
                })?;
            String::from_utf8(content).map_err(|_| {
                let text = "the content on standard input is not UTF-8";
                CommandError::Memory(MemoryError::InvalidArgument(text.to_owned()).into())
            })
        }
    }
}
