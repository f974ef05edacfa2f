//! The operations on a session: for each, the request that is sent and the
//! reading of its replies, side by side.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;
use core::ops::Range;

use crate::command::{Commands, decimal};
use crate::error::Error;
use crate::ids::{Ending, Endings, Id};
use crate::message::NewMessage;
use crate::messages::{Messages, Newest, Text};
use crate::operation::{Action, History, Outcome};
use crate::options::{Delivery, Password, Settings, TtlPolicy};
use crate::reply::{Replies, Reply};

/// An operation on a session in progress: what to ask for next, and how to read
/// the answer.
pub struct Task {
    key: String,
    step: Step,
}

/// What is asked for next.
enum Step {
    Append(Append),
    Transaction(Vec<Vec<u8>>),
    Undo { ttl: Option<u64>, error: Error },
    Get(Window),
    History(Window),
    Clear,
    Exists,
    Count,
}

/// What the messages of an operation are marked with.
#[derive(Clone, Copy)]
pub struct Stamp<'a> {
    /// When it began.
    pub timestamp: &'a str,
    /// Makes an id that no other message has.
    pub id: fn() -> Id,
    /// What was appended before it began.
    pub endings: &'a Endings,
}

/// What a request does on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Reads,
    /// An append that is found if it is there already: the same whether it is executed
    /// once or more often, however late.
    Appends,
    /// A change that is the same whether it is executed once or more often in a row. One
    /// that arrives late undoes what came in between.
    WritesAgain,
    /// A change that must not be executed twice.
    WritesOnce,
}

/// What the replies to a request come to, when they are no error.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// The operation is done.
    Done(Outcome<Messages>),
    /// The operation failed, whatever came of the tries before.
    Failed(Error),
    /// An error reply that may have come after the request was executed.
    Unclear(Error),
    /// There is more to ask for.
    AskOn,
}

impl Task {
    /// An operation on the session at this key.
    ///
    /// # Errors
    ///
    /// As [`NewMessage::encode`].
    pub fn new(
        key: String,
        action: Action,
        settings: &Settings,
        stamp: Stamp<'_>,
    ) -> Result<Task, Error> {
        let append = |messages: &[NewMessage]| {
            let elements = elements(messages, settings, stamp)?;
            Ok(match settings.delivery {
                Delivery::ExactlyOnce => Step::Append(Append {
                    elements,
                    before: stamp.endings.of(&key),
                    look_back: LOOK_BACK,
                    script: Script::Cached,
                }),
                Delivery::AtMostOnce => Step::Transaction(elements),
            })
        };
        let step = match action {
            Action::Add(message) => append(&[message])?,
            Action::AddAll(messages) if messages.is_empty() => Step::Count,
            Action::AddAll(messages) => append(&messages)?,
            Action::Get(limit) => Step::Get(Window::new(limit)),
            Action::History(limit) => Step::History(Window::new(limit)),
            Action::Clear => Step::Clear,
            Action::Exists => Step::Exists,
            Action::Count => Step::Count,
        };
        Ok(Task { key, step })
    }

    /// Where the session is.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What the next request does.
    pub fn effect(&self) -> Effect {
        match self.step {
            Step::Get(_) | Step::History(_) | Step::Exists | Step::Count => Effect::Reads,
            Step::Append(_) => Effect::Appends,
            Step::Undo { .. } | Step::Clear => Effect::WritesAgain,
            Step::Transaction(_) => Effect::WritesOnce,
        }
    }

    /// Whether the next request takes back what a transaction did to a key of
    /// another type; if it does, the error to come.
    pub fn undoes(&self) -> Option<&Error> {
        match &self.step {
            Step::Undo { error, .. } => Some(error),
            _ => None,
        }
    }

    /// Whether it deletes the session.
    pub fn clears(&self) -> bool {
        matches!(self.step, Step::Clear)
    }

    /// How many entries the operation appends, if it may be tried again.
    pub fn appends(&self) -> usize {
        match &self.step {
            Step::Append(append) => append.elements.len(),
            _ => 0,
        }
    }

    /// The last element that the operation appends, if it has an id.
    pub fn last_element(&self) -> Option<&[u8]> {
        match &self.step {
            Step::Append(append) => append.elements.last().map(Vec::as_slice),
            _ => None,
        }
    }

    /// Has an append take the script along.
    pub fn bring_script(&mut self) {
        if let Step::Append(append) = &mut self.step {
            append.script = Script::Full;
        }
    }

    /// Has an append look for its own among so many entries more: as many as may
    /// have come behind it in a try before.
    pub fn look_further_back(&mut self, entries: usize) {
        if let Step::Append(append) = &mut self.step {
            append.look_back += entries as u64;
        }
    }

    /// Has a long session be read in pages, as it is at one moment all the same. This
    /// is for an operation that travels alone: others would be executed between the
    /// pages.
    pub fn read_in_pages(&mut self) {
        if let Step::Get(window) | Step::History(window) = &mut self.step {
            window.read_in_pages();
        }
    }

    /// The connection was closed behind so many bytes of a reply. One that is cut twice at
    /// the same place is too large for something on the way, and less is asked for.
    /// Returns whether there is nothing less.
    pub fn was_cut(&mut self, bytes: usize) -> bool {
        match &mut self.step {
            Step::Get(window) | Step::History(window) => window.was_cut(bytes),
            _ => false,
        }
    }

    /// What was read and is held, which counts for as much as [`Reply::cost`] says.
    pub fn held(&self) -> u64 {
        match &self.step {
            Step::Get(window) | Step::History(window) => window.held(),
            _ => 0,
        }
    }

    /// Does what there is to do while the server prepares its answer.
    pub fn work_ahead(&mut self) {
        if let Step::Get(window) | Step::History(window) = &mut self.step
            && let Some(pages) = &mut window.pages
        {
            pages.decode(window.limit);
        }
    }

    /// Pushes the next request.
    pub fn request(&self, commands: &mut Commands, settings: &Settings) {
        let key = self.key.as_bytes();
        match &self.step {
            Step::Append(append) => append.request(commands, key, settings),
            Step::Transaction(elements) => transaction(commands, key, elements, settings),
            Step::Undo { ttl, .. } => undo(commands, key, *ttl),
            Step::Get(window) => window.request(commands, key),
            Step::History(window) => history(commands, key, window, settings),
            Step::Clear => clear(commands, key),
            Step::Exists | Step::Count => length(commands, key),
        }
    }

    /// Reads the replies to the request. After [`Answer::AskOn`] the next one is
    /// another.
    ///
    /// # Errors
    ///
    /// The error that was replied, or [`Error::Protocol`].
    pub fn answer(&mut self, replies: Replies<'_>, settings: &Settings) -> Result<Answer, Error> {
        if let Some(error) = replies.unclear() {
            return Ok(Answer::Unclear(error));
        }
        let outcome = match &mut self.step {
            Step::Append(append) => return append.answer(replies),
            Step::Transaction(_) => match transacted(replies, settings)? {
                Transacted::Length(length) => Outcome::Length(length),
                Transacted::Foreign { ttl, error } => {
                    self.step = Step::Undo { ttl, error };
                    return Ok(Answer::AskOn);
                }
            },
            Step::Undo { error, .. } => {
                undone(replies)?;
                return Ok(Answer::Failed(error.clone()));
            }
            Step::Get(window) => {
                let read = window.answer(replies);
                match window.unless_too_large(read)? {
                    Some((messages, _)) => Outcome::Messages(messages),
                    None => return Ok(Answer::AskOn),
                }
            }
            Step::History(window) => {
                let read = history_read(replies, window, settings);
                match window.unless_too_large(read)? {
                    Some(history) => Outcome::History(history),
                    None => return Ok(Answer::AskOn),
                }
            }
            Step::Clear => {
                cleared(replies)?;
                Outcome::Cleared
            }
            Step::Exists => Outcome::Exists(count(replies.last()?)? > 0),
            Step::Count => Outcome::Length(count(replies.last()?)?),
        };
        Ok(Answer::Done(outcome))
    }
}

