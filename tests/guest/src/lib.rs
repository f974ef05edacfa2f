//! A component with the imports and exports of Session Memory that misbehaves as the
//! session id says. In `open`, the key prefix says it.
//!
//! It is empty on all targets but wasm.

#![cfg_attr(target_family = "wasm", no_std)]

#[cfg(target_family = "wasm")]
mod bindings;
#[cfg(target_family = "wasm")]
mod misdeeds;
