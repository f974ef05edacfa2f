//! The network of a component: decides which names and addresses it may use.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::vec;

use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{
    Host, HostResolveAddressStream, ResolveAddressStream,
};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, IoError, SocketError, SocketResult};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSocketsCtxView};

/// The servers that a component may reach by TCP. Everything else is denied: other
/// addresses and ports, other names, listening, UDP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct NetworkPolicy {
    allowed: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint {
    host: String,
    port: u16,
}

impl NetworkPolicy {
    /// Creates a policy that allows nothing.
    pub fn deny_all() -> NetworkPolicy {
        NetworkPolicy::default()
    }

    /// Allows a server in addition. `host` is an IP address or a name. A name may be looked
    /// up, and the addresses found for it may be reached.
    pub fn allow(mut self, host: impl Into<String>, port: u16) -> NetworkPolicy {
        self.allowed.push(Endpoint {
            host: host.into(),
            port,
        });
        self
    }
}

/// Names whose addresses are set, so that they are not looked up. Clones share the names:
/// a change applies to all instances.
#[derive(Clone, Debug, Default)]
pub(crate) struct PinnedNames(Arc<RwLock<HashMap<String, Vec<IpAddr>>>>);

impl PinnedNames {
    /// Sets the addresses of a name. With no address, the name is looked up again.
    pub(crate) fn set(&self, name: String, addresses: impl IntoIterator<Item = IpAddr>) {
        // Lookups find canonical addresses as well.
        let addresses = addresses.into_iter().map(|address| address.to_canonical());
        // Collected before the lock is taken, because the iterator is the caller's code.
        let addresses: Vec<IpAddr> = addresses.collect();
        let mut pinned = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if addresses.is_empty() {
            pinned.remove(&name);
        } else {
            pinned.insert(name, addresses);
        }
    }

    /// Returns the addresses of a name, at least one; none if the name is looked up.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let pinned = self.0.read().unwrap_or_else(PoisonError::into_inner);
        pinned.get(name).cloned()
    }
}

/// Enforces a policy for one instance. Remembers which addresses lookups have found.
#[derive(Clone)]
pub(crate) struct Gate {
    policy: Arc<NetworkPolicy>,
    pinned: PinnedNames,
    lookups: Arc<Mutex<Lookups>>,
}

#[derive(Default)]
struct Lookups {
    /// By the number of the handle.
    open: HashMap<u32, PinnableLookup>,
    found: Vec<(String, IpAddr)>,
}

/// A lookup in progress.
struct PinnableLookup {
    name: String,
    /// The addresses that are still to be returned, if the name is pinned.
    pinned: Option<vec::IntoIter<IpAddr>>,
}

impl Lookups {
    /// Returns the next address of a lookup, if its name is pinned. The inner option is
    /// none after the last address.
    fn next_pinned(&mut self, lookup: u32) -> Option<Option<IpAddr>> {
        let addresses = self.open.get_mut(&lookup)?.pinned.as_mut()?;
        Some(addresses.next())
    }

    /// Remembers an address that a lookup has found.
    fn remember(&mut self, lookup: u32, address: IpAddr) {
        let Some(lookup) = self.open.get(&lookup) else {
            return;
        };
        let found = (lookup.name.clone(), address);
        if !self.found.contains(&found) {
            self.found.push(found);
        }
    }
}

impl Gate {
    pub(crate) fn new(policy: Arc<NetworkPolicy>, pinned: PinnedNames) -> Gate {
        Gate {
            policy,
            pinned,
            lookups: Arc::default(),
        }
    }

