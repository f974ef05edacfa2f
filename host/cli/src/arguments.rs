//! The options of the command line. Arguments that may hold a password are never shown.

use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, ValueEnum};
use session_memory_host::{Delivery, Provider, TtlPolicy};

/// Numbers stay texts here. They are parsed together with the environment variables.
#[derive(Args)]
#[command(next_help_heading = "Options (and environment variables)")]
pub struct OptionArgs {
    /// Where sessions are kept [MEMORY_PROVIDER; default: redis]
    #[arg(long, global = true)]
    pub provider: Option<ProviderArg>,
    /// Name or address of the server [REDIS_HOST; default: localhost]
    #[arg(long, global = true)]
    pub host: Option<String>,
    /// TCP port [REDIS_PORT; default: 6379]
    #[arg(long, global = true)]
    pub port: Option<String>,
    /// ACL user [REDIS_USERNAME]
    #[arg(long, global = true, value_name = "NAME")]
    pub username: Option<String>,
    /// File with the password; a trailing line end is not part of it
    #[arg(long, global = true, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Number of the database [REDIS_DB; default: 0]
    #[arg(long, global = true, value_name = "N")]
    pub db: Option<String>,
    /// Time to live of a session [SESSION_TTL; default: 3600]
    #[arg(long, global = true, value_name = "SECONDS")]
    pub session_ttl: Option<String>,
    /// When the time to live is set: at each add, at the first, or never
    /// [SESSION_TTL_POLICY; default: sliding]
    #[arg(long, global = true, value_name = "POLICY")]
    pub ttl_policy: Option<TtlPolicyArg>,
    /// When the reply to an append is lost: retry it, or never send it twice
    /// [MESSAGE_DELIVERY; default: exactly-once]
    #[arg(long, global = true)]
    pub delivery: Option<DeliveryArg>,
    /// Prefix of the Redis keys [KEY_PREFIX; default: session:]
    #[arg(long, global = true, value_name = "TEXT")]
    pub key_prefix: Option<String>,
    /// Limit for name lookup, connecting and authenticating [CONNECT_TIMEOUT_MS;
    /// default: 5000]
    #[arg(long, global = true, value_name = "MS")]
    pub connect_timeout: Option<String>,
    /// Limit for a whole operation [OPERATION_TIMEOUT_MS; default: 5000]
    #[arg(long, global = true, value_name = "MS")]
    pub operation_timeout: Option<String>,
    /// Silence after which an operation is retried on a new connection, if it may be
    /// sent again [RESPONSE_TIMEOUT_MS; default: 1000]
    #[arg(long, global = true, value_name = "MS")]
    pub response_timeout: Option<String>,
    /// Idle time after which a connection is replaced [MAX_IDLE_MS; default: 180000]
    #[arg(long, global = true, value_name = "MS")]
    pub max_idle: Option<String>,
    /// Number of messages that a session keeps [MAX_MESSAGES; default: all]
    #[arg(long, global = true, value_name = "N")]
    pub max_messages: Option<String>,
    /// Most bytes of content and metadata in a message [MAX_MESSAGE_BYTES; default:
    /// 1048576]
    #[arg(long, global = true, value_name = "BYTES")]
    pub max_message_bytes: Option<String>,
    /// Most bytes in a reply [MAX_REPLY_BYTES; default: 268435456]
    #[arg(long, global = true, value_name = "BYTES")]
    pub max_reply_bytes: Option<String>,
    /// Run this component instead of the built-in one
    #[arg(long, global = true, value_name = "FILE")]
    pub component: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum ProviderArg {
    Redis,
    InMemory,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum DeliveryArg {
    ExactlyOnce,
    AtMostOnce,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum TtlPolicyArg {
    Sliding,
    Fixed,
    None,
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

/// Whether an argument may hold a password, as a URL or a part of one does.
pub fn may_hold_a_password(argument: &str) -> bool {
    argument.contains('@') || argument.contains("://")
}

/// Replaces the arguments in an error that may hold a password.
pub fn without_secrets(mut error: clap::Error) -> clap::Error {
    let hidden: Vec<(ContextKind, ContextValue)> = error
        .context()
        .filter(|(_, value)| may_hold_a_password(&value.to_string()))
        .map(|(kind, value)| match value {
            ContextValue::String(_) => (kind, ContextValue::String(NOT_SHOWN.to_owned())),
            // Lists, and tips that repeat the argument.
            _ => (kind, ContextValue::None),
        })
        .collect();
    for (kind, value) in hidden {
        error.insert(kind, value);
    }
    error
}

/// Shown instead of an argument that may hold a password.
pub const NOT_SHOWN: &str = "(not shown)";
