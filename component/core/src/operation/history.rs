//! `history`: the messages of a session, its length and its time to live, as one snapshot:
//! by a script (`LRANGE`, `LLEN`, `TTL`), or by a transaction.

use alloc::borrow::ToOwned;
use core::time::Duration;

use super::outcome::{History, Outcome};
use super::paging::{Paging, ReadMessages, ReadMode};
use super::procedure::{Effect, Procedure, Progress, Session};
use crate::error::Error;
use crate::message::Messages;
use crate::options::Delivery;
use crate::resp::{Commands, Replies, Reply};
use crate::store::StoredSession;

/// Reads the messages of a session and facts about it. The facts come with the first page.
pub struct ReadHistory {
    paging: Paging,
    delivery: Delivery,
    facts: Facts,
}

/// The facts of a history.
#[derive(Clone, Copy, Default)]
struct Facts {
    total: u32,
    ttl_seconds: Option<u32>,
}

impl ReadHistory {
    /// Reads the last `limit` messages, or all of them.
    pub fn new(limit: Option<u32>, read_mode: ReadMode, delivery: Delivery) -> ReadHistory {
        ReadHistory {
            paging: Paging::new(limit, read_mode),
            delivery,
            facts: Facts::default(),
        }
    }

    fn first_request(&self, session: Session<'_>, commands: &mut Commands) {
        let key = session.key.as_bytes();
        match self.delivery {
            // A server without memory for writes refuses MULTI, and runs scripts that
            // only read.
            Delivery::ExactlyOnce => {
                let (first, last) = self.paging.range();
                commands.push(&[b"EVAL", HISTORY.as_bytes(), b"1", key, &first, &last]);
                self.paging.expect_elements(commands);
            }
            Delivery::AtMostOnce => {
                commands.push(&[b"MULTI"]);
                self.paging.request(session.key, commands);
                commands.push(&[b"LLEN", key]);
                commands.push(&[b"TTL", key]);
                commands.push(&[b"EXEC"]);
            }
        }
    }

    fn first_response(&mut self, replies: Replies<'_>) -> Result<Option<ReadMessages>, Error> {
        let mut results = self.results(replies)?.array()?;
        let (Some(page), Some(total), Some(ttl), None) = (
            results.next(),
            results.next(),
            results.next(),
            results.next(),
        ) else {
            return Err(Error::Protocol(
                "the reply to a history does not have three elements".to_owned(),
            ));
        };
        self.facts = Facts {
            total: total.length()?,
            // TTL returns -1 for a key without expiry and -2 for a missing key.
            ttl_seconds: match ttl.integer()? {
                ..0 => None,
                seconds => Some(u32::try_from(seconds).unwrap_or(u32::MAX)),
            },
        };
        self.paging.expect_total(self.facts.total);
        self.paging.first_page(page)
    }

    fn results<'a>(&self, replies: Replies<'a>) -> Result<Reply<'a>, Error> {
        match replies.last() {
            Err(Error::Server { code, message })
                if code == "OOM" && self.delivery == Delivery::AtMostOnce =>
            {
                Err(Error::Server {
                    code,
                    message: message
                        + "; a transaction counts as a write even if it only reads, get does not",
                })
            }
            last => last,
        }
    }

    fn history(&self, read: ReadMessages) -> History<Messages> {
        History {
            messages: read.messages,
            total: self.facts.total,
            skipped: read.skipped,
            ttl: self.facts.ttl_seconds.map(seconds),
        }
    }
}

impl Procedure for ReadHistory {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn request(&self, session: Session<'_>, commands: &mut Commands) {
        if self.paging.is_at_start() {
            self.first_request(session, commands);
        } else {
            self.paging.request(session.key, commands);
        }
    }

    fn response(&mut self, replies: Replies<'_>) -> Result<Progress, Error> {
        let read = if self.paging.is_at_start() {
            self.first_response(replies)
        } else {
            self.paging.response(replies)
        };
        Ok(match self.paging.or_smaller_page(read)? {
            Some(read) => Progress::Done(Outcome::History(self.history(read))),
            None => Progress::NeedsMore,
        })
    }

    fn reply_was_cut(&mut self, bytes: usize) -> Result<(), Error> {
        self.paging.reply_was_cut(bytes)
    }

    fn run_in_memory(
        &mut self,
        session: &mut StoredSession<'_>,
    ) -> Result<Outcome<Messages>, Error> {
        let (messages, skipped) = session.read(self.paging.limit())?;
        Ok(Outcome::History(History {
            messages,
            total: session.length(),
            skipped,
            ttl: session.ttl_seconds().map(seconds),
        }))
    }
}

fn seconds(count: u32) -> Duration {
    Duration::from_secs(count.into())
}

