//! Resolves options to settings: from the caller, then from the environment, then from
//! the defaults.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use core::fmt;
use core::net::IpAddr;
use core::ops::RangeInclusive;
use core::str::FromStr;
use core::time::Duration;

use super::{Connect, Delivery, Options, Password, Provider, Settings, TtlPolicy, URL, is_url};
use crate::error::{Error, Quoted};

impl Settings {
    /// Takes each option from what is `given`, else from the `environment`, else from its
    /// default.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`], which names the option, the value (never a password) and
    /// what is allowed.
    pub fn resolve(given: Options, environment: &[(String, String)]) -> Result<Settings, Error> {
        let from = Environment(environment);
        Ok(Settings {
            provider: from.choice(&PROVIDER, given.provider, &PROVIDERS)?,
            host: from.host(given.host)?,
            port: from
                .number(&PORT, given.port, 1..=u16::MAX)?
                .unwrap_or(6379),
            username: from
                .text(&USERNAME, given.username)
                .filter(|s| !s.is_empty()),
            password: given
                .password
                .or_else(|| from.text(&PASSWORD, None).map(Password))
                .filter(|password| !password.0.is_empty()),
            // SELECT accepts no larger number.
            db: from
                .number(&DB, given.db, 0..=i32::MAX as u32)?
                .unwrap_or(0),
            session_ttl: from
                .duration(&SESSION_TTL, Unit::Seconds, given.session_ttl)?
                .unwrap_or(3600),
            ttl_policy: from.choice(&TTL_POLICY, given.ttl_policy, &TTL_POLICIES)?,
            delivery: from.choice(&DELIVERY, given.delivery, &DELIVERIES)?,
            key_prefix: from
                .text(&KEY_PREFIX, given.key_prefix)
                .unwrap_or_else(|| "session:".to_owned()),
            connect_timeout: from
                .duration(&CONNECT_TIMEOUT, Unit::Milliseconds, given.connect_timeout)?
                .unwrap_or(5000),
            connect: given.connect.unwrap_or(Connect::AtOpen),
            operation_timeout: from
                .duration(
                    &OPERATION_TIMEOUT,
                    Unit::Milliseconds,
                    given.operation_timeout,
                )?
                .unwrap_or(5000),
            response_timeout: from
                .duration(
                    &RESPONSE_TIMEOUT,
                    Unit::Milliseconds,
                    given.response_timeout,
                )?
                .unwrap_or(1000),
            max_idle: from
                .duration(&MAX_IDLE, Unit::Milliseconds, given.max_idle)?
                .unwrap_or(180_000),
            max_messages: from.positive(&MAX_MESSAGES, given.max_messages)?,
            max_message_bytes: from
                .positive(&MAX_MESSAGE_BYTES, given.max_message_bytes)?
                .unwrap_or(1 << 20),
            max_reply_bytes: from
                .number(&MAX_REPLY_BYTES, given.max_reply_bytes, 1024..=u32::MAX)?
                .unwrap_or(256 << 20),
        })
    }
}

/// The environment variables that are read. No others are.
pub const VARIABLES: [&str; 17] = [
    PROVIDER.variable,
    HOST.variable,
    PORT.variable,
    USERNAME.variable,
    PASSWORD.variable,
    DB.variable,
    SESSION_TTL.variable,
    TTL_POLICY.variable,
    DELIVERY.variable,
    KEY_PREFIX.variable,
    CONNECT_TIMEOUT.variable,
    OPERATION_TIMEOUT.variable,
    RESPONSE_TIMEOUT.variable,
    MAX_IDLE.variable,
    MAX_MESSAGES.variable,
    MAX_MESSAGE_BYTES.variable,
    MAX_REPLY_BYTES.variable,
];

/// The name of an option, and the environment variable that it is taken from otherwise.
struct Name {
    option: &'static str,
    variable: &'static str,
}

impl Name {
    const fn new(option: &'static str, variable: &'static str) -> Name {
        Name { option, variable }
    }

    fn refuse(&self, value: impl fmt::Display, allowed: impl fmt::Display) -> Error {
        Error::InvalidArgument(format!(
            "open: option {} ({}) is {value}, allowed is {allowed}",
            self.option, self.variable
        ))
    }

    /// Refuses a text, without showing it if it may hold a password.
    fn refuse_text(&self, value: &str, allowed: impl fmt::Display) -> Error {
        if is_url(value) {
            self.refuse(URL, allowed)
        } else {
            self.refuse(Quoted(value), allowed)
        }
    }
}

const PROVIDER: Name = Name::new("provider", "MEMORY_PROVIDER");
const HOST: Name = Name::new("host", "REDIS_HOST");
const PORT: Name = Name::new("port", "REDIS_PORT");
const USERNAME: Name = Name::new("username", "REDIS_USERNAME");
const PASSWORD: Name = Name::new("password", "REDIS_PASSWORD");
const DB: Name = Name::new("db", "REDIS_DB");
const SESSION_TTL: Name = Name::new("session-ttl", "SESSION_TTL");
const TTL_POLICY: Name = Name::new("ttl-policy", "SESSION_TTL_POLICY");
const DELIVERY: Name = Name::new("delivery", "MESSAGE_DELIVERY");
const KEY_PREFIX: Name = Name::new("key-prefix", "KEY_PREFIX");
const CONNECT_TIMEOUT: Name = Name::new("connect-timeout", "CONNECT_TIMEOUT_MS");
const OPERATION_TIMEOUT: Name = Name::new("operation-timeout", "OPERATION_TIMEOUT_MS");
const RESPONSE_TIMEOUT: Name = Name::new("response-timeout", "RESPONSE_TIMEOUT_MS");
const MAX_IDLE: Name = Name::new("max-idle", "MAX_IDLE_MS");
const MAX_MESSAGES: Name = Name::new("max-messages", "MAX_MESSAGES");
const MAX_MESSAGE_BYTES: Name = Name::new("max-message-bytes", "MAX_MESSAGE_BYTES");
const MAX_REPLY_BYTES: Name = Name::new("max-reply-bytes", "MAX_REPLY_BYTES");

