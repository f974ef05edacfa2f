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
            /// Creates options of which none is given.
            pub fn new() -> Options {
                Options::default()
            }

            $(
                #[doc = concat!("Gives [`", stringify!($name), "`](#structfield.", stringify!($name), ").")]
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
    /// Where the sessions are kept. `MEMORY_PROVIDER` (`redis` or `in-memory`);
    /// default `redis`.
    provider: Provider, from Provider;
    /// Name or address of the Redis server. `REDIS_HOST`; default `localhost`.
    host: String, from impl Into<String>;
    /// TCP port, 1 to 65535. `REDIS_PORT`; default 6379.
    port: u16, from u16;
    /// ACL user (Redis 6 or later). `REDIS_USERNAME`; default none. Empty means
    /// none.
    username: String, from impl Into<String>;
    /// `REDIS_PASSWORD`; default none. Empty means none.
    password: Password, from impl Into<Password>;
    /// Number of the logical database. `REDIS_DB`; default 0.
    db: u32, from u32;
    /// How long a session lives: a whole number of seconds, from 1 to [`u32::MAX`].
    /// `SESSION_TTL` in seconds; default one hour.
    session_ttl: Duration, from Duration;
    /// When that life begins. `SESSION_TTL_POLICY` (`sliding`, `fixed` or
    /// `none`); default `sliding`.
    ttl_policy: TtlPolicy, from TtlPolicy;
    /// What is done about an append whose answer is lost. `MESSAGE_DELIVERY`
    /// (`exactly-once` or `at-most-once`); default `exactly-once`.
    delivery: Delivery, from Delivery;
    /// What precedes the session id in the key. `KEY_PREFIX`; default `session:`.
    key_prefix: String, from impl Into<String>;
    /// How long name lookup, connecting and authenticating may take together: a whole
    /// number of milliseconds, from 1 to [`u32::MAX`]. `CONNECT_TIMEOUT_MS`; default five
    /// seconds.
    connect_timeout: Duration, from Duration;
    /// When the first connection is made. Default [`Connect::AtOpen`]; no
    /// environment variable.
    connect: Connect, from Connect;
    /// How long an operation may take, retries included: a whole number of milliseconds,
    /// from 1 to [`u32::MAX`]. `OPERATION_TIMEOUT_MS`; default five seconds.
    operation_timeout: Duration, from Duration;
    /// Silence after which an attempt that may be repeated is abandoned for one on a new
    /// connection; doubled with each attempt. A whole number of milliseconds, from 1 to
    /// [`u32::MAX`]. `RESPONSE_TIMEOUT_MS`; default one second.
    response_timeout: Duration, from Duration;
    /// A connection that was idle for longer is replaced before it is used again. A whole
    /// number of milliseconds, from 1 to [`u32::MAX`]. `MAX_IDLE_MS`; default three
    /// minutes.
    max_idle: Duration, from Duration;
    /// How many messages a session keeps, at least 1. `MAX_MESSAGES`; default no
    /// limit.
    max_messages: u32, from u32;
    /// Bytes that a message's content and metadata may have together, at least 1.
    /// `MAX_MESSAGE_BYTES`; default 1048576 (1 MiB).
    max_message_bytes: u32, from u32;
    /// Bytes that the replies to an operation may have together, at least 1024.
    /// `MAX_REPLY_BYTES`; default 268435456 (256 MiB).
    max_reply_bytes: u32, from u32;
}

/// Hides what may be a password by mistake.
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
