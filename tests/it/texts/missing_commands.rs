//! Servers without a command, and users who may not run it.

use session_memory_host::{Options, Role, SessionMemory, TtlPolicy};

use super::{add, history, on_the_way, open, with_db};
use crate::common::{
    Server, at_most_once, integer, is_redis_7, memory_with, redis, refusal, server_with,
    server_with_user,
};

/// A server that does not run a command, and the error that says so.
struct Without {
    server: Server,
    username: Option<String>,
    variant: &'static str,
    text: String,
}

impl Without {
    async fn memory(&self, options: Options) -> SessionMemory {
        memory_with(&self.server, self.options(options)).await
    }

    fn options(&self, mut options: Options) -> Options {
        options.username = self.username.clone();
        options
    }

    fn error(&self, during: &str) -> (&'static str, String) {
        (self.variant, format!("{during}: {}", self.text))
    }
}

/// A server where the command is renamed away, and one where the user may not run it.
fn without(command: &str, avoided: &str) -> [Without; 2] {
    let who = match command {
        "LTRIM" => ", as a Redis Sentinel does not: give host and port of the Redis server itself",
        _ => " (renamed or disabled there, or it is a Redis Sentinel or a proxy)",
    };
    let denied = format!("on nopass ~* +@all -{}", command.to_lowercase());
    [
        Without {
            server: server_with(&["--rename-command", command, ""]),
            username: None,
            variant: "server",
            text: format!("ERR: the server does not know {command}{who}{avoided}"),
        },
        Without {
            server: server_with_user("agent", &denied),
            username: Some("agent".to_owned()),
            variant: "access-denied",
            text: format!("NOPERM: the user may not run {command}{avoided}"),
        },
    ]
}

#[tokio::test]
async fn without_scripting_the_command_and_what_avoids_it_are_named() {
    let avoided = "; delivery at-most-once needs no scripting, and get needs none either";
    for command in ["EVALSHA", "EVAL"] {
        for without in without(command, avoided) {
            let memory = without.memory(Options::default()).await;
            assert_eq!(add(&memory).await, without.error("add to \"s\""));
            if command == "EVAL" {
                assert_eq!(history(&memory).await, without.error("history of \"s\""));
            } else {
                assert_eq!(memory.history("s", None).await.unwrap().total, 0);
            }
            assert_eq!(memory.get("s", None).await.unwrap(), []);

            let memory = without.memory(at_most_once()).await;
            assert_eq!(memory.add("s", Role::User, "x", None).await.unwrap(), 1);
            assert_eq!(memory.history("s", None).await.unwrap().total, 1);
        }
    }
}

#[tokio::test]
async fn without_transactions_the_command_and_what_avoids_it_are_named() {
    for command in ["MULTI", "EXEC"] {
        for without in without(command, "; delivery exactly-once does not need it") {
            let port = without.server.port();
            let opened = open(port, without.options(at_most_once())).await;
            let expected = on_the_way(port, without.variant, &without.text);
            assert_eq!(opened, expected);
            let memory = without.memory(Options::default()).await;
            assert_eq!(memory.add("s", Role::User, "x", None).await.unwrap(), 1);
        }
    }
}

#[tokio::test]
async fn without_ping_there_is_no_opening() {
    for without in without("PING", "") {
        let port = without.server.port();
        let opened = open(port, without.options(Options::default())).await;
        assert_eq!(opened, on_the_way(port, without.variant, &without.text));
    }
}

#[tokio::test]
async fn without_select_another_database_is_none() {
    for without in without("SELECT", "; db 0 does not need it") {
        let port = without.server.port();
        let opened = open(port, without.options(with_db(Options::default()))).await;
        assert_eq!(opened, on_the_way(port, without.variant, &without.text));
        without.memory(Options::default()).await;
    }
}

#[tokio::test]
async fn without_ltrim_nothing_is_cleared_or_trimmed() {
    let avoided = "; clear and max-messages need it, and nothing else does";
    for without in without("LTRIM", avoided) {
        let memory = without.memory(Options::default()).await;
        memory.add("s", Role::User, "x", None).await.unwrap();
        let cleared = refusal(memory.clear("s").await);
        assert_eq!(cleared, without.error("clear \"s\""));

        let trimming = at_most_once().max_messages(10);
        let memory = without.memory(trimming).await;
        assert_eq!(add(&memory).await, without.error("add to \"s\""));
        assert_eq!(memory.count("s").await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_script_that_asks_for_a_command_that_is_not_there_says_so() {
    let needs = |command, options: Options, allowed: Options| (command, options, allowed);
    for (command, options, allowed) in [
        needs("LTRIM", Options::new().max_messages(10), Options::default()),
        needs(
            "EXPIRE",
            Options::default(),
            Options::new().ttl_policy(TtlPolicy::None),
        ),
    ] {
        let server = server_with(&["--rename-command", command, ""]);
        let memory = memory_with(&server, options).await;
        let text = match is_redis_7(&server) {
            true => {
                "add to \"s\": ERR: the server does not know EXPIRE, which a time to live needs, or \
                 LTRIM, which max-messages needs"
            }
            false => {
                "add to \"s\": ERR: the server does not know a command that the script uses; \
                 delivery at-most-once needs no script"
            }
        };
        assert_eq!(add(&memory).await, ("server", text.to_owned()), "{command}");
        assert_eq!(integer(redis(&server, &["EXISTS", "session:s"])), 0);
        let memory = memory_with(&server, allowed).await;
        assert_eq!(memory.add("s", Role::User, "x", None).await.unwrap(), 1);
    }
}
