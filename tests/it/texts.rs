//! The exact texts of errors, which operators read and act on. They come from real
//! servers where possible, and from canned replies elsewhere.

mod missing_commands;
mod settings;
mod unusual_servers;

use std::time::Duration;

use session_memory_host::{Connect, Options, Role, SessionMemory};

use crate::common::{
    at_most_once, builder, memory_with, peer_replying, refusal, server, server_with,
};

const WORDS: &str = "secret words";
const PASSWORD: &str = "hunter2-correct";

fn with_db(options: Options) -> Options {
    options.db(1)
}

fn credentials(username: Option<&str>, password: &str) -> Options {
    let mut options = Options::new().password(password.to_owned());
    options.username = username.map(str::to_owned);
    options
}

/// Short, because some errors are retried until the deadline.
fn impatient(options: Options) -> Options {
    options.operation_timeout(Duration::from_millis(300))
}

/// The variant and the text of a failed append.
async fn add(memory: &SessionMemory) -> (&'static str, String) {
    refusal(memory.add("s", Role::User, WORDS, None).await)
}

async fn get(memory: &SessionMemory) -> (&'static str, String) {
    refusal(memory.get("s", None).await)
}

async fn history(memory: &SessionMemory) -> (&'static str, String) {
    refusal(memory.history("s", None).await)
}

async fn open(port: u16, options: Options) -> (&'static str, String) {
    refusal(builder(port, options).open().await)
}

/// The error of a failed connection.
fn on_the_way(port: u16, variant: &'static str, what: &str) -> (&'static str, String) {
    (variant, format!("connect to \"127.0.0.1:{port}\": {what}"))
}

#[tokio::test]
async fn credentials_that_are_refused_say_what_is_wrong_with_them() {
    let server = server_with(&["--requirepass", PASSWORD]);
    let port = server.port();
    let wrong = "the server does not accept the username or the password";
    for options in [
        credentials(None, "hunter2-wrong"),
        credentials(Some("nobody"), PASSWORD),
        with_db(credentials(None, "hunter2-wrong")),
    ] {
        let expected = on_the_way(port, "access-denied", wrong);
        assert_eq!(open(port, options.clone()).await, expected);
        // The error of an operation that connects names the operation as well.
        let later = options.connect(Connect::AtFirstOperation);
        let memory = memory_with(&server, later).await;
        let (variant, text) = expected;
        assert_eq!(get(&memory).await, (variant, format!("get \"s\": {text}")));
    }
    let none = "NOAUTH: the server requires a password (option password, REDIS_PASSWORD)";
    for options in [
        Options::default(),
        at_most_once(),
        with_db(Options::default()),
    ] {
        let expected = on_the_way(port, "access-denied", none);
        assert_eq!(open(port, options).await, expected);
    }
}

#[tokio::test]
async fn a_password_that_the_server_has_not_is_to_be_left_out() {
    let none = "the server has no password: leave out password (REDIS_PASSWORD)";
    let server = server();
    for options in [
        credentials(None, PASSWORD),
        with_db(credentials(None, PASSWORD)),
    ] {
        let opened = open(server.port(), options).await;
        assert_eq!(opened, on_the_way(server.port(), "access-denied", none));
    }
}

#[tokio::test]
async fn redis_5_says_it_otherwise() {
    for (username, replies, error_text) in [
        (
            None,
            &b"-ERR invalid password\r\n-NOAUTH Authentication required.\r\n"[..],
            "the server does not accept the username or the password",
        ),
        (
            None,
            b"-ERR Client sent AUTH, but no password is set\r\n+PONG\r\n",
            "the server has no password: leave out password (REDIS_PASSWORD)",
        ),
        (
            Some("agent"),
            b"-ERR wrong number of arguments for 'auth' command\r\n+PONG\r\n",
            "the server does not support users (before Redis 6): leave out username \
             (REDIS_USERNAME)",
        ),
    ] {
        let port = peer_replying(&[replies]);
        let opened = open(port, credentials(username, PASSWORD)).await;
        assert_eq!(opened, on_the_way(port, "access-denied", error_text));
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named() {
    let server = server();
    let port = server.port();
    let options = Options::new().db(16);
    let error_text = "option db (REDIS_DB) is 16: the server does not have it";
    let expected = on_the_way(port, "invalid-argument", error_text);
    assert_eq!(open(port, options).await, expected);
}
