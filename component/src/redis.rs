//! The `redis` provider: runs pipelines on the one connection of a client, or on a new
//! one, before their deadline.

use core::mem;
use core::net::IpAddr;

use session_memory_core::error::Error;
use session_memory_core::exchange::{End, Exchange};
use session_memory_core::handshake;
use session_memory_core::options::{Connect, Settings};
use session_memory_core::resp::{Commands, ReplyReader};
use session_memory_core::retry::{Attempt, Pipeline, ScriptCache};

use crate::transport::connection::Connection;
use crate::transport::deadline::{Deadline, nanoseconds};
use crate::transport::endpoint::authority;
use crate::transport::route::Route;
use crate::transport::socket::{close_unsent, has_too_many_unsent};
use crate::wasi::random::jittered;

/// The client of a server, with its connection if it has one.
pub struct RedisClient {
    connection: Option<Connection>,
    /// Start of the last operation on the connection, by the monotonic clock.
    last_used: u64,
    route: Route,
    /// Whether the next connection is the first one, and its first request may be sent
    /// together with the handshake.
    joins_handshake: bool,
    /// Whether the server at the other end of the connection has the script.
    knows_script: bool,
}

impl RedisClient {
    /// Opens a client. Connects and has the server check credentials and database, unless
    /// the options leave that to the first operation.
    pub fn open(settings: &Settings) -> Result<RedisClient, Error> {
        let mut client = RedisClient {
            connection: None,
            last_used: 0,
            route: Route::default(),
            joins_handshake: settings.connect == Connect::WithFirstOperation,
            knows_script: false,
        };
        if settings.connect == Connect::AtOpen {
            let deadline = Deadline::after(settings.connect_timeout);
            client.connection =
                Some(client.connect_and_handshake(settings, &deadline, u32::MAX)?);
            client.last_used = deadline.begin();
        }
        Ok(client)
    }

    /// Runs a pipeline until every operation has its result, or the deadline would pass
    /// before the next attempt.
    pub fn run(&mut self, pipeline: &mut Pipeline<'_>, settings: &Settings, deadline: &Deadline) {
        close_unsent();
        while let Some(attempt) = pipeline.plan() {
            if let Some(wait) = attempt.wait
                && deadline.pause(jittered(wait)).is_err()
            {
                return;
            }
            let is_sent = self.attempt(pipeline, &attempt, settings, deadline);
            if !is_sent {
                close_unsent();
                // A retry does not help while too many sockets have unsent bytes.
                if has_too_many_unsent() {
                    return;
                }
            }
        }
    }

    /// Makes an attempt. Returns whether its request was sent on a connection that the
    /// server accepted.
    fn attempt(
        &mut self,
        pipeline: &mut Pipeline<'_>,
        attempt: &Attempt,
        settings: &Settings,
        deadline: &Deadline,
    ) -> bool {
        let connected = match self.take_connection(settings, deadline) {
            Some(connection) => Ok((connection, Commands::default())),
            None => self.connect_for(attempt, settings, deadline),
        };
        let (connection, opening) = match connected {
            Ok(connected) => connected,
            Err(error) => {
                pipeline.not_sent(attempt, &error);
                return false;
            }
        };
        let scripts = match self.knows_script {
            true => ScriptCache::Known,
            false => ScriptCache::Unknown,
        };
        let mut request = pipeline.request(attempt, scripts);
        let (opening_commands, opening_bytes) = (opening.count(), opening.bytes().len());
        if opening_commands > 0 {
            // Only reads are sent along, so the copy is small.
            request.commands.prepend(opening);
        }
        let silence_limit = attempt.reply_silence_limit;
        let (connection, mut exchange) = self.exchange(
            connection,
            &request.commands,
            settings,
            deadline,
            silence_limit,
        );
        exchange.written = exchange.written.saturating_sub(opening_bytes);
        let accepted = match opening_commands {
            0 => Ok(()),
            _ => handshake::response(&mut exchange, opening_commands, settings)
                .map_err(|error| with_endpoint(error, settings)),
        };
        let is_sent = accepted.is_ok();
        let settled = pipeline.settle(request, accepted.map(|()| exchange));
        if settled.is_reusable {
            self.connection = connection;
            self.last_used = deadline.begin();
        }
        self.knows_script |= settled.has_script;
        is_sent
    }

