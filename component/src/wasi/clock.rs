//! `wasi:clocks` and `wasi:io/poll`: the time, and waits.

use alloc::string::String;

use session_memory_core::message;

use crate::bindings::wasi::clocks::{monotonic_clock, wall_clock};
pub use crate::bindings::wasi::io::poll::Pollable;
use crate::bindings::wasi::io::poll::poll;

/// Returns the time of day in the format of message timestamps.
pub fn timestamp() -> String {
    let now = wall_clock::now();
    message::timestamp(now.seconds, now.nanoseconds)
}

/// Returns the time of the monotonic clock in nanoseconds.
pub fn monotonic() -> u64 {
    monotonic_clock::now()
}

/// Sleeps until a time of the monotonic clock.
pub fn sleep_until(time: u64) {
    monotonic_clock::subscribe_instant(time).block();
}

/// Wakes waits at their deadline.
///
/// A pollable of the clock is reused until it fires, because most operations end long
/// before their deadlines.
pub struct Alarm {
    /// The time that is set, and the pollable that is ready then.
    set: Option<(u64, Pollable)>,
}

impl Alarm {
    /// Creates an alarm that is not set.
    pub const fn new() -> Alarm {
        Alarm { set: None }
    }

    /// Waits until one of at most [`MAX_READY`] pollables is ready, or until a time.
    /// Returns whether a pollable is ready.
    pub fn wait(&mut self, ready: &[&Pollable], time: u64) -> bool {
        loop {
            let mut pollables = [self.at_or_before(time); MAX_READY + 1];
            pollables[..ready.len()].copy_from_slice(ready);
            // The indexes of the pollables that are ready.
            match poll(&pollables[..=ready.len()]).first() {
                Some(index) if (*index as usize) < ready.len() => return true,
                _ if monotonic() >= time => return false,
                // The alarm was set for an earlier deadline.
                _ => self.set = None,
            }
        }
    }

    /// Returns a pollable that is ready at this time or earlier.
    fn at_or_before(&mut self, time: u64) -> &Pollable {
        if self.set.as_ref().is_some_and(|(set, _)| *set > time) {
            self.set = None;
        }
        let subscribe = || (time, monotonic_clock::subscribe_instant(time));
        &self.set.get_or_insert_with(subscribe).1
    }
}

/// Largest number of pollables in one wait: the two streams of a connection, or
/// connections to as many addresses.
pub const MAX_READY: usize = 8;
