//! Connections: bytes to an endpoint and back, before a deadline.

pub mod connection;
pub mod socket;
