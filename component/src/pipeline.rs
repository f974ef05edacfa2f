//! Operations that travel together, round by round: what is sent, what came of it,
//! and what is tried again.
//!
//! A single operation is a pipeline of one. In each round the operations that have
//! no result yet are sent in one request, in their order. Those that were not
//! answered, that were refused for a reason that may pass, or that have more to ask
//! for, make up the next round; and with them those behind them on the same session,
//! so that the order is kept.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;
use core::ops::Range;

use crate::command::Commands;
use crate::error::{Error, LOST};
use crate::ids::{Endings, fnv_1a};
use crate::messages::Messages;
use crate::operation::{Action, Operation, Outcome};
use crate::options::{Delivery, Settings};
use crate::reply::Received;
use crate::session::{Answer, Effect, Stamp, Task};

/// Operations on their way to their results.
pub struct Pipeline<'a> {
    settings: &'a Settings,
    entries: Vec<Entry>,
    has_appended: bool,
    /// Whether the last round had an error reply that may have come after execution.
    is_unclear: bool,
    /// Tries in which the server did not answer.
    silent: u32,
}

/// What came of a request.
pub struct Exchange {
    /// The replies: all of them, or those that came before the end.
    pub received: Received,
    /// Bytes of the reply that was not complete at the end.
    pub partial: usize,
    /// Bytes of the request that were handed over to the host.
    pub written: usize,
    /// How it ended.
    pub end: End,
}

/// How an exchange ended.
#[derive(Clone, Debug)]
pub enum End {
    /// All replies came, and nothing else.
    Complete,
    /// What came is no reply, or larger than allowed.
    Unfit(Error),
    /// The deadline passed, which was so many milliseconds away at first; or there was
    /// silence for so many.
    Timeout(u32),
    /// The connection was closed, or broke.
    Closed,
}

impl Exchange {
    /// Why a request that only reads was not answered.
    pub fn lost(&self) -> Error {
        unanswered(&self.end, Effect::Reads, true)
    }
}

/// What a pipeline needs next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: every operation has its result.
    Nothing,
    /// Another round.
    Round,
    /// Another round, after a wait: the last one failed.
    RoundAfterWait,
    /// Another round, after a wait for something on the way to find a server again.
    RoundAfterLongWait,
}

struct Entry {
    name: &'static str,
    session_id: String,
    /// None if there is nothing to ask the server.
    task: Option<Task>,
    /// None until it is done.
    result: Option<Result<Outcome<Messages>, Error>>,
    /// Whether it is executed again though it has a result.
    stale: bool,
    /// What a write came to before it was executed again. That stands, whatever
    /// comes of the repetition, unless the session was cleared in between.
    acknowledged: Option<Outcome<Messages>>,
    /// Whether a clear ahead of it was sent again since it was executed.
    may_be_cleared: bool,
    /// Which commands of the last request were its own, and where they ended.
    commands: Range<usize>,
    end: usize,
    /// Why the last try failed.
    failed: Option<Error>,
    /// Whether one of the tries did, or it was executed again.
    sent_again: bool,
    /// Whether one of the tries was sent and not answered.
    outcome_unknown: bool,
    /// Whether the last one that failed met with silence.
    met_silence: bool,
    /// Error replies that may have come after execution.
    unclear: u32,
}

