//! Invariants for anything a server sends: the bodies of the fuzz targets in `fuzz/`, which
//! the tests here run as well.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use session_memory_core::error::Error;
use session_memory_core::exchange::{End, Exchange};
use session_memory_core::handshake;
use session_memory_core::ids::Ids;
use session_memory_core::message::{Message, NewMessage, NewestFirst, Role};
use session_memory_core::operation::{Action, Operation, Stamp};
use session_memory_core::options::{Delivery, Options, Settings};
use session_memory_core::recent::RecentAppends;
use session_memory_core::resp::{Commands, Reply, ReplyBuffer, ReplyReader, Scan, is_refusal};
use session_memory_core::retry::{Pipeline, ScriptCache};

/// Checks bytes as the replies to one, two and three commands: they are read alike in any
/// pieces, and as [`resp2`] reads them, unless a limit is reached.
pub fn reply(wire: &[u8]) {
    for replies in 1..=3 {
        let unlimited = read_in_pieces(wire, replies, u32::MAX);
        match (resp2(wire, replies), &unlimited) {
            (Ok(expected), Scanned::Complete(trees)) => assert_eq!(*trees, expected),
            (Err(Stop::Incomplete), Scanned::Missing(_))
            | (Err(Stop::Invalid), Scanned::Refused(Error::Protocol(_)))
            | (Err(Stop::Limit), Scanned::Missing(_) | Scanned::Refused(_)) => {}
            (expected, read) => panic!("{read:?} instead of {expected:?}"),
        }
        match read_in_pieces(wire, replies, SMALL) {
            Scanned::Refused(Error::LimitExceeded(_)) => {}
            limited => {
                let held = !matches!(limited, Scanned::Refused(_));
                assert!(!held || wire.len() <= SMALL as usize, "beyond the limit");
                assert_eq!(limited, unlimited);
            }
        }
    }
}

/// Checks an element: reading in place gives the same message as decoding; a message
/// survives writing and reading; and strict JSON gives the same message.
pub fn element(element: &[u8]) {
    let message = Message::decode(element);
    let buffer = ReplyBuffer::new([b"\"", element, b"\""].concat());
    let mut newest = NewestFirst::default();
    let range = 1..1 + element.len();
    newest.read(&buffer, std::slice::from_ref(&range), None);
    let (in_place, skipped) = newest.finish();
    assert!(in_place.to_vec() == Vec::from_iter(message.clone()));
    assert_eq!(in_place.len() + skipped as usize, 1);
    if let Some(message) = &message {
        let mut again = NewMessage::new(message.role, message.content.as_str());
        again.metadata = message.metadata.clone();
        let id = message.id.as_deref();
        let element = again.encode(&message.timestamp, id, u32::MAX).unwrap();
        assert!(Message::decode(&element).as_ref() == Some(message));
    }
    if let Some(strict) = Strict::read(element) {
        let message = message.unwrap();
        let text = |value: Option<Value>| Some(value?.as_str()?.to_owned());
        assert_eq!(message.role.as_str(), strict.role);
        assert_eq!(message.content, strict.content);
        assert_eq!(
            message.timestamp,
            text(strict.timestamp).unwrap_or_default()
        );
        assert_eq!(message.id, text(strict.id));
        let metadata = strict.metadata.map(RawValue::get);
        assert_eq!(
            message.metadata.as_deref(),
            metadata.filter(|text| text.starts_with('{'))
        );
    }
}

