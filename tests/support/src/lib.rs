//! What the integration tests share: servers, peers that misbehave, and the
//! command-line program. Everything here panics when it cannot do what it is for.

#![allow(clippy::unwrap_used, reason = "a test ends there, and says where")]

mod redis_client;
mod server;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub use redis_client::{RedisClient, Value};
pub use server::{INSTALL_HINT, Server, free_port, program};

/// A server that keeps nothing on disk.
pub fn server() -> Server {
    server_with(&[])
}

/// As [`server`], with more arguments on its command line.
pub fn server_with(arguments: &[&str]) -> Server {
    // What is missing is said by the error.
    Server::start(arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a command on a server.
pub fn redis<W: AsRef<[u8]>>(server: &Server, words: &[W]) -> Value {
    let answer = server.client().and_then(|mut client| client.command(words));
    match answer.unwrap() {
        Value::Error(error) => panic!("{error}"),
        value => value,
    }
}

/// How often a server has executed a command, since its statistics were reset.
pub fn calls(redis: &mut RedisClient, command: &str) -> u32 {
    let statistics = text(redis.command(&["INFO", "commandstats"]).unwrap());
    let of_command = statistics.split_once(&format!("cmdstat_{command}:calls="));
    of_command.map_or(0, |(_, rest)| {
        let (calls, _) = rest.split_once(',').unwrap();
        calls.parse().unwrap()
    })
}

/// A bulk string reply.
pub fn text(value: Value) -> String {
    match value {
        Value::Bulk(Some(bytes)) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A server with a user of the given name and rules, beside the default one.
pub fn server_with_user(name: &str, rules: &str) -> Server {
    let server = server();
    let words: Vec<&str> = ["ACL", "SETUSER", name]
        .into_iter()
        .chain(rules.split(' '))
        .collect();
    redis(&server, &words);
    server
}

/// Whether a script can ask what its user may run, which is so since Redis 7.
/// Before that, the push is not the script's first write, and so not refused when
/// the server is out of memory; and EXPIRE has no NX.
pub fn is_redis_7(server: &Server) -> bool {
    let ask = ["EVAL", "return redis.acl_check_cmd and 1 or 0", "0"];
    redis(server, &ask) == Value::Integer(1)
}

/// The raw elements of a list.
pub fn elements(server: &Server, key: &str) -> Vec<String> {
    let Value::Array(Some(elements)) = redis(server, &["LRANGE", key, "0", "-1"]) else {
        panic!("{key} is no list");
    };
    elements.into_iter().map(text).collect()
}

/// The contents of the messages in a list, looked at over a connection that is
/// there already.
pub fn contents(client: &mut RedisClient, key: &str) -> Vec<String> {
    let Value::Array(Some(elements)) = client.command(&["LRANGE", key, "0", "-1"]).unwrap() else {
        panic!("{key} is no list");
    };
    let content = |element: Value| {
        let element: serde_json::Value = serde_json::from_str(&text(element)).unwrap();
        element["content"].as_str().unwrap().to_owned()
    };
    elements.into_iter().map(content).collect()
}

/// As [`contents`], of a session with the default prefix. If it holds anything, it
/// must have a time to live.
pub fn contents_with_ttl(redis: &mut RedisClient, session: &str, case: &str) -> Vec<String> {
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

/// An integer reply.
pub fn integer(value: Value) -> i64 {
    match value {
        Value::Integer(integer) => integer,
        other => panic!("{other:?}"),
    }
}

/// Checks that a key expires in so many seconds, or in a few less, which the test may
/// have taken.
#[track_caller]
pub fn expires_in(redis: &mut RedisClient, key: &str, seconds: i64) {
    let ttl = integer(redis.command(&["TTL", key]).unwrap());
    assert!(
        (seconds - 10..=seconds).contains(&ttl),
        "{key} expires in {ttl} s, expected {seconds} s"
    );
}

/// Sends a signal to a server's process: `STOP` pauses it, `CONT` wakes it.
pub fn signal(server: &Server, name: &str) {
    let sent = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(server.process_id().to_string())
        .status();
    assert!(sent.is_ok_and(|status| status.success()));
}

/// Blocks until a condition holds.
#[track_caller]
pub fn wait_until(mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(30), "it never was");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Listens on a free port of 127.0.0.1 and hands each connection to `serve`, in a
/// thread of its own, until the tests end. Answers the port.
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

/// A peer that replies to the first bytes of each connection with the first of these, to
/// the next bytes with the next one. Then it is silent until the client hangs up.
pub fn peer_replying(replies: &[&'static [u8]]) -> u16 {
    let replies = replies.to_vec();
    peer(move |mut connection| {
        let mut buffer = [0; 64 * 1024];
        for reply in &replies {
            // The client hangs up when it likes.
            let _ = connection.read(&mut buffer);
            let _ = connection.write_all(reply);
        }
        while connection.read(&mut buffer).is_ok_and(|size| size > 0) {}
    })
}

/// Runs a command with this standard input.
pub fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read may be gone by now.
        let _ = stdin.write_all(input);
    }
    child.wait_with_output().unwrap()
}
