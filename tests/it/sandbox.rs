//! The host against a hostile component: `tests/guest`, which does what the session id
//! says.

use std::fs;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use session_memory_host::{
    Builder, Error, GRACE, Message, NetworkPolicy, NewMessage, Options, Role, SessionMemory,
};
use tokio::task::JoinSet;
use tokio::time::timeout;
use wasm_encoder::{
    Component, ComponentImportSection, ComponentTypeRef, ComponentTypeSection, InstanceType,
};

use crate::common::{GUEST, free_port, refusal, took};

/// When the host stops the guest of an impatient memory. Short, so that the tests are
/// short.
const LIMIT: Duration = Duration::from_millis(500);

fn options() -> Options {
    Options::new().host("127.0.0.1").port(6379)
}

fn impatient() -> Options {
    options()
        .connect_timeout(LIMIT - GRACE)
        .operation_timeout(LIMIT - GRACE)
}

fn builder(options: Options) -> Builder {
    SessionMemory::builder()
        .component_bytes(GUEST)
        .environment([])
        .options(options)
}

/// A memory of the guest.
async fn hostile() -> SessionMemory {
    builder(options()).open().await.unwrap()
}

/// Checks that the next call is the first one of an instance.
async fn next_call_is_of_a_new_instance(memory: &SessionMemory) {
    assert_eq!(memory.count("behave").await.unwrap(), 1);
    assert_eq!(memory.count("behave").await.unwrap(), 2);
}

fn lines(messages: Vec<Message>) -> Vec<String> {
    messages
        .into_iter()
        .map(|message| message.content)
        .collect()
}

/// The error code that WASI returned to the guest for an order.
async fn code(memory: &SessionMemory, order: &str) -> String {
    let (variant, text) = refusal(memory.get(order, None).await);
    assert_eq!(variant, "other", "{order}");
    text
}

// One thread for each guest, and one for the clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_guest_that_does_not_come_back_is_stopped() {
    let mut runs = JoinSet::new();
    for order in ["loop", "sleep", "random 4096"] {
        let memory = builder(impatient()).open().await.unwrap();
        // The first call would include the compilation.
        memory.count("behave").await.unwrap();
        runs.spawn(stopped(memory, order));
    }
    runs.join_all().await;
}

/// Checks that the host stops a guest that does not return from an order, in every
/// operation.
async fn stopped(memory: SessionMemory, order: &'static str) {
    let begin = Instant::now();
    let (variant, text) = refusal(memory.get(order, None).await);
    took(begin, LIMIT);
    assert_eq!(variant, "timeout");
    assert_eq!(
        text,
        format!("get \"{order}\": the component was stopped after 500 ms")
    );
    next_call_is_of_a_new_instance(&memory).await;

    for outcome in [
        memory.history(order, None).await.err(),
        memory.exists(order).await.err(),
        memory.count(order).await.err(),
    ] {
        assert_eq!(outcome.unwrap().variant(), "timeout");
    }
    next_call_is_of_a_new_instance(&memory).await;

    let begin = Instant::now();
    let (variant, text) = refusal(memory.add(order, Role::User, "secret words", None).await);
    took(begin, LIMIT);
    assert_eq!(variant, "outcome-unknown");
    assert_eq!(
        text,
        format!("add to \"{order}\": the component was stopped after 500 ms")
    );
    next_call_is_of_a_new_instance(&memory).await;

    let message = NewMessage::user("secret words");
    for outcome in [
        memory.add_all(order, &[message]).await.err(),
        memory.clear(order).await.err(),
    ] {
        assert_eq!(outcome.unwrap().variant(), "outcome-unknown");
    }
    next_call_is_of_a_new_instance(&memory).await;
}