/// Reads a range of the list, its length and its time to live. `KEYS`: the session.
/// `ARGV`: the first and the last index. In Lua an error reply is a table with a field
/// `err`. The script is short enough to be sent in full each time.
pub const HISTORY: &str = include_str!("history.lua");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::*;
    use crate::operation::Action;
    use crate::options::Options;

    #[test]
    fn a_history_is_one_script() {
        let settings = settings(Options::default());
        let procedure = start(&Action::History(Some(2)), &settings);
        let expected = format!("EVAL {HISTORY} 1 k -2 -1\n");
        assert_eq!(request(&*procedure, &settings), expected);
        assert_eq!(procedure.effect(), Effect::Reads);
    }

    #[test]
    fn pages_of_a_history_come_to_its_total() {
        let entries: Vec<_> = (0..300).map(numbered).collect();
        for (limit, total, count) in [
            (None, 300, 2),
            (None, 301, 3),
            (Some(301), 301, 3),
            (Some(280), 301, 2),
        ] {
            let reply = |words: &[&str]| match words[0] {
                "EVAL" => {
                    let entries = range(&entries, words[4], words[5]);
                    format!("*3\r\n{entries}:{total}\r\n:9\r\n")
                }
                _ => range(&entries, words[2], words[3]),
            };
            let (requests, progress) = run(&Action::History(limit), reply);
            let first = limit.unwrap_or(1280);
            assert_eq!(
                requests[..2].concat(),
                format!("EVAL HISTORY 1 k -256 -1\nLRANGE k -{first} -256\n")
            );
            assert_eq!(requests.len(), count);
            let found = limit.map_or(300, |limit| limit.min(300)) as usize;
            let Ok(Progress::Done(Outcome::History(history))) = progress else {
                panic!("{progress:?}");
            };
            assert_eq!((history.messages.len(), history.total), (found, total));
            assert_eq!(
                (history.skipped, history.ttl),
                (0, Some(Duration::from_secs(9)))
            );
        }
    }

    #[test]
    fn a_history_counts_skipped_entries() {
        for (entries, limit, (total, ttl), expected) in [
            (
                &[A, UNREADABLE, B][..],
                None,
                (3, 60),
                (vec![message("a"), message("b")], 1, Some(60)),
            ),
            (
                &[UNREADABLE, A, UNREADABLE, B],
                Some(2),
                (9, -1),
                (vec![message("a"), message("b")], 1, None),
            ),
            (&[], None, (0, -2), (vec![], 0, None)),
        ] {
            let (messages, skipped, seconds) = expected;
            let expected = Progress::Done(Outcome::History(History {
                messages: messages.into(),
                total,
                skipped,
                ttl: seconds.map(Duration::from_secs),
            }));
            for (delivery, count, begin) in [
                (Delivery::ExactlyOnce, 1, ""),
                (
                    Delivery::AtMostOnce,
                    5,
                    "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n",
                ),
            ] {
                let settings = settings(Options {
                    delivery: Some(delivery),
                    ..Options::default()
                });
                let mut procedure = start(&Action::History(limit), &settings);
                let request = request(&*procedure, &settings);
                assert_eq!(request.starts_with("MULTI\nLRANGE k "), count == 5);
                let reply = format!("{begin}*3\r\n{}:{total}\r\n:{ttl}\r\n", list(entries));
                let progress = respond(&mut *procedure, count, &reply);
                assert_eq!(progress.as_ref(), Ok(&expected));
            }
        }
    }

    #[test]
    fn a_history_fails_with_the_first_error() {
        for (reply, expected) in [
            (
                "-NOPERM multi\r\n*0\r\n:0\r\n:-2\r\n-ERR EXEC without MULTI\r\n",
                Error::from_reply("NOPERM multi"),
            ),
            (
                "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n-WRONGTYPE x\r\n-WRONGTYPE x\r\n:-1\r\n",
                Error::from_reply("WRONGTYPE x"),
            ),
            (
                "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*-1\r\n",
                Error::Protocol("the reply is not an array".to_owned()),
            ),
            (
                "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*1\r\n*0\r\n",
                Error::Protocol("the reply to a history does not have three elements".to_owned()),
            ),
        ] {
            let settings = settings(Options {
                delivery: Some(Delivery::AtMostOnce),
                ..Options::default()
            });
            let mut procedure = start(&Action::History(None), &settings);
            let progress = respond(&mut *procedure, 5, reply);
            assert_eq!(progress, Err(expected));
        }
    }

    #[test]
    fn a_history_refused_for_memory_names_get() {
        let settings = settings(Options {
            delivery: Some(Delivery::AtMostOnce),
            ..Options::default()
        });
        let mut procedure = start(&Action::History(None), &settings);
        let refused = "-OOM x\r\n*0\r\n:0\r\n:-2\r\n-ERR EXEC without MULTI\r\n";
        let progress = respond(&mut *procedure, 5, refused);
        let text = "OOM: the server has no memory left for writes (maxmemory); a transaction counts as a write even if it only reads, get does not";
        assert_eq!(progress.unwrap_err().text(), text);
    }
}
