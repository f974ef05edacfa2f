//! What set-up, host build, demo and tests share: a Redis server of
//! one's own.

pub mod resp;
pub mod server;