#[tokio::test]
async fn a_guest_that_does_not_come_back_from_open_is_stopped() {
    for order in ["loop", "sleep"] {
        let options = impatient().key_prefix(order);
        let begin = Instant::now();
        let (variant, text) = refusal(builder(options).open().await);
        println!("{order} in open: {:?}, compiling included", begin.elapsed());
        assert_eq!(variant, "timeout");
        assert!(
            text.starts_with("open: the component was stopped after "),
            "{text}"
        );
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_guest_that_loops_leaves_its_thread_to_others() {
    let memory = builder(impatient()).open().await.unwrap();
    memory.count("behave").await.unwrap();
    // One success of five is enough, because a busy machine may leave no time to either
    // task.
    for _ in 0..5 {
        let turns = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&turns);
        let other = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                taken.lock().unwrap().push(Instant::now());
            }
        });
        let begin = Instant::now();
        assert_eq!(refusal(memory.get("loop", None).await).0, "timeout");
        took(begin, LIMIT);
        other.abort();
        let turns = turns.lock().unwrap();
        let waits = turns.windows(2).map(|pair| pair[1] - pair[0]);
        let longest = waits.max().unwrap_or(Duration::MAX);
        println!(
            "the other task had {} turns; the longest wait was {longest:?}",
            turns.len()
        );
        // With a tick of 10 ms it gets 50 turns, and fewer on a busy machine.
        if turns.len() >= 3 && longest <= LIMIT / 2 {
            return;
        }
    }
    panic!("the other task had to wait each time");
}

#[tokio::test]
async fn a_guest_that_breaks_the_rules_is_replaced() {
    let memory = hostile().await;
    for order in ["trap", "out-of-bounds", "not-utf8"] {
        let error = memory.get(order, None).await.unwrap_err();
        assert!(matches!(error, Error::Component { .. }), "{error:?}");
        println!("{order}: {error}");
        assert!(
            error.to_string().starts_with(&format!("get {order:?}: ")),
            "{error}"
        );
        next_call_is_of_a_new_instance(&memory).await;
    }
    let added = memory.add("trap", Role::User, "secret words", None).await;
    let error = added.unwrap_err();
    assert!(matches!(error, Error::Component { .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("secret words"));
    next_call_is_of_a_new_instance(&memory).await;

    let options = options().key_prefix("trap");
    let error = builder(options).open().await.unwrap_err();
    assert!(matches!(error, Error::Component { .. }), "{error:?}");
}

#[tokio::test]
async fn a_guest_that_takes_all_memory_gets_what_is_granted() {
    let memory = builder(options().operation_timeout(Duration::from_millis(5000)))
        .max_memory(64 << 20)
        .open()
        .await
        .unwrap();
    let before = in_use();
    for _ in 0..4 {
        let (variant, text) = refusal(memory.get("grow", None).await);
        assert_eq!(variant, "limit-exceeded");
        assert!(
            text.starts_with("get \"grow\": the memory that is granted is used up: "),
            "{text}"
        );
        next_call_is_of_a_new_instance(&memory).await;
        let added = memory.add("grow", Role::User, "x", None).await;
        assert_eq!(refusal(added).0, "outcome-unknown");
        next_call_is_of_a_new_instance(&memory).await;
    }
    bounded("grow", before, 64 << 20);
}

#[tokio::test]
async fn a_guest_that_hands_over_too_much_is_stopped() {
    let memory = builder(
        options()
            .operation_timeout(Duration::from_millis(5000))
            .max_reply_bytes(1 << 20),
    )
    .max_memory(512 << 20)
    .open()
    .await
    .unwrap();
    for order in [
        "flood-overlapping",
        "flood-many",
        "flood-error",
        "random 4097",
    ] {
        let before = in_use();
        let begin = Instant::now();
        let error = memory.get(order, None).await.unwrap_err();
        println!("{order}: {error} after {:?}", begin.elapsed());
        assert!(matches!(error, Error::Component { .. }), "{error:?}");
        bounded(order, before, (512 + 64) << 20);
        next_call_is_of_a_new_instance(&memory).await;
    }
}

#[tokio::test]
async fn a_guest_that_hoards_handles_is_stopped() {
    let memory = hostile().await;
    for order in ["pollables", "sockets"] {
        let before = in_use();
        let error = memory.get(order, None).await.unwrap_err();
        println!("{order}: {error}");
        assert!(matches!(error, Error::Component { .. }), "{error:?}");
        bounded(order, before, 16 << 20);
        next_call_is_of_a_new_instance(&memory).await;
    }
}

/// Bytes of memory that this process uses, and its peak. Zero where there is no /proc.
fn in_use() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |name| {
        let line = status.lines().find(|line| line.starts_with(name));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
        kilobytes.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) << 10
    };
    (bytes("VmRSS:"), bytes("VmHWM:"))
}