/// Messages as they lie in the list.
///
/// # Errors
///
/// As [`NewMessage::encode`].
pub fn elements(
    messages: &[NewMessage],
    settings: &Settings,
    stamp: Stamp<'_>,
) -> Result<Vec<Vec<u8>>, Error> {
    let encode = |message: &NewMessage| {
        let id = match settings.delivery {
            Delivery::ExactlyOnce => Some((stamp.id)()),
            Delivery::AtMostOnce => None,
        };
        let id = id.as_ref().map(Id::as_str);
        message.encode(stamp.timestamp, id, settings.max_message_bytes)
    };
    messages.iter().map(encode).collect()
}

// Opening a connection: AUTH, SELECT; PING, where nothing else follows.

/// Pushes what a new connection begins with, if there is anything.
pub fn handshake(commands: &mut Commands, settings: &Settings) {
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
}

/// Whether the server lets this client in: reads the replies to [`handshake`].
///
/// # Errors
///
/// [`Error::AccessDenied`] for credentials that the server does not take,
/// [`Error::InvalidArgument`] for a database that it does not have, else what the
/// error reply stands for.
pub fn handshake_done(replies: Replies<'_>, settings: &Settings) -> Result<(), Error> {
    let mut replies = replies.iter();
    let authenticates = settings.username.is_some() || settings.password.is_some();
    if authenticates && let Some(error) = replies.next().and_then(Reply::error) {
        return Err(match error {
            Error::Server { .. } if error.may_pass() => error,
            Error::Unavailable(_) | Error::AccessDenied(_) => error,
            // Whatever else a server says against AUTH is a matter of access.
            _ => Error::AccessDenied("the server does not accept the credentials".to_owned()),
        });
    }
    if settings.db != 0
        && let Some(error) = replies.next().and_then(Reply::error)
    {
        return Err(match error {
            Error::InvalidArgument(why) => {
                Error::InvalidArgument(format!("option db (REDIS_DB) is {}: {why}", settings.db))
            }
            error => error,
        });
    }
    match replies.find_map(Reply::error) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Pushes a command that every server answers, and that changes nothing.
pub fn ping(commands: &mut Commands) {
    commands.push(&[b"PING"]);
}

/// Reads the answer to [`ping`].
///
/// # Errors
///
/// The error that was replied, or [`Error::Protocol`].
pub fn pong(replies: Replies<'_>) -> Result<(), Error> {
    match replies.last()?.simple_string() {
        Ok(text) if *text == *b"PONG" => Ok(()),
        _ => Err(Error::Protocol("the reply to PING is not PONG".to_owned())),
    }
}

// add, add-all, exactly once: one script, by its digest or in full.

/// Appends elements unless the session ends with them already, trims it and applies
/// its time to live.
struct Append {
    elements: Vec<Vec<u8>>,
    /// How the element ends that was appended before. If it is the last entry, these are
    /// not there: they would come after it.
    before: Option<Ending>,
    look_back: u64,
    script: Script,
}

/// How the server is told what script to run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Script {
    /// By its digest, which serves if the server has seen the script.
    Cached,
    /// In full.
    Full,
}

impl Append {
    fn request(&self, commands: &mut Commands, key: &[u8], settings: &Settings) {
        let (name, body) = match self.script {
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
        let back = decimal(self.look_back);
        let before = self.before.as_ref().map_or(&b""[..], |ending| ending);
        commands.push_with(
            &[
                name,
                body.as_bytes(),
                b"1",
                key,
                &back,
                before,
                &ttl,
                policy,
                &most,
            ],
            &self.elements,
        );
    }

    fn answer(&mut self, replies: Replies<'_>) -> Result<Answer, Error> {
        match replies.last().and_then(count) {
            Ok(length) => Ok(Answer::Done(Outcome::Length(length))),
            Err(Error::Server { code, .. }) if code == "NOSCRIPT" => match self.script {
                Script::Cached => {
                    self.script = Script::Full;
                    Ok(Answer::AskOn)
                }
                Script::Full => Err(Error::Protocol(
                    "the server does not know a script that it was just given".to_owned(),
                )),
            },
            Err(error) => Err(error),
        }
    }
}

/// Entries at the end of a session among which an append looks for its own: so many
/// may others have added between a try whose reply was lost and the next.
const LOOK_BACK: u64 = 64;

/// The script, which appends elements to a session, unless they are there already, and
/// applies its time to live, as one atomic unit. KEYS: the session. ARGV: how many
/// entries to look back, how an element ends that was appended before (or nothing), ttl
/// in seconds, policy, most entries to keep (0 is all), the elements. It answers the
/// length.
///
/// A script is not rolled back. So whatever may fail, fails before the push: what the
/// user may not run, and a key of another type. The push is the first write where that
/// is possible, since Redis checks maxmemory at the first one alone.
///
/// No functions are defined, since every run would define them anew, which took a tenth
/// of its time. An error reply is a table; so is the OK of LTRIM, and the array of
/// LRANGE. This is said here since what the file has is part of the component, and kept
/// by servers.
///
/// Its digest is what EVALSHA knows it by, and a test compares them.
const APPEND: &str = include_str!("append.lua");
const APPEND_SHA1: &str = "85c73ef81beddcf00c028de8f4f1d77e65b676c4";

// add, add-all, at most once: a transaction.

/// The answer to a [`transaction`].
#[derive(Debug, PartialEq)]
enum Transacted {
    /// The session holds so many entries now.
    Length(u32),
    /// The key is of another type. The transaction went on after that all the same
    /// and gave it an expiry in place of the one that it had, in milliseconds.
    Foreign { ttl: Option<u64>, error: Error },
}

/// Appends elements, trims the session and applies its time to live.
fn transaction(commands: &mut Commands, key: &[u8], elements: &[Vec<u8>], settings: &Settings) {
    let ttl = decimal(settings.session_ttl.into());
    commands.push(&[b"MULTI"]);
    commands.push(&[b"PTTL", key]);
    commands.push_with(&[b"RPUSH", key], elements);
    if let Some(most) = settings.max_messages {
        commands.push(&[b"LTRIM", key, &from_the_end(most), b"-1"]);
    }
    match settings.ttl_policy {
        TtlPolicy::Sliding => commands.push(&[b"EXPIRE", key, &ttl]),
        TtlPolicy::Fixed => commands.push(&[b"EXPIRE", key, &ttl, b"NX"]),
        TtlPolicy::None => {}
    }
    commands.push(&[b"EXEC"]);
}

fn transacted(replies: Replies<'_>, settings: &Settings) -> Result<Transacted, Error> {
    // MULTI, PTTL and RPUSH are the first of its commands.
    let Some(pushed) = replies.iter().nth(2) else {
        // The server hung up after it had refused MULTI, and may have run what follows.
        return match replies.last() {
            Err(Error::AccessDenied(text)) if text.starts_with("NOPERM") => {
                Err(without_transaction(&text))
            }
            Err(Error::Server { message, .. }) => Err(without_transaction(&message)),
            Err(error) => Err(error),
            Ok(_) => Err(Error::Protocol("the replies are too few".to_owned())),
        };
    };
    let is_queued = pushed.simple_string().is_ok_and(|text| *text == *b"QUEUED");
    let executed = replies.iter().last().and_then(|last| last.array().ok());
    let mut results = match (replies.last(), executed) {
        (Ok(last), None) => last.array()?,
        (Ok(_), Some(results)) => results,
        // Nothing ran by itself, and the rest was not executed.
        (Err(error), None) if is_queued || pushed.error().is_some() => return Err(error),
        (Err(error), _) => return Err(without_transaction(error.text())),
    };
    let (Some(ttl), Some(length)) = (results.next(), results.next()) else {
        return Err(Error::Protocol("the reply to EXEC is too short".to_owned()));
    };
    match count(length) {
        Ok(length) => {
            if let Some(error) = results.find_map(Reply::error) {
                return Err(Error::OutcomeUnknown(format!(
                    "the messages are stored, but may be without their time to live: {error}"
                )));
            }
            Ok(Transacted::Length(
                settings
                    .max_messages
                    .map_or(length, |most| length.min(most)),
            ))
        }
        Err(error @ Error::WrongType(_)) => Ok(Transacted::Foreign {
            // PTTL answers -1 for a key without expiry.
            ttl: u64::try_from(ttl.integer()?).ok(),
            error,
        }),
        Err(error) => Err(error),
    }
}

/// A user may lose the permission for MULTI between the handshake and now, or a proxy may
/// take the transaction apart.
fn without_transaction(why: &str) -> Error {
    Error::OutcomeUnknown(format!(
        "the messages may be stored, and without their time to live: {why}"
    ))
}

/// Gives a key of another type the expiry that it had.
fn undo(commands: &mut Commands, key: &[u8], ttl: Option<u64>) {
    match ttl {
        Some(ttl) => commands.push(&[b"PEXPIRE", key, &decimal(ttl)]),
        None => commands.push(&[b"PERSIST", key]),
    }
}

fn undone(replies: Replies<'_>) -> Result<(), Error> {
    match replies.last() {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::AccessDenied(format!(
            "the key holds something other than a list, and was given an expiry that could not \
             be taken back: {error}"
        ))),
    }
}

