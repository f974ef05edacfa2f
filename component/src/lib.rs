//! Conversation memory for AI agents, as a WebAssembly component.
//!
//! The component exports the interface `memory` (see `wit/`) and keeps each
//! conversation as a list in Redis, over a TCP socket that its host grants. This crate
//! is the part that needs the WASI interfaces; `session-memory-core` has the rest.
//!
//! ```text
//! abi          arguments and results as they lie in memory <-> our types
//! export       reads the environment, starts the deadline
//!   redis      connects if need be, exchanges, closes what broke
//!     connection   write once, read until the replies are complete
//!       socket     wasi:sockets
//!       clock      wasi:clocks
//!       random     wasi:random: for ids, and jitter of waits
//! ```

#![cfg(target_family = "wasm")]
#![no_std]

extern crate alloc;

mod abi;
mod bindings;
mod client;
mod redis;
mod transport;
mod wasi;