impl<'a> Pipeline<'a> {
    /// Operations that begin now.
    pub fn new(
        operations: Vec<Operation>,
        settings: &'a Settings,
        stamp: Stamp<'_>,
    ) -> Pipeline<'a> {
        let entries = operations
            .into_iter()
            .map(|operation| Entry::new(operation, settings, stamp))
            .collect();
        let mut pipeline = Pipeline {
            settings,
            entries,
            has_appended: false,
            is_unclear: false,
            silent: 0,
        };
        match &mut pipeline.entries[..] {
            [only] => {
                if let Some(task) = &mut only.task {
                    task.read_in_pages();
                }
            }
            _ => pipeline.look_behind_one_another(),
        }
        pipeline
    }

    /// What is to be done next.
    pub fn next(&self) -> Next {
        let mut waiting = self.entries.iter().filter(|entry| entry.is_waiting());
        let Some(first) = waiting.next() else {
            return Next::Nothing;
        };
        // One that gets on need not wait for one that does not.
        if first.failed.is_some() && waiting.all(|entry| entry.failed.is_some()) {
            match self.is_unclear {
                true => Next::RoundAfterLongWait,
                false => Next::RoundAfterWait,
            }
        } else {
            Next::Round
        }
    }

    /// Whether the next round changes nothing on the server.
    pub fn only_reads(&self) -> bool {
        self.all(|effect| effect == Effect::Reads)
    }

    /// Whether the next round may be made again though it may still arrive.
    pub fn may_be_late(&self) -> bool {
        self.all(|effect| matches!(effect, Effect::Reads | Effect::Appends))
    }

    fn all(&self, is_such: impl Fn(Effect) -> bool) -> bool {
        let waiting = self.entries.iter().filter(|entry| entry.is_waiting());
        let mut tasks = waiting.filter_map(|entry| entry.task.as_ref());
        tasks.all(|task| is_such(task.effect()))
    }

    /// Has the first append take the script along, if there is anything behind it: it
    /// is for a server that may not know the script, and refuse what needs it while
    /// it executes the rest.
    pub fn bring_script(&mut self) {
        let mut waiting = self.entries.iter_mut().filter(|entry| entry.is_waiting());
        let mut tasks = waiting.by_ref().filter_map(|entry| entry.task.as_mut());
        if let Some(append) = tasks.find(|task| task.appends() > 0)
            && tasks.next().is_some()
        {
            append.bring_script();
        }
    }

    /// Whether an append succeeded in the last round, and so the server knows the
    /// script.
    pub fn has_appended(&self) -> bool {
        self.has_appended
    }

    /// Keeps in mind what was appended, if it was sent only once.
    pub fn keep_in_mind(&self, endings: &mut Endings) {
        for entry in &self.entries {
            if let (Some(task), Some(Ok(_)), false) = (&entry.task, &entry.result, entry.sent_again)
                && let Some(element) = task.last_element()
            {
                endings.keep(task.key(), element);
            }
        }
    }

    /// What was read of operations that are not done, and is held: it counts for as
    /// much as replies that are being read.
    pub fn held(&self) -> u64 {
        let tasks = self.entries.iter().filter_map(|entry| entry.task.as_ref());
        tasks.map(Task::held).sum()
    }

    /// Does what there is to do while the server prepares its answers.
    pub fn work_ahead(&mut self) {
        for task in self
            .entries
            .iter_mut()
            .filter_map(|entry| entry.task.as_mut())
        {
            task.work_ahead();
        }
    }

    /// Pushes the commands of the next round.
    pub fn request(&mut self, commands: &mut Commands) {
        for at in 0..self.entries.len() {
            let (before, behind) = self.entries.split_at_mut(at + 1);
            let entry = &mut before[at];
            if entry.stale {
                entry.repeat();
            }
            if let (Some(task), None) = (&entry.task, &entry.result) {
                let first = commands.count();
                task.request(commands, self.settings);
                entry.commands = first..commands.count();
                entry.end = commands.bytes().len();
                if task.clears() && entry.sent_again {
                    for other in behind {
                        other.may_be_cleared |= other.is_on(task.key());
                    }
                }
            }
        }
    }

    /// The next round fails before it is sent.
    pub fn not_sent(&mut self, error: &Error) {
        for entry in self.entries.iter_mut().filter(|entry| entry.is_waiting()) {
            entry.fail(error.clone(), true);
        }
    }

    /// Takes what came of the request; answers whether the connection it came on is
    /// good for another.
    pub fn settle(&mut self, exchange: &Exchange) -> bool {
        let mut answers = Vec::with_capacity(self.entries.len());
        let mut end = &exchange.end;
        let mut partial = exchange.partial;
        let is_silent = matches!(end, End::Timeout(_));
        self.silent += u32::from(is_silent);
        for (at, entry) in self.entries.iter_mut().enumerate() {
            if let (Some(task), None) = (&mut entry.task, &entry.result) {
                let first = entry.commands.start;
                let replies = exchange.received.replies(entry.commands.clone());
                let answer = match replies.or_else(|| exchange.received.refusal(first)) {
                    Some(replies) => task.answer(replies, self.settings),
                    None if matches!(end, End::Closed) && task.was_cut(mem::take(&mut partial)) => {
                        Ok(Answer::Failed(Error::LimitExceeded(
                            "an entry is larger than what comes through on the way from the server"
                                .to_owned(),
                        )))
                    }
                    None => {
                        let was_sent = exchange.written >= entry.end;
                        let error = unanswered(end, task.effect(), was_sent);
                        // What did not fit was the reply to this one.
                        if matches!(end, End::Unfit(_)) {
                            end = &End::Closed;
                        }
                        Err(error)
                    }
                };
                answers.push((at, answer));
            }
        }
        // Where one reply makes no sense, the others may be those of other requests.
        let nonsense = match &exchange.end {
            End::Unfit(error @ Error::Protocol(_)) => Some(error.clone()),
            _ => answers.iter().find_map(|(_, answer)| match answer {
                Err(error @ Error::Protocol(_)) => Some(error.clone()),
                _ => None,
            }),
        };
        let mut usable = matches!(exchange.end, End::Complete) && nonsense.is_none();
        self.has_appended = false;
        self.is_unclear = false;
        for (position, (at, answer)) in answers.into_iter().enumerate() {
            let entry = &mut self.entries[at];
            match (&nonsense, answer) {
                (Some(error), _) => entry.fail(error.clone(), true),
                (None, Ok(Answer::Done(outcome))) => {
                    self.has_appended |= entry.appends();
                    entry.may_be_cleared = false;
                    entry.result = Some(Ok(outcome));
                }
                (None, Ok(Answer::Failed(error))) => entry.result = Some(Err(error)),
                (None, Ok(Answer::AskOn)) => entry.failed = None,
                (None, Ok(Answer::Unclear(error))) => {
                    usable = false;
                    self.is_unclear = true;
                    entry.fail_unclear(error, self.settings.delivery);
                }
                (None, Err(error)) => {
                    // Another connection may lead to another server.
                    usable &= !error.is_transient() && !matches!(error, Error::OutcomeUnknown(_));
                    entry.met_silence = is_silent;
                    entry.fail(error, position == 0);
                }
            }
        }
        self.undo_once();
        self.keep_the_order();
        usable
    }

    /// The results, in the order of the operations. An operation that could still be
    /// tried again fails with what its last try came to.
    pub fn results(self) -> impl Iterator<Item = Result<Outcome<Messages>, Error>> {
        let silence = format!(
            "no answer within {} ms, on {} connections",
            self.settings.operation_timeout, self.silent
        );
        let is_repeated = self.silent > 1;
        self.entries.into_iter().map(move |mut entry| {
            if entry.is_waiting() {
                let unsent = || Error::Unavailable("the request was not sent".to_owned());
                let error = entry.failed.take().unwrap_or_else(unsent);
                // Not only that of the last one.
                let error = match error {
                    Error::Timeout(_) if is_repeated && entry.met_silence => {
                        Error::Timeout(silence.clone())
                    }
                    Error::OutcomeUnknown(_) if is_repeated && entry.met_silence => {
                        Error::OutcomeUnknown(sent(&silence))
                    }
                    error => error,
                };
                entry.finish(error);
            }
            let result = entry.result.expect("what waited is finished");
            result.map_err(|error| error.during(entry.name, &entry.session_id))
        })
    }

    /// An append that is tried again finds behind its own elements those of the other
    /// appends on its session: of those after it, which came in the try before, and of
    /// those ahead of it that were refused then. They are counted by a hash of the key:
    /// to look back further than that does no harm.
    fn look_behind_one_another(&mut self) {
        let slot = |task: &Task| fnv_1a(task.key()) as usize % 1024;
        let mut appended = [0; 1024];
        for task in self.entries.iter().filter_map(|entry| entry.task.as_ref()) {
            appended[slot(task)] += task.appends();
        }
        for task in self
            .entries
            .iter_mut()
            .filter_map(|entry| entry.task.as_mut())
        {
            task.look_further_back(appended[slot(task)] - task.appends());
        }
    }

    /// Of several transactions on one key of another type, the first one took its
    /// expiry, and those after it the one that the first one gave it.
    fn undo_once(&mut self) {
        let mut first: Vec<String> = Vec::new();
        for entry in self.entries.iter_mut().filter(|entry| entry.is_waiting()) {
            if let Some(task) = &entry.task
                && let Some(error) = task.undoes()
            {
                if first.iter().any(|key| key == task.key()) {
                    entry.result = Some(Err(error.clone()));
                } else {
                    first.push(task.key().to_owned());
                }
            }
        }
    }

    /// What was executed before a write that it is behind, is executed again after
    /// it, if it may be. Where it may not, a clear ahead of it would delete it, and is
    /// not tried again.
    fn keep_the_order(&mut self) {
        for at in 0..self.entries.len() {
            let (before, behind) = self.entries.split_at_mut(at + 1);
            let entry = &mut before[at];
            let Some(task) = &entry.task else {
                continue;
            };
            let key = task.key();
            let writes = task.effect() != Effect::Reads && task.undoes().is_none();
            if !entry.is_waiting() || !writes {
                // What it has to read again is deleted by now.
                let is_late = entry.is_waiting()
                    && task.effect() == Effect::Reads
                    && behind
                        .iter()
                        .any(|other| other.is_on(key) && other.has_cleared());
                if is_late {
                    let late = || {
                        let text = "it has to be read again, and a clear behind it was executed";
                        Error::Unavailable(text.to_owned())
                    };
                    let error = entry.failed.take().unwrap_or_else(late);
                    entry.finish(error);
                }
                continue;
            }
            if task.clears() && behind.iter().any(|other| other.is_on(key) && other.stays()) {
                let error = entry.failed.take();
                entry.finish(error.expect("a clear that waits has failed"));
                continue;
            }
            for other in behind.iter_mut().filter(|other| !other.is_waiting()) {
                other.stale |= other.is_on(key) && !other.is_for_once();
            }
        }
    }
}

