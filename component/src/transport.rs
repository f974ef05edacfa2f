//! Connections to endpoints: exchanges of bytes before a deadline. Nothing here knows
//! operations or messages.

pub mod connection;
pub mod deadline;
pub mod endpoint;
pub mod route;
pub mod socket;
