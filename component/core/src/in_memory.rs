//! The `in-memory` provider: sessions in the memory of a component instance, for tests
//! and offline development. It keeps the same contract as the `redis` provider, down to
//! the elements.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Error;
use crate::message::{Messages, NewMessage, NewestFirst};
use crate::operation::{Action, History, Operation, Outcome, Stamp, elements};
use crate::options::{Settings, TtlPolicy};
use crate::resp::ReplyBuffer;

/// Sessions by key. The caller gives the time, in nanoseconds of a monotonic clock.
#[derive(Default)]
pub struct Sessions {
    /// Sorted by key. A map would take more of the component than the rest of this file.
    by_key: Vec<(String, Session)>,
    /// Number of sessions at which expired ones are searched and removed.
    sweep_at: usize,
}

struct Session {
    elements: Vec<Vec<u8>>,
    expires: Option<u64>,
}

impl Sessions {
    /// Creates an empty set of sessions.
    pub const fn new() -> Sessions {
        Sessions {
            by_key: Vec::new(),
            sweep_at: 0,
        }
    }

    /// Carries out an operation.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if the session id is empty, [`Error::LimitExceeded`]
    /// if the messages to read have more bytes than `max_reply_bytes`, and the errors of
    /// [`NewMessage::encode`](crate::message::NewMessage::encode). They name the operation
    /// and the session.
    pub fn operate(
        &mut self,
        settings: &Settings,
        operation: Operation,
        stamp: Stamp<'_>,
        now: u64,
    ) -> Result<Outcome<Messages>, Error> {
        let Operation { session_id, action } = operation;
        let name = action.name();
        let operate = || {
            let key = settings.key(&session_id)?;
            let append = |sessions: &mut Sessions, messages: &[NewMessage]| {
                let elements = elements(messages, settings, stamp)?;
                Ok(sessions.append(settings, &key, elements, now))
            };
            Ok(match action {
                Action::Add(message) => Outcome::Length(append(self, &[message])?),
                Action::AddAll(messages) if !messages.is_empty() => {
                    Outcome::Length(append(self, &messages)?)
                }
                Action::Get(limit) => {
                    Outcome::Messages(self.history(settings, &key, limit, now)?.messages)
                }
                Action::History(limit) => {
                    Outcome::History(self.history(settings, &key, limit, now)?)
                }
                Action::Clear => {
                    self.clear(&key);
                    Outcome::Cleared
                }
                Action::Exists => Outcome::Exists(self.length(&key, now) > 0),
                Action::AddAll(_) | Action::Count => Outcome::Length(self.length(&key, now)),
            })
        };
        operate().map_err(|error: Error| error.during(name, &session_id))
    }

    /// Appends elements, trims the session and applies its time to live. Returns the
    /// number of entries.
    fn append(&mut self, settings: &Settings, key: &str, elements: Vec<Vec<u8>>, now: u64) -> u32 {
        self.expire(key, now);
        if self.by_key.len() >= self.sweep_at {
            self.by_key.retain(|(_, session)| session.lives(now));
            self.sweep_at = 2 * self.by_key.len() + 16;
        }
        let at = self.find(key).unwrap_or_else(|at| {
            let session = Session {
                elements: Vec::new(),
                expires: None,
            };
            self.by_key.insert(at, (key.to_owned(), session));
            at
        });
        let (_, session) = &mut self.by_key[at];
        session.elements.extend(elements);
        if let Some(most) = settings.max_messages {
            let surplus = session.elements.len().saturating_sub(most as usize);
            session.elements.drain(..surplus);
        }
        let expires = now.saturating_add(u64::from(settings.session_ttl) * 1_000_000_000);
        session.expires = match settings.ttl_policy {
            TtlPolicy::Sliding => Some(expires),
            TtlPolicy::Fixed => session.expires.or(Some(expires)),
            TtlPolicy::None => session.expires,
        };
        session.elements.len() as u32
    }

    /// The last `limit` messages, and facts about the session.
    fn history(
        &mut self,
        settings: &Settings,
        key: &str,
        limit: Option<u32>,
        now: u64,
    ) -> Result<History<Messages>, Error> {
        self.expire(key, now);
        let Ok(at) = self.find(key) else {
            return Ok(History {
                messages: Messages::default(),
                total: 0,
                skipped: 0,
                ttl_seconds: None,
            });
        };
        let (_, session) = &self.by_key[at];
        let wanted = limit.map_or(usize::MAX, |limit| limit as usize);
        let first = session.elements.len().saturating_sub(wanted);
        let elements = &session.elements[first..];
        let bytes: usize = elements.iter().map(Vec::len).sum();
        if bytes > settings.max_reply_bytes as usize {
            return Err(Error::LimitExceeded(format!(
                "the messages have more than {} bytes (max-reply-bytes)",
                settings.max_reply_bytes
            )));
        }
        let mut end = 0;
        let ranges = elements.iter().map(|element| {
            let start = end;
            end += element.len();
            start..end
        });
        let ranges: Vec<_> = ranges.collect();
        let mut newest = NewestFirst::default();
        newest.read(&ReplyBuffer::new(elements.concat()), &ranges, limit);
        let (messages, skipped) = newest.finish();
        Ok(History {
            messages,
            total: session.elements.len() as u32,
            skipped,
            // Rounded to the nearest second, as Redis does.
            ttl_seconds: session
                .expires
                .map(|expires| ((expires - now + 500_000_000) / 1_000_000_000) as u32),
        })
    }

