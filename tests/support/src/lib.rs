//! Redis servers, a Redis client, and peers that misbehave, for tests, the benchmark and
//! the demo. Functions of this file panic when they fail; [`Server`] and [`RespClient`]
//! return errors.

#![allow(clippy::unwrap_used, reason = "a test ends there, and says where")]

mod resp_client;
mod server;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub use resp_client::{RespClient, Value};
pub use server::{INSTALL_HINT, Server, free_port, program};

/// A server that keeps nothing on disk.
pub fn server() -> Server {
    server_with(&[])
}

/// A server with additional arguments on its command line.
pub fn server_with(arguments: &[&str]) -> Server {
    // The error says what is missing.
    Server::start(arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a command on a server and returns its reply.
pub fn redis<W: AsRef<[u8]>>(server: &Server, words: &[W]) -> Value {
    let reply = server.client().and_then(|mut client| client.command(words));
    match reply.unwrap() {
        Value::Error(error) => panic!("{error}"),
        value => value,
    }
}

/// The number of times that a server has executed a command since its statistics were
/// reset.
pub fn calls(redis: &mut RespClient, command: &str) -> u32 {
    let statistics = text(redis.command(&["INFO", "commandstats"]).unwrap());
    let of_command = statistics.split_once(&format!("cmdstat_{command}:calls="));
    of_command.map_or(0, |(_, rest)| {
        let (calls, _) = rest.split_once(',').unwrap();
        calls.parse().unwrap()
    })
}

/// The text of a bulk string.
pub fn text(value: Value) -> String {
    match value {
        Value::Bulk(Some(bytes)) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A server with an additional user of the given name and rules.
pub fn server_with_user(name: &str, rules: &str) -> Server {
    let server = server();
    let words: Vec<&str> = ["ACL", "SETUSER", name]
        .into_iter()
        .chain(rules.split(' '))
        .collect();
    redis(&server, &words);
    server
}

/// Whether the server is Redis 7 or later, where a script can check what its user may
/// run. Before that, the push is not the script's first write, so it is not refused when
/// the server is out of memory; and EXPIRE has no NX.
pub fn is_redis_7(server: &Server) -> bool {
    let ask = ["EVAL", "return redis.acl_check_cmd and 1 or 0", "0"];
    redis(server, &ask) == Value::Integer(1)
}

/// The raw elements of a list.
pub fn elements(server: &Server, key: &str) -> Vec<String> {
    let Value::Array(Some(elements)) = redis(server, &["LRANGE", key, "0", "-1"]) else {
        panic!("{key} is not a list");
    };
    elements.into_iter().map(text).collect()
}

/// The contents of the messages in a list.
pub fn contents(client: &mut RespClient, key: &str) -> Vec<String> {
    let Value::Array(Some(elements)) = client.command(&["LRANGE", key, "0", "-1"]).unwrap() else {
        panic!("{key} is not a list");
    };
    let content = |element: Value| {
        let element: serde_json::Value = serde_json::from_str(&text(element)).unwrap();
        element["content"].as_str().unwrap().to_owned()
    };
    elements.into_iter().map(content).collect()
}

/// The contents of the messages in a session with the default prefix. A session that is
/// not empty must have a time to live.
pub fn contents_with_ttl(redis: &mut RespClient, session: &str, case: &str) -> Vec<String> {
    let key = format!("session:{session}");
    let contents = contents(redis, &key);
    let ttl = redis.command(&["TTL", &key]).unwrap();
    let expected = if contents.is_empty() {
        -2..=-2
    } else {
        1..=3600
    };
    assert!(
        matches!(ttl, Value::Integer(ttl) if expected.contains(&ttl)),
        "{case}: {session} has {contents:?} and the TTL {ttl:?}"
    );
    contents
}

/// The value of an integer.
pub fn integer(value: Value) -> i64 {
    match value {
        Value::Integer(integer) => integer,
        other => panic!("{other:?}"),
    }
}

/// Checks that a key expires in this many seconds, or a few less that the test has taken.
#[track_caller]
pub fn expires_in(redis: &mut RespClient, key: &str, seconds: i64) {
    let ttl = integer(redis.command(&["TTL", key]).unwrap());
    assert!(
        (seconds - 10..=seconds).contains(&ttl),
        "{key} expires in {ttl} s, expected {seconds} s"
    );
}

/// Sends a signal to a server's process: `STOP` pauses it, `CONT` resumes it.
pub fn signal(server: &Server, name: &str) {
    let sent = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(server.process_id().to_string())
        .status();
    assert!(sent.is_ok_and(|status| status.success()));
}

/// Blocks until a condition is true.
#[track_caller]
pub fn wait_until(mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(30), "it never was");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Listens on a free port of 127.0.0.1 until the process ends, and hands each connection
/// to `serve` in a thread of its own. Returns the port.
pub fn peer(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(connection));
        }
    });
    port
}

/// A peer that sends the first reply when it has received something, the second when it
/// has received something again, and so on. Then it is silent until the client hangs up.
/// Returns its port.
pub fn peer_replying(replies: &[&'static [u8]]) -> u16 {
    let replies = replies.to_vec();
    peer(move |mut connection| {
        let mut buffer = [0; 64 * 1024];
        for reply in &replies {
            // The client may have hung up.
            let _ = connection.read(&mut buffer);
            let _ = connection.write_all(reply);
        }
        while connection.read(&mut buffer).is_ok_and(|size| size > 0) {}
    })
}

/// Runs a program with this standard input, until it ends.
pub fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read may have ended.
        let _ = stdin.write_all(input);
    }
    child.wait_with_output().unwrap()
}
