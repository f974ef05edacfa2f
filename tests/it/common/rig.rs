//! A memory whose connection to the server can be broken, and the figures of a test that
//! does it.

use std::time::Duration;

use session_memory_host::{Delivery, Options, Role, SessionMemory};

use super::proxy::{ProxiedExchange, Proxy};
use super::scenario::Scenario;
use super::{RespClient, Server, contents_with_ttl, memory_through_proxy};

/// A memory that reaches its server through a proxy.
pub struct Rig {
    pub proxy: Proxy,
    pub memory: SessionMemory,
    redis: RespClient,
    name: String,
    sessions: usize,
}

impl Rig {
    pub async fn new(server: &Server, delivery: Delivery, operation_timeout: Duration) -> Rig {
        let options = Options::new()
            .delivery(delivery)
            .operation_timeout(operation_timeout);
        Rig::with(server, options).await
    }

    pub async fn with(server: &Server, options: Options) -> Rig {
        let (proxy, memory) = memory_through_proxy(server, options).await;
        Rig::of(server, proxy, memory).await
    }

    /// Uses a memory that reaches the server through the proxy.
    pub async fn of(server: &Server, proxy: Proxy, memory: SessionMemory) -> Rig {
        // From here on the server knows the script.
        memory.add("known", Role::User, "x", None).await.unwrap();
        // Ports of proxies are unique.
        let name = proxy.port().to_string();
        Rig {
            proxy,
            memory,
            redis: server.client().unwrap(),
            name,
            sessions: 0,
        }
    }

    /// Creates a session with the messages that the scenario needs. The names of all
    /// sessions have the same length.
    pub fn session(&mut self, scenario: Scenario) -> String {
        self.sessions += 1;
        let session = format!("{} {:06}", self.name, self.sessions);
        let key = format!("session:{session}");
        for content in scenario.before() {
            let element = format!(r#"{{"role":"user","content":"{content}"}}"#);
            self.redis.command(&["RPUSH", &key, &element]).unwrap();
            self.redis.command(&["EXPIRE", &key, "3600"]).unwrap();
        }
        session
    }

    /// Runs the scenario without a fault and returns its bytes.
    pub async fn undisturbed(&mut self, scenario: Scenario) -> ProxiedExchange {
        let session = self.session(scenario);
        assert!(scenario.run(&self.memory, &session).await.unwrap());
        self.proxy.last()
    }

    /// The messages on the server. The session must have a time to live.
    pub fn stored(&mut self, session: &str) -> Vec<String> {
        contents_with_ttl(&mut self.redis, session, "under a fault")
    }

    /// The messages on the server after a fault, and whether the operation was applied.
    /// Fails unless the session has the messages from before, the messages from after, or
    /// a duplicate, which is counted.
    pub fn stored_after_fault(
        &mut self,
        scenario: Scenario,
        session: &str,
        case: &str,
        figures: &mut Figures,
    ) -> (Vec<String>, bool) {
        figures.faults += 1;
        let stored = self.stored(session);
        let is_applied = stored == scenario.after();
        assert!(
            is_applied || stored == scenario.before() || figures.count_duplicates(&stored),
            "{case}: {stored:?}"
        );
        (stored, is_applied)
    }
}

#[derive(Debug, Default)]
pub struct Figures {
    pub faults: usize,
    pub acknowledged: usize,
    pub unknown: usize,
    pub refused: usize,
    pub lost: usize,
    pub duplicated: usize,
}

impl Figures {
    /// Counts a message that is stored more than once. Returns whether there is one.
    pub fn count_duplicates(&mut self, stored: &[String]) -> bool {
        let has_duplicates = (1..stored.len()).any(|n| stored[..n].contains(&stored[n]));
        self.duplicated += usize::from(has_duplicates);
        has_duplicates
    }

    pub fn add(&mut self, other: &Figures) {
        self.faults += other.faults;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
    }

    pub fn report(&self, what: &str) {
        println!(
            "{what}: {} tried; operations acknowledged {}, unknown {}, refused {}; \
             lost {}, duplicated {}",
            self.faults, self.acknowledged, self.unknown, self.refused, self.lost, self.duplicated
        );
        assert_eq!((self.lost, self.duplicated), (0, 0), "{what}");
    }
}
