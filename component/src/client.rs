//! A client of the `redis` provider: runs pipelines on its one connection, or a new
//! one, under their deadline.

use alloc::borrow::ToOwned;
use core::mem;
use core::net::IpAddr;

use crate::clock::{self, Deadline};
use crate::command::Commands;
use crate::connection::{Connection, Route};
use crate::error::Error;
use crate::options::{Connect, Delivery, Settings};
use crate::pipeline::{End, Exchange, Next, Pipeline};
use crate::random::jittered;
use crate::reply::{Replies, ReplyReader};
use crate::session;
use crate::socket::{authority, close_unsent};

/// A client, with its connection if it has one.
pub struct Client {
    connection: Option<Connection>,
    /// When the operation began that used the connection last.
    used: u64,
    route: Route,
    /// Whether the next connection is the first one, and the first request may be
    /// sent along with the handshake.
    greets_with_request: bool,
    /// Whether the server at its other end is known to have the script.
    knows_script: bool,
}

impl Client {
    /// Connects and lets the server check credentials and database, unless that is
    /// left to the first operation.
    pub fn open(settings: &Settings) -> Result<Client, Error> {
        let mut client = Client {
            connection: None,
            used: 0,
            route: Route::default(),
            greets_with_request: settings.connect == Connect::WithFirstOperation,
            knows_script: false,
        };
        if settings.connect == Connect::AtOpen {
            let deadline = Deadline::after(settings.connect_timeout);
            client.connection = Some(client.greet(settings, &deadline, u32::MAX)?);
            client.used = deadline.begin();
        }
        Ok(client)
    }

    /// Runs a pipeline until every operation has its result, or the deadline would
    /// pass before the next round.
    pub fn run(&mut self, pipeline: &mut Pipeline<'_>, settings: &Settings, deadline: &Deadline) {
        close_unsent();
        let mut wait = 0;
        let mut silent = 0;
        loop {
            match pipeline.next() {
                Next::Nothing => return,
                Next::Round => {}
                next => {
                    if next == Next::RoundAfterLongWait {
                        wait = wait.max(LONG_WAIT);
                    }
                    if deadline.pause(jittered(wait)).is_err() {
                        return;
                    }
                    wait = (2 * wait).clamp(FIRST_WAIT, LONGEST_WAIT);
                }
            }
            let patience = match silent {
                // Connecting anew has not helped.
                MOST_SILENT.. => u32::MAX,
                _ => settings.response_timeout.saturating_mul(1 << silent),
            };
            match self.round(pipeline, settings, deadline, patience) {
                Ok(End::Timeout(_)) => silent += 1,
                Ok(_) => {}
                Err(error) => {
                    silent += u32::from(matches!(error, Error::Timeout(_)));
                    pipeline.not_sent(&error);
                    // Waiting is of no use where no connection can be made.
                    if close_unsent() {
                        return;
                    }
                }
            }
        }
    }

    /// One request and its replies; returns how it ended. A connection that fails at it,
    /// or on which something came that is no answer, is gone with it. What may be made
    /// again is given up after `patience` milliseconds of silence.
    fn round(
        &mut self,
        pipeline: &mut Pipeline<'_>,
        settings: &Settings,
        deadline: &Deadline,
        patience: u32,
    ) -> Result<End, Error> {
        let mut commands = Commands::default();
        let is_fresh = deadline.begin() <= self.used + clock::nanoseconds(settings.max_idle);
        let idle = self.connection.take().filter(|_| is_fresh);
        let connection = match idle.filter(Connection::is_usable) {
            Some(connection) => connection,
            None => {
                self.knows_script = false;
                let deadline = deadline.or_after(settings.connect_timeout);
                let mut handshake = Commands::default();
                session::handshake(&mut handshake, settings);
                // What comes behind a handshake that fails is executed all the same: as
                // another user, in another database.
                let together = handshake.count() == 0 || pipeline.only_reads();
                if mem::take(&mut self.greets_with_request) && together {
                    commands = handshake;
                    self.connect(settings, &deadline, patience)?
                } else {
                    self.greet(settings, &deadline, patience)?
                }
            }
        };
        let greeting = commands.count();
        if !self.knows_script {
            pipeline.bring_script();
        }
        pipeline.request(&mut commands);
        let replies = ReplyReader::new(commands.count(), settings.max_reply_bytes);
        let replies = replies.beside(pipeline.held());
        let patience = match pipeline.may_be_late() {
            true => patience,
            false => u32::MAX,
        };
        let address = connection.address();
        let work_ahead = &mut || pipeline.work_ahead();
        let (connection, exchange) =
            connection.exchange(&commands, replies, deadline, patience, work_ahead);
        self.learn(address, &exchange);
        greeted(&exchange, greeting, settings)?;
        if pipeline.settle(&exchange) {
            self.connection = connection;
            self.used = deadline.begin();
        }
        self.knows_script |= pipeline.has_appended();
        Ok(exchange.end)
    }

