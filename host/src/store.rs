//! What an instance is given: its store, the interfaces it may import, and its
//! limits.

use std::sync::Arc;

use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime::{Engine, ResourceLimiter, Store, StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::p2::bindings::{cli, clocks, io, random, sockets};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsCtxView, WasiSocketsView};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::network::{Gate, HasNameLookup, NameLookup, NetworkPolicy, PinnedNames};

/// What instances are given.
pub(crate) struct Grants {
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) network: Arc<NetworkPolicy>,
    pub(crate) pinned: PinnedNames,
    /// Memory of an instance, in bytes.
    pub(crate) max_memory: usize,
    /// Bytes that the component may return from one call.
    pub(crate) max_result: usize,
}

/// The data that the host keeps for an instance.
pub(crate) struct InstanceState {
    wasi: WasiCtx,
    table: ResourceTable,
    gate: Gate,
    limits: ResourceLimits,
}

impl InstanceState {
    pub(crate) fn begin_call(&mut self) {
        self.limits.was_denied_memory = false;
    }

    /// Whether the component asked for more memory than it is granted, during this call.
    pub(crate) fn was_denied_memory(&self) -> bool {
        self.limits.was_denied_memory
    }
}

/// Limits that remember a denied request for memory. The trap that follows does not say
/// so.
struct ResourceLimits {
    store: StoreLimits,
    was_denied_memory: bool,
}

impl ResourceLimiter for ResourceLimits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let granted = self.store.memory_growing(current, desired, maximum)?;
        self.was_denied_memory |= !granted;
        Ok(granted)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.store.table_growing(current, desired, maximum)
    }

    fn instances(&self) -> usize {
        self.store.instances()
    }

    fn tables(&self) -> usize {
        self.store.tables()
    }

    fn memories(&self) -> usize {
        self.store.memories()
    }
}

impl WasiView for InstanceState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// Creates a store for one instance.
pub(crate) fn store(engine: &Engine, grants: &Grants) -> Store<InstanceState> {
    let gate = Gate::new(Arc::clone(&grants.network), grants.pinned.clone());
    let mut wasi = WasiCtx::builder();
    wasi.envs(&grants.environment);
    wasi.max_random_size(MAX_RANDOM);
    gate.configure(&mut wasi);
    let limits = StoreLimitsBuilder::new()
        .memory_size(grants.max_memory)
        .memories(1)
        .table_elements(MAX_TABLE_ELEMENTS)
        .tables(MAX_TABLES)
        .instances(MAX_INSTANCES)
        .build();
    let limits = ResourceLimits {
        store: limits,
        was_denied_memory: false,
    };
    let mut table = ResourceTable::new();
    table.set_max_capacity(MAX_HANDLES);
    let state = InstanceState {
        wasi: wasi.build(),
        table,
        gate,
        limits,
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limits);
    store.set_hostcall_fuel(grants.max_result);
    // A guest that does not stop computing yields at every tick, so that the timeout of
    // the call can end it.
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store
}

/// Returns a linker with the interfaces that a component may import, and no others.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<InstanceState>> {
    let mut linker = Linker::new(engine);
    let l = &mut linker;
    cli::environment::add_to_linker::<InstanceState, WasiCli>(l, InstanceState::cli)?;
    clocks::monotonic_clock::add_to_linker::<InstanceState, WasiClocks>(l, InstanceState::clocks)?;
    clocks::wall_clock::add_to_linker::<InstanceState, WasiClocks>(l, InstanceState::clocks)?;
    random::random::add_to_linker::<InstanceState, WasiRandom>(l, |state| state.wasi.random())?;
    io::error::add_to_linker::<InstanceState, HasTable>(l, |state| &mut state.table)?;
    io::poll::add_to_linker::<InstanceState, HasTable>(l, |state| &mut state.table)?;
    io::streams::add_to_linker::<InstanceState, HasTable>(l, |state| &mut state.table)?;
    sockets::instance_network::add_to_linker::<InstanceState, WasiSockets>(
        l,
        InstanceState::sockets,
    )?;
    sockets::network::add_to_linker::<InstanceState, WasiSockets>(
        l,
        &sockets::network::LinkOptions::default(),
        InstanceState::sockets,
    )?;
    sockets::tcp::add_to_linker::<InstanceState, WasiSockets>(l, InstanceState::sockets)?;
    sockets::tcp_create_socket::add_to_linker::<InstanceState, WasiSockets>(
        l,
        InstanceState::sockets,
    )?;
    sockets::ip_name_lookup::add_to_linker::<InstanceState, HasNameLookup>(l, |state| {
        NameLookup {
            gate: &state.gate,
            sockets: WasiSocketsCtxView {
                ctx: state.wasi.sockets(),
                table: &mut state.table,
            },
        }
    })?;
    Ok(linker)
}

struct HasTable;

impl HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}

/// Handles of an instance: sockets, streams, pollables and lookups. A connection has five,
/// and a wait one more. Each socket is a file descriptor, and a process may have as few as
/// a thousand of them.
const MAX_HANDLES: usize = 200;

/// Random bytes in one call. A call of the host is not interrupted, and the 64 MiB that
/// the runtime allows can take longer than [`crate::GRACE`].
const MAX_RANDOM: u64 = 4096;

/// Core instances of a component of one module: its own, and two that provide its
/// imports.
pub(crate) const CORE_INSTANCES: u32 = 3;

const MAX_INSTANCES: usize = 10;
const MAX_TABLES: usize = 10;
pub(crate) const MAX_TABLE_ELEMENTS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::{Instance, Module};

    const EMPTY: &[u8] = b"\0asm\x01\0\0\0";

    fn limited() -> (Engine, Store<InstanceState>) {
        let engine = Engine::default();
        let grants = Grants {
            environment: Vec::new(),
            network: Arc::default(),
            pinned: PinnedNames::default(),
            max_memory: 64 * 1024,
            max_result: 0,
        };
        let store = store(&engine, &grants);
        (engine, store)
    }

    /// A module with one section.
    fn module(engine: &Engine, section: &[u8]) -> Module {
        Module::from_binary(engine, &[EMPTY, section].concat()).unwrap()
    }

    #[tokio::test]
    async fn tables_and_memories_are_limited() {
        for (section, expected) in [
            // A table of 10,000 and one of 10,001 elements; a memory of one page and
            // one of two.
            (&[4, 5, 1, 0x70, 0, 0x90, 0x4e][..], true),
            (&[4, 5, 1, 0x70, 0, 0x91, 0x4e], false),
            (&[5, 3, 1, 0, 1], true),
            (&[5, 3, 1, 0, 2], false),
        ] {
            let (engine, mut store) = limited();
            let module = module(&engine, section);
            let instance = Instance::new_async(&mut store, &module, &[]).await;
            assert_eq!(instance.is_ok(), expected, "{section:?}");
        }
    }

    #[tokio::test]
    async fn instances_are_limited() {
        let (engine, mut store) = limited();
        let module = module(&engine, &[]);
        for _ in 0..MAX_INSTANCES {
            Instance::new_async(&mut store, &module, &[]).await.unwrap();
        }
        assert!(Instance::new_async(&mut store, &module, &[]).await.is_err());
    }
}