/// Checks that no more memory than this was used at any time since.
fn bounded(what: &str, (before, peak_before): (u64, u64), most: u64) {
    let (after, peak) = in_use();
    println!(
        "{what}: {} MiB before, {} MiB after, {} MiB at the most",
        before >> 20,
        after >> 20,
        peak >> 20
    );
    assert!(peak <= peak_before.max(before + most + OTHERS), "{what}");
}

/// The memory that concurrent tests of this process may use. Without limits, the guest
/// would use 4 GiB, and its results more.
const OTHERS: u64 = 768 << 20;

#[tokio::test]
async fn only_the_configured_address_is_reached() {
    let allowed = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let allowed = allowed.local_addr().unwrap();
    let other = other.local_addr().unwrap();
    let memory = builder(options().port(allowed.port()))
        .open()
        .await
        .unwrap();
    for address in [
        other.to_string(),
        format!("127.0.0.2:{}", allowed.port()),
        format!("[::1]:{}", allowed.port()),
        "192.0.2.1:80".to_owned(),
    ] {
        assert_eq!(
            code(&memory, &format!("connect {address}")).await,
            "access-denied",
            "{address}"
        );
    }
    assert_eq!(
        lines(
            memory
                .get(&format!("connect {allowed}"), None)
                .await
                .unwrap()
        ),
        ["connected"]
    );

    let memory = builder(options())
        .network(NetworkPolicy::deny_all())
        .open()
        .await
        .unwrap();
    assert_eq!(
        code(&memory, &format!("connect {allowed}")).await,
        "access-denied"
    );
}

#[tokio::test]
async fn only_the_configured_name_is_looked_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let open = |host: &str| builder(options().host(host).port(port)).open();
    let connect = format!("connect 127.0.0.1:{port}");
    let memory = open("127.0.0.1").await.unwrap();
    for name in ["localhost", "redis.example", "127.0.0.2"] {
        assert_eq!(
            code(&memory, &format!("resolve {name}")).await,
            "access-denied",
            "{name}"
        );
    }

    let memory = open("localhost").await.unwrap();
    // An address is reachable after a lookup of the name has returned it.
    assert_eq!(code(&memory, &connect).await, "access-denied");
    for name in [
        "redis.example",
        "localhost.example",
        "LOCALHOST",
        "127.0.0.1",
    ] {
        assert_eq!(
            code(&memory, &format!("resolve {name}")).await,
            "access-denied",
            "{name}"
        );
    }
    assert_eq!(code(&memory, &connect).await, "access-denied");
    let found = lines(memory.get("resolve localhost", None).await.unwrap());
    assert!(found.contains(&"127.0.0.1".to_owned()), "{found:?}");
    assert_eq!(
        lines(memory.get(&connect, None).await.unwrap()),
        ["connected"]
    );
    // Only the configured port is reachable.
    let other = free_port().unwrap();
    assert_eq!(
        code(&memory, &format!("connect 127.0.0.1:{other}")).await,
        "access-denied"
    );
}

#[tokio::test]
async fn nothing_is_listened_on() {
    let memory = hostile().await;
    for (order, expected) in [
        ("bind 127.0.0.1:0", "access-denied"),
        ("bind 127.0.0.1:6379", "access-denied"),
        ("bind 0.0.0.0:8080", "access-denied"),
        ("bind [::1]:0", "access-denied"),
        ("listen 0.0.0.0:0", "access-denied"),
        ("listen [::]:0", "access-denied"),
    ] {
        assert_eq!(code(&memory, order).await, expected, "{order}");
    }
    // Connecting does this first.
    memory.get("bind 0.0.0.0:0", None).await.unwrap();
}

