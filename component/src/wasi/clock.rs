//! wasi:clocks: the time of day, and deadlines.

use alloc::string::String;

use crate::bindings;
use crate::bindings::wasi::clocks::{monotonic_clock, wall_clock};
use crate::bindings::wasi::io::poll::{Pollable, poll};
use session_memory_core::message;

/// The current time as messages are stamped with it.
pub fn timestamp() -> String {
    let now = wall_clock::now();
    message::timestamp(now.seconds, now.nanoseconds)
}

/// Nanoseconds of the monotonic clock.
pub fn monotonic() -> u64 {
    monotonic_clock::now()
}

/// What wakes an instance up in time. One serves all deadlines that it is not too late
/// for, since those of most operations are not waited for until they pass.
pub struct Alarm(Option<(u64, Pollable)>);

impl Alarm {
    /// None set yet.
    pub const fn new() -> Alarm {
        Alarm(None)
    }

    /// What is ready at a time, or before it: then another is set after that.
    fn until(&mut self, at: u64) -> &Pollable {
        if self.0.as_ref().is_some_and(|(set, _)| *set > at) {
            self.0 = None;
        }
        let set = || (at, monotonic_clock::subscribe_instant(at));
        &self.0.get_or_insert_with(set).1
    }
}

/// When an operation has to be over.
#[derive(Clone, Copy)]
pub struct Deadline {
    at: u64,
    /// How many milliseconds away it was, for error texts.
    pub milliseconds: u32,
}

/// The deadline has passed.
pub struct Passed;

impl Deadline {
    /// In so many milliseconds.
    pub fn after(milliseconds: u32) -> Deadline {
        Deadline::from(monotonic(), nanoseconds(milliseconds))
    }

    /// The earlier one of this deadline and so many milliseconds from now.
    pub fn min(&self, milliseconds: u32) -> Deadline {
        let now = monotonic();
        let left = self.at.saturating_sub(now);
        Deadline::from(now, left.min(nanoseconds(milliseconds)))
    }

    /// An equal share of the time that is left, for the first of so many attempts.
    pub fn share(&self, attempts: usize) -> Deadline {
        let now = monotonic();
        let left = self.at.saturating_sub(now);
        Deadline::from(now, left / attempts.max(1) as u64)
    }

    /// When it was set.
    pub fn begin(&self) -> u64 {
        self.at.saturating_sub(nanoseconds(self.milliseconds))
    }

    /// Blocks until there is something to do for the owner of `ready`, or the
    /// deadline has passed.
    pub fn wait(&self, ready: &Pollable) -> Result<(), Passed> {
        self.wait_for_any(&[ready])
    }

    /// The same for several, of which there are no more than [`MOST_READY`].
    pub fn wait_for_any(&self, ready: &[&Pollable]) -> Result<(), Passed> {
        let mut alarm = bindings::alarm();
        loop {
            let mut pollables = [alarm.until(self.at); MOST_READY + 1];
            pollables[..ready.len()].copy_from_slice(ready);
            // poll answers the indexes of those that are ready.
            match poll(&pollables[..=ready.len()]).first() {
                Some(index) if (*index as usize) < ready.len() => return Ok(()),
                _ if self.has_passed() => return Err(Passed),
                _ => *alarm = Alarm::new(),
            }
        }
    }

    /// Waits for so many milliseconds. Without waiting it answers [`Passed`] if the
    /// deadline would pass in the meantime.
    pub fn pause(&self, milliseconds: u32) -> Result<(), Passed> {
        let until = monotonic().saturating_add(nanoseconds(milliseconds));
        if until >= self.at {
            return Err(Passed);
        }
        monotonic_clock::subscribe_instant(until).block();
        Ok(())
    }

    /// Whether it has passed.
    pub fn has_passed(&self) -> bool {
        monotonic() >= self.at
    }

    fn from(now: u64, left: u64) -> Deadline {
        let at = now.saturating_add(left);
        Deadline {
            at,
            milliseconds: left.div_ceil(NANOSECONDS) as u32,
        }
    }
}

/// Milliseconds in nanoseconds.
pub fn nanoseconds(milliseconds: u32) -> u64 {
    u64::from(milliseconds) * NANOSECONDS
}

/// What is waited for at once: the two streams of a connection, or connections to as many
/// addresses.
pub const MOST_READY: usize = 8;
/// Of a millisecond.
const NANOSECONDS: u64 = 1_000_000;
