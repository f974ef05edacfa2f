//! The operations on a session: for each, the request that is sent and the
//! reading of its replies, side by side.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::vec::Vec;

use crate::command::{Commands, decimal};
use crate::error::Error;
use crate::message::Message;
use crate::operation::History;
use crate::options::{Delivery, Password, Settings, TtlPolicy};
use crate::reply::{Replies, Reply};

/// What is sent to the server for an operation.
pub struct Request {
    /// The commands, sent in one write.
    pub commands: Commands,
    /// What it comes to when they are executed and no reply comes.
    pub effect: Effect,
}

/// What a request does on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Reads,
    /// A change that is the same whether it is executed once or more often.
    WritesAgain,
    /// A change that must not be executed twice.
    WritesOnce,
}

// Opening a connection: AUTH, SELECT, PING.

/// What a new connection begins with.
pub fn handshake(settings: &Settings) -> Request {
    let mut commands = Commands::default();
    let password = settings.password.as_ref().map(Password::reveal);
    match &settings.username {
        Some(username) => commands.push(&[
            b"AUTH",
            username.as_bytes(),
            password.unwrap_or_default().as_bytes(),
        ]),
        None => {
            if let Some(password) = password {
                commands.push(&[b"AUTH", password.as_bytes()]);
            }
        }
    }
    if settings.db != 0 {
        commands.push(&[b"SELECT", &decimal(settings.db.into())]);
    }
    if settings.delivery == Delivery::AtMostOnce {
        // Whether this user may run them: without MULTI, what follows it would be
        // executed at once.
        commands.push(&[b"MULTI"]);
        commands.push(&[b"EXEC"]);
    }
    commands.push(&[b"PING"]);
    Request {
        commands,
        effect: Effect::Reads,
    }
}

/// Whether the server lets this client in.
///
/// # Errors
///
/// [`Error::AccessDenied`] for credentials that the server does not take,
/// [`Error::InvalidArgument`] for a database that it does not have, else what the
/// error reply stands for.
pub fn handshake_done(replies: &Replies, settings: &Settings) -> Result<(), Error> {
    let mut replies = replies.iter();
    let authenticates = settings.username.is_some() || settings.password.is_some();
    if authenticates && let Some(error) = replies.next().and_then(Reply::error) {
        let passes = error.may_pass();
        return Err(match error {
            // Whatever a server says against AUTH is a matter of access: "ERR
            // invalid password" and "ERR Client sent AUTH, but no password is
            // set" before Redis 6, "ERR AUTH <password> called without any
            // password configured" since. Nothing of it is shown: it may hold the
            // password.
            Error::Unavailable(_) => {
                Error::Unavailable("the server takes no more clients".to_owned())
            }
            Error::Server { code, .. } if passes => Error::Server {
                message: code.clone(),
                code,
            },
            _ => Error::AccessDenied("the server does not accept the credentials".to_owned()),
        });
    }
    if settings.db != 0
        && let Some(error) = replies.next().and_then(Reply::error)
    {
        return Err(match error {
            Error::Server { code, message } if code == "ERR" => Error::InvalidArgument(format!(
                "option db (REDIS_DB) is {}, which the server does not have: {message}",
                settings.db
            )),
            error => error,
        });
    }
    let mut last = None;
    for reply in replies {
        if let Some(error) = reply.error() {
            return Err(error);
        }
        last = Some(reply);
    }
    match last.map(Reply::simple_string) {
        Some(Ok(b"PONG")) => Ok(()),
        _ => Err(Error::Protocol("the reply to PING is not PONG".to_owned())),
    }
}

// add, add-all, exactly once: one script, by its digest or in full.

/// How the server is told what script to run.
#[derive(Clone, Copy)]
pub enum Script {
    /// By its digest, which serves if the server has seen the script.
    Cached,
    /// In full.
    Full,
}

/// The answer to an append.
#[derive(Debug, PartialEq, Eq)]
pub enum Appended {
    /// The session holds so many entries now.
    Length(u32),
    /// Nothing was done: the server has not seen the script.
    ScriptUnknown,
}

