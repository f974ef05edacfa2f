//! Pipelines: what each request contains, and what is retried.
//!
//! Operations that are sent together are a [`Pipeline`]; a single operation is a pipeline of
//! one. [`Pipeline::plan`] says what the next attempt needs. [`Pipeline::request`] makes its
//! request from all operations that have no result yet, in their order.
//! [`Pipeline::settle`] takes the result of the request. The next request has the operations
//! that got no reply, were refused for a transient reason, or need another request. It also
//! has later operations on the same sessions, so that the order is kept.

mod execution;
#[cfg(test)]
mod tests;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::vec::Vec;
use core::mem;
use core::ops::Range;

use crate::error::Error;
use crate::exchange::{End, Exchange};
use crate::message::Messages;
use crate::operation::{Effect, Operation, Outcome, Progress, ReadMode, Stamp, StartContext};
use crate::options::{Delivery, Settings};
use crate::recent::{RecentAppends, fnv_1a};
use crate::resp::Commands;

use execution::{Execution, Failure, no_reply};

/// Operations, from their start to their results.
pub struct Pipeline<'a> {
    settings: &'a Settings,
    executions: Vec<Execution>,
    /// Milliseconds before the next retry.
    backoff: u32,
    /// Whether the last request had an error reply that may have come after execution.
    is_unclear: bool,
    /// Number of attempts in which the server was silent.
    silences: u32,
}

/// The next attempt. Planning it changes nothing, because the connection may still fail.
pub struct Attempt {
    /// Milliseconds to wait before it, before jitter. None if no wait is needed.
    pub wait: Option<u32>,
    /// Whether it changes nothing on the server.
    pub is_read_only: bool,
    /// Milliseconds of silence after which the attempt to connect ends.
    pub connect_silence_limit: u32,
    /// Milliseconds of silence after which the request ends.
    pub reply_silence_limit: u32,
}

/// The request of an attempt.
pub struct Request {
    /// What to send.
    pub commands: Commands,
    parts: Vec<Part>,
}

/// One operation's part of a request.
struct Part {
    /// Index of the operation.
    operation: usize,
    /// Indexes of its commands.
    commands: Range<usize>,
    /// End of their bytes.
    end: usize,
}

/// What is known of the connection after a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Whether it may be used for another request.
    pub is_reusable: bool,
    /// Whether the server has the script of the appends.
    pub has_script: bool,
}

/// Whether the server has the script of the appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptCache {
    /// The server has executed the script on this connection.
    Known,
    /// The server may not have the script.
    Unknown,
}

