//! A proxy between a memory and a server that injects faults at any byte.
//!
//! It follows the protocol as far as needed to find exchanges. An exchange is the
//! commands of a request and their replies; the first exchange of a connection is its
//! handshake. Offsets count from the beginning of a request, or of its replies.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::mem;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::task::yield_now;

/// The direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the server.
    Request,
    /// To the component.
    Reply,
}

/// What happens at a byte. All earlier bytes have been passed on by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Closes both sides. When the component notices, the server has already done all
    /// that it will do with the bytes it received.
    Cut,
    /// As `Cut`, but with a reset towards the component.
    Reset,
    /// Closes the component's side at once. The server receives the rest of the request
    /// after this time.
    Late(Duration),
    /// Passes nothing on in this direction, and keeps everything open.
    Swallow,
    /// Passes the following bytes on after this time.
    Delay(Duration),
    /// Passes the rest of the exchange on byte by byte, with this time in between.
    Trickle(Duration),
    /// Flips these bits of the byte.
    Garble(u8),
    /// Replaces each remaining reply, from this byte on, with this error line. The server
    /// has executed the request.
    ErrorReply(&'static str),
}

/// A fault to inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The direction whose bytes are counted.
    pub direction: Direction,
    /// The number of bytes to pass on before.
    pub offset: usize,
    /// What to do then.
    pub action: Break,
}

/// Identifies an exchange.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeId {
    /// The number of the connection, from 0.
    pub connection: usize,
    /// The number of the exchange on that connection. 0 is the handshake.
    pub exchange: usize,
}

/// The bytes of an exchange in both directions.
#[derive(Clone, Debug, Default)]
pub struct ProxiedExchange {
    /// From the component.
    pub request: Vec<u8>,
    /// From the server.
    pub reply: Vec<u8>,
}

/// A running proxy. Connections and threads end when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    server: Mutex<SocketAddr>,
    plan: Mutex<Plan>,
    open: Mutex<HashMap<usize, [TcpStream; 2]>>,
    last: Mutex<ProxiedExchange>,
    exchanges: AtomicUsize,
    carried_out: AtomicUsize,
    /// Connections with a fault that is not over.
    unsettled: AtomicUsize,
    ended: AtomicBool,
}

type Plan = Box<dyn FnMut(ExchangeId) -> Option<Fault> + Send>;

impl Proxy {
    /// Starts a proxy for a server, without faults.
    pub fn start(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Proxy::listening(listener, server)
    }

    /// Starts a proxy for a server at the given address, without faults.
    pub fn start_at(address: SocketAddr, server: SocketAddr) -> Proxy {
        Proxy::listening(TcpListener::bind(address).unwrap(), server)
    }

