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
mod tests {
    use super::*;

    fn resolve(environment: &[(&str, &str)]) -> Result<Settings, Error> {
        resolve_with(Options::default(), environment)
    }

    fn resolve_with(given: Options, environment: &[(&str, &str)]) -> Result<Settings, Error> {
        let environment: Vec<_> = environment
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        Settings::resolve(given, &environment)
    }

    #[test]
    fn defaults() {
        let settings = resolve(&[]).unwrap();
        assert_eq!(settings.provider, Provider::Redis);
        assert_eq!(settings.host, "localhost");
        assert_eq!(settings.port, 6379);
        assert_eq!(settings.username, None);
        assert_eq!(settings.password, None);
        assert_eq!(settings.db, 0);
        assert_eq!(settings.session_ttl, 3600);
        assert_eq!(settings.ttl_policy, TtlPolicy::Sliding);
        assert_eq!(settings.delivery, Delivery::ExactlyOnce);
        assert_eq!(settings.key_prefix, "session:");
        assert_eq!(settings.connect_timeout, 5000);
        assert_eq!(settings.connect, Connect::AtOpen);
        assert_eq!(settings.operation_timeout, 5000);
        assert_eq!(settings.response_timeout, 1000);
        assert_eq!(settings.max_idle, 180_000);
        assert_eq!(settings.max_messages, None);
        assert_eq!(settings.max_message_bytes, 1_048_576);
        assert_eq!(settings.max_reply_bytes, 268_435_456);
    }

    #[test]
    fn every_variable_is_read() {
        let environment = [
            ("MEMORY_PROVIDER", "in-memory"),
            ("REDIS_HOST", "[::1]"),
            ("REDIS_PORT", "1"),
            ("REDIS_USERNAME", "u"),
            ("REDIS_PASSWORD", "p"),
            ("REDIS_DB", "2"),
            ("SESSION_TTL", "3"),
            ("SESSION_TTL_POLICY", "fixed"),
            ("MESSAGE_DELIVERY", "at-most-once"),
            ("KEY_PREFIX", "k:"),
            ("CONNECT_TIMEOUT_MS", "4"),
            ("OPERATION_TIMEOUT_MS", "5"),
            ("RESPONSE_TIMEOUT_MS", "9"),
            ("MAX_IDLE_MS", "10"),
            ("MAX_MESSAGES", "6"),
            ("MAX_MESSAGE_BYTES", "7"),
            ("MAX_REPLY_BYTES", "8000"),
        ];
        assert_eq!(environment.map(|(variable, _)| variable), VARIABLES);
        let settings = resolve(&environment).unwrap();
        assert_eq!(settings.provider, Provider::InMemory);
        assert_eq!(settings.host, "::1");
        assert_eq!(settings.port, 1);
        assert_eq!(settings.username.as_deref(), Some("u"));
        assert_eq!(settings.password.as_ref().map(Password::reveal), Some("p"));
        assert_eq!(settings.db, 2);
        assert_eq!(settings.session_ttl, 3);
        assert_eq!(settings.ttl_policy, TtlPolicy::Fixed);
        assert_eq!(settings.delivery, Delivery::AtMostOnce);
        assert_eq!(settings.key_prefix, "k:");
        assert_eq!(settings.connect_timeout, 4);
        assert_eq!(settings.operation_timeout, 5);
        assert_eq!(settings.response_timeout, 9);
        assert_eq!(settings.max_idle, 10);
        assert_eq!(settings.max_messages, Some(6));
        assert_eq!(settings.max_message_bytes, 7);
        assert_eq!(settings.max_reply_bytes, 8000);
    }

    #[test]
    fn what_is_given_goes_before_the_environment() {
        let given = Options {
            port: Some(7),
            host: Some("given".to_owned()),
            ttl_policy: Some(TtlPolicy::None),
            ..Options::default()
        };
        let environment = [
            ("REDIS_PORT", "nonsense"),
            ("REDIS_HOST", "set"),
            ("SESSION_TTL_POLICY", "x"),
        ];
        let settings = resolve_with(given, &environment).unwrap();
        assert_eq!(settings.port, 7);
        assert_eq!(settings.host, "given");
        assert_eq!(settings.ttl_policy, TtlPolicy::None);
    }

