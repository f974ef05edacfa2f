//! A client of the `redis` provider: each operation under its deadline, on the
//! one connection or a new one.

use alloc::vec::Vec;

use crate::clock::Deadline;
use crate::connection::Connection;
use crate::error::Error;
use crate::message::Message;
use crate::options::Settings;
use crate::reply::Replies;
use crate::session::{self, Appended, History, Read, Request, Script, Window};
use crate::socket::authority;

/// A client, with its connection if it has one.
pub struct Client {
    settings: Settings,
    connection: Option<Connection>,
}

impl Client {
    /// Connects and lets the server check credentials and database.
    pub fn open(settings: Settings) -> Result<Client, Error> {
        let deadline = Deadline::after(settings.connect_timeout);
        let connection = connect(&settings, &deadline)?;
        Ok(Client {
            settings,
            connection: Some(connection),
        })
    }

    pub fn append(&mut self, key: &str, elements: &[Vec<u8>]) -> Result<u32, Error> {
        let deadline = self.deadline();
        if elements.is_empty() {
            return self.run(&session::length(key), &deadline, session::length_read);
        }
        for script in [Script::Cached, Script::Full] {
            let request = session::append(&self.settings, key, elements, script);
            let appended = self.run(&request, &deadline, session::appended)?;
            if let Appended::Length(length) = appended {
                return Ok(length);
            }
        }
        Err(Error::Protocol(
            "the server does not know a script that it was just given".into(),
        ))
    }

    pub fn get(&mut self, key: &str, limit: Option<u32>) -> Result<Vec<Message>, Error> {
        if limit == Some(0) {
            return Ok(Vec::new());
        }
        self.read(key, limit, session::get, session::got)
    }

    pub fn history(&mut self, key: &str, limit: Option<u32>) -> Result<History, Error> {
        self.read(key, limit, session::history, session::history_read)
    }

    pub fn clear(&mut self, key: &str) -> Result<(), Error> {
        let deadline = self.deadline();
        self.run(&session::clear(key), &deadline, session::cleared)
    }

    pub fn length(&mut self, key: &str) -> Result<u32, Error> {
        let deadline = self.deadline();
        self.run(&session::length(key), &deadline, session::length_read)
    }

    fn read<T>(
        &mut self,
        key: &str,
        limit: Option<u32>,
        request: impl Fn(&str, Window) -> Request,
        answer: impl Fn(&Replies, Option<u32>, Window) -> Result<Read<T>, Error>,
    ) -> Result<T, Error> {
        let deadline = self.deadline();
        let mut window = Window(limit);
        loop {
            let request = request(key, window);
            match self.run(&request, &deadline, |replies| {
                answer(replies, limit, window)
            })? {
                Read::Done(result) => return Ok(result),
                Read::Again(larger) => window = larger,
            }
        }
    }

    /// Runs a request and reads its replies with `answer`. A connection that fails
    /// at it, or on which something came that is no answer, is gone with it.
    fn run<T>(
        &mut self,
        request: &Request,
        deadline: &Deadline,
        answer: impl FnOnce(&Replies) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let connection = match self.connection.take() {
            Some(connection) if connection.is_usable() => connection,
            unusable => {
                if let Some(connection) = unusable {
                    connection.close();
                }
                connect(
                    &self.settings,
                    &deadline.or_after(self.settings.connect_timeout),
                )?
            }
        };
        let (connection, replies) =
            connection.exchange(request, self.settings.max_reply_bytes, deadline)?;
        let result = answer(&replies);
        match result {
            Err(Error::Protocol(_)) => connection.close(),
            _ => self.connection = Some(connection),
        }
        result
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.settings.operation_timeout)
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
        Ok(connection)
    };
    connect().map_err(|error: Error| {
        error.during("connect to", &authority(&settings.host, settings.port))
    })
}
