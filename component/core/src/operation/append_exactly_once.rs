//! `add` and `add-all` with delivery exactly-once: one script, sent by its digest
//! (`EVALSHA`) or in full (`EVAL`).

use alloc::vec::Vec;
use core::mem;

use super::outcome::Outcome;
use super::procedure::{Effect, Procedure, Progress, Session};
use crate::error::Error;
use crate::message::Messages;
use crate::options::TtlPolicy;
use crate::recent::Ending;
use crate::resp::{Commands, Replies, decimal};
use crate::store::StoredSession;

/// Appends elements unless the session has them already, trims it and applies its time
/// to live.
pub struct AppendExactlyOnce {
    elements: Vec<Vec<u8>>,
    /// The ending of the previous append. If it is the last entry of the session, the
    /// elements are not there, because they would come after it.
    previous: Option<Ending>,
    /// Number of entries at the end of the session among which the script searches.
    look_back: u64,
    script: Script,
}

/// How the request names the script.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Script {
    /// By its digest: the server knows it unless it has restarted.
    Digest,
    /// In full.
    Full,
}

impl AppendExactlyOnce {
    /// Appends these elements. Other operations of the same request append `others`
    /// entries, which may lie behind the elements when the append is retried.
    pub fn new(
        elements: Vec<Vec<u8>>,
        previous: Option<Ending>,
        others: usize,
    ) -> AppendExactlyOnce {
        AppendExactlyOnce {
            elements,
            previous,
            look_back: LOOK_BACK + others as u64,
            script: Script::Digest,
        }
    }
}

impl Procedure for AppendExactlyOnce {
    fn effect(&self) -> Effect {
        Effect::AppendsOnce
    }

    fn request(&self, session: Session<'_>, commands: &mut Commands) {
        let settings = session.settings;
        let (name, body) = match self.script {
            Script::Digest => (&b"EVALSHA"[..], APPEND_SHA1),
            Script::Full => (&b"EVAL"[..], APPEND),
        };
        let policy = match settings.ttl_policy {
            TtlPolicy::Sliding => &b"sliding"[..],
            TtlPolicy::Fixed => b"fixed",
            TtlPolicy::None => b"none",
        };
        let ttl = decimal(settings.session_ttl.into());
        let most = decimal(settings.max_messages.unwrap_or(0).into());
        let look_back = decimal(self.look_back);
        let previous = self.previous.as_ref().map_or(&b""[..], |ending| ending);
        commands.push_with(
            &[
                name,
                body.as_bytes(),
                b"1",
                session.key.as_bytes(),
                &look_back,
                previous,
                &ttl,
                policy,
                &most,
            ],
            &self.elements,
        );
    }

    fn response(&mut self, replies: Replies<'_>) -> Result<Progress, Error> {
        match replies.last().and_then(|reply| reply.length()) {
            Ok(length) => Ok(Progress::Done(Outcome::Length(length))),
            Err(Error::Server { code, .. }) if code == "NOSCRIPT" => match self.script {
                Script::Digest => {
                    self.script = Script::Full;
                    Ok(Progress::NeedsMore)
                }
                Script::Full => Err(Error::protocol(
                    "the server does not know a script that it was just given",
                )),
            },
            Err(error) => Err(error),
        }
    }

    fn bring_script(&mut self) {
        self.script = Script::Full;
    }

    fn last_element(&self) -> Option<&[u8]> {
        self.elements.last().map(Vec::as_slice)
    }

    fn run_in_memory(
        &mut self,
        session: &mut StoredSession<'_>,
    ) -> Result<Outcome<Messages>, Error> {
        let elements = mem::take(&mut self.elements);
        Ok(Outcome::Length(session.append(elements)))
    }
}

/// Number of entries at the end of a session among which an append searches for its own.
/// Other writers are expected to add fewer between a lost attempt and its retry.
const LOOK_BACK: u64 = 64;

