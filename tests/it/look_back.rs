//! What an append finds out before it pushes: whether it is there already, and when
//! it need not search for that.

use std::collections::BTreeSet;
use std::time::Duration;

use session_memory_host::{Options, Role, SessionMemory};

use crate::common::proxy::{Action, Direction, Fault, Proxy};
use crate::common::{
    RedisClient, Server, calls, contents, elements, memory_through_proxy, redis, server,
};

/// A memory whose way to the server can be broken, and a look at what is there.
struct Bench {
    proxy: Proxy,
    memory: SessionMemory,
    redis: RedisClient,
}

impl Bench {
    async fn new(server: &Server) -> Bench {
        let (proxy, memory) = memory_through_proxy(server, Options::default()).await;
        Bench {
            proxy,
            memory,
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
        calls(&mut self.redis, "lpos")
    }
}

#[tokio::test]
async fn it_searches_only_if_the_last_entry_does_not_rule_it_out() {
    let server = server();
    let mut bench = Bench::new(&server).await;
    // An instance that has appended nothing there has nothing to compare with.
    for session in ["a", "new"] {
        assert_eq!(bench.searches(session).await, 1);
        assert_eq!(bench.searches(session).await, 0);
    }
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

    // What was sent more than once, may come once more.
    bench.proxy.break_next(Fault {
        direction: Direction::Reply,
        offset: 0,
        action: Action::Cut,
    });
    bench.add("b", "lost").await;
    bench.proxy.break_nothing();
    assert_eq!(bench.searches("b").await, 1);
    assert_eq!(bench.searches("b").await, 0);
    assert_eq!(bench.searches("a").await, 0);

    // To look at a large entry costs more than a search.
    bench.add("a", &"x".repeat(4096)).await;
    assert_eq!(bench.searches("a").await, 1);
    assert_eq!(bench.searches("a").await, 0);

    // Nothing is in a session that is not there.
    bench.memory.clear("a").await.unwrap();
    assert_eq!(bench.searches("a").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_late_behind_an_own_message_is_there_once() {
    let server = server();
    let mut bench = Bench::new(&server).await;
    for number in 0..20 {
        let session = number.to_string();
        bench.add(&session, "before").await;
        bench.add(&session, "own").await;
        bench.proxy.break_next(Fault {
            direction: Direction::Request,
            offset: number,
            action: Action::Late(Duration::from_millis(30)),
        });
        bench.add(&session, "late").await;
        bench.proxy.break_nothing();
        let mut expected = vec!["before", "own", "late"];
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
    tokio::join!(bench.add("one", "x"), bench.add("other", "x"));
    assert_eq!(bench.proxy.connections(), 2);
    let mut instances = BTreeSet::new();
    for session in 0..40 {
        let session = session.to_string();
        bench.add(&session, "x").await;
        assert_eq!(bench.searches(&session).await, 0);
        let of = |element: &String| {
            let (_, id) = element.split_once(r#""id":""#).unwrap();
            id.split_once('-').unwrap().0.to_owned()
        };
        let of_session = elements(&server, &format!("session:{session}"));
        let of_session: BTreeSet<String> = of_session.iter().map(of).collect();
        assert_eq!(of_session.len(), 1, "{session}");
        instances.extend(of_session);
    }
    // That all prefer the same one has a chance of 1 in 2^39.
    assert_eq!(instances.len(), 2);
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
