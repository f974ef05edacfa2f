//! How an append finds out whether it is in the list already, and when it can skip the
//! search.

use std::collections::BTreeSet;
use std::time::Duration;

use session_memory_host::{Options, Role, SessionMemory};

use crate::common::proxy::{Break, Direction, Fault, Proxy};
use crate::common::{
    RespClient, Server, calls, contents, elements, memory_through_proxy, redis, server,
};

/// A memory that reaches its server through a proxy.
struct Fixture {
    proxy: Proxy,
    memory: SessionMemory,
    redis: RespClient,
}

impl Fixture {
    async fn new(server: &Server) -> Fixture {
        let (proxy, memory) = memory_through_proxy(server, Options::default()).await;
        Fixture {
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

    /// The number of searches that the server runs for an append.
    async fn searches(&mut self, session: &str) -> u32 {
        self.redis.command(&["CONFIG", "RESETSTAT"]).unwrap();
        self.add(session, "x").await;
        calls(&mut self.redis, "lpos")
    }
}

#[tokio::test]
async fn it_searches_only_if_the_last_entry_does_not_rule_it_out() {
    let server = server();
    let mut fixture = Fixture::new(&server).await;
    // An instance that has not appended to a session has nothing to compare with.
    for session in ["a", "new"] {
        assert_eq!(fixture.searches(session).await, 1);
        assert_eq!(fixture.searches(session).await, 0);
    }
    assert_eq!(fixture.searches("a").await, 0);

    // Another writer appends, with an id or without.
    let other = Fixture::new(&server).await;
    other.add("a", "other").await;
    assert_eq!(fixture.searches("a").await, 1);
    assert_eq!(fixture.searches("a").await, 0);
    let python = r#"{"role": "user", "content": "hello"}"#;
    redis(&server, &["RPUSH", "session:a", python]);
    assert_eq!(fixture.searches("a").await, 1);
    assert_eq!(fixture.searches("a").await, 0);

    // A request that was sent more than once may arrive once more.
    fixture.proxy.break_next(Fault {
        direction: Direction::Reply,
        offset: 0,
        action: Break::Cut,
    });
    fixture.add("b", "lost").await;
    fixture.proxy.break_nothing();
    assert_eq!(fixture.searches("b").await, 1);
    assert_eq!(fixture.searches("b").await, 0);
    assert_eq!(fixture.searches("a").await, 0);

    // Reading a large last entry would cost more than a search.
    fixture.add("a", &"x".repeat(4096)).await;
    assert_eq!(fixture.searches("a").await, 1);
    assert_eq!(fixture.searches("a").await, 0);

    // An empty session needs no search.
    fixture.memory.clear("a").await.unwrap();
    assert_eq!(fixture.searches("a").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_append_behind_an_own_message_is_stored_once() {
    let server = server();
    let mut fixture = Fixture::new(&server).await;
    for number in 0..20 {
        let session = number.to_string();
        fixture.add(&session, "before").await;
        fixture.add(&session, "own").await;
        fixture.proxy.break_next(Fault {
            direction: Direction::Request,
            offset: number,
            action: Break::Late(Duration::from_millis(30)),
        });
        fixture.add(&session, "late").await;
        fixture.proxy.break_nothing();
        let mut expected = vec!["before", "own", "late"];
        // The first attempt finds its own message at the end, or another message.
        if number % 2 == 0 {
            fixture.add(&session, "after").await;
            expected.push("after");
        }
        fixture.proxy.settle().await;
        assert_eq!(fixture.contents(&session), expected, "{number}");
    }
    assert_eq!(fixture.proxy.carried_out(), 20);
}

/// Another instance would have to search, because the last message is not its own.
#[tokio::test]
async fn a_session_keeps_to_an_instance() {
    let server = server();
    let mut fixture = Fixture::new(&server).await;
    tokio::join!(fixture.add("one", "x"), fixture.add("other", "x"));
    assert_eq!(fixture.proxy.connections(), 2);
    let mut instances = BTreeSet::new();
    for session in 0..40 {
        let session = session.to_string();
        fixture.add(&session, "x").await;
        assert_eq!(fixture.searches(&session).await, 0);
        let of = |element: &String| {
            let (_, id) = element.split_once(r#""id":""#).unwrap();
            id.split_once('-').unwrap().0.to_owned()
        };
        let of_session = elements(&server, &format!("session:{session}"));
        let of_session: BTreeSet<String> = of_session.iter().map(of).collect();
        assert_eq!(of_session.len(), 1, "{session}");
        instances.extend(of_session);
    }
    // The probability that all prefer the same one is 1 in 2^39.
    assert_eq!(instances.len(), 2);
}

/// The search runs if the user may not read the last entry.
#[tokio::test]
async fn it_searches_where_it_may_not_look_at_the_end() {
    let server = server();
    let mut fixture = Fixture::new(&server).await;
    let rules = ["ACL", "SETUSER", "default", "-lindex"];
    redis(&server, &rules);
    for _ in 0..3 {
        assert_eq!(fixture.searches("a").await, 1);
    }
    assert_eq!(fixture.contents("a").len(), 3);
}
