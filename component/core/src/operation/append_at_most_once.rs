//! `add` and `add-all` with delivery at-most-once: a transaction (`MULTI`, `PTTL`,
//! `RPUSH`, `LTRIM`, `EXPIRE`, `EXEC`).

use alloc::format;
use alloc::vec::Vec;
use core::mem;

use super::outcome::Outcome;
use super::paging::from_the_end;
use super::procedure::{Effect, Procedure, Progress, Session};
use crate::error::Error;
use crate::message::Messages;
use crate::options::{Settings, TtlPolicy};
use crate::resp::{Commands, Replies, Reply, decimal};
use crate::store::StoredSession;

/// Appends elements, trims the session and applies its time to live.
pub struct AppendAtMostOnce {
    elements: Vec<Vec<u8>>,
    max_messages: Option<u32>,
    phase: Phase,
}

enum Phase {
    /// Appends.
    Append,
    /// Restores the expiry of a key of another type, in milliseconds. The push failed, but
    /// the transaction continued and set another expiry.
    Restore(Option<u64>),
}

impl AppendAtMostOnce {
    /// Appends these elements.
    pub fn new(elements: Vec<Vec<u8>>, settings: &Settings) -> AppendAtMostOnce {
        AppendAtMostOnce {
            elements,
            max_messages: settings.max_messages,
            phase: Phase::Append,
        }
    }

    fn append(&self, session: Session<'_>, commands: &mut Commands) {
        let key = session.key.as_bytes();
        let ttl = decimal(session.settings.session_ttl.into());
        commands.push(&[b"MULTI"]);
        commands.push(&[b"PTTL", key]);
        commands.push_with(&[b"RPUSH", key], &self.elements);
        if let Some(most) = self.max_messages {
            commands.push(&[b"LTRIM", key, &from_the_end(most), b"-1"]);
        }
        match session.settings.ttl_policy {
            TtlPolicy::Sliding => commands.push(&[b"EXPIRE", key, &ttl]),
            TtlPolicy::Fixed => commands.push(&[b"EXPIRE", key, &ttl, b"NX"]),
            TtlPolicy::None => {}
        }
        commands.push(&[b"EXEC"]);
    }

    fn appended(&mut self, replies: Replies<'_>) -> Result<Progress, Error> {
        let mut results = results(replies)?;
        let (Some(ttl), Some(length)) = (results.next(), results.next()) else {
            return Err(Error::protocol("the reply to EXEC is too short"));
        };
        match length.length() {
            Ok(length) => {
                if let Some(error) = results.find_map(Reply::error) {
                    return Err(Error::OutcomeUnknown(format!(
                        "the messages are stored, but may be without their time to live: {error}"
                    )));
                }
                let kept = self.max_messages.map_or(length, |most| length.min(most));
                Ok(Progress::Done(Outcome::Length(kept)))
            }
            Err(error @ Error::WrongType(_)) => {
                // PTTL returns -1 for a key without expiry.
                self.phase = Phase::Restore(u64::try_from(ttl.integer()?).ok());
                Ok(Progress::Undo(error))
            }
            Err(error) => Err(error),
        }
    }
}

impl Procedure for AppendAtMostOnce {
    fn effect(&self) -> Effect {
        match self.phase {
            Phase::Append => Effect::Appends,
            Phase::Restore(_) => Effect::RestoresExpiry,
        }
    }

    fn request(&self, session: Session<'_>, commands: &mut Commands) {
        let key = session.key.as_bytes();
        match self.phase {
            Phase::Append => self.append(session, commands),
            Phase::Restore(Some(ttl)) => commands.push(&[b"PEXPIRE", key, &decimal(ttl)]),
            Phase::Restore(None) => commands.push(&[b"PERSIST", key]),
        }
    }

    fn response(&mut self, replies: Replies<'_>) -> Result<Progress, Error> {
        match self.phase {
            Phase::Append => self.appended(replies),
            Phase::Restore(_) => match replies.last() {
                Ok(_) => Ok(Progress::Undone),
                Err(error) => Err(Error::AccessDenied(format!(
                    "the key holds something other than a list, and was given an expiry that \
                     could not be taken back: {error}"
                ))),
            },
        }
    }

    fn run_in_memory(
        &mut self,
        session: &mut StoredSession<'_>,
    ) -> Result<Outcome<Messages>, Error> {
        let elements = mem::take(&mut self.elements);
        Ok(Outcome::Length(session.append(elements)))
    }
}

/// Returns the results of the commands of the transaction. If they were executed one by
/// one, the outcome is unknown.
fn results<'a>(replies: Replies<'a>) -> Result<impl Iterator<Item = Reply<'a>>, Error> {
    // MULTI and PTTL precede RPUSH.
    let Some(pushed) = replies.iter().nth(2) else {
        // The server refused MULTI and closed the connection, and may have executed the rest.
        return match replies.last() {
            Err(Error::AccessDenied(text)) if text.starts_with("NOPERM") => Err(taken_apart(&text)),
            Err(Error::Server { message, .. }) => Err(taken_apart(&message)),
            Err(error) => Err(error),
            Ok(_) => Err(Error::protocol("the replies are too few")),
        };
    };
    let is_queued = pushed.simple_string().is_ok_and(|text| *text == *b"QUEUED");
    let executed = replies.iter().last().and_then(|last| last.array().ok());
    match (replies.last(), executed) {
        (Ok(last), None) => last.array(),
        (Ok(_), Some(results)) => Ok(results),
        // No command was executed, neither alone nor by EXEC.
        (Err(error), None) if is_queued || pushed.error().is_some() => Err(error),
        (Err(error), _) => Err(taken_apart(error.text())),
    }
}

