//! Idle connections.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use session_memory_host::Options;

use crate::common::proxy::Proxy;
use crate::common::{builder, server};

/// The connection and the number of each exchange, with a pause between two operations.
async fn exchanges(max_idle: Option<Duration>) -> Vec<(usize, usize)> {
    let server = server();
    let proxy = Proxy::start(server.address());
    let places = Arc::new(Mutex::new(Vec::new()));
    proxy.plan({
        let places = Arc::clone(&places);
        move |id| {
            let mut places = places.lock().unwrap();
            places.push((id.connection, id.exchange));
            None
        }
    });
    let mut options = Options::new();
    options.max_idle = max_idle;
    let memory = builder(proxy.port(), options).open().await.unwrap();
    memory.count("s").await.unwrap();
    // Only time can make a connection idle.
    tokio::time::sleep(Duration::from_millis(150)).await;
    memory.count("s").await.unwrap();
    places.lock().unwrap().clone()
}

#[tokio::test]
async fn a_connection_that_was_idle_for_too_long_is_replaced_before_it_is_used() {
    // The first exchange of a connection is its handshake.
    let replaced = [(0, 0), (0, 1), (1, 0), (1, 1)];
    assert_eq!(exchanges(Some(Duration::from_millis(50))).await, replaced);
    let kept = [(0, 0), (0, 1), (0, 2)];
    assert_eq!(exchanges(None).await, kept);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_idle_connection_is_probed_after_a_minute() {
    use std::net::TcpStream;

    use crate::common::sockets::connected_to;
    use crate::common::{memory, wait_until};

    let server = server();
    let memory = memory(&server).await;
    memory.count("s").await.unwrap();
    // By default a connection has no keep-alive.
    let _other = TcpStream::connect(server.address()).unwrap();
    let mut timers = Vec::new();
    // While data is unacknowledged, the socket has another timer.
    wait_until(|| {
        let sockets = connected_to(server.port());
        timers = sockets.iter().map(|socket| socket.keep_alive).collect();
        matches!(timers[..], [Some(_), None] | [None, Some(_)])
    });
    let left: Duration = timers.into_iter().flatten().next().unwrap();
    let minute = Duration::from_secs(30)..=Duration::from_secs(61);
    assert!(minute.contains(&left), "{left:?}");
}
