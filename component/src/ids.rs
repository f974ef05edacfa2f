//! Ids of messages, which tell an append whether it is there already, and what this
//! instance appended last to the sessions.
//!
//! An id is a random number of the instance, in hexadecimal digits, a hyphen, and a
//! count in decimal ones. Clocks of edge runtimes are coarse or stand still, so the
//! time cannot serve. No two instances may be given the same random numbers.

use alloc::format;

/// What an instance makes ids of.
#[derive(Default)]
pub struct Ids {
    /// The last one that was made.
    last: Option<Id>,
}

impl Ids {
    /// None made yet.
    pub const fn new() -> Ids {
        Ids { last: None }
    }

    /// An id that no other message has.
    pub fn next(&mut self, random: fn() -> u64) -> Id {
        let Id(text) = self.last.get_or_insert_with(|| {
            let zero = format!("{:016x}{:016x}-{:0DIGITS$}", random(), random(), 0);
            Id(*zero.as_bytes().as_array().expect("ids have one length"))
        });
        // Counted in the text itself, most of which stays as it is.
        for digit in text[ID - DIGITS..].iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                break;
            }
            *digit = b'0';
        }
        Id(*text)
    }
}

/// An id of a message.
#[derive(Clone, Copy)]
pub struct Id([u8; ID]);

impl Id {
    /// Its text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("an id is ASCII")
    }
}

/// How an element with an id ends: with its key, the id, and the end of the object.
pub type Ending = [u8; ENDING];

/// How the elements end that this instance appended last to the sessions: as many as
/// there is room for.
///
/// Only those are here that were acknowledged at their first try. Such an element was
/// pushed once and will not be pushed again, so that whatever is appended later lies
/// behind it: if it is the last entry of the session, nothing does.
pub struct Endings {
    /// By a hash of the session's key. It does no harm to give out that of another
    /// session, which cannot be found there.
    slots: [Option<(u32, Ending)>; SLOTS],
}

impl Default for Endings {
    fn default() -> Endings {
        Endings::new()
    }
}

impl Endings {
    /// Of no session.
    pub const fn new() -> Endings {
        Endings {
            slots: [None; SLOTS],
        }
    }

    /// That of the session at this key, if it is here.
    pub fn of(&self, key: &str) -> Option<Ending> {
        let hash = fnv_1a(key);
        let (of, ending) = self.slots[hash as usize % SLOTS]?;
        (of == hash).then_some(ending)
    }

    /// This element was appended to the session at this key, and acknowledged at the
    /// first try.
    pub fn keep(&mut self, key: &str, element: &[u8]) {
        let hash = fnv_1a(key);
        let ending = match element.len() {
            // The server copies the last entry to look at its end. Where it is large, a
            // search is faster.
            ..=SMALL => element.last_chunk().copied(),
            _ => None,
        };
        self.slots[hash as usize % SLOTS] = ending.map(|ending| (hash, ending));
    }
}

/// A hash of a key.
pub fn fnv_1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// Of a count: at 100,000 messages a second it takes months until it begins anew.
const DIGITS: usize = 12;
/// Bytes of two random numbers, a hyphen and a count.
const ID: usize = 32 + 1 + DIGITS;
/// Bytes of `"id":"`, an id and `"}`.
const ENDING: usize = 6 + ID + 2;
/// Sessions whose last elements are kept in mind.
const SLOTS: usize = 256;
/// Bytes of an element.
const SMALL: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_random_number_and_a_count() {
        let mut ids = Ids::new();
        for count in 1..=1001 {
            assert_eq!(
                ids.next(|| 0xabc).as_str(),
                format!("0000000000000abc0000000000000abc-{count:012}")
            );
        }
    }

    #[test]
    fn an_ending_is_that_of_the_last_element() {
        let element = |id: &str, size| format!("{:size$}\"id\":\"{id}\"}}", "").into_bytes();
        let mut ids = Ids::new();
        let mut endings = Endings::new();
        assert_eq!(endings.of("a"), None);
        for size in [0, 10, SMALL - ENDING] {
            let id = ids.next(|| 0);
            endings.keep("a", &element(id.as_str(), size));
            let expected = format!("\"id\":\"{}\"}}", id.as_str());
            assert_eq!(endings.of("a").unwrap().as_slice(), expected.as_bytes());
            assert_eq!(endings.of("b"), None);
        }
        endings.keep("a", &element(ids.next(|| 0).as_str(), SMALL - ENDING + 1));
        assert_eq!(endings.of("a"), None);
        endings.keep("a", b"{}");
        assert_eq!(endings.of("a"), None);
    }
}
