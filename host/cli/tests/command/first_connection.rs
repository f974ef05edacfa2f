//! The first connection of a command is retried while the error is transient, and no
//! longer.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use session_memory_test_support::{contents, integer, peer, redis, run, server_with, text};
use socket2::{Domain, Socket, Type};

use crate::{PROGRAM, session_memory};

/// What a peer does with a connection.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Close,
    Reset,
    Refuse(&'static str),
}

/// A peer that rejects the first `times` connections and then behaves like a server with
/// a session. Returns its port and the number of connections so far.
fn peer_that_is_not_ready(times: usize, manner: Manner) -> (u16, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let port = peer(move |mut connection| {
        if count.fetch_add(1, Ordering::Relaxed) >= times {
            serve(&mut connection);
            return;
        }
        match manner {
            Manner::Close => {}
            Manner::Reset => {
                let socket = socket2::SockRef::from(&connection);
                socket.set_linger(Some(Duration::ZERO)).unwrap();
            }
            Manner::Refuse(reply) => {
                // Reads the request, so that closing does not reset the connection.
                let _ = connection.read(&mut [0; 1024]);
                let _ = connection.write_all(reply.as_bytes());
            }
        }
    });
    (port, connections)
}

/// Replies to a handshake without credentials, and to one `exists`.
fn serve(connection: &mut TcpStream) {
    for reply in ["+PONG\r\n", ":1\r\n"] {
        let _ = connection.read(&mut [0; 1024]);
        let _ = connection.write_all(reply.as_bytes());
    }
}

fn exists(port: u16, arguments: &[&str]) -> Output {
    let port = port.to_string();
    let place = ["exists", "s", "--host", "127.0.0.1", "--port", &port];
    run(&mut session_memory(&[&place, arguments].concat()), b"")
}

/// The error of a command that fails, and the time it took.
fn failure(port: u16, arguments: &[&str]) -> (String, Duration) {
    let begin = Instant::now();
    let output = exists(port, arguments);
    let taken = begin.elapsed();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    (error, taken)
}

#[test]
fn transient_errors_are_retried() {
    for manner in [
        Manner::Close,
        Manner::Reset,
        Manner::Refuse("-LOADING Redis is loading the dataset in memory\r\n"),
        Manner::Refuse("-ERR max number of clients reached\r\n"),
        Manner::Refuse("-MASTERDOWN Link with MASTER is down\r\n"),
    ] {
        let (port, connections) = peer_that_is_not_ready(3, manner);
        let output = exists(port, &[]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.stdout, b"true\n", "{manner:?}: {error}");
        assert_eq!(connections.load(Ordering::Relaxed), 4, "{manner:?}");
    }
}

#[test]
fn what_does_not_pass_is_waited_for_until_the_operation_s_deadline() {
    let loading = Manner::Refuse("-LOADING Redis is loading the dataset in memory\r\n");
    for (manner, expected) in [
        (loading, "error: server: connect to "),
        (Manner::Close, "error: unavailable: connect to "),
    ] {
        let (port, connections) = peer_that_is_not_ready(usize::MAX, manner);
        let (error, taken) = failure(port, &["--operation-timeout", "1200"]);
        assert!(error.starts_with(expected), "{error}");
        assert!(taken >= Duration::from_millis(1100), "{taken:?}");
        assert!(taken <= Duration::from_secs(10), "{taken:?}");
        // Retries come after 10, 20, 40, 80, 160 and every further 200 ms.
        let connections = connections.load(Ordering::Relaxed);
        assert!((2..=11).contains(&connections), "{connections}");
    }
}

#[test]
fn a_port_that_nothing_listens_on_is_given_a_second() {
    // Bound, so that no other process takes it.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    socket.bind(&any.into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let (error, taken) = failure(port, &[]);
    let expected = format!(
        "error: unavailable: connect to \"127.0.0.1:{port}\": 127.0.0.1:{port}: connection \
         refused\n"
    );
    assert_eq!(error, expected);
    assert!(taken >= Duration::from_millis(900), "{taken:?}");
    // The deadline of the operation is 5 s.
    assert!(taken <= Duration::from_secs(4), "{taken:?}");
    let (error, taken) = failure(port, &["--operation-timeout", "100"]);
    assert_eq!(error, expected);
    assert!(taken <= Duration::from_millis(900), "{taken:?}");
}

#[test]
fn final_errors_are_reported_at_once() {
    for (reply, expected) in [
        ("-NOAUTH Authentication required.\r\n", "access-denied"),
        ("-NOPERM no permissions\r\n", "access-denied"),
        ("-MISCONF Errors writing to the AOF file\r\n", "server"),
        ("-ERR unknown command\r\n", "server"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "protocol"),
    ] {
        let (port, connections) = peer_that_is_not_ready(usize::MAX, Manner::Refuse(reply));
        let (error, _) = failure(port, &[]);
        let expected = format!("error: {expected}: connect to ");
        assert!(error.starts_with(&expected), "{error}");
        assert_eq!(connections.load(Ordering::Relaxed), 1, "{error}");
    }
}

#[test]
fn a_wrong_password_is_told_at_once() {
    let server = server_with(&["--requirepass", "right"]);
    let mut client = server.client().unwrap();
    client.command(&["AUTH", "right"]).unwrap();
    let mut connections = || {
        let statistics = text(client.command(&["INFO", "stats"]).unwrap());
        let line = statistics.split_once("total_connections_received:");
        let (number, _) = line.unwrap().1.split_once("\r\n").unwrap();
        number.parse::<u32>().unwrap()
    };
    let before = connections();
    let port = server.port().to_string();
    let mut command = session_memory(&["exists", "s", "--host", "127.0.0.1", "--port", &port]);
    command.env("REDIS_PASSWORD", "wrong");
    let output = run(&mut command, b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output
            .stderr
            .starts_with(b"error: access-denied: connect to ")
    );
    assert_eq!(connections(), before + 1);
}

#[test]
fn commands_in_a_loop_survive_a_restart_of_the_server() {
    const ADDS: usize = 200;
    let mut server = server_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let port = server.port().to_string();
    let script = "n=1\n\
        while [ $n -le $2 ]; do\n\
            \"$0\" add s user $n --host 127.0.0.1 --port $1 || exit 1\n\
            n=$((n + 1))\n\
        done";
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script])
        .arg(PROGRAM)
        .args([&port, &ADDS.to_string()])
        .env_clear();
    for (variable, value) in session_memory::<&str>(&[]).get_envs() {
        shell.envs(value.map(|value| (variable, value)));
    }
    let adds = thread::spawn(move || run(&mut shell, b""));
    while integer(redis(&server, &["LLEN", "session:s"])) < 50 {
        assert!(!adds.is_finished(), "{:?}", adds.join());
        thread::sleep(Duration::from_millis(10));
    }
    server.kill().unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(!adds.is_finished(), "{:?}", adds.join());
    server.restart().unwrap();
    let output = adds.join().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), error.as_str()), (Some(0), ""));
    let numbers: Vec<String> = (1..=ADDS).map(|number| number.to_string()).collect();
    // Each append printed the right number of messages, and nothing is stored twice.
    let lengths = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lengths.lines().collect::<Vec<_>>(), numbers);
    let stored = contents(&mut server.client().unwrap(), "session:s");
    assert_eq!(stored, numbers);
}
