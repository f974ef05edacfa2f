//! The boundary between the component and its host, where values are addresses.
//!
//! `abi/README.md` says why it is written by hand, and what it relies on.

#[cfg(not(test))]
mod allocator;
#[cfg(not(test))]
mod arguments;
#[cfg(not(test))]
pub mod buffers;
#[cfg(not(test))]
mod exports;
mod layout;
#[cfg(not(test))]
mod results;
#[cfg(not(test))]
mod runtime;
#[cfg(not(test))]
pub mod single_threaded;
