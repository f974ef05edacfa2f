//! A proxy between a memory and a server that breaks what it is told to break, at
//! the byte it is told.
//!
//! It follows the protocol as far as to know what belongs together: an exchange is
//! the commands of a request and their replies, and the first one of a connection
//! is its handshake. Offsets are those of a request or of its replies.

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

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the server.
    Request,
    /// To the component.
    Reply,
}

/// What happens at a byte. Those before it have gone their way by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Both sides are closed. When the component notices, the server has done what
    /// it will ever do for the bytes that it got.
    Cut,
    /// As `Cut`, but what the component notices is a reset.
    Reset,
    /// The component's side is closed at once, and the server gets the rest of the
    /// request when so much time has passed.
    Late(Duration),
    /// Nothing goes on in this direction, and everything stays open.
    Swallow,
    /// What follows waits so long.
    Delay(Duration),
    /// What follows of the exchange goes byte by byte, so far apart.
    Trickle(Duration),
    /// The bits that are set here are flipped in the byte.
    Garble(u8),
    /// The rest of the replies, which begins here, is answered by the proxy itself, each
    /// one with this line. The server has executed the request.
    Answer(&'static str),
}

/// Something to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whose bytes are counted.
    pub direction: Direction,
    /// How many of them are let through before.
    pub offset: usize,
    /// What happens then.
    pub action: Action,
}

/// Identifies an exchange.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeId {
    /// The number of the connection, from 0.
    pub connection: usize,
    /// The number of the exchange on it, from 0, which is the handshake.
    pub exchange: usize,
}

/// The bytes of an exchange.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// Those that came from the component.
    pub request: Vec<u8>,
    /// Those that came from the server.
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
    last: Mutex<Exchange>,
    exchanges: AtomicUsize,
    carried_out: AtomicUsize,
    /// Connections on which a fault has not come to its end.
    unsettled: AtomicUsize,
    ended: AtomicBool,
}

type Plan = Box<dyn FnMut(ExchangeId) -> Option<Fault> + Send>;

impl Proxy {
    /// Starts a proxy for a server, which breaks nothing yet.
    pub fn start(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Proxy::listening(listener, server)
    }

    /// As [`Proxy::start`], at this address.
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

    /// The port that it listens on; of 127.0.0.1, unless it was given an address.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Asks `plan` at the beginning of every exchange what is to go wrong in it.
    pub fn plan(&self, plan: impl FnMut(ExchangeId) -> Option<Fault> + Send + 'static) {
        *lock(&self.shared.plan) = Box::new(plan);
    }

    /// Breaks the next exchange that is no handshake, and nothing after.
    pub fn break_next(&self, fault: Fault) {
        let mut fault = Some(fault);
        self.plan(move |id| fault.take_if(|_| id.exchange > 0));
    }

    /// Breaks nothing any more.
    pub fn break_nothing(&self) {
        self.plan(|_| None);
    }

    /// How many faults it has carried out. One whose offset an exchange does not
    /// get to is none.
    pub fn carried_out(&self) -> usize {
        self.shared.carried_out.load(SeqCst)
    }

    /// The last exchange that was answered and was no handshake.
    pub fn last(&self) -> Exchange {
        lock(&self.shared.last).clone()
    }

    /// How many exchanges have begun, handshakes among them.
    pub fn exchanges(&self) -> usize {
        self.shared.exchanges.load(SeqCst)
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        lock(&self.shared.open).len()
    }

    /// Closes all connections.
    pub fn close_all(&self) {
        for side in lock(&self.shared.open).values().flatten() {
            // It may have been closed by its peer.
            let _ = side.shutdown(Shutdown::Both);
        }
    }

    /// Takes new connections to another server.
    pub fn redirect(&self, server: SocketAddr) {
        *lock(&self.shared.server) = server;
    }