// get, history: LRANGE, for a history together with LLEN and TTL.

/// The last entries of a list, among which the last messages are looked for.
#[derive(Default)]
struct Window {
    /// Messages to be found; none is all of them.
    limit: Option<u32>,
    /// Entries that are asked for next; none is all of them.
    entries: Option<u32>,
    /// What was read, if they are read page by page.
    pages: Option<Pages>,
    /// Of a history: how many entries the session has, and how many seconds are left.
    about: Option<(u32, Option<u32>)>,
    /// Entries that a page may have, once a larger one did not come through.
    most: Option<u32>,
    /// Bytes of the last reply that was cut, and how many were cut there.
    cut_at: usize,
    cuts: u32,
}

/// The pages that were read, from the end of a list on.
#[derive(Default)]
struct Pages {
    /// Entries in them.
    count: u32,
    /// The oldest of them, of which its page has but one. The next page ends with it,
    /// unless something was appended or deleted.
    oldest: Vec<u8>,
    /// The last page, until the next one is asked for.
    undecoded: Option<(Text, Vec<Range<usize>>)>,
    messages: Newest,
    cost: u64,
}

/// Messages, and how many entries were passed over.
type Read = (Messages, u32);

impl Window {
    fn new(limit: Option<u32>) -> Window {
        Window {
            limit,
            entries: limit,
            ..Window::default()
        }
    }

    fn read_in_pages(&mut self) {
        if self.limit.is_none_or(|limit| limit > FIRST_PAGE) {
            self.entries = Some(FIRST_PAGE);
            self.pages = Some(Pages::default());
        }
    }

    fn held(&self) -> u64 {
        self.pages.as_ref().map_or(0, |pages| pages.cost)
    }

    /// How many entries were read.
    fn count(&self) -> u32 {
        self.pages.as_ref().map_or(0, |pages| pages.count)
    }

    /// The indexes of the first and the last entry that are asked for next.
    fn range(&self) -> (Vec<u8>, Vec<u8>) {
        let read = self.count();
        match self.entries {
            None => (b"0".to_vec(), b"-1".to_vec()),
            // An empty range; from -0 would be from the beginning.
            Some(0) => (b"1".to_vec(), b"0".to_vec()),
            Some(entries) => {
                let first = from_the_end(read.saturating_add(entries));
                let last = match self.most {
                    Some(_) => read.saturating_add(1),
                    None => read.max(1),
                };
                (first, from_the_end(last))
            }
        }
    }

    fn request(&self, commands: &mut Commands, key: &[u8]) {
        let (first, last) = self.range();
        commands.push(&[b"LRANGE", key, &first, &last]);
        self.expect(commands);
        let read = self.count();
        if self.most.is_some() && read > 0 {
            // In a reply of its own, since both may be too large for one.
            let oldest = from_the_end(read);
            commands.push(&[b"LRANGE", key, &oldest, &oldest]);
        }
    }

    /// Says how many elements the last command asks for.
    fn expect(&self, commands: &mut Commands) {
        let likely = match self.limit {
            None if self.count() == 0 => MANY,
            _ => self.entries.unwrap_or(MANY),
        };
        commands.asks_for(likely as usize);
    }

    /// The messages, and how many entries were passed over; none if there is more to
    /// ask for.
    fn answer(&mut self, replies: Replies<'_>) -> Result<Option<Read>, Error> {
        let last = replies.last()?;
        let mut replies = replies.iter();
        let page = replies.next().unwrap_or(last);
        self.take(page, replies.next())
    }

    /// Takes the next entries; if `oldest` is there, it is the one that they follow, else
    /// that is the last of them.
    fn take(&mut self, reply: Reply<'_>, oldest: Option<Reply<'_>>) -> Result<Option<Read>, Error> {
        if self.most.is_some() {
            return self.take_small(reply, oldest);
        }
        let mut entries = reply.bulk_strings()?;
        let asked = self.entries.map_or(usize::MAX, |entries| entries as usize);
        let wanted = self.wanted();
        let mut messages = Newest::default();
        let mut before = 0;
        if let Some(mut pages) = self.pages.take() {
            before = pages.count as usize;
            let changed = before > 0 && !pages.begin_with(reply, entries.pop());
            let read = before + entries.len();
            let is_all = entries.len() < asked;
            let is_last = is_all || read >= wanted;
            if changed
                || is_all && self.differs_from(read)
                || !is_last && is_there_again(reply, &entries, 0)
            {
                // All of it in one, which is of one moment.
                self.entries = self.limit;
                return Ok(None);
            }
            pages.decode(self.limit);
            if !is_last {
                let next = pages.push(reply, entries);
                self.entries = Some(next.min(wanted - read) as u32);
                self.pages = Some(pages);
                return Ok(None);
            }
            messages = pages.messages;
        }
        messages.read(reply.text(), &entries, self.limit);
        if self.limit.is_some() && messages.count() < wanted && entries.len() >= asked {
            // Unreadable entries took the place of messages.
            let read = u32::try_from(before + asked).ok();
            self.entries = read.and_then(|read| read.checked_mul(2));
            return Ok(None);
        }
        Ok(Some(messages.finish()))
    }

    /// Messages to be found at the most.
    fn wanted(&self) -> usize {
        self.limit.map_or(usize::MAX, |limit| limit as usize)
    }

    /// Whether the session of a history had another number of entries at first.
    fn differs_from(&self, entries: usize) -> bool {
        self.about
            .is_some_and(|(total, _)| total as usize != entries)
    }

    // Where replies are capped on the way: page by page to the end, and from the
    // beginning again if the session changes.

    fn take_small(
        &mut self,
        reply: Reply<'_>,
        oldest: Option<Reply<'_>>,
    ) -> Result<Option<Read>, Error> {
        let mut entries = reply.bulk_strings()?;
        let mut pages = self.pages.take().unwrap_or_default();
        let asked = self.entries.map_or(usize::MAX, |entries| entries as usize);
        let is_all = entries.len() < asked;
        let has_changed = match oldest {
            Some(oldest) => !pages.begin_with(oldest, oldest.bulk_strings()?.pop()),
            None => pages.count > 0,
        };
        if has_changed || is_all && self.differs_from(pages.count as usize + entries.len()) {
            self.start_again();
            return Ok(None);
        }
        if !is_all {
            // The next page is to follow an entry that is here once.
            let is_once = |at: &usize| !is_there_again(reply, &entries, *at);
            let first = (0..entries.len()).find(is_once).unwrap_or(0);
            entries.drain(..first);
        }
        pages.decode(self.limit);
        pages.remember(reply, &entries);
        pages.messages.read(reply.text(), &entries, self.limit);
        if is_all || pages.messages.count() >= self.wanted() {
            return Ok(Some(pages.messages.finish()));
        }
        self.entries = self.most;
        self.pages = Some(pages);
        Ok(None)
    }

