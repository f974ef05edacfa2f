//! Opens the memory that the arguments describe, with retries.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use session_memory_host::{
    Delivery, Error, GRACE, MemoryError, Options, Password, Provider, SessionMemory,
    SessionMemoryPre, TtlPolicy,
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::arguments::OptionArgs;
use crate::error::CommandError;

/// Checks the settings and reads the password, without connecting.
pub fn prepare(options: OptionArgs) -> Result<SessionMemoryPre, CommandError> {
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
    let mut given = Options::new();
    given.provider = options.provider.map(Provider::from);
    given.host = options.host;
    given.username = options.username;
    given.password = password;
    given.ttl_policy = options.ttl_policy.map(TtlPolicy::from);
    given.delivery = options.delivery.map(Delivery::from);
    given.key_prefix = options.key_prefix;
    builder
        .options(given)
        .prepare()
        .map_err(|error| match error {
            Error::Memory(MemoryError::InvalidArgument(_)) => CommandError::Setting(error),
            error => CommandError::Memory(error),
        })
}

/// Opens a memory, and retries transient errors until the operation timeout ends. The
/// operation that follows has a timeout of its own.
pub async fn open(prepared: &SessionMemoryPre) -> Result<SessionMemory, Error> {
    let begin = Instant::now();
    let timeout = prepared.operation_timeout();
    let mut wait = FIRST_WAIT;
    // The component's own timeout error names the server, so the component gets the time to
    // return it.
    let mut opened = match timeout_at(begin + timeout + GRACE, prepared.open()).await {
        Ok(opened) => opened,
        Err(_) => {
            let text = format!("open: no reply within {} ms", timeout.as_millis());
            return Err(MemoryError::Timeout(text).into());
        }
    };
    loop {
        let error = match opened {
            // After a timeout there is no time left.
            Err(error) if error.is_retryable() && error.variant() != "timeout" => error,
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
        // An attempt that does not end in time leaves the error of the previous one.
        opened = match timeout_at(begin + timeout, prepared.open()).await {
            Ok(opened) => opened,
            Err(_) => return Err(error),
        };
    }
}

/// Wait before the first retry. Each further wait is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(10);
/// Longest wait between two retries.
const LONGEST_WAIT: Duration = Duration::from_millis(200);
/// How long a refused connection is retried. A restarting server listens again by then;
/// without a server the command fails soon.
const REFUSED_LIMIT: Duration = Duration::from_secs(1);

/// Reads the password from a file, without a trailing line end.
fn password_of(file: PathBuf) -> Result<Password, CommandError> {
    let text = fs::read_to_string(&file).map_err(|source| CommandError::Input {
        what: file.display().to_string(),
        source,
    })?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned().into())
}
