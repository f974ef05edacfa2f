//! All of Session Memory against real Redis servers.

#![allow(clippy::unwrap_used, reason = "a test ends there, and says where")]

mod artifact;
mod caps;
mod common;
mod contract;
mod errors;
mod expiry;
mod faults;
mod idle;
mod isolation;
#[cfg(target_os = "linux")]
mod kept_instances;
mod least_privilege;
mod limits;
mod look_back;
mod model;
mod older_servers;
mod pages;
mod pipeline;
mod proxies;
mod resolve;
mod sandbox;
mod secrets;
mod server_faults;
mod sharing;
mod silence;
mod soak;
mod stored;
mod texts;
