//! The `redis` provider: runs pipelines on the one connection of a client, or on a new
//! one, before their deadline.

use core::mem;
use core::net::IpAddr;

use session_memory_core::error::Error;
use session_memory_core::exchange::{End, Exchange};
use session_memory_core::handshake;
use session_memory_core::options::{Connect, Settings};
use session_memory_core::resp::{Commands, ReplyReader};
use session_memory_core::retry::{Pipeline, Request, ScriptCache};

use crate::transport::connection::Connection;
use crate::transport::deadline::{Deadline, nanoseconds};
use crate::transport::endpoint::authority;
use crate::transport::route::Route;
use crate::transport::socket::close_unsent;
use crate::wasi::random::jittered;

/// The client of a server, with its connection if it has one.
pub struct RedisClient {
    connection: Option<Connection>,
    /// When the last operation on the connection began, by the monotonic clock.
    used: u64,
    route: Route,
    /// Whether the next connection is the first one, and its first request may be sent
    /// along with the handshake.
    greets_with_request: bool,
    /// Whether the server at the other end of the connection has the script.
    knows_script: bool,
}

impl RedisClient {
    /// Opens a client. Connects and has the server check credentials and database, unless
    /// the options leave that to the first operation.
    pub fn open(settings: &Settings) -> Result<RedisClient, Error> {
        let mut client = RedisClient {
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

    /// Runs a pipeline until every operation has its result, or the deadline would pass
    /// before the next request.
    pub fn run(&mut self, pipeline: &mut Pipeline<'_>, settings: &Settings, deadline: &Deadline) {
        close_unsent();
        while !pipeline.is_done() {
            let connection = self.take_connection(settings, deadline);
            let scripts = match self.knows_script {
                true => ScriptCache::Known,
                false => ScriptCache::Unknown,
            };
            let request = pipeline.request(scripts);
            if let Some(wait) = request.wait
                && deadline.pause(jittered(wait)).is_err()
            {
                return;
            }
            let (connection, result) = self.attempt(connection, &request, settings, deadline);
            let is_sent = result.is_ok();
            let settled = pipeline.settle(request, result);
            if settled.is_reusable {
                self.connection = connection;
                self.used = deadline.begin();
            }
            self.knows_script |= settled.has_script;
            // There is nothing to wait for if no connection may be made.
            if !is_sent && close_unsent() {
                return;
            }
        }
    }

    /// Takes the connection, and closes it if it cannot be used.
    fn take_connection(&mut self, settings: &Settings, deadline: &Deadline) -> Option<Connection> {
        let is_fresh = deadline.begin() <= self.used + nanoseconds(settings.max_idle);
        let connection = self.connection.take().filter(|_| is_fresh);
        let connection = connection.filter(Connection::is_usable);
        self.knows_script &= connection.is_some();
        connection
    }

    /// Sends a request and receives its replies. Returns the connection if it can be used
    /// again.
    fn attempt(
        &mut self,
        connection: Option<Connection>,
        request: &Request,
        settings: &Settings,
        deadline: &Deadline,
    ) -> (Option<Connection>, Result<Exchange, Error>) {
        let connecting = deadline.min(settings.connect_timeout);
        let connection = match connection {
            Some(connection) => connection,
            None if self.may_greet_with(request, settings) => {
                let connection = self.connect(settings, &connecting, request.connect_patience);
                return match connection {
                    Ok(connection) => self.exchange_first(connection, request, settings, deadline),
                    Err(error) => (None, Err(error)),
                };
            }
            None => match self.greet(settings, &connecting, request.connect_patience) {
                Ok(connection) => connection,
                Err(error) => return (None, Err(error)),
            },
        };
        let (connection, exchange) = self.exchange(
            connection,
            &request.commands,
            settings,
            deadline,
            request.reply_patience,
        );
        (connection, Ok(exchange))
    }

    /// Whether a request may be sent along with the handshake of the first connection. The
    /// server executes the request even if the handshake fails, as another user or in
    /// another database.
    fn may_greet_with(&mut self, request: &Request, settings: &Settings) -> bool {
        let mut greeting = Commands::default();
        handshake::request(settings, &mut greeting);
        let is_harmless = greeting.count() == 0 || request.only_reads;
        mem::take(&mut self.greets_with_request) && is_harmless
    }

    /// Sends a request along with the handshake.
    fn exchange_first(
        &mut self,
        connection: Connection,
        request: &Request,
        settings: &Settings,
        deadline: &Deadline,
    ) -> (Option<Connection>, Result<Exchange, Error>) {
        let mut commands = Commands::default();
        handshake::request(settings, &mut commands);
        let greeting = (commands.count(), commands.bytes().len());
        commands.append(&request.commands);
        let (connection, mut exchange) = self.exchange(
            connection,
            &commands,
            settings,
            deadline,
            request.reply_patience,
        );
        let greeted = handshake::response(&mut exchange, greeting.0, settings);
        exchange.written = exchange.written.saturating_sub(greeting.1);
        match greeted {
            Ok(()) => (connection, Ok(exchange)),
            Err(error) => (None, Err(with_endpoint(error, settings))),
        }
    }

    /// Makes a connection on which the server has accepted the handshake, and replies.
    fn greet(
        &mut self,
        settings: &Settings,
        deadline: &Deadline,
        patience: u32,
    ) -> Result<Connection, Error> {
        let connection = self.connect(settings, deadline, patience)?;
        let mut commands = Commands::default();
        handshake::request(settings, &mut commands);
        let greeting = commands.count();
        handshake::ping(&mut commands);
        let (connection, mut exchange) =
            self.exchange(connection, &commands, settings, deadline, patience);
        handshake::response(&mut exchange, greeting, settings)
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
        patience: u32,
    ) -> (Option<Connection>, Exchange) {
        let address = connection.address();
        let replies = ReplyReader::new(commands.count(), settings.max_reply_bytes)
            .with_reserved(commands.reserved());
        let (connection, exchange) = connection.exchange(commands, replies, deadline, patience);
        self.learn(address, &exchange);
        (connection, exchange)
    }

    /// Makes the next connection try other addresses first, if the server was silent at
    /// this one.
    fn learn(&mut self, address: IpAddr, exchange: &Exchange) {
        if matches!(exchange.end, End::Timeout(_)) {
            self.route.was_silent(address);
        }
    }

    /// Makes a connection, without the handshake.
    fn connect(
        &mut self,
        settings: &Settings,
        deadline: &Deadline,
        patience: u32,
    ) -> Result<Connection, Error> {
        let deadline = deadline.min(patience);
        Connection::open(&settings.host, settings.port, &mut self.route, &deadline)
            .map_err(|error| with_endpoint(error, settings))
    }
}

/// Adds the server to an error in connecting, since it may be the wrong server.
fn with_endpoint(error: Error, settings: &Settings) -> Error {
    error.during("connect to", &authority(&settings.host, settings.port))
}
