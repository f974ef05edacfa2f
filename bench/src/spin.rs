//! Keeps a core busy. The benchmark and its driver compile this file, each for the
//! processes that keep the cores awake.

use std::hint::spin_loop;
use std::io::{self, Read};
use std::thread;

/// Spins until the standard input ends.
pub fn until_input_ends() {
    let waiting = thread::spawn(|| io::stdin().read(&mut [0]));
    while !waiting.is_finished() {
        spin_loop();
    }
}