    /// Waits until every fault has come to its end: what is cut is closed, what is
    /// slow or late has arrived, and what waits for an answer has been given up. The
    /// runtime may have work to do until then.
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
        // So that the acceptor looks up.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// The offsets in replies of the bytes that say what there is and how long it is:
/// types, lengths and line ends, but not the contents of strings and integers.
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

/// Where each of these replies begins.
pub fn beginnings(replies: &[u8]) -> Vec<usize> {
    let mut beginnings = Vec::new();
    let mut at = 0;
    while let Some(end) = frame(replies, at, &mut Vec::new()) {
        beginnings.push(at);
        at = end;
    }
    beginnings
}

/// The end of the first frame, if all of it is there.
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

/// Carries a connection from its beginning to its end.
fn carry(shared: &Shared, connection: usize, component: TcpStream) {
    let address = *lock(&shared.server);
    // Where there is no server, the component's connection is closed.
    let Ok(server) = TcpStream::connect(address) else {
        return;
    };
    component.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let sides = [&component, &server].map(|side| side.try_clone().unwrap());
    lock(&shared.open).insert(connection, sides);
    let line = Mutex::new(Line::new(connection));
    if !shared.ended.load(SeqCst) {
        thread::scope(|scope| {
            scope.spawn(|| carry_requests(shared, &line, &component, &server));
            carry_replies(shared, &line, &component, &server);
        });
    }
    lock(&shared.open).remove(&connection);
    // A reset is sent when the last handle is closed.
    drop(component);
    lock(&line).settle(shared);
}

fn carry_requests(
    shared: &Shared,
    line: &Mutex<Line>,
    mut component: &TcpStream,
    mut server: &TcpStream,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(size @ 1..) = component.read(&mut buffer) {
        let bytes = &mut buffer[..size];
        let broken = lock(line).request(bytes, shared);
        let passed = match broken {
            None => server.write_all(bytes),
            Some((at, Action::Cut | Action::Reset)) => {
                // The other thread closes the component's side when the server
                // has closed this one, and so has dealt with what it got.
                let _ = server.write_all(&bytes[..at]);
                break;
            }
            Some((at, Action::Late(time))) => {
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
    line: &Mutex<Line>,
    mut component: &TcpStream,
    mut server: &TcpStream,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut rest = Vec::new();
    while let Ok(size @ 1..) = server.read(&mut buffer) {
        let bytes = &mut buffer[..size];
        let mut line = lock(line);
        if line.cut.is_some() {
            continue;
        }
        let broken = line.reply(bytes, shared);
        let missing = match broken {
            Some((at, Action::Answer(_))) => line.unanswered(bytes.len() - at),
            _ => 0,
        };
        drop(line);
        let passed = match broken {
            None => component.write_all(bytes),
            Some((at, Action::Cut | Action::Reset | Action::Late(_))) => {
                // Sent when the server has gone, so that the end comes with it.
                rest = bytes[..at].to_vec();
                let _ = server.shutdown(Shutdown::Write);
                Ok(())
            }
            Some((at, Action::Answer(answer))) => {
                component.write_all(&bytes[..at]).and_then(|()| {
                    component.write_all(format!("-{answer}\r\n").repeat(missing).as_bytes())
                })
            }
            Some((at, action)) => pass(component, bytes, at, action),
        };
        if passed.is_err() {
            break;
        }
    }
    let _ = component.write_all(&rest);
    let ended = match lock(line).cut {
        Some(Action::Reset) => {
            // The other thread is woken without a FIN's being sent.
            SockRef::from(component)
                .set_linger(Some(Duration::ZERO))
                .and_then(|()| component.shutdown(Shutdown::Read))
        }
        _ => component.shutdown(Shutdown::Both),
    };
    // The component may have closed it before.
    let _ = ended;
    let _ = server.shutdown(Shutdown::Both);
}

/// Passes on bytes of which those from `at` are subject to an action that does not
/// end the connection.
fn pass(
    mut to: &TcpStream,
    bytes: &mut [u8],
    at: usize,
    action: Action,
) -> Result<(), std::io::Error> {
    if let Action::Garble(bits) = action {
        bytes[at] ^= bits;
        return to.write_all(bytes);
    }
    let (before, after) = bytes.split_at(at);
    to.write_all(before)?;
    match action {
        Action::Swallow => Ok(()),
        Action::Trickle(time) => after.iter().try_for_each(|byte| {
            thread::sleep(time);
            to.write_all(&[*byte])
        }),
        Action::Delay(time) => {
            thread::sleep(time);
            to.write_all(after)
        }
        _ => to.write_all(after),
    }
}

/// What is known of a connection.
struct Line {
    connection: usize,
    exchanges: usize,
    exchange: Exchange,
    fault: Option<Fault>,
    /// What is done for the rest of the exchange, once its fault has been reached.
    lasting: Option<(Direction, Action)>,
    cut: Option<Action>,
    unsettled: bool,
}

impl Line {
    fn new(connection: usize) -> Line {
        Line {
            connection,
            exchanges: 0,
            exchange: Exchange::default(),
            fault: None,
            lasting: None,
            cut: None,
            unsettled: false,
        }
    }

    /// Takes note of bytes of a request, before they are passed on. Answers which
    /// of them is the first that is subject to what action.
    fn request(&mut self, bytes: &[u8], shared: &Shared) -> Option<(usize, Action)> {
        if self.exchange.is_complete() {
            let id = ExchangeId {
                connection: self.connection,
                exchange: self.exchanges,
            };
            self.exchanges += 1;
            shared.exchanges.fetch_add(1, SeqCst);
            self.exchange = Exchange::default();
            self.fault = (lock(&shared.plan))(id);
            // What swallows goes on doing so.
            self.lasting
                .take_if(|(_, action)| *action != Action::Swallow);
        }
        let begin = self.exchange.request.len();
        self.exchange.request.extend_from_slice(bytes);
        self.broken(Direction::Request, begin, bytes.len(), shared)
    }

    /// As `request`, for bytes of replies.
    fn reply(&mut self, bytes: &[u8], shared: &Shared) -> Option<(usize, Action)> {
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

    /// How many commands have no reply before the last so many bytes.
    fn unanswered(&self, withheld: usize) -> usize {
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
    ) -> Option<(usize, Action)> {
        if let Some((broken, action)) = self.lasting
            && broken == direction
        {
            return Some((0, action));
        }
        let fault = self.fault.filter(|fault| fault.direction == direction)?;
        let at = fault.offset.checked_sub(begin)?;
        let cuts = matches!(fault.action, Action::Cut | Action::Reset | Action::Late(_));
        // A connection can be cut after the last byte, too.
        if at > length || (at == length && !cuts) {
            return None;
        }
        self.fault = None;
        if cuts {
            self.cut = Some(fault.action);
        }
        // Once all is answered, the server has nothing more to do. A connection that is
        // reset after a reply may meet another fault before it has come to its end.
        let lasts = cuts || !self.exchange.is_complete();
        if lasts && !mem::replace(&mut self.unsettled, true) {
            shared.unsettled.fetch_add(1, SeqCst);
        }
        match fault.action {
            Action::Swallow | Action::Trickle(_) => self.lasting = Some((direction, fault.action)),
            Action::Answer(_) => self.lasting = Some((direction, Action::Swallow)),
            _ => {}
        }
        shared.carried_out.fetch_add(1, SeqCst);
        Some((at, fault.action))
    }
}

impl Exchange {
    /// How many bytes there are in each direction.
    pub fn lengths(&self) -> [(Direction, usize); 2] {
        [
            (Direction::Request, self.request.len()),
            (Direction::Reply, self.reply.len()),
        ]
    }

    /// Whether all commands are whole, and all are answered.
    fn is_complete(&self) -> bool {
        let commands = frames(&self.request);
        commands.is_some() && commands == frames(&self.reply)
    }
}

/// How many frames there are, if the last one is whole.
fn frames(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut count) = (0, 0);
    while at < bytes.len() {
        at = frame(bytes, at, &mut Vec::new())?;
        count += 1;
    }
    Some(count)
}

/// Where the frame ends that begins at an offset, if it is whole. Where its
/// contents lie is added to `contents`.
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
        // Null, or a line.
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
