//! A client of the `redis` provider: each operation under its deadline, on the
//! one connection or a new one, once or until it succeeds.

use alloc::vec::Vec;

use crate::clock::Deadline;
use crate::connection::Connection;
use crate::error::Error;
use crate::message::Message;
use crate::operation::History;
use crate::options::{Delivery, Settings};
use crate::random::jittered;
use crate::reply::Replies;
use crate::session::{self, Appended, Effect, Read, Request, Script, Transacted, Window};
use crate::socket::authority;

/// A client, with its connection if it has one.
pub struct Client {
    settings: Settings,
    connection: Option<Connection>,
}

impl Client {
    /// Connects and lets the server check credentials and database, unless that is
    /// left to the first operation.
    pub fn open(settings: Settings) -> Result<Client, Error> {
        let mut connection = None;
        if !settings.lazy_connect {
            let deadline = Deadline::after(settings.connect_timeout);
            connection = Some(connect(&settings, &deadline)?);
        }
        Ok(Client {
            settings,
            connection,
        })
    }

    pub fn append(
        &mut self,
        key: &str,
        elements: &[Vec<u8>],
        deadline: &Deadline,
    ) -> Result<u32, Error> {
        if elements.is_empty() {
            return self.length(key, deadline);
        }
        match self.settings.delivery {
            Delivery::ExactlyOnce => self.append_exactly_once(key, elements, deadline),
            Delivery::AtMostOnce => self.append_at_most_once(key, elements, deadline),
        }
    }

    fn append_exactly_once(
        &mut self,
        key: &str,
        elements: &[Vec<u8>],
        deadline: &Deadline,
    ) -> Result<u32, Error> {
        let request = |settings: &_, script| session::append(settings, key, elements, script);
        let cached = request(&self.settings, Script::Cached);
        self.operate(cached.effect, deadline, |client| {
            let mut appended = client.exchange(&cached, deadline, session::appended)?;
            if appended == Appended::ScriptUnknown {
                let full = request(&client.settings, Script::Full);
                appended = client.exchange(&full, deadline, session::appended)?;
            }
            match appended {
                Appended::Length(length) => Ok(length),
                Appended::ScriptUnknown => Err(Error::Protocol(
                    "the server does not know a script that it was just given".into(),
                )),
            }
        })
    }

    fn append_at_most_once(
        &mut self,
        key: &str,
        elements: &[Vec<u8>],
        deadline: &Deadline,
    ) -> Result<u32, Error> {
        let settings = self.settings.clone();
        let request = session::transaction(&settings, key, elements);
        self.operate(request.effect, deadline, |client| {
            let answer = |replies: &_| session::transacted(replies, &settings, key);
            match client.exchange(&request, deadline, answer)? {
                Transacted::Length(length) => Ok(length),
                Transacted::Foreign(error, undo) => {
                    // On its own: with the rest of the attempt, it would be the wrong
                    // expiry that is asked for and given back.
                    let undone = client.operate(undo.effect, deadline, |client| {
                        client.exchange(&undo, deadline, session::undone)
                    });
                    undone.and(Err(error)).map_err(|error| match error {
                        Error::Unavailable(text) | Error::Timeout(text) => {
                            Error::OutcomeUnknown(text)
                        }
                        error => error,
                    })
                }
            }
        })
    }

    pub fn get(
        &mut self,
        key: &str,
        limit: Option<u32>,
        deadline: &Deadline,
    ) -> Result<Vec<Message>, Error> {
        if limit == Some(0) {
            return Ok(Vec::new());
        }
        self.read(key, limit, deadline, session::get, session::got)
    }

    pub fn history(
        &mut self,
        key: &str,
        limit: Option<u32>,
        deadline: &Deadline,
    ) -> Result<History, Error> {
        self.read(
            key,
            limit,
            deadline,
            session::history,
            session::history_read,
        )
    }

