//! What an append finds out before it pushes: whether it is there already, and when
//! it need not search for that.

use std::time::Duration;

use session_memory_host::{Options, Role, SessionMemory};
use session_memory_tests::proxy::{Action, Direction, Fault, Proxy};
use session_memory_tests::{Client, Server, builder, contents, redis, server, text};

/// A memory whose way to the server can be broken, and a look at what is there.
struct Bench {
    proxy: Proxy,
    memory: SessionMemory,
    redis: Client,
}

impl Bench {
    async fn new(server: &Server) -> Bench {
        let proxy = Proxy::start(server.address());
        let memory = builder(proxy.port(), Options::default()).open().await;
        Bench {
            proxy,
            memory: memory.unwrap(),
            redis: server.client().unwrap(),
        }
    }

    async fn add(&self, session: &str, content: &str) {
        let added = self.memory.add(session, Role::User, content, None).await;
        added.unwrap();
    }

    fn contents(&mut self, session: &str) -> Vec<String> {
        contents(&mut self.redis, &format!("session:{session}"))
    }

    /// How many searches the server runs for an append.
    async fn searches(&mut self, session: &str) -> u32 {
        self.redis.command(&["CONFIG", "RESETSTAT"]).unwrap();
        self.add(session, "x").await;
        let statistics = text(self.redis.command(&["INFO", "commandstats"]).unwrap());
        let of_lpos = statistics.split_once("cmdstat_lpos:calls=");
        of_lpos.map_or(0, |(_, rest)| {
            let (calls, _) = rest.split_once(',').unwrap();
            calls.parse().unwrap()
        })
    }
}

/// A search costs the server as much as all the rest of an append.
#[tokio::test]
async fn it_searches_only_if_the_end_does_not_tell() {
    let server = server();
    let mut bench = Bench::new(&server).await;
    // An instance that has appended nothing has nothing to compare with.
    assert_eq!(bench.searches("a").await, 1);
    assert_eq!(bench.searches("a").await, 0);
    assert_eq!(bench.searches("new").await, 0);
    assert_eq!(bench.searches("a").await, 0);

    // Somebody else writes, with an id or without.
    let other = Bench::new(&server).await;
    other.add("a", "other").await;
    assert_eq!(bench.searches("a").await, 1);
    assert_eq!(bench.searches("a").await, 0);
    let python = r#"{"role": "user", "content": "hello"}"#;
    redis(&server, &["RPUSH", "session:a", python]);
    assert_eq!(bench.searches("a").await, 1);
    assert_eq!(bench.searches("a").await, 0);

    // What a lost request was to append, may come at any time.
    bench.proxy.break_next(Fault {
        direction: Direction::Reply,
        offset: 0,
        action: Action::Cut,
    });
    bench.add("b", "lost").await;
    bench.proxy.break_nothing();
    assert_eq!(bench.searches("a").await, 1);
    assert_eq!(bench.searches("b").await, 1);
    assert_eq!(bench.searches("a").await, 0);
    assert_eq!(bench.searches("b").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_late_behind_a_settled_message_is_there_once() {
    let server = server();
    let mut bench = Bench::new(&server).await;
    for number in 0..20 {
        let session = number.to_string();
        bench.add(&session, "before").await;
        bench.add(&session, "settled").await;
        bench.proxy.break_next(Fault {
            direction: Direction::Request,
            offset: number,
            action: Action::Late(Duration::from_millis(30)),
        });
        bench.add(&session, "late").await;
        bench.proxy.break_nothing();
        let mut expected = vec!["before", "settled", "late"];
        // The first try finds its own message at the end, or another one.
        if number % 2 == 0 {
            bench.add(&session, "after").await;
            expected.push("after");
        }
        bench.proxy.settle().await;
        assert_eq!(bench.contents(&session), expected, "{number}");
    }
    assert_eq!(bench.proxy.carried_out(), 20);
}

/// Another instance would find nothing of its own at the end.
#[tokio::test]
async fn a_session_keeps_to_an_instance() {
    let server = server();
    let mut bench = Bench::new(&server).await;
    tokio::join!(bench.add("0", "x"), bench.add("1", "x"));
    assert_eq!(bench.proxy.connections(), 2);
    let sessions: Vec<String> = (0..16).map(|number| number.to_string()).collect();
    for session in &sessions {
        bench.add(session, "x").await;
    }
    for session in sessions.iter().rev().chain(&sessions) {
        assert_eq!(bench.searches(session).await, 0, "{session}");
    }
}

/// As it is for a user who may not look at the end of a list.
#[tokio::test]
async fn it_searches_where_it_may_not_look_at_the_end() {
    let server = server();
    let mut bench = Bench::new(&server).await;
    let rules = ["ACL", "SETUSER", "default", "-lindex"];
    redis(&server, &rules);
    for _ in 0..3 {
        assert_eq!(bench.searches("a").await, 1);
    }
    assert_eq!(bench.contents("a").len(), 3);
}