/// Checks an error reply in which `SECRET` stands for text that was sent, as the reply to
/// each operation and to the handshake. Nothing that was sent is shown: no password, key,
/// content or metadata. The operation is "not applied" only if the reply is known to come
/// before execution.
pub fn error_reply(reply: &str, secret: &str) {
    let line = reply.replace(['\r', '\n'], " ").replace("SECRET", secret);
    let text = |text: String| text.chars().take(60_000).collect::<String>();
    let line = text(line);
    for delivery in [Delivery::ExactlyOnce, Delivery::AtMostOnce] {
        let given = Options::new()
            .delivery(delivery)
            .username("u")
            .password(secret.to_owned())
            .key_prefix(secret);
        let settings = Settings::resolve(given, &[]).unwrap();
        let shown = |shown: &str| {
            assert!(!shown.contains(secret), "{shown} shows {secret}");
        };
        shown(&format!("{settings:?}").replace(&format!("key_prefix: {secret:?}"), ""));
        let wire = format!("-{line}\r\n");
        let mut commands = Commands::default();
        handshake::request(&settings, &mut commands);
        let count = commands.count();
        let mut exchange = complete(&wire.repeat(count), &commands);
        let error = handshake::response(&mut exchange, count, &settings).unwrap_err();
        shown(&format!("{error} {error:?}"));

        let new = || {
            NewMessage::user(secret).with_metadata(format!(
                "{{\"note\":{}}}",
                serde_json::to_string(secret).unwrap()
            ))
        };
        for action in [
            Action::Add(new()),
            Action::AddAll(vec![new(), new()]),
            Action::Get(None),
            Action::History(Some(2)),
            Action::Clear,
            Action::Exists,
            Action::Count,
        ] {
            let writes = action.writes();
            let session_id = "s".to_owned();
            let operations = vec![Operation { session_id, action }];
            let stamp = Stamp {
                timestamp: "t",
                id: || Ids::new().next(|| 0),
                recent: &RecentAppends::new(),
            };
            let mut pipeline = Pipeline::new(operations, &settings, stamp);
            let attempt = pipeline.plan().unwrap();
            let request = pipeline.request(&attempt, ScriptCache::Known);
            // Only the last reply is an error, as if a proxy had sent it.
            let count = request.commands.count();
            let before = match count {
                1 => String::new(),
                _ => "+OK\r\n".to_owned() + &"+QUEUED\r\n".repeat(count - 2),
            };
            let wire = before + &wire;
            let exchange = complete(&wire, &request.commands);
            pipeline.settle(request, Ok(exchange));
            let results: Vec<_> = pipeline.results().collect();
            let [Err(error)] = &results[..] else {
                panic!("{results:?}");
            };
            shown(&format!("{error} {error:?}"));
            let is_unknown = matches!(error, Error::OutcomeUnknown(_));
            assert_eq!(is_unknown, writes && !is_refusal(&line), "{error:?}");
        }
    }
}

/// An exchange in which these bytes are the replies to the commands.
fn complete(wire: &str, commands: &Commands) -> Exchange {
    let mut reader = ReplyReader::new(commands.count(), u32::MAX);
    assert_eq!(reader.push(wire.as_bytes()), Ok(Scan::Complete));
    Exchange {
        received: reader.finish().unwrap(),
        partial: 0,
        written: commands.bytes().len(),
        end: End::Complete,
    }
}

/// The result of reading bytes.
#[derive(Debug, PartialEq)]
pub enum Scanned {
    Complete(Vec<Tree>),
    Missing(usize),
    Refused(Error),
}

/// A reply, by what its callers can see of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    SimpleString(Vec<u8>),
    Error(Error),
    Integer(i64),
    BulkString(Vec<u8>),
    Null,
    Array(Vec<Tree>),
}

impl Tree {
    fn of(reply: Reply<'_>) -> Tree {
        if let Some(error) = reply.error() {
            Tree::Error(error)
        } else if let Ok(text) = reply.simple_string() {
            Tree::SimpleString(text.to_owned())
        } else if let Ok(integer) = reply.integer() {
            Tree::Integer(integer)
        } else if let Ok(text) = reply.bulk_string() {
            Tree::BulkString(reply.buffer().bytes(text).to_owned())
        } else if let Ok(elements) = reply.array() {
            Tree::Array(elements.map(Tree::of).collect())
        } else {
            Tree::Null
        }
    }
}

/// Reads byte by byte, and checks that larger pieces give the same result.
fn read_in_pieces(wire: &[u8], replies: usize, max_bytes: u32) -> Scanned {
    let mut reader = ReplyReader::new(replies, max_bytes);
    let mut longest = 0;
    for (at, byte) in wire.iter().enumerate() {
        match reader.push(&[*byte]) {
            Ok(Scan::Complete) => {}
            Ok(Scan::Missing(bytes)) => longest = longest.max(at + 1 + bytes),
            Err(error) => {
                // The error is not too early: the bytes before this one are valid.
                let sound = read(&[&wire[..at]], replies, max_bytes);
                assert!(!matches!(sound, Scanned::Refused(_)), "{sound:?}");
                let refused = Scanned::Refused(error);
                assert_eq!(read(&[&wire[..=at]], replies, max_bytes), refused);
                assert_eq!(read(&[wire], replies, max_bytes), refused);
                return refused;
            }
        }
    }
    let outcome = read(&[wire], replies, max_bytes);
    for size in [1, 7] {
        let pieces: Vec<_> = wire.chunks(size).collect();
        assert_eq!(read(&pieces, replies, max_bytes), outcome);
    }
    match &outcome {
        Scanned::Complete(_) => assert!(longest <= wire.len(), "too much is missing"),
        Scanned::Missing(bytes) => assert!(*bytes > 0),
        Scanned::Refused(error) => panic!("{error:?} in one piece only"),
    }
    outcome
}

