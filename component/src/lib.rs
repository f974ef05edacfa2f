//! Conversation memory for AI agents, as a WebAssembly component.
//!
//! The component exports the interface `memory` (see `wit/`) and keeps each
//! conversation as a list in Redis, over a TCP socket that its host grants. This crate
//! is the part that needs a host; `session-memory-core` has the rest.
//!
//! ```text
//! abi            arguments and results as they lie in memory <-> types of the core
//! client         reads the environment, starts the deadline
//!   redis        connects if needed, exchanges, closes broken connections
//!     transport  writes once, reads until the replies are complete
//! state          what the clients of an instance share
//! wasi           sockets, clocks, random numbers, environment
//! bindings       generated: the imports
//! ```
//!
//! Natively, only the tests of the layout are compiled.

#![cfg(any(target_family = "wasm", test))]
#![cfg_attr(not(test), no_std)]

#[cfg(not(test))]
extern crate alloc;

mod abi;
#[cfg(not(test))]
mod bindings;
#[cfg(not(test))]
mod client;
#[cfg(not(test))]
mod redis;
#[cfg(not(test))]
mod state;
#[cfg(not(test))]
mod transport;
#[cfg(not(test))]
mod wasi;
