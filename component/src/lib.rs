//! Conversation memory for AI agents, as a WebAssembly component.
//!
//! The component exports the interface `memory` (see `wit/`) and keeps each
//! conversation as a list in Redis, which it reaches over a TCP socket that its
//! host grants. An operation goes down one line and its result comes back up:
//!
//! ```text
//! abi          arguments and results as they lie in memory <-> our types
//! export       reads the environment, starts the deadline
//!   client     connects if need be, exchanges, gives up what broke
//!     pipeline operations that travel together, and which are tried again
//!     session  an operation is a request and the reading of its replies
//!       ids        ids of messages, and which was the last one of a session
//!       message    a message <-> the JSON element of a list
//!       messages   elements read where they lie in a reply
//!       command    a command -> bytes
//!       reply      bytes -> replies, under limits
//!     connection   write once, read until the replies are complete
//!       socket     wasi:sockets
//!       clock      wasi:clocks
//!       random     wasi:random: for ids, and jitter of waits
//! ```
//!
//! The modules from [`error`] to [`in_memory`] are plain values in, plain values
//! out: they know no socket and no clock, and are compiled and tested natively.
//! The rest exists on the wasm target only.

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

pub mod error;
pub mod options;

mod chunk;
pub mod ids;
pub mod message;
pub mod messages;
pub mod operation;

pub mod command;
pub mod reply;
pub mod session;

pub mod pipeline;

pub mod in_memory;

#[cfg(target_family = "wasm")]
mod abi;
#[cfg(target_family = "wasm")]
mod allocator;
#[cfg(target_family = "wasm")]
mod bindings;
#[cfg(target_family = "wasm")]
mod client;
#[cfg(target_family = "wasm")]
mod clock;
#[cfg(target_family = "wasm")]
mod connection;
#[cfg(target_family = "wasm")]
mod export;
#[cfg(target_family = "wasm")]
mod random;
#[cfg(target_family = "wasm")]
mod socket;