impl Entry {
    fn new(operation: Operation, settings: &Settings, stamp: Stamp<'_>) -> Entry {
        let Operation { session_id, action } = operation;
        let name = action.name();
        let mut result = None;
        let mut task = None;
        match settings.key(&session_id) {
            // What it comes to is known.
            Ok(_) if action == Action::Get(Some(0)) => {
                result = Some(Ok(Outcome::Messages(Messages::default())));
            }
            Ok(key) => match Task::new(key, action, settings, stamp) {
                Ok(new) => task = Some(new),
                Err(error) => result = Some(Err(error)),
            },
            Err(error) => result = Some(Err(error)),
        }
        Entry {
            name,
            session_id,
            task,
            result,
            stale: false,
            acknowledged: None,
            may_be_cleared: false,
            commands: 0..0,
            end: 0,
            failed: None,
            sent_again: false,
            outcome_unknown: false,
            met_silence: false,
            unclear: 0,
        }
    }

    fn is_waiting(&self) -> bool {
        self.result.is_none()
    }

    /// Whether it is about the session at this key.
    fn is_on(&self, key: &str) -> bool {
        self.task.as_ref().is_some_and(|task| task.key() == key)
    }

    /// Whether it is an append that may be executed again.
    fn appends(&self) -> bool {
        self.task.as_ref().is_some_and(|task| task.appends() > 0)
    }

    /// Whether it has deleted the session, or may have.
    fn has_cleared(&self) -> bool {
        let clears = self.task.as_ref().is_some_and(Task::clears);
        clears && (self.outcome_unknown || matches!(self.result, Some(Ok(_))))
    }

    /// Whether it must not be executed more than once.
    fn is_for_once(&self) -> bool {
        self.task
            .as_ref()
            .is_some_and(|task| task.effect() == Effect::WritesOnce)
    }

    /// Whether that once was, or may have been.
    fn stays(&self) -> bool {
        let result = &self.result;
        self.is_for_once() && matches!(result, Some(Ok(_) | Err(Error::OutcomeUnknown(_))))
    }

    /// A try failed; the operation may be tried again. `is_first` is whether it was
    /// the first one in its request.
    fn fail(&mut self, error: Error, is_first: bool) {
        let Some(task) = &self.task else {
            return;
        };
        self.sent_again = true;
        let again = match &error {
            // Nothing was sent, or nothing that changes anything.
            Error::Unavailable(_) | Error::Timeout(_) => true,
            Error::OutcomeUnknown(_) => {
                self.outcome_unknown = true;
                task.effect() != Effect::WritesOnce
            }
            // There may be room for the reply when those before it are gone.
            Error::LimitExceeded(_) => !is_first && task.effect() == Effect::Reads,
            error if error.may_pass() => task.effect() != Effect::WritesOnce,
            _ => false,
        };
        // That the time for yet another try was too short says less than what came
        // of the one before.
        let error = match (error, self.failed.take()) {
            (Error::Timeout(_), Some(earlier)) => earlier,
            (error, _) => error,
        };
        if again {
            self.failed = Some(error);
        } else {
            self.finish(error);
        }
    }

    /// An error reply came that may have come after the request was executed.
    fn fail_unclear(&mut self, error: Error, delivery: Delivery) {
        let reads = self
            .task
            .as_ref()
            .is_some_and(|task| task.effect() == Effect::Reads);
        self.sent_again = true;
        self.met_silence = false;
        self.unclear += 1;
        let again = reads || delivery == Delivery::ExactlyOnce;
        let error = match reads {
            true => error,
            false => {
                self.outcome_unknown = true;
                Error::OutcomeUnknown(error.text().to_owned())
            }
        };
        if again && self.unclear <= MOST_UNCLEAR {
            self.failed = Some(error);
        } else {
            self.finish(error);
        }
    }

    /// It is executed again.
    fn repeat(&mut self) {
        self.stale = false;
        self.sent_again = true;
        let writes = self
            .task
            .as_ref()
            .is_some_and(|task| task.effect() != Effect::Reads);
        if let Some(Ok(outcome)) = self.result.take()
            && writes
        {
            self.acknowledged = Some(outcome);
        }
    }

    /// It is not tried again.
    fn finish(&mut self, error: Error) {
        self.result = Some(match self.acknowledged.take() {
            Some(_) if self.may_be_cleared && self.appends() => Err(Error::OutcomeUnknown(
                format!("it was executed, but then a clear ahead of it was tried again: {error}"),
            )),
            Some(outcome) => Ok(outcome),
            None => Err(self.final_error(error)),
        });
    }

