//! What the tests of this crate share.

use crate::error::Error;
use crate::ids::Ids;
use crate::message::{Message, NewMessage, Role};
use crate::operation::{
    Action, Effect, HISTORY, Procedure, Progress, ReadMode, Session, Stamp, StartContext,
};
use crate::options::{Options, Settings};
use crate::recent::RecentAppends;
use crate::resp::{Commands, Received, Replies, ReplyReader, Scan};

pub const A: &str = r#"{"role":"user","content":"a"}"#;
pub const B: &str = r#"{"role":"user","content":"b"}"#;
pub const UNREADABLE: &str = "unreadable";

pub const STAMP: Stamp<'_> = Stamp {
    timestamp: "t",
    id: || Ids::new().next(|| 0),
    recent: &RecentAppends::new(),
};

pub fn settings(given: Options) -> Settings {
    Settings::resolve(given, &[]).unwrap()
}

/// An operation on the session at `k` that is sent with others.
pub fn start(action: &Action, settings: &Settings) -> Box<dyn Procedure> {
    start_with(action, settings, context(ReadMode::AtOnce))
}

/// An operation on the session at `k` that is sent on its own.
pub fn start_alone(action: &Action, settings: &Settings) -> Box<dyn Procedure> {
    start_with(action, settings, context(ReadMode::InPages))
}

fn context(read_mode: ReadMode) -> StartContext<'static> {
    StartContext {
        stamp: STAMP,
        read_mode,
        others: 0,
    }
}

pub fn start_with(
    action: &Action,
    settings: &Settings,
    context: StartContext<'_>,
) -> Box<dyn Procedure> {
    action.start(session(settings), context).unwrap()
}

pub fn session(settings: &Settings) -> Session<'_> {
    Session { key: "k", settings }
}

/// The words of the next request, one command a line.
pub fn request(procedure: &dyn Procedure, settings: &Settings) -> String {
    let mut commands = Commands::default();
    procedure.request(session(settings), &mut commands);
    shown(&commands)
}

/// The words of commands, one command a line.
pub fn shown(commands: &Commands) -> String {
    let text = String::from_utf8(commands.bytes().to_vec()).unwrap();
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

/// The result of this many replies.
pub fn respond(
    procedure: &mut dyn Procedure,
    count: usize,
    bytes: &str,
) -> Result<Progress, Error> {
    read(count, bytes, |replies| procedure.response(replies))
}

/// The result of reading this many replies.
pub fn read<T>(count: usize, bytes: &str, reading: impl FnOnce(Replies<'_>) -> T) -> T {
    reading(received(count, bytes).replies(0..count).unwrap())
}

pub fn received(count: usize, bytes: &str) -> Received {
    let mut reader = ReplyReader::new(count, 1 << 20);
    assert_eq!(reader.push(bytes.as_bytes()), Ok(Scan::Complete));
    reader.finish().unwrap()
}

/// The reply to LRANGE with these entries.
pub fn list(entries: &[&str]) -> String {
    let shown: String = entries
        .iter()
        .map(|entry| format!("${}\r\n{entry}\r\n", entry.len()))
        .collect();
    format!("*{}\r\n{shown}", entries.len())
}

/// The reply of Redis to LRANGE from a session with these entries.
pub fn range(entries: &[String], first: &str, last: &str) -> String {
    let index = |index: &str| match index.parse().unwrap() {
        index @ ..0 => entries.len() as i64 + index,
        index => index,
    };
    let first = index(first).max(0);
    let last = index(last).min(entries.len() as i64 - 1);
    let asked = (first..=last).map(|index| entries[index as usize].as_str());
    list(&asked.collect::<Vec<_>>())
}

/// The requests of an operation that is sent on its own, and its result. `reply` has the
/// replies to the words of a request.
pub fn run(
    action: &Action,
    reply: impl Fn(&[&str]) -> String,
) -> (Vec<String>, Result<Progress, Error>) {
    let settings = settings(Options::default());
    let mut procedure = start_alone(action, &settings);
    let mut requests = Vec::new();
    loop {
        let mut commands = Commands::default();
        procedure.request(session(&settings), &mut commands);
        commands.do_work();
        let request = shown(&commands).replace(HISTORY, "HISTORY");
        let count = request.lines().count();
        let replies: String = request
            .lines()
            .map(|line| reply(&line.split(' ').collect::<Vec<_>>()))
            .collect();
        let progress = respond(&mut *procedure, count, &replies);
        requests.push(request);
        assert_eq!(procedure.effect(), Effect::Reads);
        if progress != Ok(Progress::NeedsMore) {
            return (requests, progress);
        }
        assert!(requests.len() < 100, "{requests:?}");
    }
}

pub fn new(content: &str) -> NewMessage {
    NewMessage {
        role: Role::User,
        content: content.to_owned(),
        metadata: None,
    }
}

pub fn message(content: &str) -> Message {
    Message {
        role: Role::User,
        content: content.to_owned(),
        timestamp: String::new(),
        metadata: None,
        id: None,
    }
}

/// An entry whose content is a number.
pub fn numbered(number: usize) -> String {
    format!(r#"{{"role":"user","content":"{number}"}}"#)
}