/// The values of an option that has a fixed set of them. The first is the default.
type Choices<T, const N: usize> = [(&'static str, T); N];

const PROVIDERS: Choices<Provider, 2> = [
    ("redis", Provider::Redis),
    ("in-memory", Provider::InMemory),
];
const TTL_POLICIES: Choices<TtlPolicy, 3> = [
    ("sliding", TtlPolicy::Sliding),
    ("fixed", TtlPolicy::Fixed),
    ("none", TtlPolicy::None),
];

const DELIVERIES: Choices<Delivery, 2> = [
    ("exactly-once", Delivery::ExactlyOnce),
    ("at-most-once", Delivery::AtMostOnce),
];

/// What a duration is counted in.
#[derive(Clone, Copy)]
enum Unit {
    Seconds,
    Milliseconds,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Seconds => "seconds",
            Unit::Milliseconds => "milliseconds",
        }
    }

    /// Returns how many units a duration is, if it is a whole number of them.
    fn count(self, duration: Duration) -> Option<u64> {
        let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
        match self {
            Unit::Seconds => (nanoseconds == 0).then_some(seconds),
            Unit::Milliseconds => nanoseconds.is_multiple_of(1_000_000).then(|| {
                let milliseconds = seconds.saturating_mul(1000);
                milliseconds.saturating_add(u64::from(nanoseconds / 1_000_000))
            }),
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(duration.subsec_nanos().into())
}

struct Environment<'a>(&'a [(String, String)]);

impl Environment<'_> {
    fn get(&self, name: &Name) -> Option<&str> {
        let (_, value) = self
            .0
            .iter()
            .find(|(variable, _)| variable == name.variable)?;
        // An empty variable counts as unset: `${UNSET:-}` makes one.
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &Name, given: Option<String>) -> Option<String> {
        given.or_else(|| self.get(name).map(str::to_owned))
    }

    fn host(&self, given: Option<String>) -> Result<String, Error> {
        let host = self
            .text(&HOST, given)
            .unwrap_or_else(|| "localhost".to_owned());
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(&host);
        let is_address = || bare.parse::<IpAddr>().is_ok();
        if bare.is_empty() {
            Err(HOST.refuse("empty", "a name or an IP address"))
        } else if is_url(bare) {
            Err(HOST.refuse(
                URL,
                "a name or an IP address; port, username, password and db are separate options",
            ))
        } else if bare.contains('/') {
            Err(HOST.refuse(
                "a path",
                "a name or an IP address, and a port; WASI 0.2 has no Unix sockets",
            ))
        } else if bare.contains(':') && !is_address() {
            Err(HOST.refuse(
                "neither a name nor an IP address",
                "a name or an IP address without a port; the port is a separate option, port \
                 (REDIS_PORT)",
            ))
        } else {
            Ok(bare.to_owned())
        }
    }

    fn choice<T: Copy, const N: usize>(
        &self,
        name: &Name,
        given: Option<T>,
        choices: &Choices<T, N>,
    ) -> Result<T, Error> {
        if let Some(given) = given {
            return Ok(given);
        }
        let Some(value) = self.get(name) else {
            return Ok(choices[0].1);
        };
        match choices.iter().find(|(spelling, _)| *spelling == value) {
            Some((_, choice)) => Ok(*choice),
            None => {
                Err(name.refuse_text(value, choices.map(|(spelling, _)| spelling).join(" or ")))
            }
        }
    }

    /// Returns a duration in the unit that the component counts it in.
    fn duration(
        &self,
        name: &Name,
        unit: Unit,
        given: Option<Duration>,
    ) -> Result<Option<u32>, Error> {
        let Some(given) = given else {
            return self.positive(name, None);
        };
        let allowed = format_args!("a whole number of {} from 1 to {}", unit.name(), u32::MAX);
        match unit.count(given) {
            // `Debug` of a duration takes 2 KB of the component.
            None => Err(name.refuse(format_args!("{} ns", nanoseconds(given)), allowed)),
            Some(count) => match u32::try_from(count) {
                Ok(count @ 1..) => Ok(Some(count)),
                _ => Err(name.refuse(count, allowed)),
            },
        }
    }

    fn positive(&self, name: &Name, given: Option<u32>) -> Result<Option<u32>, Error> {
        self.number(name, given, 1..=u32::MAX)
    }

    fn number<T: Copy + PartialOrd + FromStr + fmt::Display>(
        &self,
        name: &Name,
        given: Option<T>,
        allowed: RangeInclusive<T>,
    ) -> Result<Option<T>, Error> {
        let range = || {
            format!(
                "a whole number from {} to {}",
                allowed.start(),
                allowed.end()
            )
        };
        let number = match (given, self.get(name)) {
            (Some(number), _) => number,
            (None, None) => return Ok(None),
            (None, Some(value)) => match value.parse() {
                Ok(number) => number,
                Err(_) if name.option == PORT.option && is_url(value) => {
                    let why = format!(
                        "{}; container platforms set such a variable for a service that is named \
                         redis",
                        range()
                    );
                    return Err(name.refuse_text(value, why));
                }
                Err(_) => return Err(name.refuse_text(value, range())),
            },
        };
        if !allowed.contains(&number) {
            return Err(name.refuse(number, range()));
        }
        Ok(Some(number))
    }
}

#[cfg(test)]
mod tests;