/// The script: it appends elements to a session, unless they are there already, and
/// applies the time to live, as one atomic unit. `KEYS`: the session. `ARGV`: the number
/// of entries to search, the ending of the previous append (or nothing), the time to live
/// in seconds, the policy, the number of entries to keep (0 is all), the elements. It
/// returns the length.
///
/// Scripts are not rolled back. So whatever may fail, fails before the push: a command
/// that the user may not run, or a key of another type. Where possible the push is the
/// first write, because Redis checks maxmemory only at the first one.
///
/// The script defines no functions, because each run would define them again: a tenth of
/// its time. In Lua, error replies, the OK of LTRIM and the array of LRANGE are tables.
/// These comments are not in the file, because servers keep the whole file.
pub const APPEND: &str = include_str!("append.lua");
/// SHA-1 of the script, for `EVALSHA`. A test checks it.
const APPEND_SHA1: &str = "6534b638ed9500faf9d7fc4960945eab80b75927";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::*;
    use crate::operation::HISTORY;
    use crate::operation::{Action, ReadMode, Stamp, StartContext};
    use crate::options::Options;
    use crate::recent::RecentAppends;
    use core::time::Duration;
    use sha1_smol::Sha1;

    #[test]
    fn the_digest_is_that_of_the_script() {
        assert_eq!(APPEND_SHA1, Sha1::from(APPEND).digest().to_string());
    }

    /// Checkers of providers read the script, and refuse keys that they do not find.
    #[test]
    fn scripts_name_their_key_literally() {
        for script in [APPEND, HISTORY] {
            let mut calls = 0;
            for function in ["redis.call(", "redis.pcall(", "redis.acl_check_cmd("] {
                for (at, _) in script.match_indices(function) {
                    let arguments = &script[at + function.len()..];
                    let (_command, rest) = arguments.split_once(", ").unwrap();
                    assert!(rest.starts_with("KEYS[1]"), "{arguments}");
                    calls += 1;
                }
            }
            assert!(calls > 2);
            assert_eq!(script.matches("KEYS").count(), calls);
        }
    }

    #[test]
    fn an_append_is_one_command() {
        const A: &str = r#"{"role":"user","content":"a","timestamp":"t","id":"00000000000000000000000000000000-000000000001"}"#;
        const B: &str = r#"{"role":"user","content":"b","timestamp":"t","id":"00000000000000000000000000000000-000000000001"}"#;
        for (given, expected) in [
            (Options::default(), "1 k 64  3600 sliding 0"),
            (
                Options {
                    ttl_policy: Some(TtlPolicy::Fixed),
                    session_ttl: Some(Duration::from_secs(60)),
                    max_messages: Some(5),
                    ..Options::default()
                },
                "1 k 64  60 fixed 5",
            ),
        ] {
            let settings = settings(given);
            let mut procedure = start(&Action::AddAll(vec![new("a"), new("b")]), &settings);
            let expected = format!("{expected} {A} {B}\n");
            assert_eq!(
                request(&*procedure, &settings),
                format!("EVALSHA {APPEND_SHA1} {expected}")
            );
            assert_eq!(procedure.effect(), Effect::AppendsOnce);

            // A server that has not seen the script is given it, once.
            let unknown = "-NOSCRIPT No matching script.\r\n";
            assert_eq!(
                respond(&mut *procedure, 1, unknown),
                Ok(Progress::NeedsMore)
            );
            assert_eq!(
                request(&*procedure, &settings),
                format!("EVAL {APPEND} {expected}")
            );
            assert_eq!(
                respond(&mut *procedure, 1, unknown),
                Err(Error::Protocol(
                    "the server does not know a script that it was just given".to_owned()
                ))
            );
        }
    }

    #[test]
    fn an_append_searches_as_far_as_others_may_have_appended() {
        let settings = settings(Options::default());
        let context = StartContext {
            stamp: STAMP,
            read_mode: ReadMode::AtOnce,
            others: 36,
        };
        let append = start_with(&Action::Add(new("a")), &settings, context);
        let request = request(&*append, &settings);
        assert!(request.contains(" 1 k 100  3600 sliding 0 "), "{request}");
    }

    #[test]
    fn an_append_names_the_previous_one() {
        let settings = settings(Options::default());
        let previous = [b'x'; 53];
        let mut recent = RecentAppends::new();
        recent.remember("k", &previous);
        let context = StartContext {
            stamp: Stamp {
                recent: &recent,
                ..STAMP
            },
            read_mode: ReadMode::AtOnce,
            others: 0,
        };
        let append = start_with(&Action::Add(new("a")), &settings, context);
        let request = request(&*append, &settings);
        let previous = str::from_utf8(&previous).unwrap();
        let expected = format!(" 1 k 64 {previous} 3600 sliding 0 ");
        assert!(request.contains(&expected), "{request}");
    }

    #[test]
    fn the_reply_to_an_append() {
        let settings = settings(Options::default());
        for (reply, expected) in [
            (":3\r\n", Ok(Progress::Done(Outcome::Length(3)))),
            ("-WRONGTYPE x\r\n", Err(Error::from_reply("WRONGTYPE x"))),
            (
                ":-1\r\n",
                Err(Error::Protocol("a length is out of range".to_owned())),
            ),
            (
                "+OK\r\n",
                Err(Error::Protocol("the reply is not an integer".to_owned())),
            ),
        ] {
            let mut procedure = start(&Action::Add(new("a")), &settings);
            let progress = respond(&mut *procedure, 1, reply);
            assert_eq!(progress, expected);
        }
    }
}
