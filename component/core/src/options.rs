//! How a client is opened: what the caller gives, over the environment, over the
//! defaults.

mod resolve;

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;

pub use resolve::VARIABLES;

use crate::error::{Error, find};

/// How a client is opened. What is not given is taken from the environment
/// variable named beside it, and where that is not set or empty, from the default.
#[derive(Clone, Default)]
pub struct Options {
    /// Where the sessions are kept. `MEMORY_PROVIDER` (`redis` or `in-memory`);
    /// default `redis`.
    pub provider: Option<Provider>,
    /// Name or address of the Redis server. `REDIS_HOST`; default `localhost`.
    pub host: Option<String>,
    /// TCP port, 1 to 65535. `REDIS_PORT`; default 6379.
    pub port: Option<u16>,
    /// ACL user (Redis 6 or later). `REDIS_USERNAME`; default none. Empty means
    /// none.
    pub username: Option<String>,
    /// `REDIS_PASSWORD`; default none. Empty means none.
    pub password: Option<Password>,
    /// Number of the logical database. `REDIS_DB`; default 0.
    pub db: Option<u32>,
    /// Life of a session in seconds, at least 1. `SESSION_TTL`; default 3600.
    pub session_ttl: Option<u32>,
    /// When that life begins. `SESSION_TTL_POLICY` (`sliding`, `fixed` or
    /// `none`); default `sliding`.
    pub ttl_policy: Option<TtlPolicy>,
    /// What is done about an append whose answer is lost. `MESSAGE_DELIVERY`
    /// (`exactly-once` or `at-most-once`); default `exactly-once`.
    pub delivery: Option<Delivery>,
    /// What precedes the session id in the key. `KEY_PREFIX`; default `session:`.
    pub key_prefix: Option<String>,
    /// Milliseconds, at least 1, for name lookup, connecting and authenticating.
    /// `CONNECT_TIMEOUT_MS`; default 5000.
    pub connect_timeout: Option<u32>,
    /// When the first connection is made. Default [`Connect::AtOpen`]; no
    /// environment variable.
    pub connect: Option<Connect>,
    /// Milliseconds, at least 1, for a whole operation. `OPERATION_TIMEOUT_MS`;
    /// default 5000.
    pub operation_timeout: Option<u32>,
    /// Milliseconds, at least 1, of silence after which a try that may be repeated is
    /// given up for one on a new connection; doubled with each. `RESPONSE_TIMEOUT_MS`;
    /// default 1000.
    pub response_timeout: Option<u32>,
    /// Milliseconds, at least 1; a connection that was not used for longer is replaced
    /// before it is used again. `MAX_IDLE_MS`; default 180000.
    pub max_idle: Option<u32>,
    /// How many messages a session keeps, at least 1. `MAX_MESSAGES`; default no
    /// limit.
    pub max_messages: Option<u32>,
    /// Bytes that a message's content and metadata may have together, at least 1.
    /// `MAX_MESSAGE_BYTES`; default 1048576 (1 MiB).
    pub max_message_bytes: Option<u32>,
    /// Bytes that the replies to an operation may have together, at least 1024.
    /// `MAX_REPLY_BYTES`; default 268435456 (256 MiB).
    pub max_reply_bytes: Option<u32>,
}

// Not derived: what is given for a text may be a URL with a password, by mistake.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &Option<String>| {
            text.as_deref()
                .map(|text| if is_url(text) { URL } else { text }.to_owned())
        };
        f.debug_struct("Options")
            .field("provider", &self.provider)
            .field("host", &text(&self.host))
            .field("port", &self.port)
            .field("username", &text(&self.username))
            .field("password", &self.password)
            .field("db", &self.db)
            .field("session_ttl", &self.session_ttl)
            .field("ttl_policy", &self.ttl_policy)
            .field("delivery", &self.delivery)
            .field("key_prefix", &text(&self.key_prefix))
            .field("connect_timeout", &self.connect_timeout)
            .field("connect", &self.connect)
            .field("operation_timeout", &self.operation_timeout)
            .field("response_timeout", &self.response_timeout)
            .field("max_idle", &self.max_idle)
            .field("max_messages", &self.max_messages)
            .field("max_message_bytes", &self.max_message_bytes)
            .field("max_reply_bytes", &self.max_reply_bytes)
            .finish()
    }
}

/// A password. Debug output does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// The password itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Password {
    fn from(password: String) -> Password {
        Password(password)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Where the sessions are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Provider {
    /// In a Redis server.
    Redis,
    /// In the memory of the component instance.
    InMemory,
}

/// When a session expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TtlPolicy {
    /// A time after the last message was added.
    Sliding,
    /// A time after the first message was added.
    Fixed,
    /// Never.
    None,
}

/// What is done about an append whose answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Delivery {
    /// It is sent again until its deadline, and is in the session once. Stored
    /// messages carry an id.
    ExactlyOnce,
    /// It is never sent twice. Needs no scripting on the server.
    AtMostOnce,
}

/// When the first connection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Connect {
    /// When the client is opened.
    AtOpen,
    /// By the first operation, which is sent when the server has let the client in.
    AtFirstOperation,
    /// By the first operation, which is sent along with the credentials; one that
    /// writes waits for the answer, where there are any.
    WithFirstOperation,
}

/// What holds for a client: every option with its value.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the sessions are kept.
    pub provider: Provider,
    /// Name or address of the server, an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// ACL user; none is the server's default user.
    pub username: Option<String>,
    /// Password; none is no authentication.
    pub password: Option<Password>,
    /// Logical database.
    pub db: u32,
    /// Seconds.
    pub session_ttl: u32,
    /// When `session_ttl` begins to count.
    pub ttl_policy: TtlPolicy,
    /// What is done about an append whose answer is lost.
    pub delivery: Delivery,
    /// What precedes the session id in the key.
    pub key_prefix: String,
    /// Milliseconds for name lookup, connect and handshake.
    pub connect_timeout: u32,
    /// When the first connection is made.
    pub connect: Connect,
    /// Milliseconds for a whole operation.
    pub operation_timeout: u32,
    /// Milliseconds of silence that the first try has which may be repeated.
    pub response_timeout: u32,
    /// Milliseconds that a connection may be idle.
    pub max_idle: u32,
    /// How many messages a session keeps; none is all.
    pub max_messages: Option<u32>,
    /// Bytes of a message's content and metadata together.
    pub max_message_bytes: u32,
    /// Bytes of the reply to an operation.
    pub max_reply_bytes: u32,
}

impl Settings {
    /// The Redis key of a session.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if the session id is empty.
    pub fn key(&self, session_id: &str) -> Result<String, Error> {
        if session_id.is_empty() {
            let text = "the session id is empty, allowed is any other text";
            return Err(Error::InvalidArgument(text.to_owned()));
        }
        Ok([&self.key_prefix, session_id].concat())
    }
}

/// Whether a value is a URL, or part of one: what comes before an `@` may be a password.
fn is_url(value: &str) -> bool {
    find(value, "@").is_some() || find(value, "://").is_some()
}

const URL: &str = "what looks like a URL (not shown, since it may hold a password)";