    fn start_again(&mut self) {
        self.entries = self.most;
        self.pages = Some(Pages::default());
        self.about = None;
    }

    fn was_cut(&mut self, bytes: usize) -> bool {
        if bytes == 0 || bytes != mem::replace(&mut self.cut_at, bytes) {
            self.cuts = 1;
            return false;
        }
        self.cuts += 1;
        if self.cuts == 2 && self.ask_for_less() {
            self.cut_at = 0;
        }
        // One entry is asked for twice more: it may have been chance.
        self.cuts == 4
    }

    /// What came of reading a reply, unless the server would not give one so large.
    fn unless_too_large<T>(&mut self, read: Result<Option<T>, Error>) -> Result<Option<T>, Error> {
        match read {
            Err(Error::LimitExceeded(_)) if self.ask_for_less() => Ok(None),
            read => read,
        }
    }

    /// Asks for a sixteenth; answers whether that is less.
    fn ask_for_less(&mut self) -> bool {
        let less = match self.entries {
            Some(..=1) => return false,
            Some(entries) => (entries / 16).max(1),
            // More than any page that was read.
            None => FIRST_PAGE,
        };
        self.most = Some(less);
        self.entries = Some(less);
        self.pages.get_or_insert_default();
        true
    }
}

impl Pages {
    /// Whether the oldest entry of these pages is this one.
    fn begin_with(&self, reply: Reply<'_>, entry: Option<Range<usize>>) -> bool {
        entry.is_some_and(|entry| *reply.text().bytes(entry) == *self.oldest)
    }

    /// Takes the next page; answers how many entries the one after it is to have.
    fn push(&mut self, reply: Reply<'_>, entries: Vec<Range<usize>>) -> usize {
        let text = reply.text();
        self.remember(reply, &entries);
        let size = text.size() / (entries.len() + 1);
        let bytes = PAGE.max(self.cost as usize / 4);
        let most = 4 * entries.len();
        self.undecoded = Some((text.clone(), entries));
        (bytes / size.max(1)).clamp(1, most)
    }

    /// Keeps in mind what the next page is to follow.
    fn remember(&mut self, reply: Reply<'_>, entries: &[Range<usize>]) {
        if let Some(oldest) = entries.first() {
            self.oldest = reply.text().bytes(oldest.clone()).to_vec();
        }
        self.count += entries.len() as u32;
        self.cost += reply.cost();
    }

    /// Reads the messages of the last page.
    fn decode(&mut self, limit: Option<u32>) {
        if let Some((text, entries)) = self.undecoded.take() {
            self.messages.read(&text, &entries, limit);
        }
    }
}

/// Whether an entry after this one is the same: then it would not show that the entries
/// have moved.
fn is_there_again(reply: Reply<'_>, entries: &[Range<usize>], at: usize) -> bool {
    let bytes = |entry: &Range<usize>| reply.text().bytes(entry.clone());
    entries
        .get(at..)
        .and_then(<[_]>::split_first)
        .is_some_and(|(oldest, others)| {
            let oldest = bytes(oldest);
            // They begin alike, and end with times and ids.
            let is_same = |other: &Range<usize>| bytes(other).iter().rev().eq(oldest.iter().rev());
            others.iter().any(is_same)
        })
}

/// Reads the last entries of a session; together with the first ones its length and
/// its time to live, all of one moment.
fn history(commands: &mut Commands, key: &[u8], window: &Window, settings: &Settings) {
    if window.count() > 0 {
        return window.request(commands, key);
    }
    match settings.delivery {
        // A server without memory for writes refuses MULTI, and runs scripts that read.
        Delivery::ExactlyOnce => {
            let (first, last) = window.range();
            commands.push(&[b"EVAL", HISTORY.as_bytes(), b"1", key, &first, &last]);
            window.expect(commands);
        }
        Delivery::AtMostOnce => {
            commands.push(&[b"MULTI"]);
            window.request(commands, key);
            commands.push(&[b"LLEN", key]);
            commands.push(&[b"TTL", key]);
            commands.push(&[b"EXEC"]);
        }
    }
}

fn history_read(
    replies: Replies<'_>,
    window: &mut Window,
    settings: &Settings,
) -> Result<Option<History<Messages>>, Error> {
    let read = if window.count() == 0 {
        let mut results = match replies.last() {
            Err(Error::Server { code, message })
                if code == "OOM" && settings.delivery == Delivery::AtMostOnce =>
            {
                return Err(Error::Server {
                    code,
                    message: message + "; a transaction that reads counts as one, get does not",
                });
            }
            reply => reply?.array()?,
        };
        let (Some(first), Some(length), Some(ttl), None) = (
            results.next(),
            results.next(),
            results.next(),
            results.next(),
        ) else {
            return Err(Error::Protocol(
                "the reply to a history does not have three elements".to_owned(),
            ));
        };
        // TTL answers -1 for a key without expiry and -2 for no key.
        let ttl = match ttl.integer()? {
            ..0 => None,
            seconds => Some(u32::try_from(seconds).unwrap_or(u32::MAX)),
        };
        window.about = Some((count(length)?, ttl));
        window.take(first, None)?
    } else {
        window.answer(replies)?
    };
    let Some((messages, skipped)) = read else {
        return Ok(None);
    };
    let (total, ttl_seconds) = window.about.unwrap_or_default();
    Ok(Some(History {
        messages,
        total,
        skipped,
        ttl_seconds,
    }))
}

/// The script of a history. It is short enough to be sent along each time. KEYS: the
/// session. ARGV: the first and the last index. An error reply is a table with `err`.
const HISTORY: &str = include_str!("history.lua");

/// Entries of the first page, whose size is not known.
const FIRST_PAGE: u32 = 256;
/// Bytes of the other pages, unless they are four times as many entries as the one
/// before, or a quarter of what was read, so that the number of pages stays small where
/// each has a long way. Smaller ones leave the component waiting.
const PAGE: usize = 512 * 1024;
/// Entries of a session whose length is not known: a guess.
const MANY: u32 = 32;

/// The index of the entry that so many entries from the end begin with.
fn from_the_end(entries: u32) -> Vec<u8> {
    [b"-", &decimal(entries.into())[..]].concat()
}

// clear, count, exists.

/// Deletes a session. LTRIM to an empty range deletes a list and refuses a key of
/// another type, which DEL would delete.
fn clear(commands: &mut Commands, key: &[u8]) {
    commands.push(&[b"LTRIM", key, b"1", b"0"]);
}

fn cleared(replies: Replies<'_>) -> Result<(), Error> {
    match &*replies.last()?.simple_string()? {
        b"OK" => Ok(()),
        _ => Err(Error::Protocol("the reply to LTRIM is not OK".to_owned())),
    }
}

fn length(commands: &mut Commands, key: &[u8]) {
    commands.push(&[b"LLEN", key]);
}

