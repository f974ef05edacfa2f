//! What set-up, host build, demo and tests share: how the component is built, and
//! a Redis server of one's own.

pub mod component;
pub mod resp;
pub mod server;
