//! The `session-memory` command: conversation memory from the shell.

mod arguments;
mod error;
mod memory;
mod output;

use std::io::{self, BufWriter, Read, Write};
use std::process::ExitCode;

use clap::Parser;

use arguments::{Cli, Command, NOT_SHOWN, ReadArgs, may_hold_a_password, without_secrets};
use error::{CommandError, invalid};
use memory::{open, prepare};
use output::{print_history, print_messages};

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
        // Whoever reads has read enough.
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let mut text = failure.to_string();
            for file in hidden {
                text = text.replace(&file, NOT_SHOWN);
            }
            // Without a place to say it, the exit code says it.
            let _ = writeln!(io::stderr(), "error: {text}");
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CommandError::Runtime)?;
    let result = runtime.block_on(operate(cli));
    // A name lookup that goes on after its deadline is not waited for.
    runtime.shutdown_background();
    result
}

async fn operate(cli: Cli) -> Result<(), CommandError> {
    let mut out = BufWriter::new(io::stdout().lock());
    // Settings are checked, and files and standard input are read, before there is a
    // connection.
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
            print_messages(&mut out, &messages, json)
        }
        Command::History(ReadArgs {
            session,
            limit,
            json,
        }) => {
            let history = memory.history(&session, limit).await?;
            print_history(&mut out, &history, json)
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
            String::from_utf8(content)
                .map_err(|_| invalid("the content on standard input is not UTF-8".to_owned()))
        }
    }
}
