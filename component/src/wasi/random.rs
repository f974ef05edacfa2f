//! wasi:random: what makes messages unique, and waits uneven.

use crate::bindings::ids;
use crate::bindings::wasi::random::random::get_random_u64;
use session_memory_core::ids::Id;

/// An id that no other message has.
pub fn id() -> Id {
    ids().next(get_random_u64)
}

/// Between half of `most` and all of it.
pub fn jittered(most: u32) -> u32 {
    let half = most / 2;
    half + (get_random_u64() % u64::from(most - half + 1)) as u32
}