    fn clear(&mut self, key: &str) {
        if let Ok(at) = self.find(key) {
            self.by_key.remove(at);
        }
    }

    fn length(&mut self, key: &str, now: u64) -> u32 {
        self.expire(key, now);
        self.find(key)
            .map_or(0, |at| self.by_key[at].1.elements.len() as u32)
    }

    fn expire(&mut self, key: &str, now: u64) {
        if let Ok(at) = self.find(key)
            && !self.by_key[at].1.lives(now)
        {
            self.by_key.remove(at);
        }
    }

    /// The index of the session, or else the index to insert it at.
    fn find(&self, key: &str) -> Result<usize, usize> {
        self.by_key
            .binary_search_by(|(known, _)| known.as_str().cmp(key))
    }
}

impl Session {
    fn lives(&self, now: u64) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    const SECOND: u64 = 1_000_000_000;

    fn settings(given: Options) -> Settings {
        Settings::resolve(given, &[]).unwrap()
    }

    fn policy(policy: TtlPolicy) -> Settings {
        settings(Options {
            ttl_policy: Some(policy),
            session_ttl: Some(10),
            ..Options::default()
        })
    }

    fn element(content: &str) -> Vec<u8> {
        format!(r#"{{"role":"user","content":"{content}"}}"#).into_bytes()
    }

    fn contents(sessions: &mut Sessions, limit: Option<u32>) -> Vec<String> {
        let history = sessions
            .history(&settings(Options::default()), "k", limit, 0)
            .unwrap();
        let messages = history.messages.to_vec();
        messages
            .into_iter()
            .map(|message| message.content)
            .collect()
    }

    #[test]
    fn messages_come_back_in_order_and_under_a_limit() {
        let mut sessions = Sessions::new();
        let settings = settings(Options::default());
        assert_eq!(
            sessions.append(&settings, "k", vec![element("a"), element("b")], 0),
            2
        );
        assert_eq!(sessions.append(&settings, "k", vec![element("c")], 0), 3);
        assert_eq!(contents(&mut sessions, None), ["a", "b", "c"]);
        assert_eq!(contents(&mut sessions, Some(2)), ["b", "c"]);
        assert_eq!(contents(&mut sessions, Some(9)), ["a", "b", "c"]);
        assert!(contents(&mut sessions, Some(0)).is_empty());
        assert_eq!(sessions.length("k", 0), 3);
        sessions.clear("k");
        assert_eq!(sessions.length("k", 0), 0);
    }

    #[test]
    fn a_session_expires_by_its_policy() {
        for (ttl_policy, at_14, at_15, ttl_at_9) in [
            (TtlPolicy::Sliding, 2, 0, Some(6)),
            (TtlPolicy::Fixed, 0, 0, Some(1)),
            (TtlPolicy::None, 2, 2, None),
        ] {
            let settings = policy(ttl_policy);
            let mut sessions = Sessions::new();
            sessions.append(&settings, "k", vec![element("a")], 0);
            sessions.append(&settings, "k", vec![element("b")], 5 * SECOND);
            let history = sessions.history(&settings, "k", None, 9 * SECOND).unwrap();
            assert_eq!(history.ttl_seconds, ttl_at_9, "{ttl_policy:?}");
            assert_eq!(sessions.length("k", 14 * SECOND), at_14, "{ttl_policy:?}");
            assert_eq!(sessions.length("k", 15 * SECOND), at_15, "{ttl_policy:?}");
        }
    }

    #[test]
    fn expired_sessions_are_given_up() {
        let settings = policy(TtlPolicy::Sliding);
        let mut sessions = Sessions::new();
        for n in 0..1000 {
            sessions.append(&settings, &format!("{n}"), vec![element("a")], n * SECOND);
        }
        assert!(sessions.by_key.len() < 50, "{}", sessions.by_key.len());
    }

    #[test]
    fn limits_hold() {
        let settings = settings(Options {
            max_messages: Some(2),
            max_reply_bytes: Some(1024),
            ..Options::default()
        });
        let mut sessions = Sessions::new();
        let messages = ["a", "b", "c"].map(element).to_vec();
        assert_eq!(sessions.append(&settings, "k", messages, 0), 2);
        assert_eq!(contents(&mut sessions, None), ["b", "c"]);

        sessions.append(&settings, "k", vec![element(&"x".repeat(1024))], 0);
        assert_eq!(
            sessions.history(&settings, "k", None, 0).err(),
            Some(Error::LimitExceeded(
                "the messages have more than 1024 bytes (max-reply-bytes)".to_owned()
            ))
        );
        assert!(sessions.history(&settings, "k", Some(0), 0).is_ok());
    }
}
