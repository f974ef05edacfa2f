//! How endpoints are written.

use alloc::format;
use alloc::string::String;
use core::net::Ipv6Addr;

/// Returns `host:port`, with an IPv6 address in brackets.
pub fn authority(host: &str, port: u16) -> String {
    if host.parse::<Ipv6Addr>().is_ok() {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}
