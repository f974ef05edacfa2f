//! `wasi:cli/environment`: the environment variables.

use alloc::string::String;
use alloc::vec::Vec;

use crate::bindings::wasi::cli::environment::get_environment;

/// Returns the name and the value of each variable.
pub fn variables() -> Vec<(String, String)> {
    get_environment()
}