    fn read<T>(
        &mut self,
        key: &str,
        limit: Option<u32>,
        deadline: &Deadline,
        request: impl Fn(&str, Window) -> Request,
        answer: impl Fn(&Replies, Option<u32>, Window) -> Result<Read<T>, Error>,
    ) -> Result<T, Error> {
        self.operate(Effect::Reads, deadline, |client| {
            let mut window = Window(limit);
            loop {
                let request = request(key, window);
                let answer = |replies: &_| answer(replies, limit, window);
                match client.exchange(&request, deadline, answer)? {
                    Read::Done(result) => return Ok(result),
                    Read::Again(larger) => window = larger,
                }
            }
        })
    }

    pub fn clear(&mut self, key: &str, deadline: &Deadline) -> Result<(), Error> {
        let request = session::clear(key);
        self.operate(request.effect, deadline, |client| {
            client.exchange(&request, deadline, session::cleared)
        })
    }

    pub fn length(&mut self, key: &str, deadline: &Deadline) -> Result<u32, Error> {
        let request = session::length(key);
        self.operate(request.effect, deadline, |client| {
            client.exchange(&request, deadline, session::length_read)
        })
    }

    /// Tries an operation until it succeeds, fails for good, or its deadline would
    /// pass before the next try.
    fn operate<T>(
        &mut self,
        effect: Effect,
        deadline: &Deadline,
        mut attempt: impl FnMut(&mut Client) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut outcome_unknown = false;
        let mut earlier = None;
        let mut wait = 0;
        loop {
            let error = match attempt(self) {
                Ok(result) => return Ok(result),
                Err(error) => error,
            };
            let again = match &error {
                // Nothing was sent, or nothing that changes anything.
                Error::Unavailable(_) | Error::Timeout(_) => true,
                Error::OutcomeUnknown(_) => {
                    outcome_unknown = true;
                    effect == Effect::WritesAgain
                }
                error if error.may_pass() => {
                    // Another connection may lead to another server.
                    self.connection = None;
                    effect != Effect::WritesOnce
                }
                _ => false,
            };
            if !again || deadline.pause(jittered(wait)).is_err() {
                // That the time for yet another try was too short says less than
                // what came of the one before.
                let error = match (error, earlier) {
                    (Error::Timeout(_), Some(earlier)) => earlier,
                    (error, _) => error,
                };
                // What a later try came to says nothing of an earlier one.
                return Err(match error {
                    Error::OutcomeUnknown(_) => error,
                    error if outcome_unknown => Error::OutcomeUnknown(alloc::format!(
                        "the connection was lost after the request was sent, and then: {error}"
                    )),
                    error => error,
                });
            }
            earlier = Some(error);
            wait = (2 * wait).clamp(FIRST_WAIT, LONGEST_WAIT);
        }
    }

    /// Sends a request and reads its replies with `answer`. A connection that fails
    /// at it, or on which something came that is no answer, is gone with it.
    fn exchange<T>(
        &mut self,
        request: &Request,
        deadline: &Deadline,
        answer: impl FnOnce(&Replies) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let connection = match self.connection.take().filter(Connection::is_usable) {
            Some(connection) => connection,
            None => {
                let deadline = deadline.or_after(self.settings.connect_timeout);
                connect(&self.settings, &deadline)?
            }
        };
        let (connection, replies) =
            connection.exchange(request, self.settings.max_reply_bytes, deadline)?;
        let result = answer(&replies);
        if !matches!(result, Err(Error::Protocol(_))) {
            self.connection = connection;
        }
        result
    }
}

/// Every error names the server: this is where it can be the wrong one.
fn connect(settings: &Settings, deadline: &Deadline) -> Result<Connection, Error> {
    let connect = || {
        let connection = Connection::open(&settings.host, settings.port, deadline)?;
        let handshake = session::handshake(settings);
        let (connection, replies) =
            connection.exchange(&handshake, settings.max_reply_bytes, deadline)?;
        session::handshake_done(&replies, settings)?;
        connection.ok_or_else(|| Error::Unavailable("the connection was lost".into()))
    };
    connect().map_err(|error| error.during("connect to", &authority(&settings.host, settings.port)))
}

/// Milliseconds before the second try after the first, which comes at once: most
/// lost connections were idle ones that the server has closed.
const FIRST_WAIT: u32 = 10;
/// Milliseconds; waits double up to here.
const LONGEST_WAIT: u32 = 1000;
