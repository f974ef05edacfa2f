//! The floor, which no client can go below. It sends prepared bytes on a TCP stream, and
//! only looks for the end of the replies.

use std::net::SocketAddr;

use session_memory_core::ids::Ids;
use session_memory_core::operation::{self, ReadMode, Stamp, StartContext};
use session_memory_core::options::Settings;
use session_memory_core::recent::RecentAppends;
use session_memory_core::resp::Commands;
use session_memory_host::{Action, Delivery, NewMessage, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::burst::{BenchClient, NUMBER, Result, SessionRef, number};

/// A connection with its prepared request.
pub struct Floor {
    address: SocketAddr,
    settings: Settings,
    stream: TcpStream,
    buffer: Vec<u8>,
    prebuilt: Prebuilt,
}

impl Floor {
    /// Connects.
    ///
    /// # Errors
    ///
    /// Fails when the server cannot be reached.
    pub async fn open(address: SocketAddr, delivery: Delivery) -> Result<Floor> {
        let options = Options::new().delivery(delivery);
        Floor::connect(address, Settings::resolve(options, &[])?).await
    }

    async fn connect(address: SocketAddr, settings: Settings) -> Result<Floor> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Floor {
            address,
            settings,
            stream,
            buffer: vec![0; 64 * 1024],
            prebuilt: Prebuilt::default(),
        })
    }

    /// Sends the request of some actions and waits for the replies. The request is built
    /// anew only when `shape` or the session changes.
    async fn exchange(
        &mut self,
        shape: RequestShape,
        session: &SessionRef,
        actions: impl FnOnce() -> Vec<Action>,
    ) -> Result<()> {
        if self.prebuilt.shape != Some(shape) || self.prebuilt.session != session.id {
            self.prebuilt = Prebuilt::new(shape, session, actions(), &self.settings)?;
        }
        self.prebuilt.count_up();
        self.stream.write_all(&self.prebuilt.bytes).await?;
        let mut replies = ReplyCounter::new(self.prebuilt.replies);
        while !replies.is_complete() {
            let read = self.stream.read(&mut self.buffer).await?;
            if read == 0 {
                return Err("the server has closed the connection".into());
            }
            replies.read(&self.buffer[..read])?;
        }
        Ok(())
    }
}

impl BenchClient for Floor {
    async fn share(&self) -> Result<Floor> {
        Floor::connect(self.address, self.settings.clone()).await
    }

    async fn fresh(&self) -> Result<Floor> {
        self.share().await
    }

    async fn add(&mut self, session: &SessionRef, content: &str) -> Result<usize> {
        let shape = RequestShape::Add(content.len());
        self.exchange(shape, session, || vec![add(content)]).await?;
        Ok(1)
    }

    async fn get(&mut self, session: &SessionRef, last: u32) -> Result<usize> {
        let actions = || vec![Action::Get(Some(last))];
        self.exchange(RequestShape::Get(last), session, actions)
            .await?;
        Ok(last as usize)
    }

    async fn exists(&mut self, session: &SessionRef) -> Result<bool> {
        self.exchange(RequestShape::Exists, session, || vec![Action::Exists])
            .await?;
        Ok(true)
    }

    /// Runs the add and the get in one round trip.
    async fn turn(&mut self, session: &SessionRef, content: &str, last: u32) -> Result<usize> {
        let shape = RequestShape::Turn(content.len(), last);
        let actions = || vec![add(content), Action::Get(Some(last))];
        self.exchange(shape, session, actions).await?;
        Ok(last as usize)
    }
}

fn add(content: &str) -> Action {
    let content = number(0) + &content[NUMBER..];
    Action::Add(NewMessage::user(content))
}

/// The parameters of a request: bytes of the content, number of messages to read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RequestShape {
    Add(usize),
    Get(u32),
    Exists,
    Turn(usize, u32),
}

/// A prepared request.
#[derive(Default)]
struct Prebuilt {
    shape: Option<RequestShape>,
    session: String,
    bytes: Vec<u8>,
    replies: usize,
    /// The offsets at which the counted numbers end: in the id of the previous message, in
    /// the content, and in the id.
    numbers: Vec<usize>,
}