    #[test]
    fn an_empty_variable_is_an_unset_one() {
        let environment = VARIABLES.map(|variable| (variable, ""));
        let settings = resolve(&environment).unwrap();
        let unset = resolve(&[]).unwrap();
        assert_eq!(format!("{settings:?}"), format!("{unset:?}"));
        // An empty option is a value, and overrides the environment.
        let given = Options {
            key_prefix: Some(String::new()),
            username: Some(String::new()),
            password: Some(String::new().into()),
            ..Options::default()
        };
        let environment = [("KEY_PREFIX", "k:"), ("REDIS_USERNAME", "u")];
        let settings = resolve_with(given, &environment).unwrap();
        assert_eq!(settings.key_prefix, "");
        assert_eq!((settings.username, settings.password), (None, None));
    }

    #[test]
    fn a_password_is_not_shown() {
        let settings = resolve(&[("REDIS_PASSWORD", "hunter2")]).unwrap();
        assert!(format!("{settings:?}").contains("password: Some(Password(..))"));
    }

    #[test]
    fn a_url_that_is_given_is_not_shown() {
        let given = Options {
            host: Some("redis://:hunter2@h".to_owned()),
            username: Some("u".to_owned()),
            password: Some("hunter2".to_owned().into()),
            ..Options::default()
        };
        let shown = format!("{given:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains(r#"username: Some("u"), password: Some(Password(..)), db: None"#));
    }

    #[test]
    fn a_refusal_names_the_option_the_value_and_what_is_allowed() {
        for (variable, value, expected) in [
            (
                "MEMORY_PROVIDER",
                "mongo",
                "open: option provider (MEMORY_PROVIDER) is \"mongo\", allowed is redis or in-memory",
            ),
            (
                "SESSION_TTL_POLICY",
                "Sliding",
                "open: option ttl-policy (SESSION_TTL_POLICY) is \"Sliding\", allowed is sliding or fixed or none",
            ),
            (
                "REDIS_HOST",
                "[]",
                "open: option host (REDIS_HOST) is empty, allowed is a name or an IP address",
            ),
            (
                "REDIS_HOST",
                "redis://:hunter2@localhost:6379/0",
                "open: option host (REDIS_HOST) is a URL or part of one (not shown, because it may contain a password), allowed is a name or an IP address; port, username, password and db are separate options",
            ),
            (
                "REDIS_HOST",
                "default:hunter2@localhost",
                "open: option host (REDIS_HOST) is a URL or part of one (not shown, because it may contain a password), allowed is a name or an IP address; port, username, password and db are separate options",
            ),
            (
                "REDIS_HOST",
                "localhost:6379",
                "open: option host (REDIS_HOST) is neither a name nor an IP address, allowed is a name or an IP address without a port; the port is a separate option, port (REDIS_PORT)",
            ),
            (
                "REDIS_HOST",
                "/var/run/redis/redis.sock",
                "open: option host (REDIS_HOST) is a path, allowed is a name or an IP address, \
                 and a port; WASI 0.2 has no Unix sockets",
            ),
            (
                "REDIS_PORT",
                "tcp://10.0.0.1:6379",
                "open: option port (REDIS_PORT) is a URL or part of one (not shown, because it may contain a password), allowed is a whole number from 1 to 65535; container platforms set \
                 such a variable for a service that is named redis",
            ),
            (
                "REDIS_DB",
                "redis://u:hunter2@h/1",
                "open: option db (REDIS_DB) is a URL or part of one (not shown, because it may contain a password), allowed is a whole number from 0 to 2147483647",
            ),
            (
                "MESSAGE_DELIVERY",
                "hunter2@h",
                "open: option delivery (MESSAGE_DELIVERY) is a URL or part of one (not shown, because it may contain a password), allowed is exactly-once or at-most-once",
            ),
            (
                "SESSION_TTL",
                "1h",
                "open: option session-ttl (SESSION_TTL) is \"1h\", allowed is a whole number from 1 to 4294967295",
            ),
            (
                "REDIS_PORT",
                "0",
                "open: option port (REDIS_PORT) is 0, allowed is a whole number from 1 to 65535",
            ),
            (
                "REDIS_PORT",
                "65536",
                "open: option port (REDIS_PORT) is \"65536\", allowed is a whole number from 1 to 65535",
            ),
            (
                "REDIS_DB",
                "-1",
                "open: option db (REDIS_DB) is \"-1\", allowed is a whole number from 0 to 2147483647",
            ),
            (
                "SESSION_TTL",
                "0",
                "open: option session-ttl (SESSION_TTL) is 0, allowed is a whole number from 1 to 4294967295",
            ),
            (
                "MAX_REPLY_BYTES",
                "10",
                "open: option max-reply-bytes (MAX_REPLY_BYTES) is 10, allowed is a whole number from 1024 to 4294967295",
            ),
        ] {
            let error = resolve(&[(variable, value)]).err().unwrap();
            assert_eq!(error, Error::InvalidArgument(expected.to_owned()));
        }
    }

    #[test]
    fn a_duration_is_a_whole_number_of_its_unit() {
        type Give = fn(&mut Options, Duration);
        let ttl: Give = |options, duration| options.session_ttl = Some(duration);
        let connect: Give = |options, duration| options.connect_timeout = Some(duration);
        let operation: Give = |options, duration| options.operation_timeout = Some(duration);
        let response: Give = |options, duration| options.response_timeout = Some(duration);
        let idle: Give = |options, duration| options.max_idle = Some(duration);
        let resolve = |give: Give, duration: Duration| {
            let mut options = Options::default();
            give(&mut options, duration);
            resolve_with(options, &[("SESSION_TTL", "7"), ("MAX_IDLE_MS", "7")])
        };
        let longest = Duration::from_secs(u32::MAX.into());
        assert_eq!(resolve(ttl, longest).unwrap().session_ttl, u32::MAX);
        let longest = Duration::from_millis(u32::MAX.into());
        assert_eq!(resolve(connect, longest).unwrap().connect_timeout, u32::MAX);
        let milliseconds = Duration::from_millis(1500);
        assert_eq!(
            resolve(operation, milliseconds).unwrap().operation_timeout,
            1500
        );
        assert_eq!(
            resolve(response, milliseconds).unwrap().response_timeout,
            1500
        );
        assert_eq!(resolve(idle, milliseconds).unwrap().max_idle, 1500);
        let of_seconds = "a whole number of seconds from 1 to 4294967295";
        let of_milliseconds = "a whole number of milliseconds from 1 to 4294967295";
        for (give, duration, option, value, allowed) in [
            (
                ttl,
                Duration::ZERO,
                "session-ttl (SESSION_TTL)",
                "0",
                of_seconds,
            ),
            (
                ttl,
                milliseconds,
                "session-ttl (SESSION_TTL)",
                "1500000000 ns",
                of_seconds,
            ),
            (
                ttl,
                Duration::from_secs(1 << 32),
                "session-ttl (SESSION_TTL)",
                "4294967296",
                of_seconds,
            ),
            (
                connect,
                Duration::from_micros(1500),
                "connect-timeout (CONNECT_TIMEOUT_MS)",
                "1500000 ns",
                of_milliseconds,
            ),
            (
                operation,
                Duration::ZERO,
                "operation-timeout (OPERATION_TIMEOUT_MS)",
                "0",
                of_milliseconds,
            ),
            (
                response,
                Duration::from_millis(1 << 32),
                "response-timeout (RESPONSE_TIMEOUT_MS)",
                "4294967296",
                of_milliseconds,
            ),
            (
                idle,
                Duration::from_secs(u64::MAX),
                "max-idle (MAX_IDLE_MS)",
                "18446744073709551615",
                of_milliseconds,
            ),
        ] {
            let expected = format!("open: option {option} is {value}, allowed is {allowed}");
            assert_eq!(
                resolve(give, duration).err(),
                Some(Error::InvalidArgument(expected))
            );
        }
    }

    #[test]
    fn a_key_is_the_prefix_and_the_session_id() {
        let settings = resolve(&[]).unwrap();
        assert_eq!(settings.key("user-123").unwrap(), "session:user-123");
        assert_eq!(
            settings.key(""),
            Err(Error::InvalidArgument(
                "the session id is empty, allowed is any other text".to_owned()
            ))
        );
    }
}
