//! Connections to endpoints: bytes there and back, before a deadline. Nothing here knows
//! operations or messages.

pub mod connection;
pub mod deadline;
pub mod endpoint;
pub mod route;
pub mod socket;
