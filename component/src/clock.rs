//! wasi:clocks: the time of day, and deadlines.

use alloc::string::String;

use crate::bindings::wasi::clocks::{monotonic_clock, wall_clock};
use crate::bindings::wasi::io::poll::{Pollable, poll};
use crate::message;

/// The current time as messages are stamped with it.
pub fn timestamp() -> String {
    let now = wall_clock::now();
    message::timestamp(now.seconds, now.nanoseconds)
}

/// Nanoseconds of the monotonic clock.
pub fn monotonic() -> u64 {
    monotonic_clock::now()
}

/// When an operation has to be over.
pub struct Deadline {
    at: u64,
    passed: Pollable,
    /// Milliseconds that it was set to, for error texts.
    pub milliseconds: u32,
}

/// The deadline has passed.
pub struct Passed;

impl Deadline {
    /// In so many milliseconds.
    pub fn after(milliseconds: u32) -> Deadline {
        Deadline::at(in_nanoseconds(milliseconds), milliseconds)
    }

    /// The earlier one of this deadline and so many milliseconds from now.
    pub fn or_after(&self, milliseconds: u32) -> Deadline {
        let at = in_nanoseconds(milliseconds);
        if at < self.at {
            Deadline::at(at, milliseconds)
        } else {
            Deadline::at(self.at, self.milliseconds)
        }
    }

    /// An equal share of the time that is left, for the first of so many tries.
    pub fn share(&self, tries: usize) -> Deadline {
        let now = monotonic();
        let left = self.at.saturating_sub(now);
        Deadline::at(now + left / tries.max(1) as u64, self.milliseconds)
    }

    /// Blocks until there is something to do for the owner of `ready`, or the
    /// deadline has passed.
    pub fn wait(&self, ready: &Pollable) -> Result<(), Passed> {
        // poll answers the indexes of those that are ready.
        if poll(&[ready, &self.passed]).contains(&0) {
            Ok(())
        } else {
            Err(Passed)
        }
    }

    fn at(at: u64, milliseconds: u32) -> Deadline {
        Deadline {
            at,
            passed: monotonic_clock::subscribe_instant(at),
            milliseconds,
        }
    }
}

fn in_nanoseconds(milliseconds: u32) -> u64 {
    monotonic().saturating_add(u64::from(milliseconds) * 1_000_000)
}
