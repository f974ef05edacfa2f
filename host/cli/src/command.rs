//! The commands: their arguments, and what each one does.

use std::io::{self, BufWriter, Read, Write};

use clap::{Args, Subcommand, ValueEnum};
use session_memory_host::{MemoryError, Role, SessionMemoryPre};

use crate::error::CommandError;
use crate::memory::open;
use crate::output::{print_history, print_history_as_json, print_messages, print_messages_as_json};

#[derive(Subcommand)]
pub enum Command {
    /// Append a message and print the new number of entries
    Add {
        session: String,
        role: RoleArg,
        /// The text; "-" or none reads standard input, unchanged
        content: Option<String>,
        /// A JSON object to keep with the message
        #[arg(long, value_name = "JSON")]
        metadata: Option<String>,
    },
    /// Print a session's messages, oldest first
    Get(ReadArgs),
    /// Print a session's messages, its number of entries and its time to live
    History(ReadArgs),
    /// Delete a session
    Clear { session: String },
    /// Print whether a session has entries: true or false
    Exists { session: String },
    /// Print the number of entries in a session
    Count { session: String },
}

#[derive(Args)]
pub struct ReadArgs {
    pub session: String,
    /// Only the last N messages
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
    /// JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum RoleArg {
    User,
    Assistant,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Role {
        match role {
            RoleArg::User => Role::User,
            RoleArg::Assistant => Role::Assistant,
        }
    }
}

impl Command {
    /// Opens the memory, runs the command, and prints the result.
    pub async fn run(self, prepared: &SessionMemoryPre) -> Result<(), CommandError> {
        let mut out = BufWriter::new(io::stdout().lock());
        // Everything that can fail without a connection comes before the connection.
        let content = match &self {
            Command::Add { content, .. } => Some(content_of(content.as_deref())?),
            _ => None,
        };
        let memory = open(prepared).await?;
        match self {
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
