//! The whole of Session Memory against real Redis servers.

mod artifact;
mod cli;
mod contract;
mod errors;
mod expiry;
mod isolation;
mod limits;
mod stored;
