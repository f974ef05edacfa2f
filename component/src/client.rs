//! A client of the `redis` provider: runs pipelines on its one connection, or a new
//! one, under their deadline.

use core::mem;

use crate::clock::Deadline;
use crate::command::Commands;
use crate::connection::Connection;
use crate::error::Error;
use crate::options::{Connect, Settings};
use crate::pipeline::{Exchange, Next, Pipeline};
use crate::random::jittered;
use crate::reply::ReplyReader;
use crate::session;
use crate::socket::authority;

/// A client, with its connection if it has one.
pub struct Client {
    connection: Option<Connection>,
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
        let mut connection = None;
        if settings.connect == Connect::AtOpen {
            let deadline = Deadline::after(settings.connect_timeout);
            connection = Some(greet(settings, &deadline)?);
        }
        Ok(Client {
            connection,
            greets_with_request: settings.connect == Connect::WithFirstOperation,
            knows_script: false,
        })
    }

    /// Runs a pipeline until every operation has its result, or the deadline would
    /// pass before the next round.
    pub fn run(&mut self, pipeline: &mut Pipeline<'_>, settings: &Settings, deadline: &Deadline) {
        let mut wait = 0;
        loop {
            match pipeline.next() {
                Next::Nothing => return,
                Next::Round => {}
                Next::RoundAfterWait => {
                    if deadline.pause(jittered(wait)).is_err() {
                        return;
                    }
                    wait = (2 * wait).clamp(FIRST_WAIT, LONGEST_WAIT);
                }
            }
            if let Err(error) = self.round(pipeline, settings, deadline) {
                pipeline.not_sent(&error);
            }
        }
    }

    /// One request and its replies. A connection that fails at it, or on which
    /// something came that is no answer, is gone with it.
    fn round(
        &mut self,
        pipeline: &mut Pipeline<'_>,
        settings: &Settings,
        deadline: &Deadline,
    ) -> Result<(), Error> {
        let mut commands = Commands::default();
        let connection = match self.connection.take().filter(Connection::is_usable) {
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
                    connect(settings, &deadline)?
                } else {
                    greet(settings, &deadline)?
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
        let (connection, exchange) =
            connection.exchange(&commands, replies, deadline, &mut || pipeline.work_ahead());
        greeted(&exchange, greeting, settings)?;
        if pipeline.settle(&exchange) {
            self.connection = connection;
        }
        self.knows_script |= pipeline.has_appended();
        Ok(())
    }
}

/// A connection on which the server has let this client in, and answers.
fn greet(settings: &Settings, deadline: &Deadline) -> Result<Connection, Error> {
    let connection = connect(settings, deadline)?;
    let mut commands = Commands::default();
    session::handshake(&mut commands, settings);
    let greeting = commands.count();
    session::ping(&mut commands);
    let replies = ReplyReader::new(commands.count(), settings.max_reply_bytes);
    let (connection, exchange) = connection.exchange(&commands, replies, deadline, &mut || ());
    greeted(&exchange, greeting, settings)?;
    let pong = match exchange.received.replies(greeting..greeting + 1) {
        Some(replies) => session::pong(replies),
        None => Err(exchange.lost()),
    };
    pong.and_then(|()| connection.ok_or_else(|| exchange.lost()))
        .map_err(|error| naming(error, settings))
}

fn connect(settings: &Settings, deadline: &Deadline) -> Result<Connection, Error> {
    Connection::open(&settings.host, settings.port, deadline)
        .map_err(|error| naming(error, settings))
}

/// Reads the replies to the handshake, with which a request begins.
fn greeted(exchange: &Exchange, greeting: usize, settings: &Settings) -> Result<(), Error> {
    let received = &exchange.received;
    let replies = received.replies(0..greeting);
    match replies.or_else(|| received.refusal(0)) {
        Some(replies) => session::handshake_done(replies, settings),
        None => Err(exchange.lost()),
    }
    .map_err(|error| naming(error, settings))
}

/// Every error on the way to a connection names the server: this is where it can be
/// the wrong one.
fn naming(error: Error, settings: &Settings) -> Error {
    error.during("connect to", &authority(&settings.host, settings.port))
}

/// Milliseconds before the second try after the first, which comes at once: most
/// lost connections were idle ones that the server has closed.
const FIRST_WAIT: u32 = 10;
/// Milliseconds; waits double up to here.
const LONGEST_WAIT: u32 = 1000;