impl<'a> Pipeline<'a> {
    /// Starts operations.
    pub fn new(
        operations: Vec<Operation>,
        settings: &'a Settings,
        stamp: Stamp<'_>,
    ) -> Pipeline<'a> {
        let read_mode = match operations.len() {
            1 => ReadMode::InPages,
            _ => ReadMode::AtOnce,
        };
        let appended = appended_by_key(&operations, settings);
        let start = |operation: Operation| {
            let own = operation.action.new_messages().len();
            let all = appended.get(bucket(&operation.session_id));
            let context = StartContext {
                stamp,
                read_mode,
                others: all.map_or(0, |all| all - own),
            };
            Execution::new(operation, settings, context)
        };
        Pipeline {
            settings,
            executions: operations.into_iter().map(start).collect(),
            backoff: 0,
            is_unclear: false,
            silences: 0,
        }
    }

    /// Plans the next attempt. Returns none if every operation has its result.
    pub fn plan(&self) -> Option<Attempt> {
        let is_done = !self.executions.iter().any(Execution::is_waiting);
        if is_done {
            return None;
        }
        let next = self.executions.iter().filter(|other| other.is_next());
        let mut effects = next.map(Execution::effect);
        let is_read_only = effects.clone().all(|effect| effect == Effect::Reads);
        let tolerates_late_arrival =
            effects.all(|effect| matches!(effect, Effect::Reads | Effect::AppendsOnce));
        let silence_limit = self.silence_limit();
        Some(Attempt {
            wait: self.wait(),
            is_read_only,
            connect_silence_limit: silence_limit,
            reply_silence_limit: if tolerates_late_arrival {
                silence_limit
            } else {
                u32::MAX
            },
        })
    }

    /// Makes the request of an attempt, now that there is a connection. From here on,
    /// operations that are executed again have no result until [`Pipeline::settle`].
    pub fn request(&mut self, attempt: &Attempt, scripts: ScriptCache) -> Request {
        self.back_off(attempt);
        let mut sent: Vec<usize> = Vec::with_capacity(self.executions.len());
        for (at, execution) in self.executions.iter_mut().enumerate() {
            if execution.prepare() {
                sent.push(at);
            }
        }
        if scripts == ScriptCache::Unknown {
            self.bring_script(&sent);
        }
        let mut commands = Commands::default();
        let parts = sent
            .iter()
            .map(|at| self.part(*at, &mut commands))
            .collect();
        Request { commands, parts }
    }

    /// An attempt failed before its request was made.
    pub fn not_sent(&mut self, attempt: &Attempt, error: &Error) {
        self.back_off(attempt);
        self.silences += u32::from(matches!(error, Error::Timeout(_)));
        let waiting = self
            .executions
            .iter_mut()
            .filter(|other| other.is_waiting());
        waiting.for_each(|execution| execution.fail(Failure::new(error.clone())));
    }

    /// Doubles the next wait.
    fn back_off(&mut self, attempt: &Attempt) {
        if let Some(wait) = attempt.wait {
            self.backoff = (2 * wait).clamp(FIRST_BACKOFF, MAX_BACKOFF);
        }
    }

    fn part(&mut self, at: usize, commands: &mut Commands) -> Part {
        let (before, behind) = self.executions.split_at_mut(at + 1);
        let execution = &before[at];
        let first = commands.count();
        execution.request(self.settings, commands);
        if execution.effect() == Effect::Clears && execution.is_retried() {
            let same = |other: &&mut Execution| other.is_on(execution.key());
            behind
                .iter_mut()
                .filter(same)
                .for_each(Execution::mark_cleared);
        }
        Part {
            operation: at,
            commands: first..commands.count(),
            end: commands.bytes().len(),
        }
    }

    /// Makes the first append send the script in full if other operations follow it.
    /// Otherwise a server without the script would refuse the append and execute the rest.
    fn bring_script(&mut self, sent: &[usize]) {
        let mut sent = sent.iter();
        let is_append = |at: &&usize| self.executions[**at].effect() == Effect::AppendsOnce;
        if let Some(append) = sent.by_ref().find(is_append)
            && sent.next().is_some()
        {
            self.executions[*append].bring_script();
        }
    }

    /// Returns the wait before the next request. None if an operation in it has not failed,
    /// because that one need not wait.
    fn wait(&self) -> Option<u32> {
        let mut waiting = self.executions.iter().filter(|other| other.is_waiting());
        let least = if self.is_unclear { LONG_BACKOFF } else { 0 };
        waiting
            .all(Execution::has_failed)
            .then(|| self.backoff.max(least))
    }

    /// Returns the silence in milliseconds after which an attempt ends. It doubles with each
    /// silent attempt, and has no limit when new connections have not helped.
    fn silence_limit(&self) -> u32 {
        match self.silences {
            MAX_SILENCES.. => u32::MAX,
            silences => self.settings.response_timeout.saturating_mul(1 << silences),
        }
    }

    /// Takes the result of a request. An error says why the server did not accept the
    /// connection, so that the request was not executed.
    pub fn settle(&mut self, request: Request, result: Result<Exchange, Error>) -> Settled {
        let settled = match result {
            Ok(exchange) => self.settle_exchange(&request, &exchange),
            Err(error) => {
                self.silences += u32::from(matches!(error, Error::Timeout(_)));
                for part in request.parts {
                    self.executions[part.operation].fail(Failure::new(error.clone()));
                }
                Settled::default()
            }
        };
        self.undo_once();
        self.keep_order();
        settled
    }

    fn settle_exchange(&mut self, request: &Request, exchange: &Exchange) -> Settled {
        let is_silence = matches!(exchange.end, End::Timeout(_));
        self.silences += u32::from(is_silence);
        self.is_unclear = false;
        let responses = self.responses(request, exchange);
        // If one reply is malformed, the others may belong to other requests.
        let protocol_error = match &exchange.end {
            End::Malformed(error @ Error::Protocol(_)) => Some(error.clone()),
            _ => responses.iter().find_map(Response::protocol_error).cloned(),
        };
        if let Some(error) = protocol_error {
            for part in &request.parts {
                self.executions[part.operation].fail(Failure::new(error.clone()));
            }
            return Settled::default();
        }
        let mut settled = Settled {
            is_reusable: matches!(exchange.end, End::Complete),
            has_script: false,
        };
        for (position, (part, response)) in request.parts.iter().zip(responses).enumerate() {
            let execution = &mut self.executions[part.operation];
            match response {
                Response::Progress(progress) => {
                    let is_done = matches!(progress, Progress::Done(_));
                    settled.has_script |= is_done && execution.effect() == Effect::AppendsOnce;
                    execution.progress(progress);
                }
                Response::Unclear(error) => {
                    settled.is_reusable = false;
                    self.is_unclear = true;
                    execution.fail_unclear(error, self.settings.delivery);
                }
                Response::TooLarge(error) => execution.finish(error),
                Response::Failed(error) => {
                    // Another connection may lead to another server.
                    settled.is_reusable &=
                        !error.is_transient() && !matches!(error, Error::OutcomeUnknown(_));
                    let is_first = position == 0;
                    match error {
                        Error::LimitExceeded(_)
                            if !is_first && execution.effect() == Effect::Reads =>
                        {
                            // Its reply may fit without the replies before it.
                            execution.retry(Failure::new(error));
                        }
                        error if is_silence => execution.fail(Failure::silence(error)),
                        error => execution.fail(Failure::new(error)),
                    }
                }
            }
        }
        settled
    }

    /// Reads the replies of each part.
    fn responses(&mut self, request: &Request, exchange: &Exchange) -> Vec<Response> {
        let mut end = &exchange.end;
        let mut partial = exchange.partial;
        let received = &exchange.received;
        let mut responses = Vec::with_capacity(request.parts.len());
        for part in &request.parts {
            let execution = &mut self.executions[part.operation];
            let replies = received.replies(part.commands.clone());
            let replies = replies.or_else(|| received.refusal(part.commands.start));
            responses.push(match replies {
                Some(replies) => match replies.unclear() {
                    Some(error) => Response::Unclear(error),
                    None => match execution.response(replies) {
                        Ok(progress) => Response::Progress(progress),
                        Err(error) => Response::Failed(error),
                    },
                },
                None => {
                    let cut = match end {
                        End::Closed => execution.reply_was_cut(mem::take(&mut partial)),
                        _ => Ok(()),
                    };
                    let unsent = part.end.saturating_sub(exchange.written);
                    let error = no_reply(end, execution.effect(), unsent);
                    // The reply that did not fit was that of this part. Later parts lost
                    // the connection.
                    if matches!(end, End::Malformed(_)) {
                        end = &End::Closed;
                    }
                    match cut {
                        Ok(()) => Response::Failed(error),
                        Err(too_large) => Response::TooLarge(too_large),
                    }
                }
            });
        }
        responses
    }

    /// Keeps one undo for each key. The first of several transactions on a key of another
    /// type read the original expiry. Each later one read the expiry that the first one set.
    fn undo_once(&mut self) {
        for at in 1..self.executions.len() {
            let (before, behind) = self.executions.split_at_mut(at);
            let execution = &mut behind[0];
            let is_undone_before = execution.undo_error().is_some()
                && before
                    .iter()
                    .any(|other| other.undo_error().is_some() && other.is_on(execution.key()));
            if is_undone_before {
                execution.leave_undo_to_other();
            }
        }
    }

    /// Keeps the order of the operations on each session: operations behind a write that is
    /// retried are executed again after it. Appends that must not be executed again are an
    /// exception: a clear ahead of one is not retried, because it would delete the messages.
    fn keep_order(&mut self) {
        for at in 0..self.executions.len() {
            let (before, behind) = self.executions.split_at_mut(at + 1);
            let execution = &mut before[at];
            if !execution.is_waiting() {
                continue;
            }
            let effect = execution.effect();
            let key = execution.key().to_owned();
            let mut followers = behind.iter_mut().filter(|other| other.is_on(&key));
            match effect {
                Effect::RestoresExpiry => {}
                Effect::Reads => {
                    if followers.any(|other| other.may_have_cleared()) {
                        execution.give_up(Error::Unavailable(
                            "it has to be read again, but a later clear was executed".to_owned(),
                        ));
                    }
                }
                Effect::Clears if followers.any(|other| other.is_final()) => {
                    let unsent = Error::Unavailable("the request was not sent".to_owned());
                    execution.give_up(unsent);
                }
                Effect::Appends | Effect::AppendsOnce | Effect::Clears => {
                    let done = behind
                        .iter_mut()
                        .filter(|other| other.is_on(&key) && !other.is_waiting());
                    done.for_each(Execution::execute_again);
                }
            }
        }
    }

    /// Remembers the appends that were acknowledged at their first attempt.
    pub fn remember(&self, recent: &mut RecentAppends) {
        for execution in &self.executions {
            if let Some(element) = execution.recent_element() {
                recent.remember(execution.key(), element);
            }
        }
    }

    /// Returns the results, in the order of the operations. An operation that still waits
    /// fails with the error of its last attempt.
    pub fn results(self) -> impl Iterator<Item = Result<Outcome<Messages>, Error>> {
        let silence = (self.silences > 1).then(|| {
            format!(
                "no reply within {} ms, on {} connections",
                self.settings.operation_timeout, self.silences
            )
        });
        self.executions.into_iter().map(move |mut execution| {
            if execution.is_waiting() {
                execution.time_out(silence.as_deref());
            }
            execution.into_result()
        })
    }
}

