//! Engines: they compile components, and interrupt them while they run.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{env, io, thread};

use wasmtime::component::Component;
use wasmtime::{Cache, CacheConfig, Config, Enabled, Engine, EngineWeak, PoolingAllocationConfig};

use crate::bindings::ExportsPre;
use crate::error::Error;
use crate::store::{self, InstanceState};

/// Where compiled code is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CodeCache {
    /// In the user's cache folder.
    OnDisk,
    /// Nowhere.
    None,
}

/// Compiles a component, or loads it from the cache, and links it. With `preallocated`,
/// the engine allocates memory for that many instances in advance.
///
/// # Errors
///
/// [`Error::Component`] if the bytes are not a component, or if the component does not
/// export the memory interfaces, or imports more than is granted.
pub(crate) fn load(
    component: &[u8],
    cache: CodeCache,
    preallocated: Option<u32>,
) -> Result<(Engine, ExportsPre<InstanceState>), Error> {
    let engine = match preallocated {
        None => shared(cache),
        Some(instances) => start(config(cache).allocation_strategy(preallocation(instances))),
    };
    let failed = |step: &'static str| move |error| Error::component(step, error);
    let engine = engine.map_err(failed("start the runtime"))?;
    let component =
        Component::from_binary(&engine, component).map_err(failed("compile the component"))?;
    let link = || {
        let linker = store::linker(&engine)?;
        ExportsPre::new(linker.instantiate_pre(&component)?)
    };
    let pre = link().map_err(failed("link the component"))?;
    Ok((engine, pre))
}

/// Returns the engine that the memories of this process share, with a cache or without.
/// One thread interrupts them all. The engine lives as long as one of them.
fn shared(cache: CodeCache) -> wasmtime::Result<Engine> {
    static SHARED: Mutex<[Option<EngineWeak>; 2]> = Mutex::new([None, None]);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let place = &mut shared[cache as usize];
    if let Some(engine) = place.as_ref().and_then(EngineWeak::upgrade) {
        return Ok(engine);
    }
    let engine = start(&config(cache))?;
    *place = Some(engine.weak());
    Ok(engine)
}

fn start(config: &Config) -> wasmtime::Result<Engine> {
    let engine = Engine::new(config)?;
    tick(engine.weak())?;
    Ok(engine)
}

fn config(cache: CodeCache) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    // An embedder's features may enable it. It makes each call slower, and this component
    // calls nothing concurrently.
    config.concurrency_support(false);
    if let CodeCache::OnDisk = cache {
        config.cache(compilation_cache());
    }
    config
}

/// Allocates for components of one module, as much as the limits of a store allow.
fn preallocation(instances: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(store::CORE_INSTANCES))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(store::CORE_INSTANCES))
        .total_stacks(instances)
        .table_elements(store::MAX_TABLE_ELEMENTS)
        // The memory that an instance has touched is reset for the next instance. Otherwise
        // it would go back to the system, and be requested again page by page.
        .linear_memory_keep_resident(KEPT)
        .table_keep_resident(KEPT)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// Returns a cache in the user's cache folder. Returns none if this folder does not exist or
/// cannot be written, because a cache only saves time.
fn compilation_cache() -> Option<Cache> {
    let folder = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
        .or_else(|| Some(env::home_dir()?.join(".cache")))?;
    let mut config = CacheConfig::new();
    config.with_directory(folder.join("session-memory"));
    Cache::new(config).ok()
}

/// Starts a thread that advances the engine's epoch for as long as the engine lives.
fn tick(engine: EngineWeak) -> io::Result<()> {
    let thread = thread::Builder::new().name("session-memory-epoch".to_owned());
    thread.spawn(move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    })?;
    Ok(())
}

/// Bytes of memory, and of a table, that a preallocated place keeps between two instances.
const KEPT: usize = 1 << 20;

const TICK: Duration = Duration::from_millis(10);