/// Appends elements unless the session ends with them already, trims it and applies
/// its time to live.
pub fn append(settings: &Settings, key: &str, elements: &[Vec<u8>], script: Script) -> Request {
    let (name, body) = match script {
        Script::Cached => (&b"EVALSHA"[..], APPEND_SHA1),
        Script::Full => (&b"EVAL"[..], APPEND),
    };
    let policy = match settings.ttl_policy {
        TtlPolicy::Sliding => &b"sliding"[..],
        TtlPolicy::Fixed => b"fixed",
        TtlPolicy::None => b"none",
    };
    let ttl = decimal(settings.session_ttl.into());
    let most = decimal(settings.max_messages.unwrap_or(0).into());
    let back = decimal(LOOK_BACK);
    let mut words = Vec::with_capacity(8 + elements.len());
    words.extend_from_slice(&[
        name,
        body.as_bytes(),
        b"1",
        key.as_bytes(),
        &back,
        &ttl,
        policy,
        &most,
    ]);
    words.extend(elements.iter().map(Vec::as_slice));
    let mut commands = Commands::default();
    commands.push(&words);
    Request {
        commands,
        effect: Effect::WritesAgain,
    }
}

/// Reads the answer to [`append`].
///
/// # Errors
///
/// The error reply, if it is one other than NOSCRIPT.
pub fn appended(replies: &Replies) -> Result<Appended, Error> {
    match replies.last().and_then(count) {
        Ok(length) => Ok(Appended::Length(length)),
        Err(Error::Server { code, .. }) if code == "NOSCRIPT" => Ok(Appended::ScriptUnknown),
        Err(error) => Err(error),
    }
}

/// Entries at the end of a session among which an append looks for its own: so many
/// may others have added between a try whose reply was lost and the next.
const LOOK_BACK: u64 = 64;

/// The script. Its digest is what EVALSHA knows it by, and a test compares them.
const APPEND: &str = include_str!("append.lua");
const APPEND_SHA1: &str = "cc2463dce0af942c52565db63a2a0693975b69a4";

// add, add-all, at most once: a transaction.

/// The answer to a [`transaction`].
pub enum Transacted {
    /// The session holds so many entries now.
    Length(u32),
    /// The key is of another type. The transaction went on after that all the same
    /// and gave it an expiry, which this request takes back.
    Foreign(Error, Request),
}

/// Appends elements, trims the session and applies its time to live.
pub fn transaction(settings: &Settings, key: &str, elements: &[Vec<u8>]) -> Request {
    let key = key.as_bytes();
    let ttl = decimal(settings.session_ttl.into());
    let mut commands = Commands::default();
    commands.push(&[b"MULTI"]);
    commands.push(&[b"PTTL", key]);
    let mut words = Vec::with_capacity(2 + elements.len());
    words.extend_from_slice(&[&b"RPUSH"[..], key]);
    words.extend(elements.iter().map(Vec::as_slice));
    commands.push(&words);
    if let Some(most) = settings.max_messages {
        commands.push(&[b"LTRIM", key, &from_the_end(most), b"-1"]);
    }
    match settings.ttl_policy {
        TtlPolicy::Sliding => commands.push(&[b"EXPIRE", key, &ttl]),
        TtlPolicy::Fixed => commands.push(&[b"EXPIRE", key, &ttl, b"NX"]),
        TtlPolicy::None => {}
    }
    commands.push(&[b"EXEC"]);
    Request {
        commands,
        effect: Effect::WritesOnce,
    }
}

/// Reads the answer to [`transaction`].
///
/// # Errors
///
/// The error that was replied, or [`Error::Protocol`].
pub fn transacted(replies: &Replies, settings: &Settings, key: &str) -> Result<Transacted, Error> {
    let mut outcomes = replies.iter();
    if let Some(error) = outcomes.next().and_then(Reply::error)
        && outcomes
            .nth(1)
            .is_some_and(|pushed| pushed.error().is_none())
    {
        // A user may lose the permission between the handshake and now.
        return Err(Error::OutcomeUnknown(format!(
            "the messages may be without their time to live: {error}"
        )));
    }
    let mut results = replies.last()?.array()?;
    let (Some(ttl), Some(length)) = (results.next(), results.next()) else {
        return Err(Error::Protocol("the reply to EXEC is too short".to_owned()));
    };
    match count(length) {
        Ok(length) => {
            if let Some(error) = results.find_map(Reply::error) {
                return Err(error);
            }
            Ok(Transacted::Length(
                settings
                    .max_messages
                    .map_or(length, |most| length.min(most)),
            ))
        }
        Err(error @ Error::WrongType(_)) => {
            let mut commands = Commands::default();
            match u64::try_from(ttl.integer()?) {
                Ok(ttl) => commands.push(&[b"PEXPIRE", key.as_bytes(), &decimal(ttl)]),
                Err(_) => commands.push(&[b"PERSIST", key.as_bytes()]),
            }
            Ok(Transacted::Foreign(
                error,
                Request {
                    commands,
                    effect: Effect::WritesAgain,
                },
            ))
        }
        Err(error) => Err(error),
    }
}

