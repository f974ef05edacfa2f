//! The command shows no password and no message, even if a server repeats them.

use std::fs;
use std::io::{Read, Write};
#[cfg(target_os = "linux")]
use std::process::Stdio;
#[cfg(target_os = "linux")]
use std::sync::mpsc;
#[cfg(target_os = "linux")]
use std::time::Duration;

use session_memory_test_support::{peer, run};

use crate::session_memory;

/// Error replies with a secret from the request, in any quotation marks.
#[test]
fn the_program_shows_no_secret_that_a_server_repeats() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    for case in 0..60 {
        let secret: String = (0..16).map(|_| fastrand::char('!'..='~')).collect();
        let code = fastrand::choice(["", "ERR ", "NOPERM ", "OOPS ", "MOVED 1 ", "WRONGTYPE "]);
        let quote = fastrand::choice(["", "'", "\"", "`", "<", "\\x27"]).unwrap();
        let text = fastrand::choice(["", "unknown command ", "upstream failure: ", " access "]);
        let reply = format!(
            "-{}{}{quote}{secret}{quote}{quote}{secret}\r\n",
            code.unwrap(),
            text.unwrap()
        );
        // The error comes at the handshake, or at the operation.
        let at_first = case % 2 == 0;
        let port = peer(move |mut connection| {
            let mut buffer = [0; 64 * 1024];
            let _ = connection.read(&mut buffer);
            if !at_first {
                let _ = connection.write_all(b"+OK\r\n+PONG\r\n");
                let _ = connection.read(&mut buffer);
            }
            let _ = connection.write_all(reply.as_bytes());
        });
        fs::write(&file, &secret).unwrap();
        let port = port.to_string();
        let prefix = format!("--key-prefix={secret}");
        let metadata = format!(
            "--metadata={{\"a\":{}}}",
            serde_json::Value::from(secret.as_str())
        );
        let options = [
            "--host=127.0.0.1",
            "--operation-timeout=300",
            "--password-file",
            file.to_str().unwrap(),
            "--port",
            &port,
            &prefix,
        ];
        let content = format!("my PIN is {secret}");
        let operation = match case % 3 {
            0 => vec!["add", "s", "user", &metadata, &content],
            1 => vec!["history", "s"],
            _ => vec!["clear", "s"],
        };
        let output = run(
            &mut session_memory(&[&options[..], &operation].concat()),
            b"",
        );
        assert_eq!(output.status.code(), Some(1), "{secret}");
        for shown in [output.stdout, output.stderr] {
            let shown = String::from_utf8_lossy(&shown);
            assert!(!shown.contains(&secret), "{secret}: {shown}");
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn arguments_of_the_program_show_none() {
    const PASSWORD: &str = "hunter2-correct";
    let (received, at_peer) = mpsc::channel();
    let port = peer(move |mut connection| {
        let mut buffer = [0; 1024];
        let size = connection.read(&mut buffer).unwrap_or(0);
        let _ = received.send(buffer[..size].to_vec());
        // No reply, so that the program can be inspected.
        let _ = connection.read(&mut buffer);
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, PASSWORD).unwrap();
    let port = port.to_string();
    let place = ["count", "s", "--host", "127.0.0.1", "--port", &port];
    let from_file = ["--password-file", file.to_str().unwrap()];
    for (from, variable) in [(&from_file[..], None), (&[], Some(PASSWORD))] {
        let mut command = session_memory(&[&place[..], from].concat());
        command.envs(variable.map(|password| ("REDIS_PASSWORD", password)));
        let mut program = command.stderr(Stdio::null()).spawn().unwrap();
        let sent = at_peer.recv_timeout(Duration::from_secs(20)).unwrap();
        let arguments = fs::read(format!("/proc/{}/cmdline", program.id())).unwrap();
        program.kill().unwrap();
        program.wait().unwrap();
        assert!(String::from_utf8_lossy(&sent).contains(PASSWORD));
        let arguments = String::from_utf8_lossy(&arguments);
        assert!(arguments.contains("count"), "{arguments}");
        assert!(!arguments.contains("hunter2"), "{arguments}");
    }
    // No argument takes a password.
    for refused in [&["--password", PASSWORD][..], &["--password=hunter2"]] {
        let output = run(&mut session_memory(&[&place[..], refused].concat()), b"");
        assert_eq!(output.status.code(), Some(2));
    }
}