/// Creates the error of a transaction whose commands may have been executed one by one: the
/// user lost the permission for MULTI after the handshake, or a proxy split it.
fn taken_apart(why: &str) -> Error {
    Error::OutcomeUnknown(format!(
        "the messages may be stored, and without a time to live: {why}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::*;
    use crate::operation::Action;
    use crate::options::{Delivery, Options};

    #[test]
    fn a_transaction_is_sent_whole() {
        const A: &str = r#"{"role":"user","content":"a","timestamp":"t"}"#;
        for (ttl_policy, max_messages, expected) in [
            (
                TtlPolicy::Sliding,
                None,
                "MULTI\nPTTL k\nRPUSH k A A\nEXPIRE k 3600\nEXEC\n",
            ),
            (
                TtlPolicy::Fixed,
                Some(5),
                "MULTI\nPTTL k\nRPUSH k A A\nLTRIM k -5 -1\nEXPIRE k 3600 NX\nEXEC\n",
            ),
            (TtlPolicy::None, None, "MULTI\nPTTL k\nRPUSH k A A\nEXEC\n"),
        ] {
            let settings = settings(Options {
                delivery: Some(Delivery::AtMostOnce),
                ttl_policy: Some(ttl_policy),
                max_messages,
                ..Options::default()
            });
            let procedure = start(&Action::AddAll(vec![new("a"), new("a")]), &settings);
            assert_eq!(
                request(&*procedure, &settings),
                expected.replace("A A", &format!("{A} {A}"))
            );
            assert_eq!(procedure.effect(), Effect::Appends);
        }
    }

    #[test]
    fn the_reply_to_a_transaction() {
        const QUEUED: &str = "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n";
        let settings = settings(Options {
            delivery: Some(Delivery::AtMostOnce),
            max_messages: Some(5),
            ..Options::default()
        });
        let respond_to = |reply: &str| {
            let mut procedure = start(&Action::Add(new("a")), &settings);
            let progress = respond(&mut *procedure, 5, reply);
            (progress, procedure)
        };
        for (results, expected) in [
            ("*3\r\n:-2\r\n:3\r\n:1\r\n", 3),
            ("*3\r\n:9\r\n:6\r\n:1\r\n", 5),
        ] {
            assert_eq!(
                respond_to(&format!("{QUEUED}{results}")).0,
                Ok(Progress::Done(Outcome::Length(expected)))
            );
        }
        for (text, expected) in [
            (
                "+OK\r\n+QUEUED\r\n-OOM x\r\n+QUEUED\r\n-EXECABORT y\r\n",
                Error::from_reply("OOM x"),
            ),
            (
                "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*1\r\n:1\r\n",
                Error::Protocol("the reply to EXEC is too short".to_owned()),
            ),
            (
                "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n:-2\r\n:1\r\n-OOM x\r\n",
                Error::OutcomeUnknown(
                    "the messages are stored, but may be without their time to live: OOM: the \
                     server has no memory left for writes (maxmemory)"
                        .to_owned(),
                ),
            ),
            (
                "-NOPERM x\r\n:-2\r\n-NOPERM y\r\n:0\r\n-ERR EXEC without MULTI\r\n",
                Error::from_reply("NOPERM x"),
            ),
            // A proxy that took the transaction apart, or refused a part of it.
            (
                "+OK\r\n:-2\r\n:1\r\n:1\r\n-ERR EXEC without MULTI\r\n",
                Error::OutcomeUnknown(
                    "the messages may be stored, and without a time to live: ERR: the server does not accept the request in this form"
                        .to_owned(),
                ),
            ),
            (
                "+OK\r\n-ERR unknown command 'PTTL'\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n:1\r\n",
                Error::OutcomeUnknown(
                    "the messages may be stored, and without a time to live: ERR: the server \
                     does not know PTTL (renamed or disabled there, or it is a Redis Sentinel or a \
                     proxy); delivery exactly-once does not need it"
                        .to_owned(),
                ),
            ),
            (
                "-NOPERM x\r\n:-2\r\n:1\r\n:1\r\n-ERR EXEC without MULTI\r\n",
                Error::OutcomeUnknown(
                    "the messages may be stored, and without a time to live: NOPERM: the user may not run a \
                     command that was sent"
                        .to_owned(),
                ),
            ),
        ] {
            assert_eq!(respond_to(text).0, Err(expected));
        }
        // A key of another type is given back the expiry that it had.
        let wrong_type = Error::from_reply("WRONGTYPE x");
        for (ttl, expected) in [("-1", "PERSIST k\n"), ("1500", "PEXPIRE k 1500\n")] {
            let results = format!("{QUEUED}*3\r\n:{ttl}\r\n-WRONGTYPE x\r\n:1\r\n");
            let (progress, mut procedure) = respond_to(&results);
            assert_eq!(progress, Ok(Progress::Undo(wrong_type.clone())));
            assert_eq!(procedure.effect(), Effect::RestoresExpiry);
            assert_eq!(request(&*procedure, &settings), expected);
            for (reply, expected) in [
                (":1\r\n", Ok(Progress::Undone)),
                (
                    "-NOPERM no\r\n",
                    Err(Error::AccessDenied(
                        "the key holds something other than a list, and was given an expiry \
                         that could not be taken back: NOPERM: the user may not run a command that \
                         was sent"
                            .to_owned(),
                    )),
                ),
            ] {
                let undone = respond(&mut *procedure, 1, reply);
                assert_eq!(undone, expected);
            }
        }
    }
}
