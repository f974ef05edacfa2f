//! Several operations in one call.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use session_memory_host::{
    Action, Connect, Error, MemoryError, Message, NewMessage, Operation, Options, Outcome, Role,
    SessionMemory,
};

use crate::common::proxy::Proxy;
use crate::common::{
    DELIVERIES, builder, contents, integer, memory, memory_through_proxy, memory_with, operation,
    peer, redis, server, server_with_user,
};

fn new(content: impl Into<String>) -> NewMessage {
    NewMessage::user(content)
}

fn add(session: &str, content: &str) -> Operation {
    operation(session, Action::Add(new(content)))
}

async fn run(
    memory: &SessionMemory,
    operations: &[Operation],
) -> Vec<Result<Outcome, MemoryError>> {
    let results = memory.pipeline(operations).await.unwrap();
    assert_eq!(results.len(), operations.len());
    results
}

fn messages(result: &Result<Outcome, MemoryError>) -> &[Message] {
    match result {
        Ok(Outcome::Messages(messages)) => messages,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_operation_has_its_result_and_they_are_executed_in_order() {
    for delivery in DELIVERIES {
        let server = server();
        let options = Options::new().delivery(delivery);
        let memory = memory_with(&server, options).await;
        redis(&server, &["SET", "session:foreign", "x"]);
        let operations = [
            operation("s", Action::Exists),
            add("s", "one"),
            operation("s", Action::AddAll(vec![new("two"), new("three")])),
            operation("s", Action::AddAll(Vec::new())),
            operation("s", Action::Get(Some(2))),
            add("foreign", "x"),
            operation("s", Action::History(Some(1))),
            operation("", Action::Clear),
            add("t", "other"),
            operation("s", Action::Clear),
            operation("s", Action::Count),
            operation("t", Action::Exists),
            operation("t", Action::Get(Some(0))),
        ];
        let results = run(&memory, &operations).await;
        assert_eq!(results[0], Ok(Outcome::Exists(false)));
        assert_eq!(results[1], Ok(Outcome::Length(1)));
        assert_eq!(results[2], Ok(Outcome::Length(3)));
        assert_eq!(results[3], Ok(Outcome::Length(3)));
        let last: Vec<_> = messages(&results[4]).iter().map(|m| &m.content).collect();
        assert_eq!(last, ["two", "three"]);
        assert_eq!(
            results[5],
            Err(MemoryError::WrongType(
                "add to \"foreign\": WRONGTYPE: the key holds something other than a list"
                    .to_owned()
            ))
        );
        let Ok(Outcome::History(history)) = &results[6] else {
            panic!("{:?}", results[6]);
        };
        assert_eq!((history.messages.len(), history.total), (1, 3));
        assert_eq!(
            results[7],
            Err(MemoryError::InvalidArgument(
                "clear \"\": the session id is empty, allowed is any other text".to_owned()
            ))
        );
        assert_eq!(results[8], Ok(Outcome::Length(1)));
        assert_eq!(results[9], Ok(Outcome::Cleared));
        assert_eq!(results[10], Ok(Outcome::Length(0)));
        assert_eq!(results[11], Ok(Outcome::Exists(true)));
        assert_eq!(results[12], Ok(Outcome::Messages(Vec::new())));
        assert!(memory.pipeline(&[]).await.unwrap().is_empty());
        let ttl = redis(&server, &["PTTL", "session:foreign"]);
        assert_eq!(integer(ttl), -1);
    }
}

#[tokio::test]
async fn a_turn_is_one_round_trip() {
    for delivery in DELIVERIES {
        let server = server();
        let options = Options::new().delivery(delivery);
        let (proxy, memory) = memory_through_proxy(&server, options).await;
        memory.add("known", Role::User, "x", None).await.unwrap();
        let turn = [add("s", "one"), operation("s", Action::Get(Some(10)))];
        let before = proxy.exchanges();
        let results = run(&memory, &turn).await;
        assert_eq!(messages(&results[1])[0].content, "one");
        assert_eq!(proxy.exchanges(), before + 1);
    }
}

#[tokio::test]
async fn what_is_read_behind_an_append_has_it_even_if_the_script_is_unknown() {
    let server = server();
    let memory = memory(&server).await;
    let turn = [
        operation("s", Action::Count),
        add("s", "one"),
        operation("s", Action::Get(Some(10))),
        add("t", "two"),
    ];
    for round in 0..3 {
        redis(&server, &["SCRIPT", "FLUSH"]);
        let results = run(&memory, &turn).await;
        assert_eq!(results[0], Ok(Outcome::Length(round)));
        assert_eq!(results[1], Ok(Outcome::Length(round + 1)));
        assert_eq!(messages(&results[2]).len() as u32, round + 1);
        assert_eq!(results[3], Ok(Outcome::Length(round + 1)));
    }
}

/// More appends than the search looks back, in one request whose reply is lost.
#[tokio::test]
async fn many_appends_to_one_session_are_there_once_when_they_are_sent_twice() {
    use crate::common::proxy::{Break, Direction, Fault};

    let server = server();
    let (proxy, memory) = memory_through_proxy(&server, Options::default()).await;
    memory.add("known", Role::User, "x", None).await.unwrap();
    let expected: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let appends: Vec<_> = expected.iter().map(|n| add("s", n)).collect();
    proxy.break_next(Fault {
        direction: Direction::Reply,
        offset: 0,
        action: Break::Cut,
    });
    let results = run(&memory, &appends).await;
    assert_eq!(proxy.carried_out(), 1);
    assert!(results.iter().all(Result::is_ok));
    let stored = contents(&mut server.client().unwrap(), "session:s");
    assert_eq!(stored, expected);
}

/// More appends than the search looks back are refused before another one, and follow it
/// when all are sent again.
#[tokio::test]
async fn an_append_behind_many_that_were_refused_is_there_once() {
    const REFUSED: usize = 80;
    let server = server();
    let refuse = Arc::new(AtomicUsize::new(0));
    let address = server.address();
    let port = peer({
        let refuse = Arc::clone(&refuse);
        move |connection| {
            // The client may hang up.
            let _ = relay(&connection, address, &refuse);
        }
    });
    let memory = builder(port, Options::default()).open().await.unwrap();
    memory.add("s", Role::User, "known", None).await.unwrap();
    let last = REFUSED.to_string();
    let contents_of: Vec<String> = (0..=REFUSED).map(|n| n.to_string()).collect();
    let appends: Vec<_> = contents_of.iter().map(|n| add("s", n)).collect();
    refuse.store(REFUSED, Ordering::Relaxed);
    let results = run(&memory, &appends).await;
    assert_eq!(refuse.load(Ordering::Relaxed), 0);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let mut expected = vec!["known".to_owned(), last];
    expected.extend_from_slice(&contents_of[..REFUSED]);
    let stored = contents(&mut server.client().unwrap(), "session:s");
    assert_eq!(stored, expected);
}

/// Passes commands on to a server one by one, and the replies back, which have one line
/// each. Replies to the next `refuse` appends itself.
fn relay(client: &TcpStream, server: SocketAddr, refuse: &AtomicUsize) -> std::io::Result<()> {
    let server = TcpStream::connect(server)?;
    let (mut requests, mut replies) = (BufReader::new(client), BufReader::new(&server));
    loop {
        let mut command = Vec::new();
        requests.read_until(b'\n', &mut command)?;
        let number = |line: &[u8]| -> usize {
            let digits = line[1..].trim_ascii_end();
            str::from_utf8(digits).unwrap().parse().unwrap()
        };
        if command.is_empty() {
            return Ok(());
        }
        for _ in 0..number(&command) {
            let start = command.len();
            requests.read_until(b'\n', &mut command)?;
            let length = number(&command[start..]) as u64 + 2;
            requests.by_ref().take(length).read_to_end(&mut command)?;
        }
        let is_append = command.windows(4).any(|word| word == b"EVAL");
        let one_less = |left: usize| left.checked_sub(1);
        let (order, mut client) = (Ordering::Relaxed, client);
        if is_append && refuse.fetch_update(order, order, one_less).is_ok() {
            client.write_all(b"-BUSY a script is running\r\n")?;
        } else {
            (&server).write_all(&command)?;
            let mut reply = Vec::new();
            replies.read_until(b'\n', &mut reply)?;
            client.write_all(&reply)?;
        }
    }
}

#[tokio::test]
async fn replies_that_fit_one_by_one_are_not_refused_together() {
    let server = server();
    let options = Options::new().max_reply_bytes(16 * 1024);
    let memory = memory_with(&server, options).await;
    let large = "x".repeat(10_000);
    let sessions = ["a", "b", "c"];
    for session in sessions {
        memory.add(session, Role::User, &large, None).await.unwrap();
    }
    memory.add("c", Role::User, &large, None).await.unwrap();
    let mut operations = Vec::new();
    for session in sessions {
        operations.push(operation(session, Action::Get(None)));
        operations.push(add(session, "small"));
    }
    let results = run(&memory, &operations).await;
    assert_eq!(messages(&results[0])[0].content, large);
    assert_eq!(messages(&results[2])[0].content, large);
    let Err(MemoryError::LimitExceeded(text)) = &results[4] else {
        panic!("{:?}", results[4]);
    };
    assert_eq!(
        text,
        "get \"c\": the reply is larger than 16384 bytes (max-reply-bytes)"
    );
    let lengths = [1, 3, 5].map(|at| results[at].clone());
    assert_eq!(lengths, [2, 2, 3].map(|length| Ok(Outcome::Length(length))));
}

/// A server that reads no more of a request until its replies so far are read.
#[tokio::test]
async fn a_large_pipeline_does_not_deadlock_on_full_buffers() {
    const SIZE: usize = 64 * 1024;
    let port = peer(|mut connection: TcpStream| {
        let reply = [b"*1\r\n$65536\r\n", &[b'x'; SIZE][..], b"\r\n"].concat();
        let mut buffer = vec![0; SIZE];
        let mut unread = Vec::new();
        while let Ok(size @ 1..) = connection.read(&mut buffer) {
            for byte in &buffer[..size] {
                unread.push(*byte);
                let reply = if unread.ends_with(b"PING\r\n") {
                    &b"+PONG\r\n"[..]
                } else if unread.ends_with(b"$1\r\n0\r\n$2\r\n-1\r\n") {
                    &reply
                } else {
                    continue;
                };
                unread.clear();
                if connection.write_all(reply).is_err() {
                    return;
                }
            }
        }
    });
    let options = Options::new().operation_timeout(Duration::from_millis(20_000));
    let memory = builder(port, options).open().await.unwrap();
    let name = "s".repeat(SIZE);
    let operations = vec![operation(&name, Action::Get(None)); 300];
    for result in run(&memory, &operations).await {
        // The entries are no messages.
        assert!(messages(&result).is_empty());
    }
}

#[tokio::test]
async fn the_first_operation_travels_with_the_handshake() {
    let server = server();
    let options = Options::new().connect(Connect::WithFirstOperation);
    let (proxy, memory) = memory_through_proxy(&server, options.clone()).await;
    assert_eq!(proxy.exchanges(), 0);
    assert!(!memory.exists("s").await.unwrap());
    assert_eq!(proxy.exchanges(), 1);

    memory.add("s", Role::User, "known", None).await.unwrap();
    let before = proxy.exchanges();
    let memory = builder(proxy.port(), options).open().await.unwrap();
    memory.add("s", Role::User, "x", None).await.unwrap();
    assert_eq!(proxy.exchanges(), before + 1);
}

#[tokio::test]
async fn only_reads_are_sent_together_with_credentials() {
    let server = server_with_user("agent", "on >secret ~* +@all");
    let proxy = Proxy::start(server.address());
    let open = |password: &str| {
        let options = Options::new()
            .username("agent")
            .password(password.to_owned())
            .connect(Connect::WithFirstOperation);
        builder(proxy.port(), options).open()
    };
    let memory = open("secret").await.unwrap();
    assert!(!memory.exists("s").await.unwrap());
    assert_eq!(proxy.exchanges(), 1);
    memory.add("s", Role::User, "x", None).await.unwrap();

    let before = proxy.exchanges();
    let memory = open("secret").await.unwrap();
    memory.add("s", Role::User, "y", None).await.unwrap();
    assert_eq!(proxy.exchanges(), before + 2);

    // The server accepts every client that does not authenticate.
    redis(
        &server,
        &["ACL", "SETUSER", "default", "on", "nopass", "~*", "+@all"],
    );
    let memory = open("wrong").await.unwrap();
    for result in [
        memory.exists("s").await.map(|_| ()),
        memory.add("s", Role::User, "z", None).await.map(|_| ()),
    ] {
        let Err(Error::Memory(MemoryError::AccessDenied(text))) = result else {
            panic!("{result:?}");
        };
        assert!(text.ends_with("the server does not accept the username or the password"));
    }
    let stored = contents(&mut server.client().unwrap(), "session:s");
    assert_eq!(stored, ["x", "y"]);
}
