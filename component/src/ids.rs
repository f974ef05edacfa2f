//! Ids of messages: what tells an append whether it is there already.
//!
//! An id is a random number of the instance, in hexadecimal digits, a hyphen and a
//! count in decimal ones. Clocks of edge runtimes are coarse or stand still, so the
//! time cannot serve. All ids are of one length, so that a script finds its way in
//! them.

use alloc::format;
use alloc::string::String;

use crate::message::put_digits;

/// What an instance makes ids of, and what it knows of those it made.
#[derive(Default)]
pub struct Ids {
    /// The random number and the hyphen.
    instance: String,
    made: u64,
    /// Of the messages with ids up to this one, some may be appended late: a request
    /// failed in which they may have been.
    doubtful: u64,
}

impl Ids {
    /// None made yet.
    pub const fn new() -> Ids {
        Ids {
            instance: String::new(),
            made: 0,
            doubtful: 0,
        }
    }

    /// An id that no other message has, if nobody else is given these random numbers.
    pub fn next(&mut self, random: fn() -> u64) -> String {
        if self.instance.is_empty() {
            self.instance = format!("{:016x}{:016x}-", random(), random());
        }
        self.made += 1;
        let mut id = self.instance.clone();
        id.extend(digits(self.made).map(char::from));
        id
    }

    /// A request has failed: what it was to append, may be appended at any time.
    pub fn doubt(&mut self) {
        self.doubtful = self.made;
    }

    /// Those whose messages were all appended by now, if they ever will be.
    pub fn settled(&self) -> Settled {
        Settled {
            oldest: self.doubtful + 1,
            newest: self.made,
        }
    }
}

/// Ids whose messages will not be appended any more, by their counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    oldest: u64,
    newest: u64,
}

impl Settled {
    /// No ids.
    pub const NONE: Settled = Settled {
        oldest: 1,
        newest: 0,
    };

    /// The counts of the oldest and the newest one, as they are written in ids; none if
    /// there are no such ids.
    pub fn bounds(self) -> Option<[[u8; DIGITS]; 2]> {
        (self.oldest <= self.newest).then(|| [digits(self.oldest), digits(self.newest)])
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
    fn settled_are_those_since_the_last_failure() {
        let mut ids = Ids::new();
        assert_eq!(ids.settled().bounds(), None);
        ids.next(|| 0);
        ids.next(|| 0);
        let bounds = |ids: &Ids| {
            let bounds = ids.settled().bounds()?;
            Some(bounds.map(|digits| String::from_utf8(digits.to_vec()).unwrap()))
        };
        let text = |bounds: [&str; 2]| Some(bounds.map(String::from));
        assert_eq!(bounds(&ids), text(["000000000001", "000000000002"]));
        ids.doubt();
        assert_eq!(bounds(&ids), None);
        ids.next(|| 0);
        assert_eq!(bounds(&ids), text(["000000000003", "000000000003"]));
        assert_eq!(Settled::NONE.bounds(), None);
    }
}
