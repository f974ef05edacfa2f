//! Passwords and the contents of messages are never shown.

use std::io::{Read, Write};

use session_memory_host::{Delivery, Error, Message, NewMessage, Options, Role, SessionMemory};

use crate::common::{builder, peer, redis, server};

const PASSWORD: &str = "hunter2-correct";
const WORDS: &str = "my PIN is sesame";

fn with_password(delivery: Delivery) -> Options {
    Options::new().password(PASSWORD).delivery(delivery)
}

fn metadata() -> String {
    format!(r#"{{"note": "{WORDS}"}}"#)
}

fn new_message() -> NewMessage {
    NewMessage::user(WORDS).with_metadata(metadata())
}

/// Checks that a text contains no secret, nor a part of one.
fn silent(text: &str) {
    for secret in ["hunter2", "sesame", "PIN is"] {
        assert!(!text.contains(secret), "{text}");
    }
}

/// All that an error and its sources print.
fn seen(error: &Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!(" {error} {error:?}");
        source = error.source();
    }
    text
}

/// Runs every operation and collects what its errors print.
async fn failures(memory: &SessionMemory) -> Vec<String> {
    let outcomes = [
        memory
            .add("s", Role::User, WORDS, Some(&metadata()))
            .await
            .err(),
        memory
            .add_all("s", &[new_message(), new_message()])
            .await
            .err(),
        memory.get("s", None).await.err(),
        memory.history("s", None).await.err(),
        memory.clear("s").await.err(),
        memory.exists("s").await.err(),
        memory.count("s").await.err(),
    ];
    outcomes.iter().flatten().map(seen).collect()
}

#[tokio::test]
async fn debug_output_shows_none() {
    let server = server();
    redis(&server, &["CONFIG", "SET", "requirepass", PASSWORD]);
    let options = with_password(Delivery::ExactlyOnce);
    let shown = format!("{options:?}");
    silent(&shown);
    assert!(shown.contains("Password(..)"), "{shown}");

    let environment = [("REDIS_PASSWORD".to_owned(), PASSWORD.to_owned())];
    let builder = builder(server.port(), options.clone()).environment(environment);
    silent(&format!("{builder:?} {builder:#?}"));
    let memory = builder.open().await.unwrap();
    silent(&format!("{memory:?} {memory:#?}"));

    let message = new_message();
    silent(&format!("{message:?} {message:#?}"));
    memory.add_all("s", &[message]).await.unwrap();
    let history = memory.history("s", None).await.unwrap();
    let message: &Message = &history.messages[0];
    assert_eq!(message.content, WORDS);
    assert_eq!(message.metadata, Some(metadata()));
    silent(&format!("{message:?} {history:?} {history:#?}"));
}

#[tokio::test]
async fn errors_show_none() {
    let server = server();
    redis(&server, &["SET", "session:foreign", "x"]);
    redis(&server, &["CONFIG", "SET", "requirepass", PASSWORD]);
    for delivery in [Delivery::ExactlyOnce, Delivery::AtMostOnce] {
        let wrong = with_password(delivery).password("hunter2-wrong");
        silent(&seen(
            &builder(server.port(), wrong).open().await.unwrap_err(),
        ));
        let options = with_password(delivery).max_message_bytes(64);
        let memory = builder(server.port(), options).open().await.unwrap();
        let add = |session, content, metadata| memory.add(session, Role::User, content, metadata);
        for error in [
            add("foreign", WORDS, None).await.unwrap_err(),
            add("s", &WORDS.repeat(10), None).await.unwrap_err(),
            add("", WORDS, None).await.unwrap_err(),
            add("s", "x", Some(WORDS)).await.unwrap_err(),
            add("s", "x", Some(r#"{"my PIN is": sesame"#))
                .await
                .unwrap_err(),
            add("s", "x", Some(r#""my PIN is sesame""#))
                .await
                .unwrap_err(),
            add("s", "x", Some("{my PIN is sesame}")).await.unwrap_err(),
        ] {
            silent(&seen(&error));
        }
    }
}

/// A peer whose error reply repeats what it received: the beginning of the connection, or
/// everything after a valid handshake.
fn echo(handshake: Option<&'static [u8]>, code: &'static str, how: fn(&[u8]) -> Vec<u8>) -> u16 {
    peer(move |mut connection| {
        let mut buffer = [0; 64 * 1024];
        let mut sent = Vec::new();
        let mut read = |connection: &mut std::net::TcpStream| {
            let size = connection.read(&mut buffer).unwrap_or(0);
            sent.extend_from_slice(&buffer[..size]);
        };
        read(&mut connection);
        if let Some(handshake) = handshake {
            let _ = connection.write_all(handshake);
            read(&mut connection);
        }
        let _ = connection.write_all(&[b"-", code.as_bytes(), &how(&sent), b"\r\n"].concat());
    })
}

/// The words on one line.
fn words(sent: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(sent)
        .replace("\r\n", " ")
        .into_bytes()
}

fn escaped(sent: &[u8]) -> Vec<u8> {
    sent.escape_ascii().to_string().into_bytes()
}

fn quoted(sent: &[u8]) -> Vec<u8> {
    let words = String::from_utf8_lossy(sent).replace("\r\n", "' '");
    format!("unknown command '{words}'").into_bytes()
}

#[tokio::test]
async fn a_server_that_repeats_what_it_was_sent_is_not_repeated() {
    for code in [
        "ERR ",
        "ERR unknown command ",
        "ERR max number of clients ",
        "NOPERM ",
        "WRONGTYPE ",
        "MOVED 1 ",
        "OOPS ",
        "",
    ] {
        for how in [<[u8]>::to_vec, words, escaped, quoted] {
            for (delivery, handshake) in [
                (Delivery::ExactlyOnce, &b"+OK\r\n+PONG\r\n"[..]),
                (Delivery::AtMostOnce, b"+OK\r\n+OK\r\n*0\r\n+PONG\r\n"),
            ] {
                let options = with_password(delivery);
                let at_auth = builder(echo(None, code, how), options.clone());
                silent(&seen(&at_auth.open().await.unwrap_err()));
                // This error is retried until the deadline, each time.
                if code == "ERR max number of clients " {
                    continue;
                }
                let after = builder(echo(Some(handshake), code, how), options);
                let memory = after.open().await.unwrap();
                let failures = failures(&memory).await;
                assert_eq!(failures.len(), 7, "{code}");
                for text in &failures {
                    silent(text);
                }
            }
        }
    }
}
