//! The pure middle of Session Memory: plain values in, plain values out.
//!
//! It knows no socket, no clock and no source of random numbers. The component
//! (`session-memory`) connects it to the WASI interfaces, and the host library uses its
//! types. Its tests run natively.
//!
//! ```text
//! retry            what is sent when, and what is retried
//!   operation      each operation: its requests, and the reading of their replies
//!     message      a message <-> the JSON element of a list
//!     ids, recent  ids of messages; the last append to each session
//! in_memory        the same operations on sessions in memory
//!   store          these sessions
//! handshake        the first commands of a connection
//! exchange         the result of sending a request
//! resp             commands -> bytes; bytes -> replies, under limits
//! options          options -> settings
//! error            why an operation failed
//! ```

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod error;
pub mod exchange;
#[cfg(test)]
mod fixtures;
pub mod handshake;
pub mod ids;
pub mod in_memory;
pub mod message;
pub mod operation;
pub mod options;
pub mod recent;
pub mod resp;
pub mod retry;
pub mod store;