/// The result of one part of a request.
enum Response {
    /// The replies brought the operation forward.
    Progress(Progress),
    /// An error reply that may have come after execution.
    Unclear(Error),
    /// The reply is cut even if a single entry is requested.
    TooLarge(Error),
    /// Any other error.
    Failed(Error),
}

impl Response {
    /// Returns the error if the reply is malformed.
    fn protocol_error(&self) -> Option<&Error> {
        match self {
            Response::Failed(error @ Error::Protocol(_)) => Some(error),
            _ => None,
        }
    }
}

/// Counts the entries that the operations append to each session. A retried append may find
/// the entries of the others behind its own, and searches further by this number. Sessions
/// with the same hash are counted together: searching too far does no harm.
fn appended_by_key(operations: &[Operation], settings: &Settings) -> Vec<usize> {
    if operations.len() == 1 || settings.delivery == Delivery::AtMostOnce {
        return Vec::new();
    }
    let mut appended = Vec::from([0; BUCKETS]);
    for operation in operations {
        appended[bucket(&operation.session_id)] += operation.action.new_messages().len();
    }
    appended
}

fn bucket(session_id: &str) -> usize {
    fnv_1a(session_id) as usize % BUCKETS
}

/// Number of counters.
const BUCKETS: usize = 1024;

/// Milliseconds before the second retry. The first one does not wait, because most lost
/// connections were idle ones that the server has closed.
const FIRST_BACKOFF: u32 = 10;
/// Milliseconds before the first retry after an unclear error reply, so that a proxy has
/// time to find a server again.
const LONG_BACKOFF: u32 = 100;
/// Longest backoff in milliseconds.
const MAX_BACKOFF: u32 = 1000;

/// Number of silent attempts that end early. The next attempt has all the remaining time: if
/// new connections did not help, the server itself is silent.
const MAX_SILENCES: u32 = 3;
