//! Ids of messages, by which an append recognises the elements of an earlier attempt.
//!
//! An id is a random number of the instance in hexadecimal digits, a hyphen, and a
//! decimal counter. The time cannot serve, because the clocks of edge runtimes are
//! coarse or stand still. No two instances may be given the same random numbers.

use alloc::format;

/// Makes the ids of an instance.
#[derive(Default)]
pub struct Ids {
    /// The last id that was made.
    last: Option<Id>,
}

impl Ids {
    /// Creates a generator.
    pub const fn new() -> Ids {
        Ids { last: None }
    }

    /// Returns an id that no other message has.
    pub fn next(&mut self, random: fn() -> u64) -> Id {
        let Id(text) = self.last.get_or_insert_with(|| {
            let zero = format!("{:016x}{:016x}-{:0DIGITS$}", random(), random(), 0);
            Id(*zero.as_bytes().as_array().expect("ids have one length"))
        });
        // Counts in the text, because most digits do not change.
        for digit in text[Id::LENGTH - DIGITS..].iter_mut().rev() {
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
pub struct Id([u8; Id::LENGTH]);

impl Id {
    /// Bytes of two random numbers, a hyphen and a counter.
    pub const LENGTH: usize = 32 + 1 + DIGITS;

    /// Returns the text of the id.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("an id is ASCII")
    }
}

/// Digits of the counter: at 100,000 messages a second it starts again after months.
const DIGITS: usize = 12;

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
}
