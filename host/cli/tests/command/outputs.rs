//! What the command prints, where, and its exit codes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Output;

use session_memory_test_support::{
    elements, expires_in, free_port, redis, run, server, server_with,
};

use crate::session_memory;

struct Shell {
    port: String,
}

impl Shell {
    /// Exit code, standard output, standard error.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        self.run_with(arguments, b"")
    }

    fn run_with(&self, arguments: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
        let place = ["--host", "127.0.0.1", "--port", &self.port];
        outcome(run(
            &mut session_memory(&[arguments, &place].concat()),
            input,
        ))
    }

    fn prints(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.run(arguments);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}");
        out
    }
}

fn outcome(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn operations_print_their_results() {
    let server = server();
    let shell = Shell {
        port: server.port().to_string(),
    };
    assert_eq!(shell.prints(&["exists", "s"]), "false\n");
    assert_eq!(shell.prints(&["count", "s"]), "0\n");
    assert_eq!(shell.prints(&["get", "s"]), "");
    assert_eq!(shell.prints(&["history", "s"]), "0 of 0 messages\n");
    assert_eq!(shell.prints(&["add", "s", "user", "What is RAG?"]), "1\n");
    let metadata = "{\"a\":\n 12345678901234567890123, \"b\": \"Zoë\"}";
    assert_eq!(
        shell.prints(&[
            "add",
            "s",
            "assistant",
            "two\nlines",
            "--metadata",
            metadata
        ]),
        "2\n"
    );
    assert_eq!(
        shell
            .run_with(&["add", "s", "user"], "from stdin\n".as_bytes())
            .1,
        "3\n"
    );
    assert_eq!(shell.run_with(&["add", "s", "user", "-"], b"").1, "4\n");
    assert_eq!(shell.prints(&["exists", "s"]), "true\n");
    assert_eq!(shell.prints(&["count", "s"]), "4\n");

    let without_times = |text: String| -> Vec<String> {
        text.lines()
            .map(|line| match line.split_once(' ') {
                Some((time, rest)) if time.starts_with("20") => rest.to_owned(),
                _ => line.to_owned(),
            })
            .collect()
    };
    assert_eq!(
        without_times(shell.prints(&["get", "s"])),
        [
            "user: What is RAG?",
            "assistant: two",
            "    lines",
            "    {\"a\":  12345678901234567890123, \"b\": \"Zoë\"}",
            "user: from stdin",
            "    ",
            "user: "
        ]
    );
    let history = without_times(shell.prints(&["history", "s", "--limit", "1"]));
    assert_eq!(history[0], "user: ");
    assert!(
        history[1].starts_with("1 of 4 messages, expires in 3"),
        "{history:?}"
    );

    let json = shell.prints(&["get", "s", "--json"]);
    let messages: Vec<serde_json::Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(messages.len(), 4);
    assert_eq!(messages[1]["role"], "assistant");
    assert_eq!(messages[1]["content"], "two\nlines");
    assert_eq!(messages[1]["metadata"]["b"], "Zoë");
    assert!(json.contains("12345678901234567890123"));
    assert_eq!(messages[2]["content"], "from stdin\n");
    assert!(messages[0].get("metadata").is_none());
    let last = shell.prints(&["get", "s", "--json", "--limit", "1"]);
    assert_eq!(last.lines().count(), 1);
    let history: serde_json::Value =
        serde_json::from_str(&shell.prints(&["history", "s", "--json"])).unwrap();
    assert_eq!(
        (&history["total"], &history["skipped"]),
        (&4.into(), &0.into())
    );
    assert_eq!(history["messages"].as_array().unwrap().len(), 4);
    assert!(history["ttl_seconds"].as_u64().unwrap() > 3590);

    assert_eq!(shell.prints(&["clear", "s"]), "");
    assert_eq!(shell.prints(&["clear", "s"]), "");
    assert_eq!(shell.prints(&["exists", "s"]), "false\n");
}

#[test]
fn options_come_before_the_environment() {
    let server = server();
    let port = server.port().to_string();
    let mut command = session_memory(&[
        "--key-prefix",
        "given:",
        "--session-ttl",
        "77",
        "add",
        "s",
        "user",
        "x",
    ]);
    command
        .env("REDIS_HOST", "127.0.0.1")
        .env("REDIS_PORT", &port)
        .env("KEY_PREFIX", "env:");
    assert_eq!(
        outcome(run(&mut command, b"")),
        (Some(0), "1\n".to_owned(), String::new())
    );
    assert_eq!(elements(&server, "given:s").len(), 1);
    expires_in(&mut server.client().unwrap(), "given:s", 77);

    let mut command = session_memory(&["--provider", "in-memory", "add", "s", "user", "x"]);
    assert_eq!(outcome(run(&mut command, b"")).1, "1\n");
    let mut command = session_memory(&["exists", "s"]);
    command.env("MEMORY_PROVIDER", "in-memory");
    assert_eq!(outcome(run(&mut command, b"")).1, "false\n");
}

#[test]
fn errors_go_to_standard_error_and_exit_with_1() {
    let server = server();
    let shell = Shell {
        port: server.port().to_string(),
    };
    redis(&server, &["SET", "session:foreign", "x"]);
    let dead = free_port().unwrap().to_string();
    for (arguments, expected) in [
        (
            &["get", ""][..],
            "error: invalid-argument: get \"\": the session id is empty",
        ),
        (
            &["get", "foreign"],
            "error: wrong-type: get \"foreign\": WRONGTYPE: ",
        ),
        (
            &["add", "s", "user", "x", "--metadata", "[]"],
            "error: invalid-argument: add to \"s\": the metadata is not a JSON object",
        ),
        (
            &["add", "s", "user", "xx", "--max-message-bytes", "1"],
            "error: limit-exceeded: add to \"s\": the message has 2 bytes",
        ),
        (
            &["get", "s", "--db", "99"],
            "error: invalid-argument: connect to",
        ),
        (
            &["get", "s", "--component", "Cargo.toml"],
            "error: component: ",
        ),
        (
            &["get", "s", "--component", "no such file"],
            "error: component: read no such file: ",
        ),
        (
            &["get", "s", "--password-file", "no such file"],
            "error: input: no such file: ",
        ),
    ] {
        let (code, out, err) = shell.run(arguments);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(err.starts_with(expected), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    let refused = Shell { port: dead }.run(&["exists", "s"]);
    assert_eq!(refused.0, Some(1));
    assert!(
        refused.2.starts_with("error: unavailable: connect to "),
        "{}",
        refused.2
    );
    let not_text = shell.run_with(&["add", "s", "user"], b"\xff");
    assert_eq!(
        not_text.2,
        "error: invalid-argument: the content on standard input is not UTF-8\n"
    );
    assert_eq!(shell.prints(&["exists", "s"]), "false\n");
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &[][..],
        &["forget", "s"],
        &["get"],
        &["get", "s", "--limit", "-1"],
        &["add", "s", "system", "x"],
        &["add", "s", "user", "x", "--provider", "mongo"],
        &["add", "s", "user", "x", "--password", "hunter2"],
    ] {
        let (code, out, err) = outcome(run(&mut session_memory(arguments), b""));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(!err.is_empty());
    }
    let (code, out, _) = outcome(run(&mut session_memory(&["--help"]), b""));
    assert_eq!(code, Some(0));
    assert!(out.contains("REDIS_PASSWORD"));
}

#[test]
fn a_setting_that_is_not_allowed_exits_with_2_wherever_it_comes_from() {
    for (option, variable, value, expected) in [
        ("port", "REDIS_PORT", "70000", "is \"70000\", allowed is"),
        ("db", "REDIS_DB", "x", "is \"x\", allowed is"),
        ("session-ttl", "SESSION_TTL", "0", "is 0, allowed is"),
        ("connect-timeout", "CONNECT_TIMEOUT_MS", "-1", "is \"-1\","),
        ("operation-timeout", "OPERATION_TIMEOUT_MS", "0", "is 0, "),
        ("max-messages", "MAX_MESSAGES", "all", "is \"all\", "),
        ("response-timeout", "RESPONSE_TIMEOUT_MS", "0", "is 0, "),
        ("max-idle", "MAX_IDLE_MS", "1h", "is \"1h\", allowed is"),
        ("max-message-bytes", "MAX_MESSAGE_BYTES", "1 MiB", "is \"1 "),
        ("max-reply-bytes", "MAX_REPLY_BYTES", "10", "is 10, allowed"),
    ] {
        let expected =
            format!("error: invalid-argument: open: option {option} ({variable}) {expected}");
        let argument = format!("--{option}={value}");
        let mut given = session_memory(&["exists", "s", &argument]);
        // An option takes precedence over its variable.
        given.env(variable, "7000");
        let mut from_environment = session_memory(&["exists", "s"]);
        from_environment.env(variable, value);
        for command in [&mut given, &mut from_environment] {
            let (code, out, err) = outcome(run(command, b""));
            assert_eq!((code, out.as_str()), (Some(2), ""), "{option}: {err}");
            assert!(err.starts_with(&expected), "{err}");
            assert_eq!(err.lines().count(), 1, "{err}");
        }
        let mut command = session_memory(&["--provider=in-memory", "exists", "s"]);
        command.arg(format!("--{option}=7000")).env(variable, value);
        let result = outcome(run(&mut command, b""));
        assert_eq!(result, (Some(0), "false\n".to_owned(), String::new()));
    }
    for (variable, value, expected) in [
        ("MEMORY_PROVIDER", &b"mongo"[..], "open: option provider"),
        ("SESSION_TTL_POLICY", b"never", "open: option ttl-policy"),
        ("MESSAGE_DELIVERY", b"twice", "open: option delivery"),
        ("REDIS_HOST", b"h:1", "open: option host"),
        (
            "KEY_PREFIX",
            b"\xff",
            "open: environment variable KEY_PREFIX is not UTF-8",
        ),
    ] {
        let mut command = session_memory(&["exists", "s"]);
        command.env(variable, OsStr::from_bytes(value));
        let (code, out, err) = outcome(run(&mut command, b""));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{variable}: {err}");
        let expected = format!("error: invalid-argument: {expected}");
        assert!(err.starts_with(&expected), "{err}");
    }
}

#[test]
fn an_argument_that_may_hold_a_password_shows_nowhere() {
    const URL: &str = "redis://:hunter2@127.0.0.1:6379/0";
    let server = server();
    let outcome_of = |arguments: &[&str], port: u16| {
        let mut command = session_memory(arguments);
        command.env("REDIS_HOST", "127.0.0.1");
        command.env("REDIS_PORT", port.to_string());
        outcome(run(&mut command, b""))
    };
    let long = format!("{URL}\r\n{}", "x".repeat(300));
    for secret in [URL, "hunter2@redis", "[redis://hunter2]", &long] {
        let option = |name: &str| format!("--{name}={secret}");
        let flag = format!("-x{secret}");
        let options = [
            "",
            "port",
            "db",
            "session-ttl",
            "connect-timeout",
            "operation-timeout",
            "max-messages",
            "max-message-bytes",
            "max-reply-bytes",
            "provider",
            "ttl-policy",
            "delivery",
            "limit",
            "json",
            "password",
            "url",
            "help",
            "component",
            "password-file",
            "host",
        ]
        .map(option);
        let mut cases = vec![
            vec![secret],
            vec!["help", secret],
            vec!["get", "s", secret],
            vec!["get", "s", &flag],
            vec!["add", "s", secret, "x"],
            vec!["add", "s", "user", "x", secret],
            vec!["add", "s", "user", "x", "--metadata", secret],
            vec!["get", "s", "--limit", secret],
            vec!["get", "s", "--component", secret],
            vec!["get", "s", "--password-file", secret],
            vec!["get", "s", "--host", secret],
            vec!["get", "s", "--provider", secret],
            vec!["get", "s", "--db", secret],
            vec!["get", "s", "--password", secret],
            vec!["get", "s", "--username", secret],
        ];
        cases.extend(options.iter().map(|option| vec!["get", "s", option]));
        for arguments in cases {
            let (code, out, err) = outcome_of(&arguments, server.port());
            assert!(matches!(code, Some(1 | 2)), "{arguments:?}: {err}");
            assert!(!err.is_empty(), "{arguments:?}");
            for part in ["hunter2", "://"] {
                let shown = out.contains(part) || err.contains(part);
                assert!(!shown, "{arguments:?}: {out}{err}");
            }
        }
    }
    // Error texts name the session, whatever its name.
    redis(&server, &["SET", "session:alice@example.com", "x"]);
    let named = outcome_of(&["get", "alice@example.com"], server.port());
    let expected = "error: wrong-type: get \"alice@example.com\": WRONGTYPE: ";
    assert!(named.2.starts_with(expected), "{named:?}");
    // An argument without a password is shown.
    let surplus = outcome_of(&["get", "s", "surplus"], server.port());
    assert!(surplus.2.contains("'surplus'"), "{surplus:?}");
}

#[test]
fn passwords_come_from_the_environment_or_a_file_and_show_nowhere() {
    const RIGHT: &str = "hunter2-right";
    const WRONG: &str = "hunter2-wrong";
    let server = server_with(&["--requirepass", RIGHT]);
    let port = server.port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let file_name = file.to_str().unwrap();
    let arguments = [
        "add",
        "s",
        "user",
        "x",
        "--host",
        "127.0.0.1",
        "--port",
        &port,
    ];
    let with_file = [&arguments[..], &["--password-file", file_name]].concat();
    for (password, in_file, in_environment, expected) in [
        (RIGHT, "hunter2-right", None, Some(0)),
        (RIGHT, "hunter2-right\n", Some(WRONG), Some(0)),
        (RIGHT, "hunter2-right\r\n", None, Some(0)),
        (WRONG, "hunter2-wrong\n", Some(RIGHT), Some(1)),
    ] {
        fs::write(&file, in_file).unwrap();
        let mut command = session_memory(&with_file);
        command.envs(in_environment.map(|password| ("REDIS_PASSWORD", password)));
        let (code, out, err) = outcome(run(&mut command, b""));
        assert_eq!(code, expected, "{password}: {err}");
        assert!(
            !out.contains("hunter2") && !err.contains("hunter2"),
            "{err}"
        );
    }
    for (password, expected) in [(RIGHT, Some(0)), (WRONG, Some(1)), ("", Some(1))] {
        let mut command = session_memory(&arguments);
        command.env("REDIS_PASSWORD", password);
        let (code, out, err) = outcome(run(&mut command, b""));
        assert_eq!(code, expected);
        assert!(
            !out.contains("hunter2") && !err.contains("hunter2"),
            "{err}"
        );
        if expected == Some(1) {
            assert!(
                err.starts_with("error: access-denied: connect to "),
                "{err}"
            );
        }
    }
}

#[test]
fn what_was_stored_does_not_steer_the_terminal() {
    let server = server();
    let shell = Shell {
        port: server.port().to_string(),
    };
    let element = r#"{"role":"user","content":"\u001b[2Jgone\r","timestamp":"\u0007"}"#;
    redis(&server, &["RPUSH", "session:s", element]);
    let shown = shell.prints(&["get", "s"]);
    assert_eq!(shown, "\u{FFFD} user: \u{FFFD}[2Jgone\u{FFFD}\n");
}

#[test]
fn a_reader_that_has_enough_ends_it_quietly() {
    let server = server();
    let element = format!(r#"{{"role":"user","content":"{}"}}"#, "x".repeat(100_000));
    for _ in 0..20 {
        redis(&server, &["RPUSH", "session:s", &element]);
    }
    let port = server.port().to_string();
    let mut command = session_memory(&["get", "s", "--host", "127.0.0.1", "--port", &port]);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), &b""[..])
    );
}
