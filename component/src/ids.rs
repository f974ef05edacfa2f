//! Ids of messages: what tells an append whether it is there already.
//!
//! An id is a random number, in hexadecimal digits, a hyphen, and a count in decimal
//! ones. Clocks of edge runtimes are coarse or stand still, so the time cannot serve.
//! All ids are of one length, so that a script finds its way in them.
//!
//! No two instances may be given the same random numbers: one would take the messages
//! of the other for its own.

use alloc::format;
use alloc::string::String;

use crate::message::put_digits;

/// What an instance makes ids of.
#[derive(Default)]
pub struct Ids {
    /// The random number and the hyphen; empty until it is needed.
    prefix: String,
    count: u64,
}

impl Ids {
    /// None made yet.
    pub const fn new() -> Ids {
        Ids {
            prefix: String::new(),
            count: 0,
        }
    }

    /// An id that no other message has, if nobody else is given these random numbers.
    pub fn next(&mut self, random: fn() -> u64) -> String {
        if self.prefix.is_empty() {
            self.prefix = format!("{:016x}{:016x}-", random(), random());
        }
        self.count += 1;
        let count = digits(self.count);
        let count = str::from_utf8(&count).expect("digits are ASCII");
        [&self.prefix, count].concat()
    }

    /// Those that are settled. Ids are settled as long as every request that was sent
    /// with one was answered, and what it was to append was appended. Where that is not
    /// so, it may be appended at any time; other ids are begun then, with another random
    /// number.
    pub fn settled(&self) -> Settled {
        Settled { newest: self.count }
    }
}

/// Ids that are settled: those with the random number of an id made after them, and a
/// count up to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    newest: u64,
}

impl Settled {
    /// No ids.
    pub const NONE: Settled = Settled { newest: 0 };

    /// The highest count, as it is written in an id; none if there are no such ids.
    pub fn newest(self) -> Option<[u8; DIGITS]> {
        (self.newest > 0).then(|| digits(self.newest))
    }
}

fn digits(count: u64) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    put_digits(&mut digits, count);
    digits
}

/// Of a count: at 100,000 messages a second it takes months until they do not suffice.
const DIGITS: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_random_number_and_a_count() {
        let mut ids = Ids::new();
        assert_eq!(
            [ids.next(|| 0xabc), ids.next(|| 0)],
            [
                "0000000000000abc0000000000000abc-000000000001",
                "0000000000000abc0000000000000abc-000000000002"
            ]
        );
    }

    #[test]
    fn settled_are_those_made_before() {
        let mut ids = Ids::new();
        assert_eq!(ids.settled(), Settled::NONE);
        assert_eq!(ids.settled().newest(), None);
        ids.next(|| 0);
        ids.next(|| 0);
        assert_eq!(ids.settled().newest(), Some(*b"000000000002"));
    }
}
