//! `wasi:random`: random numbers.

use crate::bindings::wasi::random::random::get_random_u64;

/// Returns a random number that nobody can predict.
pub fn number() -> u64 {
    get_random_u64()
}

/// Returns a random number between half of `most` and `most`.
pub fn jittered(most: u32) -> u32 {
    let half = most / 2;
    half + (number() % u64::from(most - half + 1)) as u32
}