    fn final_error(&self, error: Error) -> Error {
        let undoes = self.task.as_ref().and_then(Task::undoes).is_some();
        match error {
            Error::OutcomeUnknown(_) => error,
            Error::Unavailable(text) | Error::Timeout(text) if undoes => {
                Error::OutcomeUnknown(text)
            }
            // What a later try came to says nothing of an earlier one.
            error if self.outcome_unknown => Error::OutcomeUnknown(format!(
                "an earlier try was sent and its outcome is not known, and then: {error}"
            )),
            error => error,
        }
    }
}

/// Why there is no reply.
fn unanswered(end: &End, effect: Effect, was_sent: bool) -> Error {
    let what = match end {
        End::Unfit(Error::LimitExceeded(text)) if effect == Effect::Reads => {
            return Error::LimitExceeded(text.clone());
        }
        // No reply to a request that writes is large: one that is was not meant for
        // it.
        End::Unfit(error) => return Error::Protocol(error.text().to_owned()),
        End::Timeout(milliseconds) => format!("no answer within {milliseconds} ms"),
        End::Closed | End::Complete => LOST.to_owned(),
    };
    // As long as the last byte was not handed over, the server cannot execute it.
    if was_sent && effect != Effect::Reads {
        Error::OutcomeUnknown(sent(&what))
    } else if matches!(end, End::Timeout(_)) {
        Error::Timeout(what)
    } else {
        Error::Unavailable(what)
    }
}

fn sent(what: &str) -> String {
    format!("{what} after the request was sent")
}

