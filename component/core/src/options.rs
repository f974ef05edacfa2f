//! How a client is opened: options from the caller, then from the environment, then the
//! defaults.

mod resolve;

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::time::Duration;

pub use resolve::VARIABLES;

use crate::error::{Error, find};

/// Declares [`Options`]: for each option its documentation, its name, its type, and what
/// its setter takes.
macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $type:ty, from $given:ty;)*) => {
        /// How a client is opened. An option that is not given is taken from the environment
        /// variable that its documentation names. If that is not set, or empty, the default
        /// holds.
        ///
        /// ```
        /// # use core::time::Duration;
        /// # use session_memory_core::options::Options;
        /// let options = Options::new()
        ///     .host("redis.internal")
        ///     .session_ttl(Duration::from_secs(24 * 60 * 60));
        /// assert_eq!(options.host.as_deref(), Some("redis.internal"));
        /// assert_eq!(options.port, None);
        /// ```
        ///
        /// Debug output shows no password, and no text that may hold one.
        #[derive(Clone, Default)]
        #[non_exhaustive]
        pub struct Options {
            $($(#[$doc])* pub $name: Option<$type>,)*
        }

        impl Options {
            /// Creates options without values.
            pub fn new() -> Options {
                Options::default()
            }

            $(
                #[doc = concat!("Sets [`", stringify!($name), "`](#structfield.", stringify!($name), ").")]
                #[must_use]
                pub fn $name(mut self, $name: $given) -> Options {
                    self.$name = Some($name.into());
                    self
                }
            )*
        }

        impl fmt::Debug for Options {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct("Options")
                    $(.field(stringify!($name), &self.$name.as_ref().map(Redact::redact)))*
                    .finish()
            }
        }
    };
}

options! {
    /// Where sessions are stored. `MEMORY_PROVIDER` (`redis` or `in-memory`); default
    /// `redis`.
    provider: Provider, from Provider;
    /// Name or address of the Redis server. `REDIS_HOST`; default `localhost`.
    host: String, from impl Into<String>;
    /// TCP port, 1 to 65535. `REDIS_PORT`; default 6379.
    port: u16, from u16;
    /// ACL user (Redis 6 or later). `REDIS_USERNAME`; default none. Empty means none.
    username: String, from impl Into<String>;
    /// Password of the user. `REDIS_PASSWORD`; default none. Empty means none.
    password: Password, from impl Into<Password>;
    /// Number of the logical database. `REDIS_DB`; default 0.
    db: u32, from u32;
    /// Time to live of a session: a whole number of seconds, from 1 to [`u32::MAX`].
    /// `SESSION_TTL`, in seconds; default one hour.
    session_ttl: Duration, from Duration;
    /// When a session expires. `SESSION_TTL_POLICY` (`sliding`, `fixed` or `none`);
    /// default `sliding`.
    ttl_policy: TtlPolicy, from TtlPolicy;
    /// What happens to an append whose reply is lost. `MESSAGE_DELIVERY` (`exactly-once`
    /// or `at-most-once`); default `exactly-once`.
    delivery: Delivery, from Delivery;
    /// Prefix of a session's key, before the session id. `KEY_PREFIX`; default
    /// `session:`.
    key_prefix: String, from impl Into<String>;
    /// Time limit for name lookup, connecting and authenticating: a whole number of
    /// milliseconds, from 1 to [`u32::MAX`]. `CONNECT_TIMEOUT_MS`; default five seconds.
    connect_timeout: Duration, from Duration;
    /// When the client makes its first connection. Default [`Connect::AtOpen`]; no
    /// environment variable.
    connect: Connect, from Connect;
    /// Time limit for a whole operation, retries included: a whole number of
    /// milliseconds, from 1 to [`u32::MAX`]. `OPERATION_TIMEOUT_MS`; default five
    /// seconds.
    operation_timeout: Duration, from Duration;
    /// Silence after which an attempt is abandoned, if it may be repeated. The timeout
    /// doubles with each attempt. A whole number of milliseconds, from 1 to
    /// [`u32::MAX`]. `RESPONSE_TIMEOUT_MS`; default one second.
    response_timeout: Duration, from Duration;
    /// Maximum idle time of a connection: a whole number of milliseconds, from 1 to
    /// [`u32::MAX`]. A connection that was idle for longer is replaced before it is used
    /// again. `MAX_IDLE_MS`; default three minutes.
    max_idle: Duration, from Duration;
    /// Number of messages that a session keeps, at least 1. `MAX_MESSAGES`; default no
    /// limit.
    max_messages: u32, from u32;
    /// Maximum size of a message, content and metadata together, in bytes of UTF-8, at
    /// least 1. `MAX_MESSAGE_BYTES`; default 1048576 (1 MiB).
    max_message_bytes: u32, from u32;
    /// Maximum size of all replies to one operation together, in bytes, at least 1024.
    /// `MAX_REPLY_BYTES`; default 268435456 (256 MiB).
    max_reply_bytes: u32, from u32;
}

