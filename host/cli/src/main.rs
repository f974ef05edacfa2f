//! The `session-memory` command: conversation memory from the shell.

use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::{error, fmt, fs};

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::value::RawValue;

use session_memory_host::{
    Delivery, Error, GRACE, History, MemoryError, Message, Options, Password, Provider, Role,
    SessionMemory, SessionMemoryPre, TtlPolicy,
};
use tokio::time::{Instant, sleep, timeout_at};

/// Conversation memory for AI agents, kept in Redis by a sandboxed WebAssembly
/// component.
///
/// An option that is not given is taken from the environment variable beside it.
/// A password is taken from REDIS_PASSWORD or --password-file, never from an
/// argument.
///
/// Exit codes: 0 for success, 2 for arguments and settings that are not allowed, 1
/// for any other error.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    options: OptionArgs,
    #[command(subcommand)]
    operation: Operation,
}

#[derive(Subcommand)]
enum Operation {
    /// Append a message; prints how many messages the session holds now
    Add {
        session: String,
        role: RoleArg,
        /// The text; from standard input, unchanged, if absent or "-"
        content: Option<String>,
        /// A JSON object to keep with the message
        #[arg(long, value_name = "JSON")]
        metadata: Option<String>,
    },
    /// Print a session's messages, oldest first
    Get(ReadArgs),
    /// Print a session's messages, their number and the time to live
    History(ReadArgs),
    /// Delete a session
    Clear { session: String },
    /// Print whether a session has messages: true or false
    Exists { session: String },
    /// Print how many messages a session holds
    Count { session: String },
}

