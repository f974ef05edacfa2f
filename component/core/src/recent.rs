//! The recent appends of this instance: what it appended last to each session.

use crate::ids::Id;

/// How an element with an id ends: with the key, the id, and the end of the object.
pub type Ending = [u8; ENDING];

/// The endings of the elements that this instance appended last, for up to 256 sessions.
///
/// Only appends that were acknowledged at the first attempt are here. Such an element was
/// pushed once and will not be pushed again, so later appends come after it. If it is
/// still the last entry of its session, there is no later append.
pub struct RecentAppends {
    /// Indexed by a hash of the key. The ending of another session with the same hash does
    /// no harm: it is never found in this one.
    buckets: [Option<(u32, Ending)>; BUCKETS],
}

impl Default for RecentAppends {
    fn default() -> RecentAppends {
        RecentAppends::new()
    }
}

impl RecentAppends {
    /// Creates an empty table.
    pub const fn new() -> RecentAppends {
        RecentAppends {
            buckets: [None; BUCKETS],
        }
    }

    /// Returns the ending of the last append to the session at this key, if it is known.
    pub fn of(&self, key: &str) -> Option<Ending> {
        let hash = fnv_1a(key);
        let (of, ending) = self.buckets[hash as usize % BUCKETS]?;
        (of == hash).then_some(ending)
    }

    /// Remembers an element that was appended to the session at this key, and
    /// acknowledged at the first attempt.
    pub fn remember(&mut self, key: &str, element: &[u8]) {
        let hash = fnv_1a(key);
        let ending = match element.len() {
            // The server copies the last entry to look at its end. If it is large, a
            // search is faster.
            ..=SMALL => element.last_chunk().copied(),
            _ => None,
        };
        self.buckets[hash as usize % BUCKETS] = ending.map(|ending| (hash, ending));
    }
}

/// The FNV-1a hash of a key.
pub fn fnv_1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// Bytes of `"id":"`, an id and `"}`.
const ENDING: usize = 6 + Id::LENGTH + 2;
/// Sessions that are remembered.
const BUCKETS: usize = 256;
/// Largest element that is remembered, in bytes.
const SMALL: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Ids;

    #[test]
    fn an_ending_is_that_of_the_last_element() {
        let element = |id: &str, size| format!("{:size$}\"id\":\"{id}\"}}", "").into_bytes();
        let mut ids = Ids::new();
        let mut recent = RecentAppends::new();
        assert_eq!(recent.of("a"), None);
        for size in [0, 10, SMALL - ENDING] {
            let id = ids.next(|| 0);
            recent.remember("a", &element(id.as_str(), size));
            let expected = format!("\"id\":\"{}\"}}", id.as_str());
            assert_eq!(recent.of("a").unwrap().as_slice(), expected.as_bytes());
            assert_eq!(recent.of("b"), None);
        }
        recent.remember("a", &element(ids.next(|| 0).as_str(), SMALL - ENDING + 1));
        assert_eq!(recent.of("a"), None);
        recent.remember("a", b"{}");
        assert_eq!(recent.of("a"), None);
    }
}
