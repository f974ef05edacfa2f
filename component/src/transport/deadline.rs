//! Deadlines, and waits until them.

use crate::state::alarm;
use crate::wasi::clock::{Pollable, monotonic, sleep_until};

/// When an operation, or a part of it, must end.
#[derive(Clone, Copy)]
pub struct Deadline {
    /// A time of the monotonic clock.
    time: u64,
    /// Its length in milliseconds when it was set, for error texts.
    pub milliseconds: u32,
}

/// The deadline has passed.
pub struct Passed;

impl Deadline {
    /// Sets a deadline this many milliseconds from now.
    pub fn after(milliseconds: u32) -> Deadline {
        Deadline::from(monotonic(), nanoseconds(milliseconds))
    }

    /// Returns this deadline, or one this many milliseconds from now if that is earlier.
    pub fn min(&self, milliseconds: u32) -> Deadline {
        let now = monotonic();
        let left = self.time.saturating_sub(now);
        Deadline::from(now, left.min(nanoseconds(milliseconds)))
    }

    /// Returns the deadline of the next attempt, if this many attempts share the remaining
    /// time.
    pub fn share(&self, attempts: usize) -> Deadline {
        let now = monotonic();
        let left = self.time.saturating_sub(now);
        Deadline::from(now, left / attempts.max(1) as u64)
    }

    /// Returns the time of the monotonic clock at which it was set.
    pub fn begin(&self) -> u64 {
        self.time.saturating_sub(nanoseconds(self.milliseconds))
    }

    /// Waits until a pollable is ready.
    ///
    /// # Errors
    ///
    /// [`Passed`] if the deadline passes first.
    pub fn wait(&self, ready: &Pollable) -> Result<(), Passed> {
        self.wait_for_any(&[ready])
    }

    /// Waits until one of several pollables is ready, of which there are at most
    /// [`MAX_READY`](crate::wasi::clock::MAX_READY).
    ///
    /// # Errors
    ///
    /// [`Passed`] if the deadline passes first.
    pub fn wait_for_any(&self, ready: &[&Pollable]) -> Result<(), Passed> {
        match alarm().wait(ready, self.time) {
            true => Ok(()),
            false => Err(Passed),
        }
    }

    /// Waits for this many milliseconds.
    ///
    /// # Errors
    ///
    /// [`Passed`], without a wait, if the deadline would pass in the meantime.
    pub fn pause(&self, milliseconds: u32) -> Result<(), Passed> {
        let until = monotonic().saturating_add(nanoseconds(milliseconds));
        if until >= self.time {
            return Err(Passed);
        }
        sleep_until(until);
        Ok(())
    }

    /// Whether it has passed.
    pub fn has_passed(&self) -> bool {
        monotonic() >= self.time
    }

    fn from(now: u64, left: u64) -> Deadline {
        Deadline {
            time: now.saturating_add(left),
            milliseconds: left.div_ceil(MILLISECOND) as u32,
        }
    }
}

/// Converts milliseconds to nanoseconds.
pub fn nanoseconds(milliseconds: u32) -> u64 {
    u64::from(milliseconds) * MILLISECOND
}

/// Nanoseconds in a millisecond.
const MILLISECOND: u64 = 1_000_000;