#[derive(Args)]
struct ReadArgs {
    session: String,
    /// Only the last N messages
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// Numbers are texts here: they are parsed where the environment variables are.
#[derive(Args)]
#[command(next_help_heading = "Options (and environment variables)")]
struct OptionArgs {
    /// Where the sessions are kept [MEMORY_PROVIDER; default: redis]
    #[arg(long, global = true)]
    provider: Option<ProviderArg>,
    /// Name or address of the server [REDIS_HOST; default: localhost]
    #[arg(long, global = true)]
    host: Option<String>,
    /// TCP port [REDIS_PORT; default: 6379]
    #[arg(long, global = true)]
    port: Option<String>,
    /// ACL user [REDIS_USERNAME]
    #[arg(long, global = true, value_name = "NAME")]
    username: Option<String>,
    /// File with the password; a line end at its end is not part of it
    #[arg(long, global = true, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Number of the database [REDIS_DB; default: 0]
    #[arg(long, global = true, value_name = "N")]
    db: Option<String>,
    /// Life of a session [SESSION_TTL; default: 3600]
    #[arg(long, global = true, value_name = "SECONDS")]
    session_ttl: Option<String>,
    /// When that life begins: with the last add, with the first, or never ends
    /// [SESSION_TTL_POLICY; default: sliding]
    #[arg(long, global = true, value_name = "POLICY")]
    ttl_policy: Option<TtlPolicyArg>,
    /// What is done about an append whose answer is lost: it is tried again, or
    /// never sent twice [MESSAGE_DELIVERY; default: exactly-once]
    #[arg(long, global = true)]
    delivery: Option<DeliveryArg>,
    /// What precedes the session in the key [KEY_PREFIX; default: session:]
    #[arg(long, global = true, value_name = "TEXT")]
    key_prefix: Option<String>,
    /// For name lookup, connecting, authenticating [CONNECT_TIMEOUT_MS; default:
    /// 5000]
    #[arg(long, global = true, value_name = "MS")]
    connect_timeout: Option<String>,
    /// For a whole operation [OPERATION_TIMEOUT_MS; default: 5000]
    #[arg(long, global = true, value_name = "MS")]
    operation_timeout: Option<String>,
    /// Silence after which an attempt that may be repeated goes on over a new
    /// connection [RESPONSE_TIMEOUT_MS; default: 1000]
    #[arg(long, global = true, value_name = "MS")]
    response_timeout: Option<String>,
    /// How long a connection may be idle [MAX_IDLE_MS; default: 180000]
    #[arg(long, global = true, value_name = "MS")]
    max_idle: Option<String>,
    /// How many messages a session keeps [MAX_MESSAGES; default: all]
    #[arg(long, global = true, value_name = "N")]
    max_messages: Option<String>,
    /// Bytes of content and metadata of a message [MAX_MESSAGE_BYTES; default:
    /// 1048576]
    #[arg(long, global = true, value_name = "BYTES")]
    max_message_bytes: Option<String>,
    /// Bytes of a reply [MAX_REPLY_BYTES; default: 268435456]
    #[arg(long, global = true, value_name = "BYTES")]
    max_reply_bytes: Option<String>,
    /// Run this component in place of the built-in one
    #[arg(long, global = true, value_name = "FILE")]
    component: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum RoleArg {
    User,
    Assistant,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProviderArg {
    Redis,
    InMemory,
}

#[derive(Clone, Copy, ValueEnum)]
enum DeliveryArg {
    ExactlyOnce,
    AtMostOnce,
}

#[derive(Clone, Copy, ValueEnum)]
enum TtlPolicyArg {
    Sliding,
    Fixed,
    None,
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
        // Whoever reads has read enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
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

fn run(cli: Cli) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let result = runtime.block_on(operate(cli));
    // A name lookup that goes on after its deadline is not waited for.
    runtime.shutdown_background();
    result
}

async fn operate(cli: Cli) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    // Settings are checked, and files and standard input are read, before there is a
    // connection.
    let prepared = prepare(cli.options)?;
    let content = match &cli.operation {
        Operation::Add { content, .. } => Some(content_of(content.as_deref())?),
        _ => None,
    };
    let memory = open(&prepared).await?;
    match cli.operation {
        Operation::Add {
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
        Operation::Get(ReadArgs {
            session,
            limit,
            json,
        }) => {
            let messages = memory.get(&session, limit).await?;
            print_messages(&mut out, &messages, json)
        }
        Operation::History(ReadArgs {
            session,
            limit,
            json,
        }) => {
            let history = memory.history(&session, limit).await?;
            print_history(&mut out, &history, json)
        }
        Operation::Clear { session } => {
            memory.clear(&session).await?;
            Ok(())
        }
        Operation::Exists { session } => writeln!(out, "{}", memory.exists(&session).await?),
        Operation::Count { session } => writeln!(out, "{}", memory.count(&session).await?),
    }
    .and_then(|()| out.flush())
    .map_err(Failure::Output)
}

fn prepare(options: OptionArgs) -> Result<SessionMemoryPre, Failure> {
    let mut builder = SessionMemory::builder();
    if let Some(file) = options.component {
        builder = builder.component_file(file);
    }
    for (variable, value) in [
        ("REDIS_PORT", options.port),
        ("REDIS_DB", options.db),
        ("SESSION_TTL", options.session_ttl),
        ("CONNECT_TIMEOUT_MS", options.connect_timeout),
        ("OPERATION_TIMEOUT_MS", options.operation_timeout),
        ("RESPONSE_TIMEOUT_MS", options.response_timeout),
        ("MAX_IDLE_MS", options.max_idle),
        ("MAX_MESSAGES", options.max_messages),
        ("MAX_MESSAGE_BYTES", options.max_message_bytes),
        ("MAX_REPLY_BYTES", options.max_reply_bytes),
    ] {
        if let Some(value) = value {
            builder = builder.variable(variable, value);
        }
    }
    let password = options.password_file.map(password_of).transpose()?;
    let options = Options {
        provider: options.provider.map(Provider::from),
        host: options.host,
        username: options.username,
        password,
        ttl_policy: options.ttl_policy.map(TtlPolicy::from),
        delivery: options.delivery.map(Delivery::from),
        key_prefix: options.key_prefix,
        ..Options::default()
    };
    builder
        .options(options)
        .prepare()
        .map_err(|error| match error {
            Error::Memory(MemoryError::InvalidArgument(_)) => Failure::Setting(error),
            error => Failure::Memory(error),
        })
}

/// Opens a memory, and opens it again as long as what is wrong may pass, within the time
/// of an operation. What the command does then has that time for itself.
async fn open(prepared: &SessionMemoryPre) -> Result<SessionMemory, Error> {
    let begin = Instant::now();
    let timeout = prepared.operation_timeout();
    let mut wait = FIRST_WAIT;
    // What the component says of its own timeout names the server.
    let mut opened = match timeout_at(begin + timeout + GRACE, prepared.open()).await {
        Ok(opened) => opened,
        Err(_) => {
            let text = format!("open: no answer within {} ms", timeout.as_millis());
            return Err(MemoryError::Timeout(text).into());
        }
    };
    loop {
        let error = match opened {
            Err(error) if error.is_transient() => error,
            opened => return opened,
        };
        let limit = if error.is_refused() {
            timeout.min(REFUSED_LIMIT)
        } else {
            timeout
        };
        let left = limit.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Err(error);
        }
        sleep(wait.min(left)).await;
        wait = (2 * wait).min(LONGEST_WAIT);
        // Without an answer by then, the last one stands.
        opened = match timeout_at(begin + timeout, prepared.open()).await {
            Ok(opened) => opened,
            Err(_) => return Err(error),
        };
    }
}

const FIRST_WAIT: Duration = Duration::from_millis(10);
/// Waits double up to here.
const LONGEST_WAIT: Duration = Duration::from_millis(200);
/// A server that is started again listens by then. Where there is none, whoever types
/// the command is not to wait for long.
const REFUSED_LIMIT: Duration = Duration::from_secs(1);

/// Whether an argument may hold a password: a URL does, or what is left of one.
fn may_hold_a_password(argument: &str) -> bool {
    argument.contains('@') || argument.contains("://")
}

/// The same error, without the arguments that may hold a password.
fn without_secrets(mut error: clap::Error) -> clap::Error {
    let hidden: Vec<(ContextKind, ContextValue)> = error
        .context()
        .filter(|(_, value)| may_hold_a_password(&value.to_string()))
        .map(|(kind, value)| match value {
            ContextValue::String(_) => (kind, ContextValue::String(NOT_SHOWN.to_owned())),
            // A list, or a tip that repeats the argument.
            _ => (kind, ContextValue::None),
        })
        .collect();
    for (kind, value) in hidden {
        error.insert(kind, value);
    }
    error
}

/// Stands for an argument that may hold a password.
const NOT_SHOWN: &str = "(not shown)";

fn content_of(argument: Option<&str>) -> Result<String, Failure> {
    match argument {
        Some(content) if content != "-" => Ok(content.to_owned()),
        _ => {
            let mut content = Vec::new();
            io::stdin()
                .read_to_end(&mut content)
                .map_err(|source| Failure::Input {
                    what: "standard input".to_owned(),
                    source,
                })?;
            String::from_utf8(content)
                .map_err(|_| invalid("the content on standard input is not UTF-8".to_owned()))
        }
    }
}

fn password_of(file: PathBuf) -> Result<Password, Failure> {
    let text = fs::read_to_string(&file).map_err(|source| Failure::Input {
        what: file.display().to_string(),
        source,
    })?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned().into())
}

fn print_messages(out: &mut impl Write, messages: &[Message], json: bool) -> io::Result<()> {
    for message in messages {
        if json {
            print_json(out, &JsonMessage::from(message))?;
            continue;
        }
        // What someone else wrote must not steer the terminal.
        let content = printable(&message.content).replace('\n', "\n    ");
        let timestamp = printable(&message.timestamp);
        writeln!(out, "{timestamp} {}: {content}", message.role.as_str())?;
        if let Some(metadata) = &message.metadata {
            writeln!(out, "    {}", printable(&one_line(metadata)))?;
        }
    }
    Ok(())
}

fn print_history(out: &mut impl Write, history: &History, json: bool) -> io::Result<()> {
    if json {
        return print_json(out, &JsonHistory::from(history));
    }
    print_messages(out, &history.messages, false)?;
    write!(
        out,
        "{} of {} messages",
        history.messages.len(),
        history.total
    )?;
    if history.skipped > 0 {
        write!(out, ", {} unreadable", history.skipped)?;
    }
    match history.ttl_seconds {
        Some(seconds) => writeln!(out, ", expires in {seconds} s"),
        None if history.total > 0 => writeln!(out, ", never expires"),
        None => writeln!(out),
    }
}

fn print_json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' && c != '\t' {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// JSON has line ends between its tokens only, where a space is as good.
fn one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

#[derive(Serialize)]
struct JsonMessage<'a> {
    role: &'a str,
    content: &'a str,
    timestamp: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

impl<'a> From<&'a Message> for JsonMessage<'a> {
    fn from(message: &'a Message) -> JsonMessage<'a> {
        JsonMessage {
            role: message.role.as_str(),
            content: &message.content,
            timestamp: &message.timestamp,
            // It is the text of a JSON object, or the component breaks its contract.
            metadata: message
                .metadata
                .as_deref()
                .and_then(|metadata| RawValue::from_string(one_line(metadata)).ok()),
            id: message.id.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct JsonHistory<'a> {
    messages: Vec<JsonMessage<'a>>,
    total: u32,
    skipped: u32,
    ttl_seconds: Option<u32>,
}

impl<'a> From<&'a History> for JsonHistory<'a> {
    fn from(history: &'a History) -> JsonHistory<'a> {
        JsonHistory {
            messages: history.messages.iter().map(JsonMessage::from).collect(),
            total: history.total,
            skipped: history.skipped,
            ttl_seconds: history.ttl_seconds,
        }
    }
}

/// Why the command fails.
#[derive(Debug)]
enum Failure {
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

fn invalid(text: String) -> Failure {
    Failure::Memory(MemoryError::InvalidArgument(text).into())
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Setting(error) | Failure::Memory(error) => {
                write!(f, "{}: {error}", error.variant())
            }
            Failure::Input { what, source } => write!(f, "input: {what}: {source}"),
            Failure::Output(source) => write!(f, "output: {source}"),
            Failure::Runtime(source) => write!(f, "runtime: {source}"),
        }
    }
}

impl error::Error for Failure {}

impl Failure {
    /// 2 for wrong usage, as from the parser of the arguments; 1 for anything else.
    fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Setting(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Memory(error)
    }
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Role {
        match role {
            RoleArg::User => Role::User,
            RoleArg::Assistant => Role::Assistant,
        }
    }
}

impl From<ProviderArg> for Provider {
    fn from(provider: ProviderArg) -> Provider {
        match provider {
            ProviderArg::Redis => Provider::Redis,
            ProviderArg::InMemory => Provider::InMemory,
        }
    }
}

impl From<DeliveryArg> for Delivery {
    fn from(delivery: DeliveryArg) -> Delivery {
        match delivery {
            DeliveryArg::ExactlyOnce => Delivery::ExactlyOnce,
            DeliveryArg::AtMostOnce => Delivery::AtMostOnce,
        }
    }
}

impl From<TtlPolicyArg> for TtlPolicy {
    fn from(policy: TtlPolicyArg) -> TtlPolicy {
        match policy {
            TtlPolicyArg::Sliding => TtlPolicy::Sliding,
            TtlPolicyArg::Fixed => TtlPolicy::Fixed,
            TtlPolicyArg::None => TtlPolicy::None,
        }
    }
}