impl Prebuilt {
    /// Builds the bytes that the component sends for these actions, without paging.
    fn new(
        shape: RequestShape,
        session: &SessionRef,
        actions: Vec<Action>,
        settings: &Settings,
    ) -> Result<Prebuilt> {
        let bytes = match shape {
            RequestShape::Add(bytes) | RequestShape::Turn(bytes, _) => bytes,
            RequestShape::Get(_) | RequestShape::Exists => 0,
        };
        let mut recent = RecentAppends::new();
        let previous = " ".repeat(bytes) + &format!("\"id\":\"{PREVIOUS_ID}\"}}");
        recent.remember(&session.key, previous.as_bytes());
        let stamp = Stamp {
            timestamp: TIMESTAMP,
            id: || Ids::new().next(|| RANDOM),
            recent: &recent,
        };
        let mut commands = Commands::default();
        for action in actions {
            let session = operation::Session {
                key: &session.key,
                settings,
            };
            let context = StartContext {
                stamp,
                read_mode: ReadMode::AtOnce,
                others: 0,
            };
            action
                .start(session, context)?
                .request(session, &mut commands);
        }
        let bytes = commands.bytes().to_vec();
        let end_of = |text: &str| {
            let text = text.as_bytes();
            let mut windows = bytes.windows(text.len());
            windows
                .position(|window| window == text)
                .map(|start| start + text.len())
        };
        let content = format!("\"content\":\"{}", number(0));
        let numbers = [end_of(PREVIOUS_ID), end_of(&content), end_of(ID)]
            .into_iter()
            .flatten()
            .collect();
        Ok(Prebuilt {
            shape: Some(shape),
            session: session.id.clone(),
            bytes,
            replies: commands.count(),
            numbers,
        })
    }

    /// Turns the request into that of the next message. Otherwise the script would find the
    /// message in the list and not append it.
    fn count_up(&mut self) {
        for end in &self.numbers {
            for digit in self.bytes[..*end].iter_mut().rev() {
                match digit {
                    b'0'..=b'8' => {
                        *digit += 1;
                        break;
                    }
                    b'9' => *digit = b'0',
                    _ => break,
                }
            }
        }
    }
}

/// The random number for the ids.
const RANDOM: u64 = 0x0123_4567_89ab_cdef;
/// The id that the component makes from [`RANDOM`].
const ID: &str = "0123456789abcdef0123456789abcdef-000000000001";
/// The id of the previous message.
const PREVIOUS_ID: &str = "0123456789abcdef0123456789abcdef-000000000000";
const TIMESTAMP: &str = "2024-01-15T10:30:00.250000";

/// Finds the end of the replies, and ignores their contents.
struct ReplyCounter {
    /// The number of replies and array elements still to come.
    left: usize,
    /// The number of bytes of a bulk string still to come.
    skip: usize,
    /// The type byte of the reply whose header is being read.
    kind: Option<u8>,
    /// The length in that header. `None` stands for null.
    length: Option<usize>,
}

impl ReplyCounter {
    fn new(count: usize) -> ReplyCounter {
        ReplyCounter {
            left: count,
            skip: 0,
            kind: None,
            length: None,
        }
    }

    fn is_complete(&self) -> bool {
        self.left == 0 && self.skip == 0
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<()> {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            bytes = rest;
            match (self.kind, byte) {
                (None, b'-') => return Err("the server replied with an error".into()),
                (None, kind) => {
                    self.kind = Some(kind);
                    self.length = Some(0);
                }
                (Some(kind), b'\n') => self.header_ends(kind),
                // A length of -1 is null.
                (_, b'-') => self.length = None,
                (_, b'0'..=b'9') => {
                    let digit = usize::from(byte - b'0');
                    self.length = self.length.map(|length| length * 10 + digit);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn header_ends(&mut self, kind: u8) {
        self.left -= 1;
        match (kind, self.length) {
            (b'*', Some(length)) => self.left += length,
            (b'$', Some(length)) => self.skip = length + 2,
            _ => {}
        }
        self.kind = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_replies_is_found() {
        let replies = b"+OK\r\n:1702\r\n*3\r\n$4\r\n\r\n:1\r\n$-1\r\n*1\r\n:5\r\n$0\r\n\r\n";
        // At once, and byte by byte.
        for piece in [replies.len(), 1] {
            let mut counter = ReplyCounter::new(4);
            for (at, bytes) in replies.chunks(piece).enumerate() {
                assert!(!counter.is_complete(), "before byte {}", at * piece);
                counter.read(bytes).expect("there is no error reply");
            }
            assert!(counter.is_complete());
        }
    }

    #[test]
    fn an_error_reply_is_an_error() {
        assert!(ReplyCounter::new(1).read(b"-ERR no\r\n").is_err());
    }

    #[test]
    fn every_message_has_its_own_number() {
        let mut prebuilt = Prebuilt {
            bytes: b"...-0098 ...".to_vec(),
            numbers: vec![8],
            ..Prebuilt::default()
        };
        prebuilt.count_up();
        assert_eq!(prebuilt.bytes, b"...-0099 ...");
        prebuilt.count_up();
        assert_eq!(prebuilt.bytes, b"...-0100 ...");
    }
}
