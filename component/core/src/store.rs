//! Sessions in memory: lists of elements with an expiry.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Error;
use crate::message::{Messages, NewestFirst};
use crate::options::{Settings, TtlPolicy};
use crate::resp::ReplyBuffer;

/// The lists of all sessions. The caller gives the time, in nanoseconds of a monotonic
/// clock.
#[derive(Default)]
pub struct Store {
    /// Sorted by key. A map would add more code to the component than the rest of this file.
    by_key: Vec<(String, List)>,
    /// Number of sessions from which expired ones are removed.
    sweep_at: usize,
}

#[derive(Default)]
struct List {
    elements: Vec<Vec<u8>>,
    expires: Option<u64>,
}

/// A session at one point in time.
pub struct StoredSession<'a> {
    store: &'a mut Store,
    key: &'a str,
    settings: &'a Settings,
    now: u64,
}

impl Store {
    /// Creates an empty store.
    pub const fn new() -> Store {
        Store {
            by_key: Vec::new(),
            sweep_at: 0,
        }
    }

    /// Opens a session, whether or not it exists.
    pub fn session<'a>(
        &'a mut self,
        key: &'a str,
        settings: &'a Settings,
        now: u64,
    ) -> StoredSession<'a> {
        if let Ok(at) = self.find(key)
            && !self.by_key[at].1.lives(now)
        {
            self.by_key.remove(at);
        }
        StoredSession {
            store: self,
            key,
            settings,
            now,
        }
    }

    /// The index of the session, or else the index to insert it at.
    fn find(&self, key: &str) -> Result<usize, usize> {
        self.by_key
            .binary_search_by(|(known, _)| known.as_str().cmp(key))
    }

    /// Removes expired sessions, when there are many sessions.
    fn sweep(&mut self, now: u64) {
        if self.by_key.len() >= self.sweep_at {
            self.by_key.retain(|(_, list)| list.lives(now));
            self.sweep_at = 2 * self.by_key.len() + 16;
        }
    }
}

