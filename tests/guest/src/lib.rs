//! A component that exports what Session Memory exports, imports what it imports,
//! and misbehaves as the session id tells it; in `open`, as the key prefix does.
//!
//! Only on the wasm target is there anything in it.

#![cfg_attr(target_family = "wasm", no_std)]

#[cfg(target_family = "wasm")]
mod bindings;
#[cfg(target_family = "wasm")]
mod misdeeds;
