//! The life of one operation: the states of its attempts, and what may follow each.
//!
//! ```text
//!            +------------------------------------------+
//!            v                                          | needs more, or is retried
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
    /// The error that the operation ends with, while its effect is being undone.
    undo_error: Option<Error>,
    /// Number of attempts after the first one.
    retries: u32,
    /// Number of unclear error replies.
    unclear: u32,
}

/// The state of an operation.
enum State {
    /// It is in the next request. If the last attempt failed, this is its failure.
    Ready(Option<Failure>),
    /// It is in the current request.
    Sent(Option<Failure>),
    /// It has its result.
    Done(Result<Outcome<Messages>, Error>),
    /// It has a result, and is executed again because a write ahead of it on its session is
    /// retried.
    Stale(Result<Outcome<Messages>, Error>),
}

/// Why an attempt failed.
pub struct Failure {
    error: Error,
    /// Whether the server was silent.
    is_silence: bool,
}

impl Failure {
    /// Creates the failure of an attempt that ended with this error.
    pub fn new(error: Error) -> Failure {
        Failure {
            error,
            is_silence: false,
        }
    }

    /// Creates the failure of an attempt in which the server was silent.
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
    /// One was acknowledged before the write was executed again. The acknowledgement is
    /// valid even if the repetition fails, unless a clear ahead of it was sent again in
    /// between.
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

    /// Creates the procedure. None for a `get` with limit 0, which needs no request.
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

    /// Whether it is in the current request.
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

    /// The error that it ends with, while its effect is being undone.
    pub fn undo_error(&self) -> Option<&Error> {
        self.undo_error.as_ref().filter(|_| self.is_waiting())
    }

    /// Whether it has deleted its session, or may have.
    pub fn may_have_cleared(&self) -> bool {
        self.effect() == Effect::Clears
            && (!matches!(self.earlier, EarlierAttempts::Nothing)
                || matches!(self.state, State::Done(Ok(_)) | State::Stale(Ok(_))))
    }

    /// Whether it has appended elements that must not be appended again, or may have.
    pub fn is_final(&self) -> bool {
        let has_appended = matches!(
            self.state,
            State::Done(Ok(_) | Err(Error::OutcomeUnknown(_)))
        );
        self.effect() == Effect::Appends && has_appended
    }

    /// The last element that it appended, if a later append may rely on it.
    pub fn recent_element(&self) -> Option<&[u8]> {
        let is_done = matches!(self.state, State::Done(Ok(_)));
        let procedure = self
            .procedure
            .as_ref()
            .filter(|_| is_done && !self.is_retried());
        procedure?.last_element()
    }

    /// Makes the next request send the script in full.
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

    /// Handles a reply that was cut after this many bytes.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] if a smaller request cannot help.
    pub fn reply_was_cut(&mut self, bytes: usize) -> Result<(), Error> {
        match &mut self.procedure {
            Some(procedure) => procedure.reply_was_cut(bytes),
            None => Ok(()),
        }
    }

    // Results of an attempt.

    /// Takes the progress of an attempt.
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

    /// Takes a failure. Retries the operation if that is safe and may help.
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

    /// Takes an error reply that may have come after execution.
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

    /// Retries the operation, whatever the failure is.
    pub fn retry(&mut self, failure: Failure) {
        self.retries += 1;
        let failure = match self.take_failure() {
            // A timeout of the last attempt says less than the previous failure.
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

    /// Ends the operation: with this error, or with its earlier acknowledgement.
    pub fn finish(&mut self, error: Error) {
        let result = match mem::replace(&mut self.earlier, EarlierAttempts::Nothing) {
            EarlierAttempts::Nothing => Err(self.with_pending_undo(error)),
            EarlierAttempts::Unknown => Err(match self.with_pending_undo(error) {
                error @ Error::OutcomeUnknown(_) => error,
                // The result of a later attempt says nothing about an earlier one.
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

    /// Returns the error, as an unknown outcome if an undo is pending.
    fn with_pending_undo(&self, error: Error) -> Error {
        match error {
            Error::Unavailable(text) | Error::Timeout(text) if self.undo_error.is_some() => {
                Error::OutcomeUnknown(text)
            }
            error => error,
        }
    }

    /// Ends the operation with the error of its last attempt, or else with this one.
    pub fn give_up(&mut self, otherwise: Error) {
        let error = self
            .take_failure()
            .map_or(otherwise, |failure| failure.error);
        self.finish(error);
    }

    /// Ends the operation with the error of its last attempt. `silence` describes silence in
    /// several attempts.
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

    // Effects of other operations on the same session.

    /// Executes the operation again, if it may be, because a write ahead of it is retried.
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

    /// Notes that a clear ahead of the operation is sent again.
    pub fn mark_cleared(&mut self) {
        if let EarlierAttempts::Acknowledged { may_be_cleared, .. } = &mut self.earlier {
            *may_be_cleared = true;
        }
    }

    /// Leaves the undo to another operation on the same key, and ends with its own error.
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
        // Replies to writes are small. A large one belongs to another request.
        Error::LimitExceeded(text) if !reads => Error::Protocol(text),
        // The server cannot execute a request before its last byte has arrived.
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