fn count(reply: Reply<'_>) -> Result<u32, Error> {
    u32::try_from(reply.integer()?)
        .map_err(|_| Error::Protocol("a length is out of range".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Ids;
    use crate::message::{Message, Role};
    use crate::options::Options;
    use crate::reply::{Progress, Received, ReplyReader};
    use sha1_smol::Sha1;

    fn settings(given: Options) -> Settings {
        Settings::resolve(given, &[]).unwrap()
    }

    fn received(count: usize, bytes: &[u8]) -> Received {
        let mut reader = ReplyReader::new(count, 1 << 20);
        assert_eq!(reader.push(bytes), Ok(Progress::Complete));
        reader.finish().unwrap()
    }

    /// What a reading of so many replies comes to.
    fn read<T>(count: usize, bytes: &str, reading: impl FnOnce(Replies<'_>) -> T) -> T {
        reading(received(count, bytes.as_bytes()).replies(0..count).unwrap())
    }

    /// The words of the commands that are pushed, one command a line.
    fn sent(push: impl FnOnce(&mut Commands)) -> String {
        let mut commands = Commands::default();
        push(&mut commands);
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

    const STAMP: Stamp<'_> = Stamp {
        timestamp: "t",
        id: || Ids::new().next(|| 0),
        endings: &Endings::new(),
    };

    fn task(action: Action, settings: &Settings) -> Task {
        Task::new("k".to_owned(), action, settings, STAMP).unwrap()
    }

    fn new(content: &str) -> NewMessage {
        NewMessage {
            role: Role::User,
            content: content.to_owned(),
            metadata: None,
        }
    }

    #[test]
    fn the_digest_is_that_of_the_script() {
        assert_eq!(APPEND_SHA1, Sha1::from(APPEND).digest().to_string());
    }

    /// Checkers of providers read the script, and refuse keys that they do not find.
    #[test]
    fn scripts_name_their_key_literally() {
        for script in [APPEND, HISTORY] {
            let mut calls = 0;
            for function in ["redis.call(", "redis.pcall(", "redis.acl_check_cmd("] {
                for (at, _) in script.match_indices(function) {
                    let arguments = &script[at + function.len()..];
                    let (_command, rest) = arguments.split_once(", ").unwrap();
                    assert!(rest.starts_with("KEYS[1]"), "{arguments}");
                    calls += 1;
                }
            }
            assert!(calls > 2);
            assert_eq!(script.matches("KEYS").count(), calls);
        }
    }

    #[test]
    fn a_connection_begins_with_what_the_settings_ask_for() {
        let text = |text: &str| Some(text.to_owned());
        for (username, password, db, expected) in [
            (None, None, 0, ""),
            (None, text("secret"), 0, "AUTH secret\n"),
            (
                text("agent"),
                text("secret"),
                3,
                "AUTH agent secret\nSELECT 3\n",
            ),
            (text("agent"), None, 0, "AUTH agent \n"),
        ] {
            let password = password.map(Password::from);
            let settings = settings(Options {
                username,
                password,
                db: Some(db),
                ..Options::default()
            });
            assert_eq!(sent(|commands| handshake(commands, &settings)), expected);
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
            ("+OK\r\n+OK\r\n", Ok(())),
            (
                "-WRONGPASS invalid\r\n-NOAUTH a\r\n",
                Err(Error::from_reply("WRONGPASS invalid")),
            ),
            (
                "-ERR AUTH <password> called without any password configured\r\n+OK\r\n",
                Err(Error::AccessDenied(
                    "the server has no password: leave out password (REDIS_PASSWORD)".to_owned(),
                )),
            ),
            (
                "-LOADING secret\r\n+OK\r\n",
                Err(Error::from_reply("LOADING x")),
            ),
            (
                "-ERR secret\r\n+OK\r\n",
                Err(Error::AccessDenied(
                    "the server does not accept the credentials".to_owned(),
                )),
            ),
            (
                "-ERR max number of clients secret\r\n+OK\r\n",
                Err(Error::Unavailable(
                    "the server takes no more clients (maxclients)".to_owned(),
                )),
            ),
            (
                "+OK\r\n-ERR DB index is out of range\r\n",
                Err(Error::InvalidArgument(
                    "option db (REDIS_DB) is 99: the server does not have it".to_owned(),
                )),
            ),
            (
                "+OK\r\n-ERR SELECT is not allowed in cluster mode\r\n",
                Err(Error::InvalidArgument(
                    "option db (REDIS_DB) is 99: the server is a node of a Redis Cluster, which \
                     has 0 alone"
                        .to_owned(),
                )),
            ),
            (
                "+OK\r\n-LOADING Redis is loading\r\n",
                Err(Error::from_reply("LOADING Redis is loading")),
            ),
        ] {
            let done = |replies: Replies<'_>| handshake_done(replies, &settings);
            assert_eq!(read(2, answer, done), expected);
        }
    }

    #[test]
    fn a_ping_is_answered_by_a_pong() {
        assert_eq!(sent(ping), "PING\n");
        for (answer, expected) in [
            ("+PONG\r\n", Ok(())),
            (
                "+OK\r\n",
                Err(Error::Protocol("the reply to PING is not PONG".to_owned())),
            ),
            ("-NOAUTH x\r\n", Err(Error::from_reply("NOAUTH x"))),
        ] {
            assert_eq!(read(1, answer, pong), expected);
        }
    }

    #[test]
    fn an_append_is_one_command() {
        const A: &str = r#"{"role":"user","content":"a","timestamp":"t","id":"00000000000000000000000000000000-000000000001"}"#;
        const B: &str = r#"{"role":"user","content":"b","timestamp":"t","id":"00000000000000000000000000000000-000000000001"}"#;
        for (given, expected) in [
            (Options::default(), "1 k 64  3600 sliding 0"),
            (
                Options {
                    ttl_policy: Some(TtlPolicy::Fixed),
                    session_ttl: Some(60),
                    max_messages: Some(5),
                    ..Options::default()
                },
                "1 k 64  60 fixed 5",
            ),
        ] {
            let settings = settings(given);
            let mut task = task(Action::AddAll(vec![new("a"), new("b")]), &settings);
            let expected = format!("{expected} {A} {B}\n");
            assert_eq!(
                sent(|commands| task.request(commands, &settings)),
                format!("EVALSHA {APPEND_SHA1} {expected}")
            );
            assert_eq!(task.effect(), Effect::Appends);

            // A server that has not seen the script is given it, once.
            let unknown = received(1, b"-NOSCRIPT No matching script.\r\n");
            let unknown = unknown.replies(0..1).unwrap();
            assert_eq!(task.answer(unknown, &settings), Ok(Answer::AskOn));
            assert_eq!(
                sent(|commands| task.request(commands, &settings)),
                format!("EVAL {APPEND} {expected}")
            );
            assert_eq!(
                task.answer(unknown, &settings),
                Err(Error::Protocol(
                    "the server does not know a script that it was just given".to_owned()
                ))
            );
        }
    }

    #[test]
    fn an_append_looks_as_far_back_as_it_is_told() {
        let settings = settings(Options::default());
        let mut task = task(Action::Add(new("a")), &settings);
        assert_eq!(task.appends(), 1);
        task.look_further_back(36);
        let request = sent(|commands| task.request(commands, &settings));
        assert!(request.contains(" 1 k 100  3600 sliding 0 "), "{request}");
    }

    #[test]
    fn an_append_says_what_was_appended_before() {
        let settings = settings(Options::default());
        let before = [b'x'; 53];
        let mut endings = Endings::new();
        endings.keep("k", &before);
        let stamp = Stamp {
            endings: &endings,
            ..STAMP
        };
        let task = Task::new("k".to_owned(), Action::Add(new("a")), &settings, stamp).unwrap();
        let request = sent(|commands| task.request(commands, &settings));
        let before = str::from_utf8(&before).unwrap();
        let expected = format!(" 1 k 64 {before} 3600 sliding 0 ");
        assert!(request.contains(&expected), "{request}");
    }

    #[test]
    fn the_answer_to_an_append() {
        let settings = settings(Options::default());
        for (answer, expected) in [
            (":3\r\n", Ok(Answer::Done(Outcome::Length(3)))),
            ("-WRONGTYPE x\r\n", Err(Error::from_reply("WRONGTYPE x"))),
            (
                ":-1\r\n",
                Err(Error::Protocol("a length is out of range".to_owned())),
            ),
            (
                "+OK\r\n",
                Err(Error::Protocol("the reply is not an integer".to_owned())),
            ),
        ] {
            let mut task = task(Action::Add(new("a")), &settings);
            let answered = read(1, answer, |replies| task.answer(replies, &settings));
            assert_eq!(answered, expected);
        }
    }

    #[test]
    fn a_transaction_is_sent_whole() {
        const A: &str = r#"{"role":"user","content":"a","timestamp":"t"}"#;
        for (ttl_policy, max_messages, expected) in [
            (
                TtlPolicy::Sliding,
                None,
                "MULTI\nPTTL k\nRPUSH k A A\nEXPIRE k 3600\nEXEC\n",
            ),
            (
                TtlPolicy::Fixed,
                Some(5),
                "MULTI\nPTTL k\nRPUSH k A A\nLTRIM k -5 -1\nEXPIRE k 3600 NX\nEXEC\n",
            ),
            (TtlPolicy::None, None, "MULTI\nPTTL k\nRPUSH k A A\nEXEC\n"),
        ] {
            let settings = settings(Options {
                delivery: Some(Delivery::AtMostOnce),
                ttl_policy: Some(ttl_policy),
                max_messages,
                ..Options::default()
            });
            let task = task(Action::AddAll(vec![new("a"), new("a")]), &settings);
            assert_eq!(
                sent(|commands| task.request(commands, &settings)),
                expected.replace("A A", &format!("{A} {A}"))
            );
            assert_eq!(task.effect(), Effect::WritesOnce);
        }
    }

    #[test]
    fn the_answer_to_a_transaction() {
        const QUEUED: &str = "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n";
        let settings = settings(Options {
            delivery: Some(Delivery::AtMostOnce),
            max_messages: Some(5),
            ..Options::default()
        });
        let answer = |answer: &str| {
            let mut task = task(Action::Add(new("a")), &settings);
            let answered = read(5, answer, |replies| task.answer(replies, &settings));
            (answered, task)
        };
        for (results, expected) in [
            ("*3\r\n:-2\r\n:3\r\n:1\r\n", 3),
            ("*3\r\n:9\r\n:6\r\n:1\r\n", 5),
        ] {
            assert_eq!(
                answer(&format!("{QUEUED}{results}")).0,
                Ok(Answer::Done(Outcome::Length(expected)))
            );
        }
        for (text, expected) in [
            (
                "+OK\r\n+QUEUED\r\n-OOM x\r\n+QUEUED\r\n-EXECABORT y\r\n",
                Error::from_reply("OOM x"),
            ),
            (
                "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*1\r\n:1\r\n",
                Error::Protocol("the reply to EXEC is too short".to_owned()),
            ),
            (
                "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n:-2\r\n:1\r\n-OOM x\r\n",
                Error::OutcomeUnknown(
                    "the messages are stored, but may be without their time to live: OOM: the \
                     server has no memory left for writes (maxmemory)"
                        .to_owned(),
                ),
            ),
            (
                "-NOPERM x\r\n:-2\r\n-NOPERM y\r\n:0\r\n-ERR EXEC without MULTI\r\n",
                Error::from_reply("NOPERM x"),
            ),
            // A proxy that took the transaction apart, or refused a part of it.
            (
                "+OK\r\n:-2\r\n:1\r\n:1\r\n-ERR EXEC without MULTI\r\n",
                Error::OutcomeUnknown(
                    "the messages may be stored, and without their time to live: ERR: the server \
                     does not take the request in this form"
                        .to_owned(),
                ),
            ),
            (
                "+OK\r\n-ERR unknown command 'PTTL'\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n:1\r\n",
                Error::OutcomeUnknown(
                    "the messages may be stored, and without their time to live: ERR: the server \
                     does not know PTTL (renamed or disabled there, or it is a Redis Sentinel or a \
                     proxy); delivery exactly-once does without"
                        .to_owned(),
                ),
            ),
            (
                "-NOPERM x\r\n:-2\r\n:1\r\n:1\r\n-ERR EXEC without MULTI\r\n",
                Error::OutcomeUnknown(
                    "the messages may be stored, and without their time to live: NOPERM: the user may not run a \
                     command that was sent"
                        .to_owned(),
                ),
            ),
        ] {
            assert_eq!(answer(text).0, Err(expected));
        }
        // A key of another type is given back the expiry that it had.
        let wrong_type = Error::from_reply("WRONGTYPE x");
        for (ttl, expected) in [("-1", "PERSIST k\n"), ("1500", "PEXPIRE k 1500\n")] {
            let results = format!("{QUEUED}*3\r\n:{ttl}\r\n-WRONGTYPE x\r\n:1\r\n");
            let (answered, mut task) = answer(&results);
            assert_eq!(answered, Ok(Answer::AskOn));
            assert_eq!(task.undoes(), Some(&wrong_type));
            assert_eq!(task.effect(), Effect::WritesAgain);
            assert_eq!(sent(|commands| task.request(commands, &settings)), expected);
            for (answer, expected) in [
                (":1\r\n", Ok(Answer::Failed(wrong_type.clone()))),
                (
                    "-NOPERM no\r\n",
                    Err(Error::AccessDenied(
                        "the key holds something other than a list, and was given an expiry \
                         that could not be taken back: NOPERM: the user may not run a command that \
                         was sent"
                            .to_owned(),
                    )),
                ),
            ] {
                let undone = read(1, answer, |replies| task.answer(replies, &settings));
                assert_eq!(undone, expected);
            }
        }
    }

    #[test]
    fn the_requests_of_the_other_operations() {
        let settings = settings(Options::default());
        for (action, effect, expected) in [
            (Action::AddAll(Vec::new()), Effect::Reads, "LLEN k\n"),
            (Action::Get(None), Effect::Reads, "LRANGE k 0 -1\n"),
            (Action::Get(Some(0)), Effect::Reads, "LRANGE k 1 0\n"),
            (Action::Get(Some(10)), Effect::Reads, "LRANGE k -10 -1\n"),
            (
                Action::History(Some(2)),
                Effect::Reads,
                &format!("EVAL {HISTORY} 1 k -2 -1\n"),
            ),
            (Action::Clear, Effect::WritesAgain, "LTRIM k 1 0\n"),
            (Action::Exists, Effect::Reads, "LLEN k\n"),
            (Action::Count, Effect::Reads, "LLEN k\n"),
        ] {
            let task = task(action, &settings);
            assert_eq!(sent(|commands| task.request(commands, &settings)), expected);
            assert_eq!(task.effect(), effect);
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
        let (a, b) = (|| message("a"), || message("b"));
        for (entries, limit, window, expected) in [
            (&[A, B][..], None, None, Ok(vec![a(), b()])),
            (&[A, BAD, B], None, None, Ok(vec![a(), b()])),
            (&[], Some(2), Some(2), Ok(vec![])),
            (&[], Some(0), Some(0), Ok(vec![])),
            (&[A, B], Some(2), Some(2), Ok(vec![a(), b()])),
            (&[BAD, B], Some(2), Some(2), Err(Some(4))),
            (&[A, BAD, B], Some(2), Some(4), Ok(vec![a(), b()])),
            (&[BAD, BAD, B], Some(2), Some(4), Ok(vec![b()])),
            (&[BAD; 4], Some(2), Some(4), Err(Some(8))),
            (&[BAD; 4], Some(2), Some(1 << 31), Ok(vec![])),
            (&[A, A, BAD, B], Some(2), Some(4), Ok(vec![a(), b()])),
        ] {
            let mut window = Window {
                limit,
                entries: window,
                ..Window::default()
            };
            let found = read(1, &list(entries), |replies| window.answer(replies).unwrap());
            let found = match found {
                Some((messages, _)) => Ok(messages.to_vec()),
                None => Err(window.entries),
            };
            assert_eq!(found, expected);
        }
    }

    /// What an operation that travels alone sends, and what comes of it, where `answer`
    /// has the replies to the words of a request.
    fn pages(
        action: Action,
        answer: impl Fn(&[&str]) -> String,
    ) -> (Vec<String>, Result<Answer, Error>) {
        let settings = settings(Options::default());
        let mut task = task(action, &settings);
        task.read_in_pages();
        let mut requests = Vec::new();
        loop {
            let request = sent(|commands| task.request(commands, &settings));
            let request = request.replace(HISTORY, "HISTORY");
            let count = request.lines().count();
            let answers: String = request
                .lines()
                .map(|line| answer(&line.split(' ').collect::<Vec<_>>()))
                .collect();
            let answered = read(count, &answers, |replies| task.answer(replies, &settings));
            requests.push(request);
            assert_eq!(task.effect(), Effect::Reads);
            if answered != Ok(Answer::AskOn) {
                return (requests, answered);
            }
            assert!(requests.len() < 100, "{requests:?}");
            task.work_ahead();
        }
    }

    /// Redis' answer to LRANGE.
    fn range(entries: &[String], first: &str, last: &str) -> String {
        let index = |index: &str| match index.parse().unwrap() {
            index @ ..0 => entries.len() as i64 + index,
            index => index,
        };
        let first = index(first).max(0);
        let last = index(last).min(entries.len() as i64 - 1);
        let asked = (first..=last).map(|index| entries[index as usize].as_str());
        list(&asked.collect::<Vec<_>>())
    }

    fn numbered(number: usize) -> String {
        format!(r#"{{"role":"user","content":"{number}"}}"#)
    }

    /// That the operation is done, with the messages of these numbers.
    fn found(numbers: Range<usize>) -> Result<Answer, Error> {
        let messages: Vec<_> = numbers.map(|number| message(&number.to_string())).collect();
        Ok(Answer::Done(Outcome::Messages(messages.into())))
    }

    #[test]
    fn a_long_session_is_read_in_pages() {
        let entries: Vec<_> = (0..3000).map(numbered).collect();
        let all = "LRANGE k -256 -1|LRANGE k -1280 -256|LRANGE k -5376 -1280";
        for (limit, first, expected) in [
            (None, 0, all),
            (Some(3001), 0, &all.replace("-5376", "-3001")),
            (Some(3000), 0, &all.replace("-5376", "-3000")),
            (Some(257), 2743, "LRANGE k -256 -1|LRANGE k -257 -256"),
            (Some(256), 2744, "LRANGE k -256 -1"),
        ] {
            let answer = |words: &[&str]| range(&entries, words[2], words[3]);
            let (requests, answered) = pages(Action::Get(limit), answer);
            assert_eq!(requests.concat().trim().replace('\n', "|"), expected);
            assert_eq!(answered, found(first..3000));
        }
    }

    #[test]
    fn a_session_that_changes_between_two_pages_is_read_again_in_one() {
        let before: Vec<_> = (0..300).map(numbered).collect();
        let after: Vec<_> = (1..301).map(numbered).collect();
        let emptied = Vec::new();
        for (limit, after, last, expected) in [
            (None, &after, "LRANGE k 0 -1", 1..301),
            (Some(290), &after, "LRANGE k -290 -1", 11..301),
            (None, &emptied, "LRANGE k 0 -1", 0..0),
        ] {
            let answer = |words: &[&str]| match words[3] {
                "-1" if words[2] == "-256" => range(&before, words[2], words[3]),
                _ if after.is_empty() => list(&[]),
                _ => range(after, words[2], words[3]),
            };
            let (requests, answered) = pages(Action::Get(limit), answer);
            assert_eq!(requests.len(), 3, "{requests:?}");
            assert_eq!(requests[2].trim(), last);
            assert_eq!(answered, found(expected));
        }
    }

    #[test]
    fn where_a_page_begins_like_another_place_all_is_read_in_one() {
        let mut entries: Vec<_> = (0..300).map(numbered).collect();
        for (twin, expected) in [
            (43, "LRANGE k -256 -1|LRANGE k -1280 -256"),
            (299, "LRANGE k -256 -1|LRANGE k 0 -1"),
        ] {
            entries[twin] = numbered(44);
            let answer = |words: &[&str]| range(&entries, words[2], words[3]);
            let (requests, answered) = pages(Action::Get(None), answer);
            assert_eq!(requests.concat().trim().replace('\n', "|"), expected);
            assert!(matches!(answered, Ok(Answer::Done(_))), "{answered:?}");
        }
    }

    #[test]
    fn pages_grow_with_what_was_read_and_stay_within_bounds() {
        let (small, large) = ("x".repeat(1000), "x".repeat(1 << 14));
        for (content, expected) in [
            (small, [256, 519, 517, 517, 517, 601]),
            (large, [256, 64, 80, 100, 126, 157]),
        ] {
            let mut window = Window::new(None);
            window.read_in_pages();
            let mut entries: Vec<String> = Vec::new();
            let mut asked = Vec::new();
            for page in 0..expected.len() {
                asked.push(window.entries.unwrap());
                let mut new: Vec<_> = (0..window.entries.unwrap())
                    .map(|number| format!("{page} {number} {content}"))
                    .collect();
                new.extend(entries.first().cloned());
                let words: Vec<_> = new.iter().map(String::as_str).collect();
                let bytes = list(&words);
                let mut reader = ReplyReader::new(1, u32::MAX);
                assert_eq!(reader.push(bytes.as_bytes()), Ok(Progress::Complete));
                let received = reader.finish().unwrap();
                let replies = received.replies(0..1).unwrap();
                assert!(window.answer(replies).unwrap().is_none());
                entries = new;
            }
            assert_eq!(asked, expected);
        }
    }

    #[test]
    fn pages_of_a_history_come_to_its_total() {
        let entries: Vec<_> = (0..300).map(numbered).collect();
        for (limit, total, count) in [
            (None, 300, 2),
            (None, 301, 3),
            (Some(301), 301, 3),
            (Some(280), 301, 2),
        ] {
            let answer = |words: &[&str]| match words[0] {
                "EVAL" => {
                    let entries = range(&entries, words[4], words[5]);
                    format!("*3\r\n{entries}:{total}\r\n:9\r\n")
                }
                _ => range(&entries, words[2], words[3]),
            };
            let (requests, answered) = pages(Action::History(limit), answer);
            let first = limit.unwrap_or(1280);
            assert_eq!(
                requests[..2].concat(),
                format!("EVAL HISTORY 1 k -256 -1\nLRANGE k -{first} -256\n")
            );
            assert_eq!(requests.len(), count);
            let found = limit.map_or(300, |limit| limit.min(300)) as usize;
            let Ok(Answer::Done(Outcome::History(history))) = answered else {
                panic!("{answered:?}");
            };
            assert_eq!((history.messages.len(), history.total), (found, total));
            assert_eq!((history.skipped, history.ttl_seconds), (0, Some(9)));
        }
    }

    #[test]
    fn pages_that_do_not_have_enough_messages_are_read_again_in_one() {
        let mut entries: Vec<_> = (0..900).map(numbered).collect();
        entries[899] = BAD.to_owned();
        let answer = |words: &[&str]| range(&entries, words[2], words[3]);
        let (requests, answered) = pages(Action::Get(Some(300)), answer);
        assert_eq!(
            requests.concat(),
            "LRANGE k -256 -1\nLRANGE k -300 -256\nLRANGE k -600 -1\n"
        );
        assert_eq!(answered, found(599..899));
    }

    #[test]
    fn what_is_held_counts() {
        let settings = settings(Options::default());
        let mut task = task(Action::Get(None), &settings);
        task.read_in_pages();
        assert_eq!(task.held(), 0);
        let entries: Vec<_> = (0..256).map(numbered).collect();
        let page = range(&entries, "0", "255");
        let answered = read(1, &page, |replies| task.answer(replies, &settings));
        assert_eq!(answered, Ok(Answer::AskOn));
        assert_eq!(task.held(), page.len() as u64 + 256 * 32);
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
            let (messages, skipped, ttl_seconds) = expected;
            let expected = Answer::Done(Outcome::History(History {
                messages: messages.into(),
                total,
                skipped,
                ttl_seconds,
            }));
            for (delivery, count, begin) in [
                (Delivery::ExactlyOnce, 1, ""),
                (
                    Delivery::AtMostOnce,
                    5,
                    "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n",
                ),
            ] {
                let settings = settings(Options {
                    delivery: Some(delivery),
                    ..Options::default()
                });
                let mut task = task(Action::History(limit), &settings);
                let request = sent(|commands| task.request(commands, &settings));
                assert_eq!(request.starts_with("MULTI\nLRANGE k "), count == 5);
                let answer = format!("{begin}*3\r\n{}:{total}\r\n:{ttl}\r\n", list(entries));
                let answered = read(count, &answer, |replies| task.answer(replies, &settings));
                assert_eq!(answered.as_ref(), Ok(&expected));
            }
        }
    }

    #[test]
    fn a_history_fails_with_the_first_error() {
        for (answer, expected) in [
            (
                "-NOPERM multi\r\n*0\r\n:0\r\n:-2\r\n-ERR EXEC without MULTI\r\n",
                Error::from_reply("NOPERM multi"),
            ),
            (
                "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n-WRONGTYPE x\r\n-WRONGTYPE x\r\n:-1\r\n",
                Error::from_reply("WRONGTYPE x"),
            ),
            (
                "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*-1\r\n",
                Error::Protocol("the reply is not an array".to_owned()),
            ),
            (
                "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*1\r\n*0\r\n",
                Error::Protocol("the reply to a history does not have three elements".to_owned()),
            ),
        ] {
            let settings = settings(Options {
                delivery: Some(Delivery::AtMostOnce),
                ..Options::default()
            });
            let mut task = task(Action::History(None), &settings);
            let answered = read(5, answer, |replies| task.answer(replies, &settings));
            assert_eq!(answered, Err(expected));
        }
    }

    #[test]
    fn a_history_in_a_transaction_that_is_refused_names_what_is_not() {
        let settings = settings(Options {
            delivery: Some(Delivery::AtMostOnce),
            ..Options::default()
        });
        let mut task = task(Action::History(None), &settings);
        let refused = "-OOM x\r\n*0\r\n:0\r\n:-2\r\n-ERR EXEC without MULTI\r\n";
        let answered = read(5, refused, |replies| task.answer(replies, &settings));
        let text = "OOM: the server has no memory left for writes (maxmemory); a transaction that \
                    reads counts as one, get does not";
        assert_eq!(answered.unwrap_err().text(), text);
    }

    /// As Redis, but that no reply may have more entries than these.
    fn capped(entries: &[String], words: &[&str], most: usize) -> String {
        let at = if words[0] == "EVAL" { 4 } else { 2 };
        let reply = range(entries, words[at], words[at + 1]);
        if reply.matches("$").count() > most {
            return "-ERR max request size exceeded. Limit: 1 bytes, Actual: 2 bytes\r\n"
                .to_owned();
        }
        match words[0] {
            "EVAL" => format!("*3\r\n{reply}:{}\r\n:9\r\n", entries.len()),
            _ => reply,
        }
    }

    #[test]
    fn where_replies_are_capped_smaller_pages_are_read_to_the_end() {
        let mut entries: Vec<_> = (0..40).map(numbered).collect();
        entries[38] = BAD.to_owned();
        for (limit, most, expected) in [
            (None, 16, 0..40),
            (None, 1, 0..40),
            (Some(20), 16, 19..40),
            (Some(20), 1, 19..40),
            (Some(300), 20, 0..40),
        ] {
            let expected = expected.filter(|number| *number != 38);
            let expected: Vec<_> = expected.map(|n| message(&n.to_string())).collect();
            let answer = |words: &[&str]| capped(&entries, words, most);
            let (requests, answered) = pages(Action::Get(limit), answer);
            let Ok(Answer::Done(Outcome::Messages(messages))) = answered else {
                panic!("{limit:?} {most}: {answered:?} after {requests:?}");
            };
            assert_eq!(
                messages.to_vec(),
                expected,
                "{limit:?} {most}: {requests:?}"
            );
            let (_, answered) = pages(Action::History(limit), answer);
            let Ok(Answer::Done(Outcome::History(history))) = answered else {
                panic!("{limit:?} {most}: {answered:?}");
            };
            assert_eq!(history.messages.to_vec(), expected, "{limit:?} {most}");
            assert_eq!((history.total, history.skipped), (40, 1));
        }
        let answer = |words: &[&str]| capped(&entries, words, 16);
        let (requests, _) = pages(Action::Get(None), answer);
        assert_eq!(
            requests.concat(),
            "LRANGE k -256 -1\nLRANGE k -16 -1\nLRANGE k -32 -17\nLRANGE k -16 -16\n\
             LRANGE k -48 -33\nLRANGE k -32 -32\n"
        );
        // One that is too large by itself.
        let answer = |words: &[&str]| capped(&entries, words, 0);
        let (_, answered) = pages(Action::Get(None), answer);
        assert_eq!(answered, Err(Error::from_reply("ERR max request size")));
    }

    #[test]
    fn a_capped_session_that_changes_is_read_from_its_end_again() {
        let before: Vec<_> = (0..20).map(numbered).collect();
        let after: Vec<_> = (0..21).map(numbered).collect();
        let asked = std::cell::Cell::new(0);
        let answer = |words: &[&str]| {
            asked.set(asked.get() + 1);
            let entries = if asked.get() < 4 { &before } else { &after };
            capped(entries, words, 16)
        };
        let (requests, answered) = pages(Action::Get(None), answer);
        assert_eq!(answered, found(0..21), "{requests:?}");

        // A page that ends with an entry that is there twice follows no such entry.
        let twins: Vec<_> = (0..40).map(|n| numbered(n / 24 * 24 + n % 3)).collect();
        let answer = |words: &[&str]| capped(&twins, words, 16);
        let (requests, answered) = pages(Action::Get(None), answer);
        let Ok(Answer::Done(Outcome::Messages(messages))) = answered else {
            panic!("{answered:?} after {requests:?}");
        };
        assert_eq!(messages.len(), 40);
    }

    #[test]
    fn a_reply_that_is_cut_twice_at_one_place_is_asked_for_in_smaller_pages() {
        let settings = settings(Options::default());
        let mut task = task(Action::Get(None), &settings);
        task.read_in_pages();
        let request = |task: &Task| sent(|commands| task.request(commands, &settings));
        for (bytes, expected) in [
            (0, "LRANGE k -256 -1\n"),
            (0, "LRANGE k -256 -1\n"),
            (1000, "LRANGE k -256 -1\n"),
            (900, "LRANGE k -256 -1\n"),
            (900, "LRANGE k -16 -1\n"),
            (900, "LRANGE k -16 -1\n"),
            (900, "LRANGE k -1 -1\n"),
            (900, "LRANGE k -1 -1\n"),
            (900, "LRANGE k -1 -1\n"),
            (900, "LRANGE k -1 -1\n"),
        ] {
            assert!(!task.was_cut(bytes), "{bytes}");
            assert_eq!(request(&task), expected);
        }
        assert!(task.was_cut(900));
        // Of a write it says nothing.
        let mut task = self::task(Action::Add(new("a")), &settings);
        assert!(!(0..9).any(|_| task.was_cut(900)));
    }

    #[test]
    fn the_answers_to_the_other_operations() {
        let settings = settings(Options::default());
        for (action, answer, expected) in [
            (Action::Clear, "+OK\r\n", Ok(Outcome::Cleared)),
            (
                Action::Clear,
                "-WRONGTYPE x\r\n",
                Err(Error::from_reply("WRONGTYPE x")),
            ),
            (
                Action::Clear,
                "+QUEUED\r\n",
                Err(Error::Protocol("the reply to LTRIM is not OK".to_owned())),
            ),
            (
                Action::Count,
                ":4294967295\r\n",
                Ok(Outcome::Length(u32::MAX)),
            ),
            (Action::Exists, ":0\r\n", Ok(Outcome::Exists(false))),
            (Action::Exists, ":2\r\n", Ok(Outcome::Exists(true))),
        ] {
            let mut task = task(action, &settings);
            let answered = read(1, answer, |replies| task.answer(replies, &settings));
            assert_eq!(answered, expected.map(Answer::Done));
        }
    }
}
