//! The life of one operation: the states of its attempts, and what may follow each.
//!
//! ```text
//!            +------------------------------------------+
//!            v                                          | more to ask for, or retried
//! start -> Ready --- request ---> Sent --- settle ------+
//!            ^                     |                    |
//!            |                     +--------------------+--> Done
//!            |                                                 |
//!            +-- request -- Stale <--- a write ahead of it ----+
//!                                      is retried
//! ```

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::mem;

use crate::error::Error;
use crate::exchange::End;
use crate::message::Messages;
use crate::operation::{
    Action, Effect, Operation, Outcome, Procedure, Progress, Session, StartContext,
};
use crate::options::{Delivery, Settings};
use crate::resp::{Commands, Replies};

/// An operation in execution.
pub struct Execution {
    name: &'static str,
    session_id: String,
    /// The Redis key of the session; empty if the operation needs no request.
    key: String,
    /// None if the result was known from the start.
    procedure: Option<Box<dyn Procedure>>,
    state: State,
    earlier: EarlierAttempts,
    /// The error to come, if what the operation did is being undone.
    undo_error: Option<Error>,
    /// Number of attempts after the first one.
    retries: u32,
    /// Number of unclear error replies.
    unclear: u32,
}

/// Where an operation stands.
enum State {
    /// It is in the next request. The failure is that of the last attempt, if it failed.
    Ready(Option<Failure>),
    /// It is in the request that is on its way.
    Sent(Option<Failure>),
    /// It has its result.
    Done(Result<Outcome<Messages>, Error>),
    /// It has a result and is in the next request all the same, because a write ahead of
    /// it on its session is retried.
    Stale(Result<Outcome<Messages>, Error>),
}

/// Why an attempt failed.
pub struct Failure {
    error: Error,
    /// Whether the server was silent.
    is_silence: bool,
}

impl Failure {
    /// The attempt failed with this error.
    pub fn new(error: Error) -> Failure {
        Failure {
            error,
            is_silence: false,
        }
    }

    /// The attempt failed with this error, because the server was silent.
    pub fn silence(error: Error) -> Failure {
        Failure {
            error,
            is_silence: true,
        }
    }
}

/// What earlier attempts of a write have done on the server.
enum EarlierAttempts {
    /// Nothing.
    Nothing,
    /// One was sent, and its outcome is unknown.
    Unknown,
    /// One was acknowledged before the write was executed again. The acknowledgement
    /// stands, whatever becomes of the repetition, unless a clear ahead of it was sent
    /// again in between.
    Acknowledged {
        outcome: Outcome<Messages>,
        may_be_cleared: bool,
    },
}

impl Execution {
    /// Starts an operation.
    pub fn new(operation: Operation, settings: &Settings, context: StartContext<'_>) -> Execution {
        let Operation { session_id, action } = operation;
        let mut execution = Execution {
            name: action.name(),
            session_id,
            key: String::new(),
            procedure: None,
            state: State::Ready(None),
            earlier: EarlierAttempts::Nothing,
            undo_error: None,
            retries: 0,
            unclear: 0,
        };
        match execution.start(&action, settings, context) {
            Ok(Some(procedure)) => execution.procedure = Some(procedure),
            Ok(None) => {
                let nothing = Outcome::Messages(Messages::default());
                execution.state = State::Done(Ok(nothing));
            }
            Err(error) => execution.state = State::Done(Err(error)),
        }
        execution
    }

    /// How the operation is carried out; none if it reads no message at all.
    fn start(
        &mut self,
        action: &Action,
        settings: &Settings,
        context: StartContext<'_>,
    ) -> Result<Option<Box<dyn Procedure>>, Error> {
        let key = settings.key(&self.session_id)?;
        if *action == Action::Get(Some(0)) {
            return Ok(None);
        }
        let session = Session {
            key: &key,
            settings,
        };
        let procedure = action.start(session, context)?;
        self.key = key;
        Ok(Some(procedure))
    }

    /// The key of its session.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What its next request does.
    pub fn effect(&self) -> Effect {
        let procedure = self.procedure.as_ref();
        procedure.map_or(Effect::Reads, |procedure| procedure.effect())
    }

    /// Whether it is on the session at this key.
    pub fn is_on(&self, key: &str) -> bool {
        self.key == key
    }

