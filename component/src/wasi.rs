//! The WASI interfaces, behind functions of the component's own.

pub mod clock;
pub mod random;
