//! The handshake of a connection: `AUTH`, `SELECT`, and an empty transaction with
//! at-most-once delivery. `PING` follows if no operation does.

use alloc::borrow::ToOwned;
use alloc::format;

use crate::error::Error;
use crate::exchange::{End, Exchange};
use crate::options::{Delivery, Password, Settings};
use crate::resp::{Commands, Received, Replies, Reply, decimal};

/// Pushes the commands of the handshake, if there are any.
pub fn request(settings: &Settings, commands: &mut Commands) {
    let password = settings.password.as_ref().map(Password::reveal);
    match &settings.username {
        Some(username) => commands.push(&[
            b"AUTH",
            username.as_bytes(),
            password.unwrap_or_default().as_bytes(),
        ]),
        None => {
            if let Some(password) = password {
                commands.push(&[b"AUTH", password.as_bytes()]);
            }
        }
    }
    if settings.db != 0 {
        commands.push(&[b"SELECT", &decimal(settings.db.into())]);
    }
    if settings.delivery == Delivery::AtMostOnce {
        // Checks that the user may run them: without MULTI, the commands that follow it
        // would be executed at once.
        commands.push(&[b"MULTI"]);
        commands.push(&[b"EXEC"]);
    }
}

/// Pushes a command that every server knows, and that changes nothing.
pub fn ping(commands: &mut Commands) {
    commands.push(&[b"PING"]);
}

/// Reads the replies to a [`request`] of this many commands, and removes them from the
/// exchange.
///
/// # Errors
///
/// [`Error::AccessDenied`] for credentials that the server does not accept,
/// [`Error::InvalidArgument`] for a database that it does not have,
/// [`Error::Unavailable`] if there is no reply, else what the error reply means.
pub fn response(
    exchange: &mut Exchange,
    commands: usize,
    settings: &Settings,
) -> Result<(), Error> {
    let received = exchange.received.split_off_first(commands);
    read(&received, commands, exchange, settings, |replies| {
        accepted(replies, settings)
    })
}

/// Reads the reply to a [`ping`] that followed the handshake.
///
/// # Errors
///
/// The error that was replied, or [`Error::Protocol`].
pub fn pong(exchange: &Exchange, settings: &Settings) -> Result<(), Error> {
    read(
        &exchange.received,
        1,
        exchange,
        settings,
        |replies| match replies.last()?.simple_string() {
            Ok(text) if *text == *b"PONG" => Ok(()),
            _ => Err(Error::protocol("the reply to PING is not PONG")),
        },
    )
}