    fn listening(listener: TcpListener, server: SocketAddr) -> Proxy {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server: Mutex::new(server),
            plan: Mutex::new(Box::new(|_| None)),
            open: Mutex::default(),
            last: Mutex::default(),
            exchanges: AtomicUsize::new(0),
            carried_out: AtomicUsize::new(0),
            unsettled: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Proxy {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// The port that it listens on: on 127.0.0.1, unless it was given an address.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Calls `plan` at the beginning of every exchange for the fault to inject.
    pub fn plan(&self, plan: impl FnMut(ExchangeId) -> Option<Fault> + Send + 'static) {
        *lock(&self.shared.plan) = Box::new(plan);
    }

    /// Injects a fault into the next exchange that is not a handshake.
    pub fn break_next(&self, fault: Fault) {
        let mut fault = Some(fault);
        self.plan(move |id| fault.take_if(|_| id.exchange > 0));
    }

    /// Injects no more faults.
    pub fn break_nothing(&self) {
        self.plan(|_| None);
    }

    /// The number of faults injected. A fault whose offset an exchange does not reach
    /// does not count.
    pub fn carried_out(&self) -> usize {
        self.shared.carried_out.load(SeqCst)
    }

    /// The last exchange with a reply that was no handshake.
    pub fn last(&self) -> ProxiedExchange {
        lock(&self.shared.last).clone()
    }

    /// The number of exchanges that have begun, including handshakes.
    pub fn exchanges(&self) -> usize {
        self.shared.exchanges.load(SeqCst)
    }

    /// The number of open connections.
    pub fn connections(&self) -> usize {
        lock(&self.shared.open).len()
    }

    /// Closes all connections.
    pub fn close_all(&self) {
        for side in lock(&self.shared.open).values().flatten() {
            // The peer may have closed it.
            let _ = side.shutdown(Shutdown::Both);
        }
    }

    /// Connects new connections to another server.
    pub fn redirect(&self, server: SocketAddr) {
        *lock(&self.shared.server) = server;
    }

    /// Waits until all faults are over: cut connections are closed, slow and late bytes
    /// have arrived, and requests without a reply have been given up. Other tasks of the
    /// runtime may have to run until then.
    pub async fn settle(&self) {
        let begin = Instant::now();
        while self.shared.unsettled.load(SeqCst) > 0 {
            let waited = begin.elapsed();
            assert!(waited < Duration::from_secs(30), "a fault has no end");
            yield_now().await;
            thread::sleep(Duration::from_micros(50));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        self.close_all();
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// The offsets of the framing bytes in replies: types, lengths and line ends, without the
/// contents of strings and integers.
pub fn framing(replies: &[u8]) -> Vec<usize> {
    let mut contents = Vec::new();
    let mut at = 0;
    while let Some(end) = frame(replies, at, &mut contents) {
        at = end;
    }
    (0..at)
        .filter(|offset| !contents.iter().any(|content| content.contains(offset)))
        .collect()
}

/// The offset of each reply.
pub fn beginnings(replies: &[u8]) -> Vec<usize> {
    let mut beginnings = Vec::new();
    let mut at = 0;
    while let Some(end) = frame(replies, at, &mut Vec::new()) {
        beginnings.push(at);
        at = end;
    }
    beginnings
}

/// The end of the first frame, if it is complete.
pub fn frame_end(bytes: &[u8]) -> Option<usize> {
    frame(bytes, 0, &mut Vec::new())
}

fn accept(listener: &TcpListener, shared: &Shared) {
    thread::scope(|scope| {
        for (connection, component) in listener.incoming().flatten().enumerate() {
            if shared.ended.load(SeqCst) {
                return;
            }
            scope.spawn(move || carry(shared, connection, component));
        }
    });
}

/// Forwards a connection until it ends.
fn carry(shared: &Shared, connection: usize, component: TcpStream) {
    let address = *lock(&shared.server);
    // Without a server, the component's connection is closed.
    let Ok(server) = TcpStream::connect(address) else {
        return;
    };
    component.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let sides = [&component, &server].map(|side| side.try_clone().unwrap());
    lock(&shared.open).insert(connection, sides);
    let state = Mutex::new(ProxiedConnection::new(connection));
    if !shared.ended.load(SeqCst) {
        thread::scope(|scope| {
            scope.spawn(|| carry_requests(shared, &state, &component, &server));
            carry_replies(shared, &state, &component, &server);
        });
    }
    lock(&shared.open).remove(&connection);
    // A reset is sent when the last handle is closed.
    drop(component);
    lock(&state).settle(shared);
}

fn carry_requests(
    shared: &Shared,
    state: &Mutex<ProxiedConnection>,
    mut component: &TcpStream,
    mut server: &TcpStream,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(size @ 1..) = component.read(&mut buffer) {
        let bytes = &mut buffer[..size];
        let broken = lock(state).request(bytes, shared);
        let passed = match broken {
            None => server.write_all(bytes),
            Some((at, Break::Cut | Break::Reset)) => {
                // The other thread closes the component's side when the server has closed
                // its own, and so has processed what it received.
                let _ = server.write_all(&bytes[..at]);
                break;
            }
            Some((at, Break::Late(time))) => {
                let _ = server.write_all(&bytes[..at]);
                let _ = component.shutdown(Shutdown::Both);
                thread::sleep(time);
                let _ = server.write_all(&bytes[at..]);
                break;
            }
            Some((at, action)) => pass(server, bytes, at, action),
        };
        if passed.is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Write);
}

fn carry_replies(
    shared: &Shared,
    state: &Mutex<ProxiedConnection>,
    mut component: &TcpStream,
    mut server: &TcpStream,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut rest = Vec::new();
    while let Ok(size @ 1..) = server.read(&mut buffer) {
        let bytes = &mut buffer[..size];
        let mut state = lock(state);
        if state.cut.is_some() {
            continue;
        }
        let broken = state.reply(bytes, shared);
        let missing = match broken {
            Some((at, Break::ErrorReply(_))) => state.commands_without_reply(bytes.len() - at),
            _ => 0,
        };
        drop(state);
        let passed = match broken {
            None => component.write_all(bytes),
            Some((at, Break::Cut | Break::Reset | Break::Late(_))) => {
                // Sent when the server has closed, together with the end.
                rest = bytes[..at].to_vec();
                let _ = server.shutdown(Shutdown::Write);
                Ok(())
            }
            Some((at, Break::ErrorReply(reply))) => {
                component.write_all(&bytes[..at]).and_then(|()| {
                    component.write_all(format!("-{reply}\r\n").repeat(missing).as_bytes())
                })
            }
            Some((at, action)) => pass(component, bytes, at, action),
        };
        if passed.is_err() {
            break;
        }
    }
    let _ = component.write_all(&rest);
    let ended = match lock(state).cut {
        Some(Break::Reset) => {
            // Wakes the other thread without sending a FIN.
            SockRef::from(component)
                .set_linger(Some(Duration::ZERO))
                .and_then(|()| component.shutdown(Shutdown::Read))
        }
        _ => component.shutdown(Shutdown::Both),
    };
    // The component may have closed it.
    let _ = ended;
    let _ = server.shutdown(Shutdown::Both);
}

/// Passes bytes on and applies an action to those from `at`. The action does not end the
/// connection.
fn pass(
    mut to: &TcpStream,
    bytes: &mut [u8],
    at: usize,
    action: Break,
) -> Result<(), std::io::Error> {
    if let Break::Garble(bits) = action {
        bytes[at] ^= bits;
        return to.write_all(bytes);
    }
    let (before, after) = bytes.split_at(at);
    to.write_all(before)?;
    match action {
        Break::Swallow => Ok(()),
        Break::Trickle(time) => after.iter().try_for_each(|byte| {
            thread::sleep(time);
            to.write_all(&[*byte])
        }),
        Break::Delay(time) => {
            thread::sleep(time);
            to.write_all(after)
        }
        _ => to.write_all(after),
    }
}

/// The state of a connection.
struct ProxiedConnection {
    connection: usize,
    exchanges: usize,
    exchange: ProxiedExchange,
    fault: Option<Fault>,
    /// The action for the rest of the exchange, once its fault has been reached.
    lasting: Option<(Direction, Break)>,
    cut: Option<Break>,
    unsettled: bool,
}

impl ProxiedConnection {
    fn new(connection: usize) -> ProxiedConnection {
        ProxiedConnection {
            connection,
            exchanges: 0,
            exchange: ProxiedExchange::default(),
            fault: None,
            lasting: None,
            cut: None,
            unsettled: false,
        }
    }

    /// Records bytes of a request before they are passed on. Returns the first byte that
    /// an action applies to, and the action.
    fn request(&mut self, bytes: &[u8], shared: &Shared) -> Option<(usize, Break)> {
        if self.exchange.is_complete() {
            let id = ExchangeId {
                connection: self.connection,
                exchange: self.exchanges,
            };
            self.exchanges += 1;
            shared.exchanges.fetch_add(1, SeqCst);
            self.exchange = ProxiedExchange::default();
            self.fault = (lock(&shared.plan))(id);
            // Swallowing continues in further exchanges.
            self.lasting
                .take_if(|(_, action)| *action != Break::Swallow);
        }
        let begin = self.exchange.request.len();
        self.exchange.request.extend_from_slice(bytes);
        self.broken(Direction::Request, begin, bytes.len(), shared)
    }

    /// Records bytes of replies, as `request` does.
    fn reply(&mut self, bytes: &[u8], shared: &Shared) -> Option<(usize, Break)> {
        let begin = self.exchange.reply.len();
        self.exchange.reply.extend_from_slice(bytes);
        if self.exchanges > 1 {
            lock(&shared.last).clone_from(&self.exchange);
        }
        if self.cut.is_none() && self.exchange.is_complete() {
            self.settle(shared);
        }
        self.broken(Direction::Reply, begin, bytes.len(), shared)
    }

    /// The number of commands whose reply is not in the bytes before the last `withheld`.
    fn commands_without_reply(&self, withheld: usize) -> usize {
        let passed = self.exchange.reply.len() - withheld;
        let commands = frames(&self.exchange.request);
        let replies = frames(&self.exchange.reply[..passed]);
        commands.unwrap_or(0) - replies.expect("it begins where a reply does")
    }

    fn settle(&mut self, shared: &Shared) {
        if mem::take(&mut self.unsettled) {
            shared.unsettled.fetch_sub(1, SeqCst);
        }
    }

    fn broken(
        &mut self,
        direction: Direction,
        begin: usize,
        length: usize,
        shared: &Shared,
    ) -> Option<(usize, Break)> {
        if let Some((broken, action)) = self.lasting
            && broken == direction
        {
            return Some((0, action));
        }
        let fault = self.fault.filter(|fault| fault.direction == direction)?;
        let at = fault.offset.checked_sub(begin)?;
        let cuts = matches!(fault.action, Break::Cut | Break::Reset | Break::Late(_));
        // A connection can be cut after the last byte as well.
        if at > length || (at == length && !cuts) {
            return None;
        }
        self.fault = None;
        if cuts {
            self.cut = Some(fault.action);
        }
        // When all replies are there, the server has nothing left to do. A connection
        // that is reset after a reply may have another fault before it ends.
        let lasts = cuts || !self.exchange.is_complete();
        if lasts && !mem::replace(&mut self.unsettled, true) {
            shared.unsettled.fetch_add(1, SeqCst);
        }
        match fault.action {
            Break::Swallow | Break::Trickle(_) => self.lasting = Some((direction, fault.action)),
            Break::ErrorReply(_) => self.lasting = Some((direction, Break::Swallow)),
            _ => {}
        }
        shared.carried_out.fetch_add(1, SeqCst);
        Some((at, fault.action))
    }
}

impl ProxiedExchange {
    /// The number of bytes in each direction.
    pub fn lengths(&self) -> [(Direction, usize); 2] {
        [
            (Direction::Request, self.request.len()),
            (Direction::Reply, self.reply.len()),
        ]
    }

    /// Whether all commands are complete and have a reply.
    fn is_complete(&self) -> bool {
        let commands = frames(&self.request);
        commands.is_some() && commands == frames(&self.reply)
    }
}

/// The number of frames, if the last one is complete.
fn frames(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut count) = (0, 0);
    while at < bytes.len() {
        at = frame(bytes, at, &mut Vec::new())?;
        count += 1;
    }
    Some(count)
}

/// The end of the frame at an offset, if it is complete. Adds the ranges of its contents
/// to `contents`.
fn frame(bytes: &[u8], at: usize, contents: &mut Vec<Range<usize>>) -> Option<usize> {
    let line = bytes.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
    let (text, end) = (at + 1..at + line, at + line + 2);
    let number = || str::from_utf8(bytes.get(text.clone())?).ok()?.parse().ok();
    match (bytes[at], number()) {
        (b'$', Some(length)) => {
            contents.push(end..end + length);
            Some(end + length + 2).filter(|end| *end <= bytes.len())
        }
        (b'*', Some(length)) => (0..length).try_fold(end, |at, _| frame(bytes, at, contents)),
        // A null, or something without a number: its line is all of it.
        (b'$' | b'*', None) => Some(end),
        _ => {
            contents.push(text);
            Some(end)
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