/// Reads bytes in these pieces.
pub fn read(pieces: &[&[u8]], replies: usize, max_bytes: u32) -> Scanned {
    let mut reader = ReplyReader::new(replies, max_bytes);
    let mut progress = Scan::Missing(1);
    for piece in pieces {
        progress = match reader.push(piece) {
            Ok(progress) => progress,
            Err(error) => return Scanned::Refused(error),
        };
    }
    let received = reader.finish().unwrap();
    let Some(all) = received.replies(0..replies) else {
        return match progress {
            Scan::Missing(bytes) => Scanned::Missing(bytes),
            Scan::Complete => panic!("complete, and not all are there"),
        };
    };
    assert_eq!(progress, Scan::Complete);
    let trees: Vec<_> = all.iter().map(Tree::of).collect();
    for (command, tree) in trees.iter().enumerate() {
        let refusal = received.refusal(command);
        let error = refusal.and_then(|replies| replies.last().err().map(Tree::Error));
        assert_eq!(error, is_error(tree).then(|| tree.clone()));
    }
    Scanned::Complete(trees)
}

fn is_error(tree: &Tree) -> bool {
    matches!(tree, Tree::Error(_))
}

/// Why there are no replies.
#[derive(Debug)]
pub enum Stop {
    /// The bytes are the beginning of replies.
    Incomplete,
    /// The bytes are not replies.
    Invalid,
    /// The replies exceed every limit.
    Limit,
}

/// Parses RESP2 after its specification, without regard to cost. The reader is compared with
/// it.
fn resp2(wire: &[u8], replies: usize) -> Result<Vec<Tree>, Stop> {
    let mut parser = Resp2 {
        rest: wire,
        announced: 0,
    };
    let trees = (0..replies)
        .map(|_| parser.tree(0))
        .collect::<Result<_, _>>()?;
    match parser.rest {
        [] => Ok(trees),
        _ => Err(Stop::Invalid),
    }
}

struct Resp2<'a> {
    rest: &'a [u8],
    announced: u64,
}

impl<'a> Resp2<'a> {
    fn tree(&mut self, depth: usize) -> Result<Tree, Stop> {
        let line = self.line()?;
        let text = String::from_utf8_lossy(&line[1..]);
        Ok(match line[0] {
            b'+' => Tree::SimpleString(line[1..].to_owned()),
            b'-' => Tree::Error(Error::from_reply(&text)),
            b':' => Tree::Integer(text.parse().map_err(|_| Stop::Invalid)?),
            _ if text == "-1" => Tree::Null,
            b'$' => {
                let length = self.length(&text)?;
                let text = self.take(length)?;
                match self.take(2)? {
                    b"\r\n" => Tree::BulkString(text.to_owned()),
                    _ => return Err(Stop::Invalid),
                }
            }
            _ => match self.length(&text)? {
                0 => Tree::Array(Vec::new()),
                _ if depth == 8 => return Err(Stop::Invalid),
                length => {
                    let elements = (0..length).map(|_| self.tree(depth + 1));
                    Tree::Array(elements.collect::<Result<_, _>>()?)
                }
            },
        })
    }

    /// Returns a line without its end. It is not empty.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        if !matches!(
            self.rest.first().ok_or(Stop::Incomplete)?,
            b'+' | b'-' | b':' | b'$' | b'*'
        ) {
            return Err(Stop::Invalid);
        }
        let end = self.rest.iter().position(|byte| b"\r\n".contains(byte));
        let length = end.unwrap_or(self.rest.len());
        if length > 64 * 1024 {
            return Err(Stop::Invalid);
        }
        match self.rest[length..] {
            [] | [b'\r'] => Err(Stop::Incomplete),
            [b'\r', b'\n', ..] => {
                let line = self.take(length)?;
                self.take(2)?;
                Ok(line)
            }
            _ => Err(Stop::Invalid),
        }
    }

    fn length(&mut self, digits: &str) -> Result<usize, Stop> {
        if digits.is_empty() || digits.len() > 10 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Stop::Invalid);
        }
        let length: u64 = digits.parse().map_err(|_| Stop::Invalid)?;
        self.announced += length;
        if self.announced > u64::from(u32::MAX) / 64 {
            return Err(Stop::Limit);
        }
        usize::try_from(length).map_err(|_| Stop::Limit)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Stop::Incomplete)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// A message as serde_json reads it. It refuses a key that occurs twice.
#[derive(Deserialize)]
struct Strict<'a> {
    role: String,
    content: String,
    timestamp: Option<Value>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    id: Option<Value>,
}

impl Strict<'_> {
    fn read(element: &[u8]) -> Option<Strict<'_>> {
        // serde_json also accepts an array of the values.
        if element.trim_ascii_start().first() != Some(&b'{') {
            return None;
        }
        // From bytes, serde_json would not check the encoding of skipped values.
        let strict: Strict<'_> = serde_json::from_str(str::from_utf8(element).ok()?).ok()?;
        let roles = [Role::User, Role::Assistant].map(Role::as_str);
        roles.contains(&strict.role.as_str()).then_some(strict)
    }
}

/// A limit that short inputs reach.
const SMALL: u32 = 100;