/// How often an operation is tried again after error replies that may have come after
/// execution.
const MOST_UNCLEAR: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Ids;
    use crate::message::{NewMessage, Role};
    use crate::options::Options;
    use crate::reply::ReplyReader;

    const STAMP: Stamp<'_> = Stamp {
        timestamp: "t",
        id: || Ids::new().next(|| 0),
        endings: &Endings::new(),
    };

    fn settings(delivery: Delivery) -> Settings {
        let given = Options {
            delivery: Some(delivery),
            key_prefix: Some(String::new()),
            ..Options::default()
        };
        Settings::resolve(given, &[]).unwrap()
    }

    fn add(session_id: &str) -> Operation {
        let message = NewMessage {
            role: Role::User,
            content: String::new(),
            metadata: None,
        };
        operation(session_id, Action::Add(message))
    }

    fn operation(session_id: &str, action: Action) -> Operation {
        Operation {
            session_id: session_id.to_owned(),
            action,
        }
    }

    /// A round in which all of the request is written and these bytes come back;
    /// answers what was sent, a command a line and without elements and scripts, and
    /// whether the connection is good for another.
    fn round(pipeline: &mut Pipeline<'_>, replies: &str, end: End) -> (String, bool) {
        let mut commands = Commands::default();
        pipeline.request(&mut commands);
        let written = commands.bytes().len();
        let usable = settle(pipeline, &commands, replies, written, end);
        (shown(&commands), usable)
    }

    fn settle(
        pipeline: &mut Pipeline<'_>,
        commands: &Commands,
        replies: &str,
        written: usize,
        end: End,
    ) -> bool {
        let mut reader = ReplyReader::new(commands.count(), 1 << 20);
        let end = match reader.push(replies.as_bytes()) {
            Ok(_) => end,
            Err(error) => End::Unfit(error),
        };
        pipeline.settle(&Exchange {
            partial: reader.partial(),
            received: reader.finish().unwrap(),
            written,
            end,
        })
    }

    fn shown(commands: &Commands) -> String {
        let text = String::from_utf8(commands.bytes().to_vec()).unwrap();
        let mut lines = text.split("\r\n").peekable();
        let mut shown = String::new();
        while let Some(count) = lines.next().and_then(|line| line.strip_prefix('*')) {
            // Scripts have lines of their own, which do not begin with an asterisk.
            let words: Vec<_> = (0..count.parse().unwrap())
                .map(|_| lines.nth(1).unwrap())
                .collect();
            let key = if words[0].starts_with("EVAL") { 3 } else { 1 };
            shown += &format!("{} {}\n", words[0], words.get(key).unwrap_or(&""));
        }
        shown
    }

    fn results(pipeline: Pipeline<'_>) -> Vec<Result<Outcome<Messages>, Error>> {
        pipeline.results().collect()
    }

    fn lost(text: &str) -> Result<Outcome<Messages>, Error> {
        Err(Error::OutcomeUnknown(text.to_owned()))
    }

    #[test]
    fn operations_are_sent_together_and_each_gets_its_reply() {
        let settings = settings(Delivery::ExactlyOnce);
        let operations = vec![
            add("a"),
            operation("a", Action::Get(Some(10))),
            operation("", Action::Count),
            operation("b", Action::Get(Some(0))),
            operation("b", Action::History(None)),
            operation("b", Action::Exists),
        ];
        let mut pipeline = Pipeline::new(operations, &settings, STAMP);
        assert_eq!(pipeline.next(), Next::Round);
        assert!(!pipeline.only_reads());
        let replies = ":7\r\n*0\r\n\
            *3\r\n*0\r\n:0\r\n:-2\r\n:1\r\n";
        let (sent, usable) = round(&mut pipeline, replies, End::Complete);
        assert_eq!(sent, "EVALSHA a\nLRANGE a\nEVAL b\nLLEN b\n");
        assert!(usable);
        assert_eq!(pipeline.next(), Next::Nothing);
        let [added, got, refused, nothing, history, exists] = &results(pipeline)[..] else {
            panic!("not six");
        };
        assert_eq!(added, &Ok(Outcome::Length(7)));
        assert_eq!(got, &Ok(Outcome::Messages(Messages::default())));
        assert_eq!(
            refused,
            &Err(Error::InvalidArgument(
                "count \"\": the session id is empty, allowed is any other text".to_owned()
            ))
        );
        assert_eq!(nothing, &Ok(Outcome::Messages(Messages::default())));
        assert!(matches!(history, Ok(Outcome::History(_))));
        assert_eq!(exists, &Ok(Outcome::Exists(true)));
    }

    #[test]
    fn an_error_is_that_of_its_operation_alone() {
        let settings = settings(Delivery::ExactlyOnce);
        let operations = vec![add("a"), add("b"), operation("c", Action::Clear)];
        let mut pipeline = Pipeline::new(operations, &settings, STAMP);
        let replies = ":1\r\n-WRONGTYPE x\r\n+OK\r\n";
        let (_, usable) = round(&mut pipeline, replies, End::Complete);
        assert!(usable);
        assert_eq!(
            results(pipeline),
            [
                Ok(Outcome::Length(1)),
                Err(Error::from_reply("WRONGTYPE x").during("add to", "b")),
                Ok(Outcome::Cleared)
            ]
        );
    }

    #[test]
    fn kept_in_mind_is_what_was_acknowledged_at_the_first_try() {
        let settings = settings(Delivery::ExactlyOnce);
        for (rounds, kept) in [
            (&[(":1\r\n:1\r\n", End::Complete)][..], true),
            (
                &[
                    ("-NOSCRIPT x\r\n:1\r\n", End::Complete),
                    (":1\r\n", End::Complete),
                ],
                true,
            ),
            (&[(":1\r\n", End::Closed)], true),
            (&[("-WRONGTYPE x\r\n:1\r\n", End::Complete)], false),
            (
                &[
                    ("-LOADING x\r\n:1\r\n", End::Complete),
                    (":1\r\n", End::Complete),
                ],
                false,
            ),
            (&[(":1\r\n+OK\r\n", End::Complete)], false),
            (&[("", End::Closed), (":1\r\n:1\r\n", End::Complete)], false),
        ] {
            let operations = vec![add("a"), operation("b", Action::Count)];
            let mut pipeline = Pipeline::new(operations, &settings, STAMP);
            let mut endings = Endings::new();
            for (replies, end) in rounds {
                round(&mut pipeline, replies, end.clone());
            }
            pipeline.keep_in_mind(&mut endings);
            assert_eq!(endings.of("a").is_some(), kept, "{rounds:?}");
        }

        // What is executed again because of the one before is sent again as well.
        let mut pipeline = Pipeline::new(vec![add("a"), add("a")], &settings, STAMP);
        round(&mut pipeline, "-LOADING x\r\n:1\r\n", End::Complete);
        round(&mut pipeline, ":2\r\n:2\r\n", End::Complete);
        let mut endings = Endings::new();
        pipeline.keep_in_mind(&mut endings);
        assert_eq!(endings.of("a"), None);
    }

    #[test]
    fn what_was_not_answered_is_tried_again() {
        for (end, why) in [
            (End::Closed, "the connection was lost"),
            (End::Timeout(5), "no answer within 5 ms"),
        ] {
            let operations = vec![add("a"), add("b"), operation("c", Action::Exists)];
            for delivery in [Delivery::ExactlyOnce, Delivery::AtMostOnce] {
                let settings = settings(delivery);
                let mut pipeline = Pipeline::new(operations.clone(), &settings, STAMP);
                let (first, end, again) = match delivery {
                    Delivery::ExactlyOnce => (":1\r\n", end.clone(), "EVALSHA b\nLLEN c\n"),
                    Delivery::AtMostOnce => (
                        "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n:-2\r\n:1\r\n:1\r\n",
                        end.clone(),
                        "LLEN c\n",
                    ),
                };
                let (_, usable) = round(&mut pipeline, first, end);
                assert!(!usable);
                assert_eq!(pipeline.next(), Next::RoundAfterWait);
                let (sent, _) = round(&mut pipeline, "", End::Closed);
                assert_eq!(sent, again);
                let results = results(pipeline);
                let during = match delivery {
                    Delivery::ExactlyOnce => "the connection was lost",
                    Delivery::AtMostOnce => why,
                };
                assert_eq!(results[0], Ok(Outcome::Length(1)));
                assert_eq!(
                    results[1],
                    lost(&format!(
                        "add to \"b\": {during} after the request was sent"
                    ))
                );
                assert_eq!(
                    results[2],
                    Err(Error::Unavailable(
                        "exists \"c\": the connection was lost".to_owned()
                    ))
                );
            }
        }
    }

    #[test]
    fn what_was_not_sent_to_its_last_byte_was_not_executed() {
        let settings = settings(Delivery::AtMostOnce);
        let mut pipeline = Pipeline::new(vec![add("a"), add("b")], &settings, STAMP);
        let mut commands = Commands::default();
        pipeline.request(&mut commands);
        let written = commands.bytes().len() - 1;
        settle(&mut pipeline, &commands, "", written, End::Closed);
        assert_eq!(pipeline.next(), Next::RoundAfterWait);
        let (sent, _) = round(&mut pipeline, "", End::Closed);
        assert_eq!(sent, "MULTI \nPTTL b\nRPUSH b\nEXPIRE b\nEXEC \n");
    }

    #[test]
    fn a_refusal_before_the_end_is_told() {
        let settings = settings(Delivery::AtMostOnce);
        let mut pipeline = Pipeline::new(vec![add("a")], &settings, STAMP);
        round(&mut pipeline, "-DENIED x\r\n", End::Closed);
        let expected = Error::from_reply("DENIED x").during("add to", "a");
        assert_eq!(results(pipeline), [Err(expected)]);
    }

    #[test]
    fn a_refusal_that_may_pass_is_asked_again_elsewhere() {
        for (delivery, replies, next) in [
            (
                Delivery::ExactlyOnce,
                "-READONLY x\r\n",
                Next::RoundAfterWait,
            ),
            (
                Delivery::AtMostOnce,
                "+OK\r\n+QUEUED\r\n-READONLY x\r\n+QUEUED\r\n-EXECABORT y\r\n",
                Next::Nothing,
            ),
        ] {
            let settings = settings(delivery);
            let mut pipeline = Pipeline::new(vec![add("a")], &settings, STAMP);
            let (_, usable) = round(&mut pipeline, replies, End::Complete);
            assert!(!usable);
            assert_eq!(pipeline.next(), next);
            let [Err(Error::Server { code, .. })] = &results(pipeline)[..] else {
                panic!("{replies}");
            };
            assert_eq!(code, "READONLY");
        }
    }

    #[test]
    fn what_may_come_after_execution_is_tried_again_three_times() {
        const UNCLEAR: &str = "-ERR Connection timed out\r\n";
        const WHY: &str =
            "ERR: the error reply is not known; a proxy before the server may have sent it";
        let unknown = |name: &str| format!("{name} \"a\": {WHY}");
        for (delivery, action, replies, tries, expected) in [
            (
                Delivery::ExactlyOnce,
                add("a").action,
                1,
                4,
                Error::OutcomeUnknown(unknown("add to")),
            ),
            (
                Delivery::AtMostOnce,
                add("a").action,
                5,
                1,
                Error::OutcomeUnknown(unknown("add to")),
            ),
            (
                Delivery::ExactlyOnce,
                Action::Clear,
                1,
                4,
                Error::OutcomeUnknown(unknown("clear")),
            ),
            (
                Delivery::AtMostOnce,
                Action::Clear,
                1,
                1,
                Error::OutcomeUnknown(unknown("clear")),
            ),
            (
                Delivery::AtMostOnce,
                Action::Exists,
                1,
                4,
                Error::from_reply("oops").during("exists", "a"),
            ),
        ] {
            let settings = settings(delivery);
            let operations = || vec![operation("a", action.clone())];
            let replies = match replies {
                1 => UNCLEAR.to_owned(),
                _ => "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n".to_owned() + UNCLEAR,
            };
            let mut pipeline = Pipeline::new(operations(), &settings, STAMP);
            for _ in 1..tries {
                let (_, usable) = round(&mut pipeline, &replies, End::Complete);
                assert!(!usable);
                assert_eq!(pipeline.next(), Next::RoundAfterLongWait);
            }
            round(&mut pipeline, &replies, End::Complete);
            assert_eq!(pipeline.next(), Next::Nothing);
            assert_eq!(results(pipeline), [Err(expected)]);
        }
    }

    #[test]
    fn what_is_refused_after_an_unclear_reply_may_have_been_applied() {
        let settings = settings(Delivery::ExactlyOnce);
        let mut pipeline = Pipeline::new(vec![add("a")], &settings, STAMP);
        round(&mut pipeline, "-upstream failure\r\n", End::Complete);
        round(&mut pipeline, "-OOM x\r\n", End::Complete);
        let result = results(pipeline).pop().unwrap();
        assert!(
            matches!(result, Err(Error::OutcomeUnknown(_))),
            "{result:?}"
        );
        // And found, where it was.
        let mut pipeline = Pipeline::new(vec![add("a")], &settings, STAMP);
        round(&mut pipeline, "-upstream failure\r\n", End::Complete);
        round(&mut pipeline, ":1\r\n", End::Complete);
        assert_eq!(results(pipeline), [Ok(Outcome::Length(1))]);
    }

    #[test]
    fn silence_is_survived_by_what_may_arrive_late() {
        for (delivery, operations, expected) in [
            (Delivery::ExactlyOnce, vec![add("a")], true),
            (
                Delivery::ExactlyOnce,
                vec![add("a"), operation("a", Action::Get(None))],
                true,
            ),
            (
                Delivery::ExactlyOnce,
                vec![add("a"), operation("a", Action::Clear)],
                false,
            ),
            (Delivery::AtMostOnce, vec![add("a")], false),
            (
                Delivery::AtMostOnce,
                vec![operation("a", Action::History(None))],
                true,
            ),
        ] {
            let settings = settings(delivery);
            let pipeline = Pipeline::new(operations, &settings, STAMP);
            assert_eq!(pipeline.may_be_late(), expected);
        }
    }

    #[test]
    fn silence_on_several_connections_is_told_as_a_whole() {
        let settings = settings(Delivery::ExactlyOnce);
        let operations = vec![add("a"), operation("b", Action::Count)];
        let mut pipeline = Pipeline::new(operations, &settings, STAMP);
        for milliseconds in [1000, 2000, 1990] {
            round(&mut pipeline, "", End::Timeout(milliseconds));
        }
        let why = "no answer within 5000 ms, on 3 connections";
        assert_eq!(
            results(pipeline),
            [
                lost(&format!("add to \"a\": {why} after the request was sent")),
                Err(Error::Timeout(format!("count \"b\": {why}"))),
            ]
        );
    }

    #[test]
    fn what_a_clear_behind_has_deleted_is_not_read_as_empty() {
        let settings = settings(Delivery::ExactlyOnce);
        let operations = || {
            vec![
                operation("a", Action::Get(None)),
                operation("a", Action::Clear),
            ]
        };
        for (replies, end, expected) in [
            (
                "-ERR max request size\r\n+OK\r\n",
                End::Complete,
                "get \"a\": it has to be read again, and a clear behind it was executed",
            ),
            ("", End::Closed, "get \"a\": the connection was lost"),
        ] {
            let mut pipeline = Pipeline::new(operations(), &settings, STAMP);
            round(&mut pipeline, replies, end);
            if pipeline.next() != Next::Nothing {
                assert_eq!(
                    round(&mut pipeline, "+OK\r\n", End::Complete).0,
                    "LTRIM a\n"
                );
            }
            let expected = Err(Error::Unavailable(expected.to_owned()));
            assert_eq!(results(pipeline), [expected, Ok(Outcome::Cleared)]);
        }
        // Where the clear was not executed, it is read again.
        let mut pipeline = Pipeline::new(operations(), &settings, STAMP);
        round(&mut pipeline, "-LOADING x\r\n-LOADING x\r\n", End::Complete);
        let (sent, _) = round(&mut pipeline, "*0\r\n+OK\r\n", End::Complete);
        assert_eq!(sent, "LRANGE a\nLTRIM a\n");
    }

    #[test]
    fn a_server_that_is_full_is_asked_again_over_another_connection() {
        let settings = settings(Delivery::ExactlyOnce);
        let operations = vec![operation("a", Action::Count)];
        let mut pipeline = Pipeline::new(operations, &settings, STAMP);
        let full = "-ERR max number of clients reached\r\n";
        let (_, usable) = round(&mut pipeline, full, End::Complete);
        assert!(!usable);
        assert_eq!(pipeline.next(), Next::RoundAfterWait);
    }

    #[test]
    fn where_one_reply_makes_no_sense_none_is_believed() {
        for replies in [
            ":1\r\n:1\r\n:1\r\n",
            ":1\r\n*0\r\n:1\r\nx",
            ":1\r\n*0\r\n?",
            ":1\r\n*0\r\n:1\r\n:1\r\n",
            "*0\r\n*0\r\n:1\r\n",
        ] {
            let settings = settings(Delivery::ExactlyOnce);
            let operations = vec![
                add("a"),
                operation("b", Action::Get(None)),
                operation("c", Action::Count),
            ];
            let mut pipeline = Pipeline::new(operations, &settings, STAMP);
            let (_, usable) = round(&mut pipeline, replies, End::Complete);
            assert!(!usable);
            for result in results(pipeline) {
                assert!(matches!(result, Err(Error::Protocol(_))), "{result:?}");
            }
        }
    }

    #[test]
    fn what_came_of_a_later_try_says_nothing_of_an_earlier_one() {
        let settings = settings(Delivery::ExactlyOnce);
        let mut pipeline = Pipeline::new(vec![add("a")], &settings, STAMP);
        round(&mut pipeline, "", End::Closed);
        round(&mut pipeline, "-OOM x\r\n", End::Complete);
        assert_eq!(pipeline.next(), Next::Nothing);
        assert_eq!(
            results(pipeline),
            [lost(
                "add to \"a\": an earlier try was sent and its outcome is not known, and then: OOM: \
                 the server has no memory left for writes (maxmemory)"
            )]
        );
    }

    #[test]
    fn a_last_try_without_time_says_less_than_the_one_before() {
        let settings = settings(Delivery::ExactlyOnce);
        let operations = vec![operation("a", Action::Exists)];
        let mut pipeline = Pipeline::new(operations, &settings, STAMP);
        pipeline.not_sent(&Error::Unavailable("refused".to_owned()));
        pipeline.not_sent(&Error::Timeout("too late".to_owned()));
        let expected = Error::Unavailable("exists \"a\": refused".to_owned());
        assert_eq!(results(pipeline), [Err(expected)]);
    }

    #[test]
    fn a_server_that_may_not_know_the_script_gets_it_with_the_first_of_several() {
        let settings = settings(Delivery::ExactlyOnce);
        let count = || operation("a", Action::Count);
        for (operations, expected) in [
            (vec![add("a")], "EVALSHA a\n"),
            (vec![count(), add("a")], "LLEN a\nEVALSHA a\n"),
            (vec![add("a"), count()], "EVAL a\nLLEN a\n"),
            (vec![add("a"), add("b")], "EVAL a\nEVALSHA b\n"),
            (vec![count(), count()], "LLEN a\nLLEN a\n"),
        ] {
            let mut pipeline = Pipeline::new(operations, &settings, STAMP);
            pipeline.bring_script();
            assert_eq!(round(&mut pipeline, "", End::Closed).0, expected);
        }
    }

    #[test]
    fn the_order_is_kept_when_something_is_tried_again() {
        let settings = settings(Delivery::ExactlyOnce);
        let operations = vec![
            add("a"),
            operation("a", Action::Clear),
            add("a"),
            operation("a", Action::Count),
            operation("b", Action::Clear),
        ];
        let mut pipeline = Pipeline::new(operations, &settings, STAMP);
        let replies = "-BUSY x\r\n+OK\r\n:1\r\n:1\r\n+OK\r\n";
        round(&mut pipeline, replies, End::Complete);
        let (sent, _) = round(&mut pipeline, ":1\r\n", End::Closed);
        assert_eq!(sent, "EVALSHA a\nLTRIM a\nEVALSHA a\nLLEN a\n");
        let (sent, _) = round(&mut pipeline, "-OOM x\r\n-OOM x\r\n:1\r\n", End::Complete);
        assert_eq!(sent, "LTRIM a\nEVALSHA a\nLLEN a\n");
        // What was acknowledged stays so, but for what the clear has deleted.
        let text = "add to \"a\": it was executed, but then a clear ahead of it was tried \
                    again: OOM: the server has no memory left for writes (maxmemory)";
        assert_eq!(
            results(pipeline),
            [
                Ok(Outcome::Length(1)),
                Ok(Outcome::Cleared),
                Err(Error::OutcomeUnknown(text.to_owned())),
                Ok(Outcome::Length(1)),
                Ok(Outcome::Cleared),
            ]
        );
    }

    #[test]
    fn an_append_that_is_acknowledged_after_a_clear_stays_so() {
        let settings = settings(Delivery::ExactlyOnce);
        let operations = vec![operation("a", Action::Clear), add("a"), add("a")];
        let mut pipeline = Pipeline::new(operations, &settings, STAMP);
        round(&mut pipeline, "-BUSY x\r\n:1\r\n:2\r\n", End::Complete);
        let (sent, _) = round(&mut pipeline, "+OK\r\n-BUSY x\r\n:1\r\n", End::Complete);
        assert_eq!(sent, "LTRIM a\nEVALSHA a\nEVALSHA a\n");
        let (sent, _) = round(&mut pipeline, ":2\r\n-OOM x\r\n", End::Complete);
        assert_eq!(sent, "EVALSHA a\nEVALSHA a\n");
        let expected = [
            Ok(Outcome::Cleared),
            Ok(Outcome::Length(2)),
            Ok(Outcome::Length(1)),
        ];
        assert_eq!(results(pipeline), expected);
    }

    #[test]
    fn a_clear_does_not_delete_what_came_behind_it_for_once() {
        let settings = settings(Delivery::AtMostOnce);
        let refused = || Err(Error::from_reply("BUSY x").during("clear", "a"));
        const QUEUED: &str = "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n";
        let appended = format!("{QUEUED}*3\r\n:-2\r\n:1\r\n:1\r\n");
        let operations = || {
            vec![
                operation("a", Action::Clear),
                operation("b", Action::Clear),
                add("a"),
            ]
        };
        // It was executed.
        let mut pipeline = Pipeline::new(operations(), &settings, STAMP);
        let replies = format!("-BUSY x\r\n-BUSY x\r\n{appended}");
        round(&mut pipeline, &replies, End::Complete);
        let (sent, _) = round(&mut pipeline, "+OK\r\n", End::Complete);
        assert_eq!(sent, "LTRIM b\n");
        let expected = [refused(), Ok(Outcome::Cleared), Ok(Outcome::Length(1))];
        assert_eq!(results(pipeline), expected);
        // It may have been.
        let mut pipeline = Pipeline::new(operations(), &settings, STAMP);
        round(&mut pipeline, "-BUSY x\r\n+OK\r\n", End::Closed);
        assert_eq!(pipeline.next(), Next::Nothing);
        assert_eq!(results(pipeline)[0], refused());
        // It was refused as well.
        let mut pipeline = Pipeline::new(operations(), &settings, STAMP);
        let replies = format!("-BUSY x\r\n+OK\r\n-BUSY x\r\n{}", "-BUSY x\r\n".repeat(4));
        round(&mut pipeline, &replies, End::Complete);
        assert_eq!(pipeline.next(), Next::RoundAfterWait);
    }

    #[test]
    fn a_server_without_the_script_is_given_it_at_once_and_reads_come_after() {
        let settings = settings(Delivery::ExactlyOnce);
        let operations = vec![
            operation("a", Action::Count),
            add("a"),
            operation("a", Action::Count),
            operation("b", Action::Count),
        ];
        let mut pipeline = Pipeline::new(operations, &settings, STAMP);
        let replies = ":0\r\n-NOSCRIPT x\r\n:0\r\n:5\r\n";
        let (_, usable) = round(&mut pipeline, replies, End::Complete);
        assert!(usable);
        assert_eq!(pipeline.next(), Next::Round);
        let mut commands = Commands::default();
        pipeline.request(&mut commands);
        assert_eq!(commands.count(), 2);
        let written = commands.bytes().len();
        settle(
            &mut pipeline,
            &commands,
            ":1\r\n:1\r\n",
            written,
            End::Complete,
        );
        let lengths = [0, 1, 1, 5].map(|length| Ok(Outcome::Length(length)));
        assert_eq!(results(pipeline), lengths);
    }

    #[test]
    fn a_read_behind_a_write_that_never_came_keeps_its_result() {
        let settings = settings(Delivery::ExactlyOnce);
        let operations = vec![add("a"), operation("a", Action::Count)];
        let mut pipeline = Pipeline::new(operations, &settings, STAMP);
        round(&mut pipeline, "-BUSY x\r\n:4\r\n", End::Complete);
        assert_eq!(pipeline.next(), Next::RoundAfterWait);
        assert_eq!(results(pipeline)[1], Ok(Outcome::Length(4)));
    }

    #[test]
    fn appends_to_one_session_look_behind_one_another() {
        let settings = settings(Delivery::ExactlyOnce);
        let operations = vec![add("a"), add("b"), add("a"), add("a")];
        let mut pipeline = Pipeline::new(operations, &settings, STAMP);
        let mut commands = Commands::default();
        pipeline.request(&mut commands);
        let text = String::from_utf8(commands.bytes().to_vec()).unwrap();
        let words: Vec<_> = text.split("\r\n").collect();
        let back: Vec<_> = words
            .windows(7)
            .filter(|w| w[0] == "1" && w[1] == "$1")
            .collect();
        let back: Vec<_> = back.iter().map(|w| (w[2], w[4])).collect();
        assert_eq!(back, [("a", "66"), ("b", "64"), ("a", "66"), ("a", "66")]);
    }

    #[test]
    fn a_key_of_another_type_gets_back_the_expiry_it_had_at_first() {
        let settings = settings(Delivery::AtMostOnce);
        let mut pipeline = Pipeline::new(vec![add("a"), add("a")], &settings, STAMP);
        const QUEUED: &str = "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n";
        let foreign = |ttl| format!("{QUEUED}*3\r\n:{ttl}\r\n-WRONGTYPE x\r\n:1\r\n");
        let replies = foreign(-1) + &foreign(3_600_000);
        round(&mut pipeline, &replies, End::Complete);
        let (sent, _) = round(&mut pipeline, ":1\r\n", End::Complete);
        assert_eq!(sent, "PERSIST a\n");
        let expected = Error::from_reply("WRONGTYPE x").during("add to", "a");
        assert_eq!(results(pipeline), [Err(expected.clone()), Err(expected)]);
    }

    #[test]
    fn a_reply_without_room_beside_others_is_asked_for_again() {
        let settings = settings(Delivery::ExactlyOnce);
        let operations = ["a", "b", "c"].map(|id| operation(id, Action::Count));
        let mut pipeline = Pipeline::new(operations.into(), &settings, STAMP);
        let too_large = || End::Unfit(Error::LimitExceeded("too large".to_owned()));
        let (_, usable) = round(&mut pipeline, ":1\r\n", too_large());
        assert!(!usable);
        assert_eq!(pipeline.next(), Next::RoundAfterWait);
        let (sent, _) = round(&mut pipeline, "", too_large());
        assert_eq!(sent, "LLEN b\nLLEN c\n");
        let (sent, _) = round(&mut pipeline, ":3\r\n", End::Complete);
        assert_eq!(sent, "LLEN c\n");
        assert_eq!(pipeline.next(), Next::Nothing);
        assert_eq!(
            results(pipeline),
            [
                Ok(Outcome::Length(1)),
                Err(Error::LimitExceeded("count \"b\": too large".to_owned())),
                Ok(Outcome::Length(3))
            ]
        );
    }

    #[test]
    fn an_entry_that_is_cut_at_one_place_does_not_hold_up_what_is_behind_it() {
        let settings = settings(Delivery::ExactlyOnce);
        let operations = vec![operation("a", Action::Get(Some(1))), add("b")];
        let mut pipeline = Pipeline::new(operations, &settings, STAMP);
        for _ in 0..4 {
            assert_ne!(pipeline.next(), Next::Nothing);
            round(&mut pipeline, "*1\r\n$9\r\nx", End::Closed);
        }
        let (sent, _) = round(&mut pipeline, ":1\r\n", End::Complete);
        assert_eq!(sent, "EVALSHA b\n");
        let results = results(pipeline);
        assert!(
            matches!(results[0], Err(Error::LimitExceeded(_))),
            "{results:?}"
        );
        assert_eq!(results[1], Ok(Outcome::Length(1)));
    }

    #[test]
    fn a_large_reply_to_a_write_makes_no_sense() {
        let settings = settings(Delivery::ExactlyOnce);
        let mut pipeline = Pipeline::new(vec![add("a")], &settings, STAMP);
        let too_large = End::Unfit(Error::LimitExceeded("too large".to_owned()));
        round(&mut pipeline, "", too_large);
        let expected = Error::Protocol("add to \"a\": too large".to_owned());
        assert_eq!(results(pipeline), [Err(expected)]);
    }
}
