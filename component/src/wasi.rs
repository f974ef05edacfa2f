//! The interfaces of WASI, behind functions and types of the component's own.

pub mod clock;
pub mod environment;
pub mod random;
pub mod tcp;
