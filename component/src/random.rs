//! wasi:random: what makes messages unique, and waits uneven.

use alloc::format;
use alloc::string::{String, ToString};

use crate::bindings::ids;
use crate::bindings::wasi::random::random::get_random_u64;

/// What an instance makes ids of: a random number of its own, and a count. Clocks
/// of edge runtimes are coarse or stand still, so the time cannot serve.
pub struct Ids {
    /// The random number, in hexadecimal digits.
    instance: String,
    count: u64,
}

impl Ids {
    /// None made yet.
    pub const fn new() -> Ids {
        Ids {
            instance: String::new(),
            count: 0,
        }
    }

    fn next(&mut self) -> String {
        if self.instance.is_empty() {
            self.instance = format!("{:016x}{:016x}-", get_random_u64(), get_random_u64());
        }
        self.count += 1;
        [self.instance.as_str(), &self.count.to_string()].concat()
    }
}

/// An id that no other message has.
pub fn id() -> String {
    ids().next()
}

/// Between half of `most` and all of it.
pub fn jittered(most: u32) -> u32 {
    let half = most / 2;
    half + (get_random_u64() % u64::from(most - half + 1)) as u32
}