    /// Whether it has no result yet.
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Ready(_) | State::Sent(_))
    }

    /// Whether it is in the next request.
    pub fn is_next(&self) -> bool {
        !matches!(self.state, State::Done(_))
    }

    /// Whether it is in the request that is on its way.
    pub fn is_sent(&self) -> bool {
        matches!(self.state, State::Sent(_))
    }

    /// Whether its last attempt failed.
    pub fn has_failed(&self) -> bool {
        matches!(self.state, State::Ready(Some(_)))
    }

    /// Whether an attempt after the first one was made.
    pub fn is_retried(&self) -> bool {
        self.retries > 0
    }

    /// The error that it ends with when what it did is undone.
    pub fn undo_error(&self) -> Option<&Error> {
        self.undo_error.as_ref().filter(|_| self.is_waiting())
    }

    /// Whether it has deleted its session, or may have.
    pub fn may_have_cleared(&self) -> bool {
        self.effect() == Effect::Clears
            && (!matches!(self.earlier, EarlierAttempts::Nothing)
                || matches!(self.state, State::Done(Ok(_)) | State::Stale(Ok(_))))
    }

    /// Whether it appended something that must not be appended again, or may have.
    pub fn is_final(&self) -> bool {
        let has_appended = matches!(
            self.state,
            State::Done(Ok(_) | Err(Error::OutcomeUnknown(_)))
        );
        self.effect() == Effect::Appends && has_appended
    }

    /// The element that it appended last, if a later append may rely on that.
    pub fn recent_element(&self) -> Option<&[u8]> {
        let is_done = matches!(self.state, State::Done(Ok(_)));
        let procedure = self
            .procedure
            .as_ref()
            .filter(|_| is_done && !self.is_retried());
        procedure?.last_element()
    }

    /// Has the next request bring its script in full.
    pub fn bring_script(&mut self) {
        if let Some(procedure) = &mut self.procedure {
            procedure.bring_script();
        }
    }

    /// Puts it into the next request, if it belongs there. Returns whether it does.
    pub fn prepare(&mut self) -> bool {
        let sent = match mem::replace(&mut self.state, State::Sent(None)) {
            State::Ready(failure) | State::Sent(failure) => State::Sent(failure),
            State::Stale(result) => {
                self.repeat(result);
                State::Sent(None)
            }
            done @ State::Done(_) => done,
        };
        self.state = sent;
        self.is_sent()
    }

    fn repeat(&mut self, result: Result<Outcome<Messages>, Error>) {
        self.retries += 1;
        if let Ok(outcome) = result
            && self.effect() != Effect::Reads
        {
            self.earlier = EarlierAttempts::Acknowledged {
                outcome,
                may_be_cleared: false,
            };
        }
    }

    /// Pushes its commands.
    pub fn request(&self, settings: &Settings, commands: &mut Commands) {
        if let Some(procedure) = &self.procedure {
            let session = Session {
                key: &self.key,
                settings,
            };
            procedure.request(session, commands);
        }
    }

    /// Reads the replies to its commands.
    ///
    /// # Errors
    ///
    /// The error that was replied, or [`Error::Protocol`].
    pub fn response(&mut self, replies: Replies<'_>) -> Result<Progress, Error> {
        match &mut self.procedure {
            Some(procedure) => procedure.response(replies),
            None => Err(Error::protocol("a reply to no request")),
        }
    }

    /// The connection was closed after so many bytes of its reply.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] if there is no way around that.
    pub fn reply_was_cut(&mut self, bytes: usize) -> Result<(), Error> {
        match &mut self.procedure {
            Some(procedure) => procedure.reply_was_cut(bytes),
            None => Ok(()),
        }
    }

    // What becomes of an attempt.

    /// The attempt brought it forward.
    pub fn progress(&mut self, progress: Progress) {
        self.state = match progress {
            Progress::Done(outcome) => {
                self.earlier = EarlierAttempts::Nothing;
                State::Done(Ok(outcome))
            }
            Progress::NeedsMore => State::Ready(None),
            Progress::Undo(error) => {
                self.undo_error = Some(error);
                State::Ready(None)
            }
            Progress::Undone => {
                let lost = || Error::protocol("nothing was undone");
                State::Done(Err(self.undo_error.take().unwrap_or_else(lost)))
            }
        };
    }

    /// The attempt failed. It is retried if that is safe and may help.
    pub fn fail(&mut self, failure: Failure) {
        let may_be_repeated = self.effect() != Effect::Appends;
        let is_retried = match &failure.error {
            // Nothing was sent, or nothing that changes anything.
            Error::Unavailable(_) | Error::Timeout(_) => true,
            Error::OutcomeUnknown(_) => {
                self.mark_unknown();
                may_be_repeated
            }
            error => error.is_transient() && may_be_repeated,
        };
        if is_retried {
            self.retry(failure);
        } else {
            self.finish(failure.error);
        }
    }

    /// The attempt got an error reply that may have come after execution.
    pub fn fail_unclear(&mut self, error: Error, delivery: Delivery) {
        let reads = self.effect() == Effect::Reads;
        let error = if reads {
            error
        } else {
            self.mark_unknown();
            Error::OutcomeUnknown(error.text().into())
        };
        self.unclear += 1;
        if self.unclear <= MAX_UNCLEAR && (reads || delivery == Delivery::ExactlyOnce) {
            self.retry(Failure::new(error));
        } else {
            self.finish(error);
        }
    }

    fn mark_unknown(&mut self) {
        if matches!(self.earlier, EarlierAttempts::Nothing) {
            self.earlier = EarlierAttempts::Unknown;
        }
    }

    /// It is retried, whatever the failure is.
    pub fn retry(&mut self, failure: Failure) {
        self.retries += 1;
        let failure = match self.take_failure() {
            // A last attempt without enough time tells less than the previous one.
            Some(previous) if matches!(failure.error, Error::Timeout(_)) => previous,
            _ => failure,
        };
        self.state = State::Ready(Some(failure));
    }

    fn take_failure(&mut self) -> Option<Failure> {
        match &mut self.state {
            State::Ready(failure) | State::Sent(failure) => failure.take(),
            State::Done(_) | State::Stale(_) => None,
        }
    }

    /// It is not retried: it ends with this error, or with what it was acknowledged with.
    pub fn finish(&mut self, error: Error) {
        let result = match mem::replace(&mut self.earlier, EarlierAttempts::Nothing) {
            EarlierAttempts::Nothing => Err(self.with_pending_undo(error)),
            EarlierAttempts::Unknown => Err(match self.with_pending_undo(error) {
                error @ Error::OutcomeUnknown(_) => error,
                // The result of a later attempt tells nothing about an earlier one.
                error => Error::OutcomeUnknown(format!(
                    "an earlier attempt was sent and its outcome is unknown; then: {error}"
                )),
            }),
            EarlierAttempts::Acknowledged {
                may_be_cleared: true,
                ..
            } if self.effect() == Effect::AppendsOnce => Err(Error::OutcomeUnknown(format!(
                "it was executed, but then an earlier clear was retried: {error}"
            ))),
            EarlierAttempts::Acknowledged { outcome, .. } => Ok(outcome),
        };
        // It may still be executed again, behind a retried write.
        if matches!(result, Err(Error::OutcomeUnknown(_))) {
            self.earlier = EarlierAttempts::Unknown;
        }
        self.state = State::Done(result);
    }

    /// The error, if something remains to be undone.
    fn with_pending_undo(&self, error: Error) -> Error {
        match error {
            Error::Unavailable(text) | Error::Timeout(text) if self.undo_error.is_some() => {
                Error::OutcomeUnknown(text)
            }
            error => error,
        }
    }

    /// It ends with why its last attempt failed, or with this error.
    pub fn give_up(&mut self, otherwise: Error) {
        let error = self
            .take_failure()
            .map_or(otherwise, |failure| failure.error);
        self.finish(error);
    }

    /// It ends with why its last attempt failed. `silence` tells of silence in several
    /// attempts.
    pub fn time_out(&mut self, silence: Option<&str>) {
        let error = match (self.take_failure(), silence) {
            (None, _) => Error::Unavailable("the request was not sent".into()),
            (Some(failure), Some(silence)) if failure.is_silence => match failure.error {
                Error::Timeout(_) => Error::Timeout(silence.into()),
                Error::OutcomeUnknown(_) => Error::OutcomeUnknown(after_sending(silence)),
                error => error,
            },
            (Some(failure), _) => failure.error,
        };
        self.finish(error);
    }

    // What others on the same session do to it.

    /// A write ahead of it is retried: it is executed again after that, if it may be.
    pub fn execute_again(&mut self) {
        if matches!(self.effect(), Effect::Appends | Effect::RestoresExpiry) {
            return;
        }
        let state = mem::replace(&mut self.state, State::Ready(None));
        self.state = match state {
            State::Done(result) => State::Stale(result),
            state => state,
        };
    }

    /// A clear ahead of it is sent again.
    pub fn mark_cleared(&mut self) {
        if let EarlierAttempts::Acknowledged { may_be_cleared, .. } = &mut self.earlier {
            *may_be_cleared = true;
        }
    }

    /// Another operation undoes what both did: it ends with its own error.
    pub fn leave_undo_to_other(&mut self) {
        if let Some(error) = self.undo_error.take() {
            self.state = State::Done(Err(error));
        }
    }

    /// Returns the result, with the operation and the session in the text of an error.
    pub fn into_result(self) -> Result<Outcome<Messages>, Error> {
        let result = match self.state {
            State::Done(result) | State::Stale(result) => result,
            State::Ready(_) | State::Sent(_) => Err(Error::protocol("there is no result")),
        };
        result.map_err(|error| error.during(self.name, &self.session_id))
    }
}

/// Returns why there is no reply to a request with this effect, of which this many bytes were
/// not sent.
pub fn no_reply(end: &End, effect: Effect, unsent: usize) -> Error {
    let reads = effect == Effect::Reads;
    match end.lost() {
        // No reply to a write is large: one that is was not meant for it.
        Error::LimitExceeded(text) if !reads => Error::Protocol(text),
        // The server cannot execute a request before its last byte is there.
        Error::Unavailable(what) | Error::Timeout(what) if unsent == 0 && !reads => {
            Error::OutcomeUnknown(after_sending(&what))
        }
        error => error,
    }
}

fn after_sending(what: &str) -> String {
    format!("{what} after the request was sent")
}

/// Number of retries after error replies that may have come after execution.
const MAX_UNCLEAR: u32 = 3;