/// Reads the answer to the request in [`Transacted::Foreign`].
///
/// # Errors
///
/// [`Error::AccessDenied`], if the key of another type keeps the expiry.
pub fn undone(replies: &Replies) -> Result<(), Error> {
    match replies.last() {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::AccessDenied(format!(
            "the key holds something other than a list, and was given an expiry that could not \
             be taken back: {error}"
        ))),
    }
}

// get, history: LRANGE, for a history together with LLEN and TTL.

/// How many entries at the end of a list are read; none is all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(pub Option<u32>);

impl Window {
    /// A larger one, for when this one held too few messages.
    fn grown(self) -> Window {
        Window(self.0.and_then(|entries| entries.checked_mul(2)))
    }
}

/// What a read came to.
#[derive(Debug, PartialEq)]
pub enum Read<T> {
    /// The result.
    Done(T),
    /// Unreadable entries took the place of messages: read again, that far.
    Again(Window),
}

/// Reads the last entries of a session.
pub fn get(key: &str, window: Window) -> Request {
    let mut commands = Commands::default();
    push_range(&mut commands, key, window);
    Request {
        commands,
        effect: Effect::Reads,
    }
}

/// Reads the answer to [`get`].
///
/// # Errors
///
/// The error that was replied, or [`Error::Protocol`].
pub fn got(
    replies: &Replies,
    limit: Option<u32>,
    window: Window,
) -> Result<Read<Vec<Message>>, Error> {
    Ok(match range(replies.last()?, limit, window)? {
        Read::Done((messages, _)) => Read::Done(messages),
        Read::Again(window) => Read::Again(window),
    })
}

/// Reads the last entries of a session, its length and its time to live, all of
/// one moment.
pub fn history(key: &str, window: Window) -> Request {
    let mut commands = Commands::default();
    commands.push(&[b"MULTI"]);
    push_range(&mut commands, key, window);
    commands.push(&[b"LLEN", key.as_bytes()]);
    commands.push(&[b"TTL", key.as_bytes()]);
    commands.push(&[b"EXEC"]);
    Request {
        commands,
        effect: Effect::Reads,
    }
}

/// Reads the answer to [`history`].
///
/// # Errors
///
/// The error that was replied, or [`Error::Protocol`].
pub fn history_read(
    replies: &Replies,
    limit: Option<u32>,
    window: Window,
) -> Result<Read<History>, Error> {
    let mut results = replies.last()?.array()?;
    let (Some(entries), Some(length), Some(ttl), None) = (
        results.next(),
        results.next(),
        results.next(),
        results.next(),
    ) else {
        return Err(Error::Protocol(
            "the reply to EXEC does not have three elements".to_owned(),
        ));
    };
    Ok(match range(entries, limit, window)? {
        Read::Done((messages, skipped)) => Read::Done(History {
            messages,
            total: count(length)?,
            skipped,
            // TTL answers -1 for a key without expiry and -2 for no key.
            ttl_seconds: match ttl.integer()? {
                ..0 => None,
                seconds => Some(u32::try_from(seconds).unwrap_or(u32::MAX)),
            },
        }),
        Read::Again(window) => Read::Again(window),
    })
}

/// The last `limit` messages among `entries`, which are given newest first, in
/// the order in which they were written; with the number of entries passed over
/// until then.
pub fn newest<'a>(
    entries: impl Iterator<Item = &'a [u8]>,
    limit: Option<u32>,
) -> (Vec<Message>, u32) {
    let mut messages = Vec::new();
    let mut skipped = 0;
    let limit = limit.map_or(usize::MAX, |limit| limit as usize);
    for entry in entries {
        if messages.len() == limit {
            break;
        }
        match Message::decode(entry) {
            Some(message) => messages.push(message),
            None => skipped += 1,
        }
    }
    messages.reverse();
    (messages, skipped)
}