    /// Allows the sockets of a context what the policy allows.
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
            // Connecting binds to an unspecified address first.
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

/// `wasi:sockets/ip-name-lookup`, restricted by the gate.
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
        let pinned = self.gate.pinned.addresses(&name);
        // Only the runtime can create the handle. For an IP address it is ready at once, and
        // nothing is looked up.
        let looked_up = match pinned.as_deref() {
            Some([first, ..]) => first.to_string(),
            _ => name.clone(),
        };
        let handle = self.sockets.resolve_addresses(network, looked_up)?;
        let pinned = pinned.map(Vec::into_iter);
        let mut lookups = self.gate.lookups();
        // The name may have other addresses now, and only these are allowed.
        lookups.found.retain(|(found, _)| *found != name);
        let lookup = PinnableLookup { name, pinned };
        lookups.open.insert(handle.rep(), lookup);
        drop(lookups);
        Ok(handle)
    }
}

impl HostResolveAddressStream for NameLookup<'_> {
    fn resolve_next_address(
        &mut self,
        lookup: Resource<ResolveAddressStream>,
    ) -> SocketResult<Option<IpAddress>> {
        let rep = lookup.rep();
        let pinned = self.gate.lookups().next_pinned(rep);
        let address = match pinned {
            Some(address) => address.map(IpAddress::from),
            None => self.sockets.resolve_next_address(lookup)?,
        };
        if let Some(address) = address {
            self.gate.lookups().remember(rep, ip(address));
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

// The linker of the lookup requires these as well.
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
        Gate::new(Arc::new(policy), PinnedNames::default())
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
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

    #[test]
    fn a_pinned_name_has_the_addresses_that_were_set_last() {
        let pinned = PinnedNames::default();
        let shared = pinned.clone();
        let set = |name: &str, texts: &[&str]| pinned.set(name.to_owned(), ips(texts));
        assert_eq!(shared.addresses("redis"), None);
        set("redis", &["192.0.2.2", "::1", "::ffff:192.0.2.1"]);
        set("other", &["192.0.2.3"]);
        assert_eq!(
            shared.addresses("redis"),
            Some(ips(&["192.0.2.2", "::1", "192.0.2.1"]))
        );
        assert_eq!(shared.addresses("Redis"), None);
        set("redis", &["192.0.2.4"]);
        assert_eq!(shared.addresses("redis"), Some(ips(&["192.0.2.4"])));
        set("redis", &[]);
        assert_eq!(shared.addresses("redis"), None);
        assert_eq!(shared.addresses("other"), Some(ips(&["192.0.2.3"])));
    }

    #[test]
    fn a_lookup_of_a_pinned_name_tells_its_addresses_in_order() {
        let mut lookups = Lookups::default();
        let lookup = |name: &str, pinned: Option<Vec<IpAddr>>| PinnableLookup {
            name: name.to_owned(),
            pinned: pinned.map(Vec::into_iter),
        };
        let addresses = ips(&["192.0.2.2", "192.0.2.1"]);
        lookups
            .open
            .insert(7, lookup("pinned", Some(addresses.clone())));
        lookups.open.insert(8, lookup("looked up", None));
        assert_eq!(lookups.next_pinned(7), Some(Some(addresses[0])));
        assert_eq!(lookups.next_pinned(8), None);
        assert_eq!(lookups.next_pinned(9), None);
        assert_eq!(lookups.next_pinned(7), Some(Some(addresses[1])));
        assert_eq!(lookups.next_pinned(7), Some(None));
    }

    #[test]
    fn pinning_a_name_allows_no_more_than_a_lookup_does() {
        let gate = gate(NetworkPolicy::deny_all().allow("redis", 6379));
        let address: SocketAddr = "192.0.2.7:6379".parse().unwrap();
        for name in ["redis", "other"] {
            gate.pinned.set(name.to_owned(), [address.ip()]);
        }
        assert!(!gate.may_look_up("other"));
        // Only what a lookup has led to is reached, at the port of the policy.
        assert!(!gate.may_connect(address));
        let lookup = PinnableLookup {
            name: "redis".to_owned(),
            pinned: None,
        };
        gate.lookups().open.insert(7, lookup);
        for _ in 0..2 {
            gate.lookups().remember(7, address.ip());
        }
        assert_eq!(gate.lookups().found.len(), 1);
        assert!(gate.may_connect(address));
        assert!(!gate.may_connect(SocketAddr::new(address.ip(), 6380)));
    }
}