#[tokio::test]
async fn only_the_listed_variables_are_seen() {
    let given = |names: &[&str]| {
        let variable = |name: &&str| ((*name).to_owned(), "value".to_owned());
        names.iter().map(variable).collect::<Vec<_>>()
    };
    let elsewhere = ["HOME", "PATH", "AWS_SECRET_ACCESS_KEY", "REDIS_PASSWORDS"];
    for (listed, expected) in [
        (&[][..], &[][..]),
        (&["KEY_PREFIX"], &["KEY_PREFIX=value"]),
        (
            &["REDIS_USERNAME", "REDIS_PASSWORD"],
            &["REDIS_USERNAME=value", "REDIS_PASSWORD=value"],
        ),
    ] {
        let memory = builder(options())
            .environment(given(&[listed, &elsewhere].concat()))
            .open()
            .await
            .unwrap();
        assert_eq!(
            lines(memory.get("environment", None).await.unwrap()),
            expected
        );
    }

    // The environment of this process has at least HOME or PATH.
    let memory = SessionMemory::builder()
        .component_bytes(GUEST)
        .options(options())
        .open()
        .await
        .unwrap();
    for line in lines(memory.get("environment", None).await.unwrap()) {
        let (name, _) = line.split_once('=').unwrap();
        assert!(!["HOME", "PATH"].contains(&name), "{name}");
    }
}

#[tokio::test]
async fn a_component_that_asks_for_more_is_refused() {
    for interface in [
        "wasi:filesystem/types@0.2.6",
        "wasi:filesystem/preopens@0.2.6",
        "wasi:sockets/udp@0.2.6",
        "wasi:sockets/udp-create-socket@0.2.6",
        "wasi:cli/stdout@0.2.6",
        "wasi:cli/exit@0.2.6",
        "wasi:http/outgoing-handler@0.2.6",
        "wasi:random/insecure@0.2.6",
    ] {
        let opened = SessionMemory::builder()
            .component_bytes(importing(interface))
            .environment([])
            .without_compilation_cache()
            .open()
            .await;
        let error = opened.unwrap_err();
        assert!(matches!(error, Error::Component { .. }), "{error:?}");
        let cause = std::error::Error::source(&error).unwrap();
        assert!(cause.to_string().contains(interface), "{cause}");
        println!("{error}: {cause}");
    }
}

/// A component that imports a function of an interface and has nothing else.
fn importing(interface: &str) -> Vec<u8> {
    let mut functions = InstanceType::new();
    functions
        .ty()
        .function()
        .params::<_, wasm_encoder::ComponentValType>([])
        .result(None);
    functions.export("do", ComponentTypeRef::Func(0));
    let mut types = ComponentTypeSection::new();
    types.instance(&functions);
    let mut imports = ComponentImportSection::new();
    imports.import(interface, ComponentTypeRef::Instance(0));
    let mut component = Component::new();
    component.section(&types);
    component.section(&imports);
    component.finish()
}

#[tokio::test]
async fn a_call_that_is_given_up_takes_its_instance_along() {
    let memory = hostile().await;
    for order in ["sleep", "loop"] {
        for milliseconds in [0, 1, 20, 100] {
            assert!(memory.count("behave").await.unwrap() > 0);
            let given_up = timeout(Duration::from_millis(milliseconds), memory.get(order, None));
            assert!(given_up.await.is_err());
            next_call_is_of_a_new_instance(&memory).await;
        }
    }
    // An error that the guest returns leaves its instance in place.
    assert_eq!(memory.count("behave").await.unwrap(), 3);
    assert_eq!(
        refusal(memory.get("server-error x", None).await).0,
        "server"
    );
    assert_eq!(memory.count("behave").await.unwrap(), 5);
}