    /// Takes the connection, and closes it if it cannot be used.
    fn take_connection(&mut self, settings: &Settings, deadline: &Deadline) -> Option<Connection> {
        let is_fresh = deadline.begin() <= self.last_used + nanoseconds(settings.max_idle);
        let connection = self.connection.take().filter(|_| is_fresh);
        let connection = connection.filter(Connection::is_usable);
        self.knows_script &= connection.is_some();
        connection
    }

    /// Makes a connection. Returns it with the handshake, if that is still to be sent along
    /// with the request. The server executes the request even if the handshake fails, as
    /// another user or in another database. So only reads may be sent along.
    fn connect_for(
        &mut self,
        attempt: &Attempt,
        settings: &Settings,
        deadline: &Deadline,
    ) -> Result<(Connection, Commands), Error> {
        let connecting = deadline.min(settings.connect_timeout);
        let silence_limit = attempt.connect_silence_limit;
        let mut opening = Commands::default();
        handshake::request(settings, &mut opening);
        let is_harmless = opening.count() == 0 || attempt.is_read_only;
        if mem::take(&mut self.joins_handshake) && is_harmless {
            let connection = self.connect(settings, &connecting, silence_limit)?;
            Ok((connection, opening))
        } else {
            let connection = self.connect_and_handshake(settings, &connecting, silence_limit)?;
            Ok((connection, Commands::default()))
        }
    }

    /// Connects, sends the handshake, and checks that the server replies.
    fn connect_and_handshake(
        &mut self,
        settings: &Settings,
        deadline: &Deadline,
        silence_limit: u32,
    ) -> Result<Connection, Error> {
        let connection = self.connect(settings, deadline, silence_limit)?;
        let mut commands = Commands::default();
        handshake::request(settings, &mut commands);
        let count = commands.count();
        handshake::ping(&mut commands);
        let (connection, mut exchange) =
            self.exchange(connection, &commands, settings, deadline, silence_limit);
        handshake::response(&mut exchange, count, settings)
            .and_then(|()| handshake::pong(&exchange, settings))
            .and_then(|()| connection.ok_or_else(|| exchange.end.lost()))
            .map_err(|error| with_endpoint(error, settings))
    }

    /// Sends commands and reads their replies. Returns the connection if it can be used
    /// again.
    fn exchange(
        &mut self,
        connection: Connection,
        commands: &Commands,
        settings: &Settings,
        deadline: &Deadline,
        silence_limit: u32,
    ) -> (Option<Connection>, Exchange) {
        let address = connection.address();
        let replies = ReplyReader::new(commands.count(), settings.max_reply_bytes)
            .with_reserved(commands.reserved());
        let (connection, exchange) =
            connection.exchange(commands, replies, deadline, silence_limit);
        self.note_silence(address, &exchange);
        (connection, exchange)
    }

    /// Notes an address at which the server was silent: the next connection tries it last.
    fn note_silence(&mut self, address: IpAddr, exchange: &Exchange) {
        if matches!(exchange.end, End::Timeout(_)) {
            self.route.was_silent(address);
        }
    }

    /// Makes a connection, without the handshake.
    fn connect(
        &mut self,
        settings: &Settings,
        deadline: &Deadline,
        silence_limit: u32,
    ) -> Result<Connection, Error> {
        let deadline = deadline.min(silence_limit);
        Connection::open(&settings.host, settings.port, &mut self.route, &deadline)
            .map_err(|error| with_endpoint(error, settings))
    }
}

/// Adds host and port to the error of a connection, because they may be wrong.
fn with_endpoint(error: Error, settings: &Settings) -> Error {
    error.during("connect to", &authority(&settings.host, settings.port))
}
