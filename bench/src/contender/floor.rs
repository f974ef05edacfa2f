//! What no client can go below: bytes that are there already, on a TCP stream, and
//! replies of which nothing but the end is looked for.

use std::net::SocketAddr;

use session_memory_core::ids::Ids;
use session_memory_core::operation::{self, ReadMode, Stamp, StartContext};
use session_memory_core::options::Settings;
use session_memory_core::recent::RecentAppends;
use session_memory_core::resp::Commands;
use session_memory_host::{Action, Delivery, NewMessage, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::slot::{Client, NUMBER, Result, Session, number};

/// A connection, and the request that it sends again and again.
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
    /// What the operating system says.
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

    /// Sends the request of these operations, which is built once as long as `work`
    /// and the session are the same.
    async fn exchange(
        &mut self,
        work: Work,
        session: &Session,
        actions: impl FnOnce() -> Vec<Action>,
    ) -> Result<()> {
        if self.prebuilt.work != Some(work) || self.prebuilt.session != session.id {
            self.prebuilt = Prebuilt::new(work, session, actions(), &self.settings)?;
        }
        self.prebuilt.count_up();
        self.stream.write_all(&self.prebuilt.bytes).await?;
        let mut replies = Replies::new(self.prebuilt.replies);
        while !replies.complete() {
            let read = self.stream.read(&mut self.buffer).await?;
            if read == 0 {
                return Err("the server has closed the connection".into());
            }
            replies.read(&self.buffer[..read])?;
        }
        Ok(())
    }
}

impl Client for Floor {
    async fn share(&self) -> Result<Floor> {
        Floor::connect(self.address, self.settings.clone()).await
    }

    async fn fresh(&self) -> Result<Floor> {
        self.share().await
    }

    async fn add(&mut self, session: &Session, content: &str) -> Result<usize> {
        let work = Work::Add(content.len());
        self.exchange(work, session, || vec![add(content)]).await?;
        Ok(1)
    }

    async fn get(&mut self, session: &Session, last: u32) -> Result<usize> {
        let actions = || vec![Action::Get(Some(last))];
        self.exchange(Work::Get(last), session, actions).await?;
        Ok(last as usize)
    }

    async fn exists(&mut self, session: &Session) -> Result<bool> {
        self.exchange(Work::Exists, session, || vec![Action::Exists])
            .await?;
        Ok(true)
    }

    /// In one round trip.
    async fn turn(&mut self, session: &Session, content: &str, last: u32) -> Result<usize> {
        let work = Work::Turn(content.len(), last);
        let actions = || vec![add(content), Action::Get(Some(last))];
        self.exchange(work, session, actions).await?;
        Ok(last as usize)
    }
}

fn add(content: &str) -> Action {
    let content = number(0) + &content[NUMBER..];
    Action::Add(NewMessage::user(content))
}

/// What a request was built for: the bytes of the content, and how many messages are
/// read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Add(usize),
    Get(u32),
    Exists,
    Turn(usize, u32),
}

/// A request as bytes.
#[derive(Default)]
struct Prebuilt {
    work: Option<Work>,
    session: String,
    bytes: Vec<u8>,
    replies: usize,
    /// Where numbers end that are counted up: of the last message before, of the
    /// content, and of the id.
    numbers: Vec<usize>,
}

impl Prebuilt {
    /// The bytes that the component sends for these actions, where it asks for no pages.
    fn new(
        work: Work,
        session: &Session,
        actions: Vec<Action>,
        settings: &Settings,
    ) -> Result<Prebuilt> {
        let bytes = match work {
            Work::Add(bytes) | Work::Turn(bytes, _) => bytes,
            Work::Get(_) | Work::Exists => 0,
        };
        let mut recent = RecentAppends::new();
        let before = " ".repeat(bytes) + &format!("\"id\":\"{BEFORE}\"}}");
        recent.remember(&session.key, before.as_bytes());
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
        let numbers = [end_of(BEFORE), end_of(&content), end_of(ID)]
            .into_iter()
            .flatten()
            .collect();
        Ok(Prebuilt {
            work: Some(work),
            session: session.id.clone(),
            bytes,
            replies: commands.count(),
            numbers,
        })
    }

    /// Makes it another message: the script would find it among the last ones
    /// otherwise, and not add it.
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

const RANDOM: u64 = 0x0123_4567_89ab_cdef;
/// What the component makes of it.
const ID: &str = "0123456789abcdef0123456789abcdef-000000000001";
/// That of the message before it.
const BEFORE: &str = "0123456789abcdef0123456789abcdef-000000000000";
const TIMESTAMP: &str = "2024-01-15T10:30:00.250000";

/// Finds where replies end, and nothing else.
struct Replies {
    /// Replies and elements of arrays that are still to come.
    left: usize,
    /// Bytes of a bulk string that are still to come.
    skip: usize,
    /// The kind of the reply that has begun.
    kind: Option<u8>,
    length: Option<usize>,
}

impl Replies {
    fn new(count: usize) -> Replies {
        Replies {
            left: count,
            skip: 0,
            kind: None,
            length: None,
        }
    }

    fn complete(&self) -> bool {
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
                (None, b'-') => return Err("the server has replied with an error".into()),
                (None, kind) => {
                    self.kind = Some(kind);
                    self.length = Some(0);
                }
                (Some(kind), b'\n') => self.header_ends(kind),
                // A length of -1 stands for null.
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
    fn replies_end_where_they_end() {
        let replies = b"+OK\r\n:1702\r\n*3\r\n$4\r\n\r\n:1\r\n$-1\r\n*1\r\n:5\r\n$0\r\n\r\n";
        // In one piece, and byte by byte.
        for piece in [replies.len(), 1] {
            let mut counted = Replies::new(4);
            for (at, bytes) in replies.chunks(piece).enumerate() {
                assert!(!counted.complete(), "before byte {}", at * piece);
                counted.read(bytes).expect("no error is in there");
            }
            assert!(counted.complete());
        }
    }

    #[test]
    fn an_error_is_an_error() {
        assert!(Replies::new(1).read(b"-ERR no\r\n").is_err());
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