fn push_range(commands: &mut Commands, key: &str, window: Window) {
    let key = key.as_bytes();
    match window.0 {
        None => commands.push(&[b"LRANGE", key, b"0", b"-1"]),
        // An empty range; from -0 would be from the beginning.
        Some(0) => commands.push(&[b"LRANGE", key, b"1", b"0"]),
        Some(entries) => commands.push(&[b"LRANGE", key, &from_the_end(entries), b"-1"]),
    }
}

/// The index of the entry that so many entries from the end begin with.
fn from_the_end(entries: u32) -> Vec<u8> {
    [b"-", &decimal(entries.into())[..]].concat()
}

fn range(
    entries: Reply<'_>,
    limit: Option<u32>,
    window: Window,
) -> Result<Read<(Vec<Message>, u32)>, Error> {
    let entries: Vec<&[u8]> = entries
        .array()?
        .map(Reply::bulk_string)
        .collect::<Result<_, _>>()?;
    let (messages, skipped) = newest(entries.iter().rev().copied(), limit);
    let wanted = limit.map_or(0, |limit| limit as usize);
    let window_is_full = window
        .0
        .is_some_and(|window| entries.len() >= window as usize);
    if messages.len() < wanted && window_is_full {
        return Ok(Read::Again(window.grown()));
    }
    Ok(Read::Done((messages, skipped)))
}

// clear, count, exists.

/// Deletes a session. LTRIM to an empty range deletes a list and refuses a key of
/// another type, which DEL would delete.
pub fn clear(key: &str) -> Request {
    let mut commands = Commands::default();
    commands.push(&[b"LTRIM", key.as_bytes(), b"1", b"0"]);
    Request {
        commands,
        effect: Effect::WritesAgain,
    }
}

/// Reads the answer to [`clear`].
///
/// # Errors
///
/// The error that was replied, or [`Error::Protocol`].
pub fn cleared(replies: &Replies) -> Result<(), Error> {
    match replies.last()?.simple_string()? {
        b"OK" => Ok(()),
        _ => Err(Error::Protocol("the reply to LTRIM is not OK".to_owned())),
    }
}

/// Asks for the length of a session.
pub fn length(key: &str) -> Request {
    let mut commands = Commands::default();
    commands.push(&[b"LLEN", key.as_bytes()]);
    Request {
        commands,
        effect: Effect::Reads,
    }
}

/// Reads the answer to [`length`].
///
/// # Errors
///
/// The error that was replied, or [`Error::Protocol`].
pub fn length_read(replies: &Replies) -> Result<u32, Error> {
    replies.last().and_then(count)
}

