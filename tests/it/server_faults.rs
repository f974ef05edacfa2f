//! Servers that are killed, paused, demoted, full, loading, or refuse clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use session_memory_host::{Delivery, Options, Role, SessionMemory};

use crate::common::{
    DELIVERIES, RETRIES, Server, Value, builder, contents, contents_with_ttl, ends_by_itself,
    is_redis_7, memory_through_proxy, memory_with, redis, refusal, server, server_code,
    server_with, signal, took, wait_until,
};

/// A primary that starts replication without waiting for more replicas.
const SOON: [&str; 2] = ["--repl-diskless-sync-delay", "0"];
const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
/// The deadline of an impatient memory.
const DEADLINE: Duration = Duration::from_millis(300);

fn options(delivery: Delivery, operation_timeout: u64) -> Options {
    Options::new()
        .delivery(delivery)
        .operation_timeout(Duration::from_millis(operation_timeout))
}

fn impatient(delivery: Delivery) -> Options {
    options(delivery, DEADLINE.as_millis() as u64)
}

/// The messages in the session `s`, which must have a time to live.
fn stored(server: &Server) -> Vec<String> {
    contents_with_ttl(&mut server.client().unwrap(), "s", "after a fault")
}

/// Adds numbers from 0 until `is_over`. Returns the acknowledged numbers, and those with
/// an unknown outcome.
async fn add_numbers(memory: &SessionMemory, is_over: &AtomicBool) -> (Vec<String>, Vec<String>) {
    let (mut acknowledged, mut unknown) = (Vec::new(), Vec::new());
    for number in 0.. {
        if is_over.load(SeqCst) {
            break;
        }
        let content = number.to_string();
        match memory.add("s", Role::User, &content, None).await {
            Ok(_) => acknowledged.push(content),
            Err(error) => match error.variant() {
                "outcome-unknown" => unknown.push(content),
                "unavailable" | "timeout" => {}
                // The server has just restarted.
                "server" if error.to_string().contains("LOADING") => {}
                _ => panic!("{number}: {error}"),
            },
        }
    }
    (acknowledged, unknown)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_a_killed_server() {
    for delivery in DELIVERIES {
        let mut server = server_with(&DURABLE);
        let memory = memory_with(&server, options(delivery, 5000)).await;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let killer = thread::spawn(move || {
            for _ in 0..3 {
                thread::sleep(Duration::from_millis(150));
                server.kill().unwrap();
                thread::sleep(Duration::from_millis(100));
                server.restart().unwrap();
            }
            thread::sleep(Duration::from_millis(150));
            over.store(true, SeqCst);
            server
        });
        let (acknowledged, unknown) = add_numbers(&memory, &is_over).await;
        let server = killer.join().unwrap();
        let stored = stored(&server);
        for content in &acknowledged {
            let times = stored.iter().filter(|c| *c == content).count();
            assert_eq!(times, 1, "{content}, {delivery:?}");
        }
        for content in &unknown {
            let times = stored.iter().filter(|c| *c == content).count();
            assert!(times <= 1, "{content}, {delivery:?}");
        }
        let numbers = stored.iter().map(|c| c.parse::<u32>().unwrap());
        assert!(numbers.is_sorted(), "{delivery:?}: {stored:?}");
        assert!(stored.len() <= acknowledged.len() + unknown.len());
        if delivery == Delivery::ExactlyOnce {
            assert_eq!(unknown.len(), 0, "the server came back within the deadline");
        }
        println!(
            "server killed and restarted 3 times, {delivery:?}: acknowledged {}, unknown {}, \
             lost 0, duplicated 0",
            acknowledged.len(),
            unknown.len()
        );
    }
}

#[tokio::test]
async fn a_paused_server_costs_no_more_than_the_deadline() {
    for delivery in DELIVERIES {
        let server = server();
        let patient = memory_with(&server, options(delivery, 5000)).await;
        let impatient = memory_with(&server, impatient(delivery)).await;
        patient.add("s", Role::User, "before", None).await.unwrap();

        signal(&server, "STOP");
        let begin = Instant::now();
        let result = impatient.add("s", Role::User, "paused", None).await;
        took(begin, DEADLINE);
        assert_eq!(refusal(result).0, "outcome-unknown");
        // The next operation does not get beyond connecting.
        let result = ends_by_itself(DEADLINE, async || {
            impatient.add("s", Role::User, "not sent", None).await
        });
        assert_eq!(refusal(result.await).0, "timeout");
        signal(&server, "CONT");

        patient.add("s", Role::User, "after", None).await.unwrap();
        let stored = stored(&server);
        // The server executed the request when it was resumed.
        assert_eq!(stored, ["before", "paused", "after"], "{delivery:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_paused_for_less_than_the_deadline_is_waited_for() {
    for delivery in DELIVERIES {
        let server = server();
        let memory = memory_with(&server, options(delivery, 5000)).await;
        memory.add("s", Role::User, "before", None).await.unwrap();
        signal(&server, "STOP");
        let waker = thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            signal(&server, "CONT");
            server
        });
        memory.add("s", Role::User, "paused", None).await.unwrap();
        let server = waker.join().unwrap();
        assert_eq!(stored(&server), ["before", "paused"], "{delivery:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed() {
    for delivery in DELIVERIES {
        let (old, new) = (server_with(&SOON), server_with(&SOON));
        let (proxy, memory) = memory_through_proxy(&old, options(delivery, 5000)).await;
        replicate(&new, &old);
        memory.add("s", Role::User, "before", None).await.unwrap();
        wait_until(|| contents(&mut new.client().unwrap(), "session:s").len() == 1);

        // The connection still leads to the old primary, which is now read-only.
        redis(&new, &["REPLICAOF", "NO", "ONE"]);
        proxy.redirect(new.address());
        replicate(&old, &new);
        let result = memory.add("s", Role::User, "after", None).await;
        match delivery {
            Delivery::ExactlyOnce => assert_eq!(result.unwrap(), 2),
            // It was not applied, and not sent again.
            Delivery::AtMostOnce => {
                assert_eq!(server_code(result), "READONLY");
                assert_eq!(stored(&new), ["before"]);
                memory.add("s", Role::User, "after", None).await.unwrap();
            }
        }
        assert_eq!(stored(&new), ["before", "after"], "{delivery:?}");
        assert_eq!(memory.get("s", None).await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_read_only_server_refuses_until_the_deadline() {
    let (primary, replica) = (server_with(&SOON), server_with(&SOON));
    replicate(&replica, &primary);
    let memory = memory_with(&replica, impatient(Delivery::ExactlyOnce)).await;
    let added = ends_by_itself(RETRIES, async || {
        memory.add("s", Role::User, "x", None).await
    });
    assert_eq!(server_code(added.await), "READONLY");
    let cleared = ends_by_itself(RETRIES, async || memory.clear("s").await);
    assert_eq!(server_code(cleared.await), "READONLY");
    assert_eq!(stored(&replica).len(), 0);
    assert_eq!(stored(&primary).len(), 0);
}

#[tokio::test]
async fn a_server_out_of_memory_takes_nothing_and_loses_nothing() {
    for delivery in DELIVERIES {
        let server = server_with(&["--maxmemory-policy", "noeviction"]);
        if delivery == Delivery::ExactlyOnce && !is_redis_7(&server) {
            println!("before Redis 7, {delivery:?} may go beyond maxmemory");
            continue;
        }
        let memory = memory_with(&server, options(delivery, 5000)).await;
        memory.add("s", Role::User, "before", None).await.unwrap();
        redis(&server, &["CONFIG", "SET", "maxmemory", "1"]);
        let begin = Instant::now();
        for _ in 0..2 {
            let result = memory.add("s", Role::User, "refused", None).await;
            assert_eq!(server_code(result), "OOM", "{delivery:?}");
        }
        // Waiting does not help, so nothing is retried.
        took(begin, Duration::ZERO);
        assert_eq!(memory.get("s", None).await.unwrap().len(), 1);
        redis(&server, &["CONFIG", "SET", "maxmemory", "0"]);
        memory.add("s", Role::User, "after", None).await.unwrap();
        assert_eq!(stored(&server), ["before", "after"], "{delivery:?}");
    }
}

#[tokio::test]
async fn a_server_out_of_memory_is_read_all_the_same() {
    let server = server_with(&["--maxmemory-policy", "noeviction"]);
    let memory = memory_with(&server, options(Delivery::ExactlyOnce, 5000)).await;
    // More messages than a page holds.
    for number in 0..300 {
        let content = number.to_string();
        memory.add("s", Role::User, &content, None).await.unwrap();
    }
    let at_most_once = memory_with(&server, options(Delivery::AtMostOnce, 5000)).await;
    redis(&server, &["CONFIG", "SET", "maxmemory", "1"]);
    // Redis 8 refuses only commands that write.
    let mut client = server.client().unwrap();
    client.command(&["MULTI"]).unwrap();
    let queued = client.command(&["LLEN", "session:s"]).unwrap();
    let refuses_transactions = matches!(queued, Value::Error(_));
    for (limit, count) in [(None, 300), (Some(290), 290), (Some(10), 10)] {
        let messages = memory.get("s", limit).await.unwrap();
        assert_eq!(messages.len(), count);
        assert_eq!(messages.last().unwrap().content, "299");
        let history = memory.history("s", limit).await.unwrap();
        assert_eq!(history.messages, messages);
        assert_eq!((history.total, history.skipped), (300, 0));
        let ttl = history.ttl.unwrap().as_secs();
        assert!((3500..=3600).contains(&ttl), "{ttl}");

        assert_eq!(at_most_once.get("s", limit).await.unwrap(), messages);
        let read = at_most_once.history("s", limit).await;
        if refuses_transactions {
            let text = "history of \"s\": OOM: the server has no memory left for writes (maxmemory); \
                        a transaction counts as a write even if it only reads, get does not";
            assert_eq!(refusal(read), ("server", text.to_owned()));
        } else {
            assert_eq!(read.unwrap(), history);
        }
    }
}

#[tokio::test]
async fn a_server_that_loads_is_waited_for() {
    for delivery in DELIVERIES {
        // The server waits after every key, in microseconds, until it is told otherwise.
        // It looks at its clients every 2 MiB, and each key is larger. So it looks
        // several times before the impatient client gives up.
        let slow = ["--key-load-delay", "75000", "--rdbcompression", "no"];
        let rewrite_once = ["--auto-aof-rewrite-percentage", "0"];
        let mut server = server_with(&[&DURABLE[..], &slow, &rewrite_once].concat());
        let patient = memory_with(&server, options(delivery, 10_000)).await;
        let impatient = memory_with(&server, impatient(delivery)).await;
        patient.add("s", Role::User, "before", None).await.unwrap();
        let mut client = server.client().unwrap();
        for n in 0..40 {
            let set = ["SET", &format!("other:{n}"), &"x".repeat(3 << 20)];
            client.command(&set).unwrap();
        }
        // Only a file that begins with a snapshot is loaded this way.
        redis(&server, &["BGREWRITEAOF"]);
        wait_until(|| info(&server, "aof_rewrite_in_progress:0"));
        server.kill().unwrap();
        server.restart().unwrap();
        assert!(info(&server, "loading:1"), "it is not loading any more");

        let at_least = match delivery {
            Delivery::ExactlyOnce => RETRIES,
            // Fails at once, and is not retried.
            Delivery::AtMostOnce => Duration::ZERO,
        };
        let result = ends_by_itself(at_least, async || {
            impatient.add("s", Role::User, "refused", None).await
        });
        assert_eq!(server_code(result.await), "LOADING", "{delivery:?}");
        assert!(info(&server, "loading:1"));
        if delivery == Delivery::AtMostOnce {
            // Fails at once, and is not retried.
            let result = patient.add("s", Role::User, "refused", None).await;
            assert_eq!(server_code(result), "LOADING");
        }
        let hurrier = thread::spawn(move || {
            if delivery == Delivery::ExactlyOnce {
                // Leaves time for a retry.
                thread::sleep(Duration::from_millis(200));
            }
            redis(&server, &["CONFIG", "SET", "key-load-delay", "0"]);
            wait_until(|| !info(&server, "loading:1"));
            server
        });
        let server = match delivery {
            Delivery::ExactlyOnce => {
                let result = patient.add("s", Role::User, "after", None).await;
                assert_eq!(result.unwrap(), 2);
                hurrier.join().unwrap()
            }
            Delivery::AtMostOnce => {
                let server = hurrier.join().unwrap();
                patient.add("s", Role::User, "after", None).await.unwrap();
                server
            }
        };
        assert_eq!(stored(&server), ["before", "after"], "{delivery:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_clients_is_asked_again() {
    for delivery in DELIVERIES {
        let server = server_with(&["--maxclients", "4"]);
        let (proxy, memory) = memory_through_proxy(&server, options(delivery, 5000)).await;
        let impatient = builder(proxy.port(), impatient(delivery))
            .open()
            .await
            .unwrap();
        memory.add("s", Role::User, "before", None).await.unwrap();
        proxy.close_all();
        wait_until(|| proxy.connections() == 0);
        let mut others = Vec::new();
        let refused =
            |reply: &Value| matches!(reply, Value::Error(text) if text.contains("max number"));
        loop {
            let mut other = server.client().unwrap();
            match other.command(&["PING"]) {
                Ok(reply) if refused(&reply) => break,
                Err(_) => break,
                Ok(_) => others.push(other),
            }
        }
        let result = ends_by_itself(RETRIES, async || {
            impatient.add("s", Role::User, "refused", None).await
        });
        assert_eq!(refusal(result.await).0, "unavailable", "{delivery:?}");
        let leaver = thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            drop(others);
        });
        assert_eq!(memory.add("s", Role::User, "after", None).await.unwrap(), 2);
        leaver.join().unwrap();
        assert_eq!(stored(&server), ["before", "after"], "{delivery:?}");
    }
}

/// Makes a server the replica of another and waits for the link.
fn replicate(replica: &Server, primary: &Server) {
    let port = primary.port().to_string();
    redis(replica, &["REPLICAOF", "127.0.0.1", &port]);
    wait_until(|| info(replica, "master_link_status:up"));
}

/// Whether a line is in the server's INFO.
fn info(server: &Server, line: &str) -> bool {
    let Value::Bulk(Some(text)) = redis(server, &["INFO"]) else {
        return false;
    };
    String::from_utf8_lossy(&text).lines().any(|l| l == line)
}
