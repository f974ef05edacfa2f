//! The boundary of the component, where values are addresses. `abi/README.md` says why
//! it is written by hand, and what it relies on.

pub(crate) mod allocator;
mod exports;
