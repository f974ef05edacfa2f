//! What a component may reach: every decision about names and addresses.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{
    Host, HostResolveAddressStream, ResolveAddressStream,
};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, IoError, SocketError, SocketResult};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSocketsCtxView};

/// The servers that a component may reach, by TCP. Everything else is denied:
/// other addresses and ports, other names, listening, UDP.
#[derive(Clone, Debug, Default)]
pub struct NetworkPolicy {
    allowed: Vec<Endpoint>,
}

#[derive(Clone, Debug)]
struct Endpoint {
    host: String,
    port: u16,
}

impl NetworkPolicy {
    /// Nothing may be reached.
    pub fn deny_all() -> NetworkPolicy {
        NetworkPolicy::default()
    }

    /// Allows a server in addition. `host` is an IP address, or a name: then the
    /// name may be looked up, and the addresses found for it may be reached.
    #[must_use]
    pub fn allow(mut self, host: impl Into<String>, port: u16) -> NetworkPolicy {
        self.allowed.push(Endpoint {
            host: host.into(),
            port,
        });
        self
    }
}

/// A policy at work for one instance: it knows what names were found to be.
#[derive(Clone)]
pub(crate) struct Gate {
    policy: Arc<NetworkPolicy>,
    lookups: Arc<Mutex<Lookups>>,
}

#[derive(Default)]
struct Lookups {
    /// The name that each open lookup is for.
    open: HashMap<u32, String>,
    found: Vec<(String, IpAddr)>,
}

impl Gate {
    pub(crate) fn new(policy: Arc<NetworkPolicy>) -> Gate {
        Gate {
            policy,
            lookups: Arc::default(),
        }
    }

    /// Opens the sockets of a context as far as the policy allows.
    pub(crate) fn configure(&self, wasi: &mut WasiCtxBuilder) {
        let gate = self.clone();
        wasi.allow_tcp(true);
        wasi.allow_ip_name_lookup(true);
        wasi.allow_udp(false);
        wasi.socket_addr_check(move |address, usage| {
            let allowed = gate.allows(address, usage);
            Box::pin(async move { allowed })
        });
    }

    fn allows(&self, address: SocketAddr, usage: SocketAddrUse) -> bool {
        match usage {
            SocketAddrUse::TcpConnect => self.may_connect(address),
            // A connect binds to any address first.
            SocketAddrUse::TcpBind => address.ip().is_unspecified() && address.port() == 0,
            _ => false,
        }
    }

    fn may_connect(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let lookups = self.lookups();
        self.policy.allowed.iter().any(|endpoint| {
            let is_host = match endpoint.host.parse::<IpAddr>() {
                Ok(host) => host.to_canonical() == ip,
                Err(_) => lookups
                    .found
                    .iter()
                    .any(|(name, found)| *name == endpoint.host && *found == ip),
            };
            is_host && endpoint.port == address.port()
        })
    }

    fn may_look_up(&self, name: &str) -> bool {
        self.policy
            .allowed
            .iter()
            .any(|endpoint| endpoint.host == name)
    }

    fn lookups(&self) -> MutexGuard<'_, Lookups> {
        self.lookups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// wasi:sockets/ip-name-lookup behind the gate.
pub(crate) struct NameLookup<'a> {
    pub(crate) gate: &'a Gate,
    pub(crate) sockets: WasiSocketsCtxView<'a>,
}

pub(crate) struct HasNameLookup;

impl HasData for HasNameLookup {
    type Data<'a> = NameLookup<'a>;
}

impl Host for NameLookup<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        if !self.gate.may_look_up(&name) {
            return Err(ErrorCode::AccessDenied.into());
        }
        let lookup = self.sockets.resolve_addresses(network, name.clone())?;
        self.gate.lookups().open.insert(lookup.rep(), name);
        Ok(lookup)
    }
}

impl HostResolveAddressStream for NameLookup<'_> {
    fn resolve_next_address(
        &mut self,
        lookup: Resource<ResolveAddressStream>,
    ) -> SocketResult<Option<IpAddress>> {
        let rep = lookup.rep();
        let address = self.sockets.resolve_next_address(lookup)?;
        if let Some(address) = address {
            let mut lookups = self.gate.lookups();
            let found = lookups
                .open
                .get(&rep)
                .cloned()
                .map(|name| (name, ip(address)));
            if let Some(found) = found
                && !lookups.found.contains(&found)
            {
                lookups.found.push(found);
            }
        }
        Ok(address)
    }

    fn subscribe(
        &mut self,
        lookup: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        self.sockets.subscribe(lookup)
    }

    fn drop(&mut self, lookup: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.gate.lookups().open.remove(&lookup.rep());
        HostResolveAddressStream::drop(&mut self.sockets, lookup)
    }
}

// What the lookup's linker asks for along with it.
impl network::Host for NameLookup<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        self.sockets.convert_error_code(error)
    }

    fn network_error_code(
        &mut self,
        error: Resource<IoError>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        self.sockets.network_error_code(error)
    }
}

impl network::HostNetwork for NameLookup<'_> {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.sockets, network)
    }
}

fn ip(address: IpAddress) -> IpAddr {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => [a, b, c, d].into(),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => [a, b, c, d, e, f, g, h].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(policy: NetworkPolicy) -> Gate {
        Gate::new(Arc::new(policy))
    }

    #[test]
    fn only_what_is_allowed_may_be_connected_to() {
        let gate = gate(
            NetworkPolicy::deny_all()
                .allow("127.0.0.1", 6379)
                .allow("::1", 6380)
                .allow("redis", 6381),
        );
        gate.lookups()
            .found
            .push(("redis".to_owned(), IpAddr::from([192, 0, 2, 7])));
        gate.lookups()
            .found
            .push(("other".to_owned(), IpAddr::from([192, 0, 2, 8])));
        for (address, expected) in [
            ("127.0.0.1:6379", true),
            ("[::ffff:127.0.0.1]:6379", true),
            ("127.0.0.1:6380", false),
            ("127.0.0.2:6379", false),
            ("[::1]:6380", true),
            ("[::1]:6379", false),
            ("192.0.2.7:6381", true),
            ("192.0.2.7:6379", false),
            ("192.0.2.8:6381", false),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(
                gate.allows(address, SocketAddrUse::TcpConnect),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn nothing_but_connecting_is_allowed() {
        let gate = gate(NetworkPolicy::deny_all().allow("127.0.0.1", 6379));
        let server: SocketAddr = "127.0.0.1:6379".parse().unwrap();
        let any: SocketAddr = "0.0.0.0:0".parse().unwrap();
        for (address, usage, expected) in [
            (any, SocketAddrUse::TcpBind, true),
            (server, SocketAddrUse::TcpBind, false),
            (any, SocketAddrUse::TcpListen, false),
            (server, SocketAddrUse::TcpListen, false),
            (server, SocketAddrUse::TcpAccept, false),
            (server, SocketAddrUse::UdpSend, false),
        ] {
            assert_eq!(gate.allows(address, usage), expected, "{address} {usage:?}");
        }
    }

    #[test]
    fn only_configured_names_may_be_looked_up() {
        let gate = gate(NetworkPolicy::deny_all().allow("redis", 6379));
        assert!(gate.may_look_up("redis"));
        assert!(!gate.may_look_up("redis.example"));
        assert!(!gate.may_look_up("localhost"));
    }
}