    /// A connection on which the server has let this client in, and answers.
    fn greet(
        &mut self,
        settings: &Settings,
        deadline: &Deadline,
        patience: u32,
    ) -> Result<Connection, Error> {
        let connection = self.connect(settings, deadline, patience)?;
        let mut commands = Commands::default();
        session::handshake(&mut commands, settings);
        let greeting = commands.count();
        session::ping(&mut commands);
        let replies = ReplyReader::new(commands.count(), settings.max_reply_bytes);
        let address = connection.address();
        let (connection, exchange) =
            connection.exchange(&commands, replies, deadline, patience, &mut || ());
        self.learn(address, &exchange);
        greeted(&exchange, greeting, settings)?;
        let pong = match exchange.received.replies(greeting..greeting + 1) {
            Some(replies) => answered(replies, session::pong(replies)),
            None => Err(hung_up(&exchange, settings)),
        };
        pong.and_then(|()| connection.ok_or_else(|| exchange.lost()))
            .map_err(|error| naming(error, settings))
    }

    /// Has the next connection try another address first, if this one was silent.
    fn learn(&mut self, address: IpAddr, exchange: &Exchange) {
        if matches!(exchange.end, End::Timeout(_)) {
            self.route.was_silent(address);
        }
    }

    fn connect(
        &mut self,
        settings: &Settings,
        deadline: &Deadline,
        patience: u32,
    ) -> Result<Connection, Error> {
        let deadline = deadline.or_after(patience);
        Connection::open(&settings.host, settings.port, &mut self.route, &deadline)
            .map_err(|error| naming(error, settings))
    }
}

/// Reads the replies to the handshake, with which a request begins.
fn greeted(exchange: &Exchange, greeting: usize, settings: &Settings) -> Result<(), Error> {
    let received = &exchange.received;
    let replies = received.replies(0..greeting);
    match replies.or_else(|| received.refusal(0)) {
        Some(replies) => answered(replies, session::handshake_done(replies, settings)),
        None => Err(hung_up(exchange, settings)),
    }
    .map_err(|error| naming(error, settings))
}

/// What the replies to a handshake come to: where something on the way may have sent the
/// error, there is no connection, and nothing was applied.
fn answered(replies: Replies<'_>, result: Result<(), Error>) -> Result<(), Error> {
    match (result, replies.unclear()) {
        (Err(Error::Server { message, .. }), Some(_)) => Err(Error::Unavailable(message)),
        (result, _) => result,
    }
}

/// Why there is no reply to a handshake, and what may be the matter where the server
/// closed the connection without a word.
fn hung_up(exchange: &Exchange, settings: &Settings) -> Error {
    let error = exchange.lost();
    if !matches!(exchange.end, End::Closed) {
        return error;
    }
    let mut text = error.text().to_owned();
    text += " before the server answered: it may want TLS, or be a proxy without a server";
    if settings.db != 0 {
        text += ", or one that closes it on SELECT (db)";
    }
    if settings.delivery == Delivery::AtMostOnce {
        text += ", or one that closes it on MULTI (delivery at-most-once)";
    }
    Error::Unavailable(text)
}

/// Every error on the way to a connection names the server: this is where it can be
/// the wrong one.
fn naming(error: Error, settings: &Settings) -> Error {
    error.during("connect to", &authority(&settings.host, settings.port))
}

/// Milliseconds before the second try after the first, which comes at once: most
/// lost connections were idle ones that the server has closed.
const FIRST_WAIT: u32 = 10;
/// Milliseconds before the first try after an error reply of something on the way.
const LONG_WAIT: u32 = 100;
/// Milliseconds; waits double up to here.
const LONGEST_WAIT: u32 = 1000;

/// Tries that silence may end early. The next one has all the time that is left: four
/// connections have been tried then, and it is the server that is silent.
const MOST_SILENT: u32 = 3;