fn count(reply: Reply<'_>) -> Result<u32, Error> {
    u32::try_from(reply.integer()?)
        .map_err(|_| Error::Protocol("a length is out of range".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Role;
    use crate::options::Options;
    use crate::reply::{Progress, ReplyReader};
    use alloc::string::String;
    use sha1_smol::Sha1;

    fn settings(given: Options) -> Settings {
        Settings::resolve(given, &[]).unwrap()
    }

    fn replies(count: usize, bytes: &[u8]) -> Replies {
        let mut reader = ReplyReader::new(count, 1 << 20);
        assert_eq!(reader.push(bytes.to_vec()), Ok(Progress::Complete));
        reader.finish().unwrap()
    }

    /// The words of the commands, one command a line.
    fn sent(request: &Request) -> String {
        let text = String::from_utf8(request.commands.bytes().to_vec()).unwrap();
        let mut lines = text.split("\r\n");
        let mut shown = String::new();
        while let Some(count) = lines.next().and_then(|line| line.strip_prefix('*')) {
            let words: Vec<_> = (0..count.parse().unwrap())
                .map(|_| lines.nth(1).unwrap())
                .collect();
            shown = shown + &words.join(" ") + "\n";
        }
        shown
    }

    #[test]
    fn the_digest_is_that_of_the_script() {
        assert_eq!(APPEND_SHA1, Sha1::from(APPEND).digest().to_string());
    }

    #[test]
    fn a_connection_begins_with_what_the_settings_ask_for() {
        let text = |text: &str| Some(text.to_owned());
        for (username, password, db, expected) in [
            (None, None, 0, "PING\n"),
            (None, text("secret"), 0, "AUTH secret\nPING\n"),
            (
                text("agent"),
                text("secret"),
                3,
                "AUTH agent secret\nSELECT 3\nPING\n",
            ),
            (text("agent"), None, 0, "AUTH agent \nPING\n"),
        ] {
            let password = password.map(Password::from);
            let settings = settings(Options {
                username,
                password,
                db: Some(db),
                ..Options::default()
            });
            assert_eq!(sent(&handshake(&settings)), expected);
        }
    }

    #[test]
    fn a_refused_handshake_says_what_was_refused() {
        let settings = settings(Options {
            password: Some("secret".to_owned().into()),
            db: Some(99),
            ..Options::default()
        });
        for (answer, expected) in [
            ("+OK\r\n+OK\r\n+PONG\r\n", Ok(())),
            (
                "-WRONGPASS invalid\r\n-NOAUTH a\r\n-NOAUTH b\r\n",
                Err(Error::AccessDenied(
                    "the server does not accept the credentials".to_owned(),
                )),
            ),
            (
                "-ERR AUTH <password> called without any password configured\r\n+OK\r\n+PONG\r\n",
                Err(Error::AccessDenied(
                    "the server does not accept the credentials".to_owned(),
                )),
            ),
            (
                "-LOADING secret\r\n+OK\r\n+PONG\r\n",
                Err(Error::Server {
                    code: "LOADING".to_owned(),
                    message: "LOADING".to_owned(),
                }),
            ),
            (
                "-WRONGTYPE secret\r\n+OK\r\n+PONG\r\n",
                Err(Error::AccessDenied(
                    "the server does not accept the credentials".to_owned(),
                )),
            ),
            (
                "-ERR max number of clients secret\r\n+OK\r\n+PONG\r\n",
                Err(Error::Unavailable(
                    "the server takes no more clients".to_owned(),
                )),
            ),
            (
                "+OK\r\n-ERR DB index is out of range\r\n+PONG\r\n",
                Err(Error::InvalidArgument(
                    "option db (REDIS_DB) is 99, which the server does not have: \
                     ERR DB index is out of range"
                        .to_owned(),
                )),
            ),
            (
                "+OK\r\n+OK\r\n-LOADING Redis is loading\r\n",
                Err(Error::Server {
                    code: "LOADING".to_owned(),
                    message: "LOADING Redis is loading".to_owned(),
                }),
            ),
            (
                "+OK\r\n+OK\r\n+OK\r\n",
                Err(Error::Protocol("the reply to PING is not PONG".to_owned())),
            ),
        ] {
            assert_eq!(
                handshake_done(&replies(3, answer.as_bytes()), &settings),
                expected
            );
        }
    }

    #[test]
    fn an_append_is_one_command() {
        let elements = [b"a".to_vec(), b"b".to_vec()];
        for (given, expected) in [
            (Options::default(), "1 session:s 64 3600 sliding 0 a b\n"),
            (
                Options {
                    ttl_policy: Some(TtlPolicy::Fixed),
                    session_ttl: Some(60),
                    max_messages: Some(5),
                    ..Options::default()
                },
                "1 session:s 64 60 fixed 5 a b\n",
            ),
        ] {
            let settings = settings(given);
            let cached = append(&settings, "session:s", &elements, Script::Cached);
            assert_eq!(sent(&cached), format!("EVALSHA {APPEND_SHA1} {expected}"));
            let full = append(&settings, "session:s", &elements, Script::Full);
            assert_eq!(sent(&full), format!("EVAL {APPEND} {expected}"));
        }
    }

    #[test]
    fn the_answer_to_an_append() {
        for (answer, expected) in [
            (":3\r\n", Ok(Appended::Length(3))),
            (
                "-NOSCRIPT No matching script.\r\n",
                Ok(Appended::ScriptUnknown),
            ),
            (
                "-WRONGTYPE x\r\n",
                Err(Error::WrongType("WRONGTYPE x".to_owned())),
            ),
            (
                ":-1\r\n",
                Err(Error::Protocol("a length is out of range".to_owned())),
            ),
            (
                "+OK\r\n",
                Err(Error::Protocol("the reply is not an integer".to_owned())),
            ),
        ] {
            assert_eq!(appended(&replies(1, answer.as_bytes())), expected);
        }
    }

    #[test]
    fn a_transaction_is_sent_whole() {
        let elements = [b"a".to_vec(), b"b".to_vec()];
        for (ttl_policy, max_messages, expected) in [
            (
                TtlPolicy::Sliding,
                None,
                "MULTI\nPTTL k\nRPUSH k a b\nEXPIRE k 3600\nEXEC\n",
            ),
            (
                TtlPolicy::Fixed,
                Some(5),
                "MULTI\nPTTL k\nRPUSH k a b\nLTRIM k -5 -1\nEXPIRE k 3600 NX\nEXEC\n",
            ),
            (TtlPolicy::None, None, "MULTI\nPTTL k\nRPUSH k a b\nEXEC\n"),
        ] {
            let settings = settings(Options {
                ttl_policy: Some(ttl_policy),
                max_messages,
                ..Options::default()
            });
            let request = transaction(&settings, "k", &elements);
            assert_eq!(sent(&request), expected);
            assert_eq!(request.effect, Effect::WritesOnce);
        }
    }

    #[test]
    fn the_answer_to_a_transaction() {
        const QUEUED: &str = "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n";
        let settings = settings(Options {
            max_messages: Some(5),
            ..Options::default()
        });
        let answer = |answer: &str| transacted(&replies(5, answer.as_bytes()), &settings, "k");
        for (results, expected) in [
            ("*3\r\n:-2\r\n:3\r\n:1\r\n", 3),
            ("*3\r\n:9\r\n:6\r\n:1\r\n", 5),
        ] {
            let Ok(Transacted::Length(length)) = answer(&format!("{QUEUED}{results}")) else {
                panic!("{results}");
            };
            assert_eq!(length, expected);
        }
        for (ttl, expected) in [("-1", "PERSIST k\n"), ("1500", "PEXPIRE k 1500\n")] {
            let results = format!("{QUEUED}*3\r\n:{ttl}\r\n-WRONGTYPE x\r\n:1\r\n");
            let Ok(Transacted::Foreign(error, undo)) = answer(&results) else {
                panic!("{results}");
            };
            assert_eq!(error, Error::WrongType("WRONGTYPE x".to_owned()));
            assert_eq!(sent(&undo), expected);
        }
        for (text, expected) in [
            (
                "+OK\r\n+QUEUED\r\n-OOM x\r\n+QUEUED\r\n-EXECABORT y\r\n",
                Error::Server {
                    code: "OOM".to_owned(),
                    message: "OOM x".to_owned(),
                },
            ),
            (
                "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*1\r\n:1\r\n",
                Error::Protocol("the reply to EXEC is too short".to_owned()),
            ),
            (
                "-NOPERM x\r\n:-2\r\n-NOPERM y\r\n:0\r\n-ERR EXEC without MULTI\r\n",
                Error::AccessDenied("NOPERM x".to_owned()),
            ),
            (
                "-NOPERM x\r\n:-2\r\n:1\r\n:1\r\n-ERR EXEC without MULTI\r\n",
                Error::OutcomeUnknown(
                    "the messages may be without their time to live: NOPERM x".to_owned(),
                ),
            ),
        ] {
            assert_eq!(answer(text).err(), Some(expected));
        }
    }

    #[test]
    fn an_expiry_that_stays_on_a_foreign_key_is_told() {
        assert_eq!(undone(&replies(1, b":1\r\n")), Ok(()));
        assert_eq!(
            undone(&replies(1, b"-NOPERM no\r\n")),
            Err(Error::AccessDenied(
                "the key holds something other than a list, and was given an expiry that could \
                 not be taken back: NOPERM no"
                    .to_owned()
            ))
        );
    }

    #[test]
    fn the_requests_of_the_other_operations() {
        for (request, expected) in [
            (get("k", Window(None)), "LRANGE k 0 -1\n"),
            (get("k", Window(Some(0))), "LRANGE k 1 0\n"),
            (get("k", Window(Some(10))), "LRANGE k -10 -1\n"),
            (
                history("k", Window(Some(2))),
                "MULTI\nLRANGE k -2 -1\nLLEN k\nTTL k\nEXEC\n",
            ),
            (clear("k"), "LTRIM k 1 0\n"),
            (length("k"), "LLEN k\n"),
        ] {
            assert_eq!(sent(&request), expected);
        }
    }

    fn list(entries: &[&str]) -> String {
        let entries: String = entries
            .iter()
            .map(|entry| format!("${}\r\n{entry}\r\n", entry.len()))
            .collect();
        format!("*{}\r\n{entries}", entries.matches('$').count())
    }

    const A: &str = r#"{"role":"user","content":"a"}"#;
    const B: &str = r#"{"role":"user","content":"b"}"#;
    const BAD: &str = "unreadable";

    fn message(content: &str) -> Message {
        Message {
            role: Role::User,
            content: content.to_owned(),
            timestamp: String::new(),
            metadata: None,
            id: None,
        }
    }

    #[test]
    fn a_limit_counts_readable_messages() {
        for (entries, limit, window, expected) in [
            (
                &[A, B][..],
                None,
                None,
                Read::Done(vec![message("a"), message("b")]),
            ),
            (
                &[A, BAD, B],
                None,
                None,
                Read::Done(vec![message("a"), message("b")]),
            ),
            (&[], Some(2), Some(2), Read::Done(vec![])),
            (&[], Some(0), Some(0), Read::Done(vec![])),
            (
                &[A, B],
                Some(2),
                Some(2),
                Read::Done(vec![message("a"), message("b")]),
            ),
            (&[BAD, B], Some(2), Some(2), Read::Again(Window(Some(4)))),
            (
                &[A, BAD, B],
                Some(2),
                Some(4),
                Read::Done(vec![message("a"), message("b")]),
            ),
            (
                &[BAD, BAD, B],
                Some(2),
                Some(4),
                Read::Done(vec![message("b")]),
            ),
            (&[BAD; 4], Some(2), Some(4), Read::Again(Window(Some(8)))),
            (
                &[A, A, BAD, B],
                Some(2),
                Some(4),
                Read::Done(vec![message("a"), message("b")]),
            ),
        ] {
            let replies = replies(1, list(entries).as_bytes());
            assert_eq!(got(&replies, limit, Window(window)), Ok(expected));
        }
        assert_eq!(Window(Some(u32::MAX)).grown(), Window(None));
    }

    #[test]
    fn a_history_tells_what_it_passed_over() {
        for (entries, limit, (total, ttl), expected) in [
            (
                &[A, BAD, B][..],
                None,
                (3, 60),
                (vec![message("a"), message("b")], 1, Some(60)),
            ),
            (
                &[BAD, A, BAD, B],
                Some(2),
                (9, -1),
                (vec![message("a"), message("b")], 1, None),
            ),
            (&[], None, (0, -2), (vec![], 0, None)),
        ] {
            let answer = format!(
                "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n{}:{total}\r\n:{ttl}\r\n",
                list(entries)
            );
            let (messages, skipped, ttl_seconds) = expected;
            assert_eq!(
                history_read(&replies(5, answer.as_bytes()), limit, Window(Some(4))),
                Ok(Read::Done(History {
                    messages,
                    total,
                    skipped,
                    ttl_seconds
                }))
            );
        }
    }

    #[test]
    fn a_history_fails_with_the_first_error() {
        for (answer, expected) in [
            (
                "-NOPERM multi\r\n*0\r\n:0\r\n:-2\r\n-ERR EXEC without MULTI\r\n",
                Error::AccessDenied("NOPERM multi".to_owned()),
            ),
            (
                "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n-WRONGTYPE x\r\n-WRONGTYPE x\r\n:-1\r\n",
                Error::WrongType("WRONGTYPE x".to_owned()),
            ),
            (
                "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*-1\r\n",
                Error::Protocol("the reply is not an array".to_owned()),
            ),
            (
                "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*1\r\n*0\r\n",
                Error::Protocol("the reply to EXEC does not have three elements".to_owned()),
            ),
        ] {
            let read = history_read(&replies(5, answer.as_bytes()), None, Window(None));
            assert_eq!(read, Err(expected));
        }
    }

    #[test]
    fn the_answers_to_clear_and_length() {
        assert_eq!(cleared(&replies(1, b"+OK\r\n")), Ok(()));
        assert_eq!(
            cleared(&replies(1, b"-WRONGTYPE x\r\n")),
            Err(Error::WrongType("WRONGTYPE x".to_owned()))
        );
        assert_eq!(length_read(&replies(1, b":4294967295\r\n")), Ok(u32::MAX));
    }
}