fn read(
    received: &Received,
    commands: usize,
    exchange: &Exchange,
    settings: &Settings,
    reading: impl FnOnce(Replies<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let replies = received.replies(0..commands);
    let Some(replies) = replies.or_else(|| received.refusal(0)) else {
        return Err(no_handshake_reply(exchange, settings));
    };
    match (reading(replies), replies.unclear()) {
        // A proxy may have sent the error. There is no connection, and nothing was applied.
        (Err(Error::Server { message, .. }), Some(_)) => Err(Error::Unavailable(message)),
        (result, _) => result,
    }
}

fn accepted(replies: Replies<'_>, settings: &Settings) -> Result<(), Error> {
    let mut replies = replies.iter();
    let authenticates = settings.username.is_some() || settings.password.is_some();
    if authenticates && let Some(error) = replies.next().and_then(Reply::error) {
        return Err(match error {
            Error::Server { .. } if error.is_transient() => error,
            Error::Unavailable(_) | Error::AccessDenied(_) => error,
            // Any other error reply to AUTH means that access is denied.
            _ => Error::AccessDenied("the server does not accept the credentials".to_owned()),
        });
    }
    if settings.db != 0
        && let Some(error) = replies.next().and_then(Reply::error)
    {
        return Err(match error {
            Error::InvalidArgument(why) => {
                Error::InvalidArgument(format!("option db (REDIS_DB) is {}: {why}", settings.db))
            }
            error => error,
        });
    }
    match replies.find_map(Reply::error) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Returns why there is no reply to a handshake, with possible causes if the server closed
/// the connection.
fn no_handshake_reply(exchange: &Exchange, settings: &Settings) -> Error {
    let error = exchange.end.lost();
    if !matches!(exchange.end, End::Closed) {
        return error;
    }
    let mut text = error.text().to_owned();
    text += " before the server replied: it may require TLS, or be a proxy without a server";
    if settings.db != 0 {
        text += ", or a proxy that closes it on SELECT (db)";
    }
    if settings.delivery == Delivery::AtMostOnce {
        text += ", or a proxy that closes it on MULTI (delivery at-most-once)";
    }
    Error::Unavailable(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{received, settings, shown};
    use crate::options::Options;

    fn complete(count: usize, replies: &str) -> Exchange {
        Exchange {
            received: received(count, replies),
            partial: 0,
            written: 0,
            end: End::Complete,
        }
    }

    #[test]
    fn a_connection_begins_with_what_the_settings_ask_for() {
        let text = |text: &str| Some(text.to_owned());
        for (username, password, db, expected) in [
            (None, None, 0, ""),
            (None, text("secret"), 0, "AUTH secret\n"),
            (
                text("agent"),
                text("secret"),
                3,
                "AUTH agent secret\nSELECT 3\n",
            ),
            (text("agent"), None, 0, "AUTH agent \n"),
        ] {
            let password = password.map(Password::from);
            let settings = settings(Options {
                username,
                password,
                db: Some(db),
                ..Options::default()
            });
            let mut commands = Commands::default();
            request(&settings, &mut commands);
            assert_eq!(shown(&commands), expected);
        }
    }

    #[test]
    fn a_refused_handshake_says_what_was_refused() {
        let settings = settings(Options {
            password: Some("secret".to_owned().into()),
            db: Some(99),
            ..Options::default()
        });
        for (replies, expected) in [
            ("+OK\r\n+OK\r\n", Ok(())),
            (
                "-WRONGPASS invalid\r\n-NOAUTH a\r\n",
                Err(Error::from_reply("WRONGPASS invalid")),
            ),
            (
                "-ERR AUTH <password> called without any password configured\r\n+OK\r\n",
                Err(Error::AccessDenied(
                    "the server has no password: leave out password (REDIS_PASSWORD)".to_owned(),
                )),
            ),
            (
                "-LOADING secret\r\n+OK\r\n",
                Err(Error::from_reply("LOADING x")),
            ),
            (
                "-ERR secret\r\n+OK\r\n",
                Err(Error::AccessDenied(
                    "the server does not accept the credentials".to_owned(),
                )),
            ),
            (
                "-ERR max number of clients secret\r\n+OK\r\n",
                Err(Error::Unavailable(
                    "the server accepts no more clients (maxclients)".to_owned(),
                )),
            ),
            (
                "+OK\r\n-ERR DB index is out of range\r\n",
                Err(Error::InvalidArgument(
                    "option db (REDIS_DB) is 99: the server does not have it".to_owned(),
                )),
            ),
            (
                "+OK\r\n-ERR SELECT is not allowed in cluster mode\r\n",
                Err(Error::InvalidArgument(
                    "option db (REDIS_DB) is 99: the server is a node of a Redis Cluster, which has only database 0"
                        .to_owned(),
                )),
            ),
            (
                "+OK\r\n-LOADING Redis is loading\r\n",
                Err(Error::from_reply("LOADING Redis is loading")),
            ),
        ] {
            let mut exchange = complete(2, replies);
            assert_eq!(response(&mut exchange, 2, &settings), expected);
        }
    }

    #[test]
    fn the_reply_to_a_ping_is_a_pong() {
        let settings = settings(Options::default());
        let mut commands = Commands::default();
        ping(&mut commands);
        assert_eq!(shown(&commands), "PING\n");
        for (replies, expected) in [
            ("+PONG\r\n", Ok(())),
            (
                "+OK\r\n",
                Err(Error::Protocol("the reply to PING is not PONG".to_owned())),
            ),
            ("-NOAUTH x\r\n", Err(Error::from_reply("NOAUTH x"))),
        ] {
            assert_eq!(pong(&complete(1, replies), &settings), expected);
        }
    }
}
