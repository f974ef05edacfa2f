//! Tests of how options are resolved, and of the texts that refuse them.

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