/// Hides text that may contain a password by mistake.
trait Redact {
    fn redact(&self) -> &dyn fmt::Debug;
}

impl Redact for String {
    fn redact(&self) -> &dyn fmt::Debug {
        if is_url(self) { &URL } else { self }
    }
}

macro_rules! shown {
    ($($type:ty),*) => {
        $(impl Redact for $type {
            fn redact(&self) -> &dyn fmt::Debug {
                self
            }
        })*
    };
}

shown!(
    Connect, Delivery, Duration, Password, Provider, TtlPolicy, u16, u32
);

/// A password. Debug output does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Returns the password itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Password {
    fn from(password: String) -> Password {
        Password(password)
    }
}

impl From<&str> for Password {
    fn from(password: &str) -> Password {
        Password(password.to_owned())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Where sessions are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Provider {
    /// In a Redis server, or in a server that speaks its protocol.
    Redis,
    /// In the memory of the component instance. Sessions live as long as the instance.
    InMemory,
}

/// When a session expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TtlPolicy {
    /// `session_ttl` after the last message was added.
    Sliding,
    /// `session_ttl` after the first message was added.
    Fixed,
    /// Never. If another program gives the session an expiry, the expiry stays.
    None,
}

/// What happens to an append whose reply is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Delivery {
    /// The append is retried until its deadline, and is in the session once. Stored
    /// messages have an id. Requires a server with scripting.
    ExactlyOnce,
    /// The append is never sent twice. Requires no scripting on the server.
    AtMostOnce,
}

/// When a client makes its first connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Connect {
    /// When the client is opened.
    AtOpen,
    /// In the first operation, whose request is sent after the handshake has succeeded.
    AtFirstOperation,
    /// In the first operation, whose request is sent together with the credentials. If it
    /// writes and there are credentials, it waits for the replies to the handshake.
    WithFirstOperation,
}

/// The settings of a client: every option with its value.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where sessions are stored.
    pub provider: Provider,
    /// Name or address of the server, an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// ACL user. `None` means the server's default user.
    pub username: Option<String>,
    /// Password. `None` means no authentication.
    pub password: Option<Password>,
    /// Logical database.
    pub db: u32,
    /// Time to live of a session, in seconds.
    pub session_ttl: u32,
    /// When a session expires.
    pub ttl_policy: TtlPolicy,
    /// What happens to an append whose reply is lost.
    pub delivery: Delivery,
    /// Prefix of a session's key, before the session id.
    pub key_prefix: String,
    /// Time limit for name lookup, connecting and handshake, in milliseconds.
    pub connect_timeout: u32,
    /// When the client makes its first connection.
    pub connect: Connect,
    /// Time limit for a whole operation, in milliseconds.
    pub operation_timeout: u32,
    /// Silence after which the first attempt is abandoned, if it may be repeated, in
    /// milliseconds.
    pub response_timeout: u32,
    /// Maximum idle time of a connection, in milliseconds.
    pub max_idle: u32,
    /// Number of messages that a session keeps. `None` means all.
    pub max_messages: Option<u32>,
    /// Maximum size of a message, content and metadata together, in bytes.
    pub max_message_bytes: u32,
    /// Maximum size of all replies to one operation together, in bytes.
    pub max_reply_bytes: u32,
}

impl Settings {
    /// Returns the Redis key of a session.
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

/// Returns whether a value is a URL, or part of one. The text before an `@` may be a
/// password.
fn is_url(value: &str) -> bool {
    find(value, "@").is_some() || find(value, "://").is_some()
}

const URL: &str = "a URL or part of one (not shown, because it may contain a password)";