impl StoredSession<'_> {
    /// Appends elements, trims the session and applies its time to live. Returns the
    /// number of entries.
    pub fn append(&mut self, elements: impl IntoIterator<Item = Vec<u8>>) -> u32 {
        self.store.sweep(self.now);
        let at = self.store.find(self.key).unwrap_or_else(|at| {
            let new = (self.key.to_owned(), List::default());
            self.store.by_key.insert(at, new);
            at
        });
        let (_, list) = &mut self.store.by_key[at];
        list.elements.extend(elements);
        if let Some(most) = self.settings.max_messages {
            let surplus = list.elements.len().saturating_sub(most as usize);
            list.elements.drain(..surplus);
        }
        let ttl = u64::from(self.settings.session_ttl) * SECOND;
        let expires = self.now.saturating_add(ttl);
        list.expires = match self.settings.ttl_policy {
            TtlPolicy::Sliding => Some(expires),
            TtlPolicy::Fixed => list.expires.or(Some(expires)),
            TtlPolicy::None => list.expires,
        };
        list.elements.len() as u32
    }

    /// Reads the last `limit` messages, or all of them. Returns them with the number of
    /// entries that are not messages.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] if the entries have more than `max_reply_bytes` bytes.
    pub fn read(&self, limit: Option<u32>) -> Result<(Messages, u32), Error> {
        let Some(list) = self.list() else {
            return Ok((Messages::default(), 0));
        };
        let wanted = limit.map_or(usize::MAX, |limit| limit as usize);
        let first = list.elements.len().saturating_sub(wanted);
        let elements = &list.elements[first..];
        let bytes: usize = elements.iter().map(Vec::len).sum();
        if bytes > self.settings.max_reply_bytes as usize {
            return Err(Error::LimitExceeded(format!(
                "the messages have more than {} bytes (max-reply-bytes)",
                self.settings.max_reply_bytes
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
        Ok(newest.finish())
    }

    /// Deletes the session.
    pub fn clear(&mut self) {
        if let Ok(at) = self.store.find(self.key) {
            self.store.by_key.remove(at);
        }
    }

    /// Number of entries.
    pub fn length(&self) -> u32 {
        self.list().map_or(0, |list| list.elements.len() as u32)
    }

    /// Seconds until the session expires, rounded to the nearest one, as Redis does.
    pub fn ttl_seconds(&self) -> Option<u32> {
        let expires = self.list()?.expires?;
        Some(((expires - self.now + SECOND / 2) / SECOND) as u32)
    }

    fn list(&self) -> Option<&List> {
        let at = self.store.find(self.key).ok()?;
        Some(&self.store.by_key[at].1)
    }
}

impl List {
    fn lives(&self, now: u64) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::settings;
    use crate::options::Options;

    fn policy(policy: TtlPolicy) -> Settings {
        settings(Options {
            ttl_policy: Some(policy),
            session_ttl: Some(core::time::Duration::from_secs(10)),
            ..Options::default()
        })
    }

    fn element(content: &str) -> Vec<u8> {
        format!(r#"{{"role":"user","content":"{content}"}}"#).into_bytes()
    }

    fn contents(store: &mut Store, limit: Option<u32>) -> Vec<String> {
        let settings = settings(Options::default());
        let (messages, _) = store.session("k", &settings, 0).read(limit).unwrap();
        let messages = messages.to_vec();
        messages
            .into_iter()
            .map(|message| message.content)
            .collect()
    }

    #[test]
    fn messages_come_back_in_order_and_under_a_limit() {
        let mut store = Store::new();
        let settings = settings(Options::default());
        assert_eq!(
            store
                .session("k", &settings, 0)
                .append(vec![element("a"), element("b")]),
            2
        );
        assert_eq!(
            store.session("k", &settings, 0).append(vec![element("c")]),
            3
        );
        assert_eq!(contents(&mut store, None), ["a", "b", "c"]);
        assert_eq!(contents(&mut store, Some(2)), ["b", "c"]);
        assert_eq!(contents(&mut store, Some(9)), ["a", "b", "c"]);
        assert!(contents(&mut store, Some(0)).is_empty());
        assert_eq!(store.session("k", &settings, 0).length(), 3);
        store.session("k", &settings, 0).clear();
        assert_eq!(store.session("k", &settings, 0).length(), 0);
    }

    #[test]
    fn a_session_expires_by_its_policy() {
        for (ttl_policy, at_14, at_15, ttl_at_9) in [
            (TtlPolicy::Sliding, 2, 0, Some(6)),
            (TtlPolicy::Fixed, 0, 0, Some(1)),
            (TtlPolicy::None, 2, 2, None),
        ] {
            let settings = policy(ttl_policy);
            let mut store = Store::new();
            store.session("k", &settings, 0).append(vec![element("a")]);
            store
                .session("k", &settings, 5 * SECOND)
                .append(vec![element("b")]);
            let ttl = store.session("k", &settings, 9 * SECOND).ttl_seconds();
            assert_eq!(ttl, ttl_at_9, "{ttl_policy:?}");
            assert_eq!(
                store.session("k", &settings, 14 * SECOND).length(),
                at_14,
                "{ttl_policy:?}"
            );
            assert_eq!(
                store.session("k", &settings, 15 * SECOND).length(),
                at_15,
                "{ttl_policy:?}"
            );
        }
    }

    #[test]
    fn expired_sessions_are_removed() {
        let settings = policy(TtlPolicy::Sliding);
        let mut store = Store::new();
        for n in 0..1000 {
            store
                .session(&format!("{n}"), &settings, n * SECOND)
                .append(vec![element("a")]);
        }
        assert!(store.by_key.len() < 50, "{}", store.by_key.len());
    }

    #[test]
    fn limits_hold() {
        let settings = settings(Options {
            max_messages: Some(2),
            max_reply_bytes: Some(1024),
            ..Options::default()
        });
        let mut store = Store::new();
        let messages = ["a", "b", "c"].map(element).to_vec();
        assert_eq!(store.session("k", &settings, 0).append(messages), 2);
        assert_eq!(contents(&mut store, None), ["b", "c"]);

        store
            .session("k", &settings, 0)
            .append(vec![element(&"x".repeat(1024))]);
        assert_eq!(
            store.session("k", &settings, 0).read(None).err(),
            Some(Error::LimitExceeded(
                "the messages have more than 1024 bytes (max-reply-bytes)".to_owned()
            ))
        );
        assert!(store.session("k", &settings, 0).read(Some(0)).is_ok());
    }
}
