//! What the integration tests share: servers, peers that misbehave, and the
//! command-line program. Everything here panics when it cannot do what it is for.

#![allow(clippy::unwrap_used, reason = "a test ends there, and says where")]

pub mod proxy;
#[cfg(target_os = "linux")]
pub mod sockets;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use session_memory_component_build::GUEST;
use session_memory_host::{Builder, Error, MemoryError, Options, SessionMemory};
use socket2::{Domain, Socket, Type};
pub use xtask::resp::{Client, Value};
pub use xtask::server::{Server, free_port};

/// A server that keeps nothing on disk.
pub fn server() -> Server {
    server_with(&[])
}

/// As [`server`], with more arguments on its command line.
pub fn server_with(arguments: &[&str]) -> Server {
    // What is missing is said by the error.
    Server::start(arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// A memory to be opened that knows nothing of the environment of the tests.
pub fn builder(port: u16, options: Options) -> Builder {
    let options = Options {
        host: options
            .host
            .or_else(|| Some(Ipv4Addr::LOCALHOST.to_string())),
        port: Some(port),
        ..options
    };
    SessionMemory::builder().environment([]).options(options)
}

/// A memory on a server.
pub async fn memory_with(server: &Server, options: Options) -> SessionMemory {
    builder(server.port(), options).open().await.unwrap()
}

/// As [`memory_with`], with default options.
pub async fn memory(server: &Server) -> SessionMemory {
    memory_with(server, Options::default()).await
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
pub fn calls(redis: &mut Client, command: &str) -> u32 {
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
pub fn contents(client: &mut Client, key: &str) -> Vec<String> {
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
pub fn contents_with_ttl(redis: &mut Client, session: &str, case: &str) -> Vec<String> {
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

/// The variant and the text of the error that a call ended with.
pub fn refusal<T>(result: Result<T, Error>) -> (&'static str, String) {
    match result {
        Ok(_) => panic!("it did not fail"),
        Err(Error::Memory(error)) => (error.variant(), error.text().to_owned()),
        Err(error) => panic!("{error:?}"),
    }
}

/// The code that the server's error reply began with.
pub fn server_code<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Memory(MemoryError::Server { code, .. })) => code,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it did not fail"),
    }
}

/// What a busy machine may add to the time that something takes.
const SLACK: Duration = Duration::from_millis(1500);

/// Checks that what began at `begin` took at least so long, and ended soon after. What
/// would never end by itself must take longer than `SLACK`, so that it fails here.
#[track_caller]
pub fn took(begin: Instant, at_least: Duration) {
    let taken = begin.elapsed();
    assert!(
        taken >= at_least && taken <= at_least + SLACK,
        "took {taken:?}, expected {at_least:?} and a little more"
    );
}

/// Runs an operation that ends by itself when `at_least` has passed, and returns its
/// result.
///
/// The host stops an operation 100 ms after its deadline. A busy machine may leave the
/// component less time than that, so an operation that was stopped is run again. An
/// operation that never ends by itself is stopped each time, and fails the test.
pub async fn ends_by_itself<T>(
    at_least: Duration,
    mut operation: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    for _ in 0..5 {
        let begin = Instant::now();
        let result = operation().await;
        took(begin, at_least);
        match &result {
            Err(error) if error.to_string().contains("the component was stopped") => {
                println!("after {:?}: {error}", begin.elapsed());
            }
            _ => return result,
        }
    }
    panic!("the host stopped the component each time");
}

/// Checks that a key expires in so many seconds, or in a few less, which the test may
/// have taken.
#[track_caller]
pub fn expires_in(redis: &mut Client, key: &str, seconds: i64) {
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

/// A peer that answers the handshake as Redis does, and whatever comes next with
/// `answer`; then it keeps the connection open, or closes it.
pub fn peer_answering(answer: &'static [u8], closes: bool) -> u16 {
    peer(move |mut connection| {
        let mut buffer = [0; 64 * 1024];
        // The client hangs up when it likes.
        let _ = connection.read(&mut buffer);
        let _ = connection.write_all(b"+PONG\r\n");
        let _ = connection.read(&mut buffer);
        let _ = connection.write_all(answer);
        while !closes && connection.read(&mut buffer).is_ok_and(|size| size > 0) {}
    })
}

/// The component that misbehaves as the session id tells it, see `tests/guest`;
/// built from what is there now.
pub fn guest() -> &'static [u8] {
    static GUEST_COMPONENT: OnceLock<Vec<u8>> = OnceLock::new();
    GUEST_COMPONENT.get_or_init(|| {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let target_dir = profile_dir().parent().unwrap().to_owned();
        session_memory_component_build::build(GUEST, checkout, &target_dir)
            .unwrap_or_else(|error| panic!("{error}"))
    })
}

/// The folder that the tests were built in: `<target>/<profile>`.
fn profile_dir() -> PathBuf {
    // <target>/<profile>/deps/<test>
    let tests = std::env::current_exe().unwrap();
    tests
        .ancestors()
        .nth(2)
        .unwrap_or(Path::new("."))
        .to_owned()
}

/// The command-line program, built from what is there now.
pub fn cli() -> &'static Path {
    static CLI: OnceLock<PathBuf> = OnceLock::new();
    CLI.get_or_init(|| {
        let profile = profile_dir();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        // All of it, and so with the features that it has in these tests.
        build.args(["build", "--quiet", "--workspace"]);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(
            build.status().is_ok_and(|status| status.success()),
            "the program was not built"
        );
        profile.join("session-memory")
    })
}

/// The command-line program with arguments, and none of the environment variables
/// that it reads.
pub fn cli_with<W: AsRef<str>>(arguments: &[W]) -> Command {
    let mut command = Command::new(cli());
    command
        .args(arguments.iter().map(AsRef::as_ref))
        .env_clear();
    // Where the compiled component is kept.
    for variable in ["HOME", "XDG_CACHE_HOME"] {
        if let Some(value) = std::env::var_os(variable) {
            command.env(variable, value);
        }
    }
    command
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

/// An address that swallows every attempt to connect: a listener that does not accept, and
/// whose backlog is full.
pub struct BlackHole {
    _listener: Socket,
    _connections: Vec<TcpStream>,
}

impl BlackHole {
    /// Opens one at an address of this machine.
    pub fn open(address: SocketAddr) -> BlackHole {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&address.into()).unwrap();
        listener.listen(0).unwrap();
        let mut connections = Vec::new();
        while let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_millis(200))
        {
            connections.push(connection);
            assert!(connections.len() < 100, "the backlog is never full");
        }
        BlackHole {
            _listener: listener,
            _connections: connections,
        }
    }
}
