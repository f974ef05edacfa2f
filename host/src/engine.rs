//! Compiled code, and the clock that interrupts it.

use std::env;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::{Cache, CacheConfig, Config, Engine};

use crate::bindings::ProviderPre;
use crate::error::Error;
use crate::store::{self, State};

/// Compiles a component, or finds it compiled in the cache, and links it.
///
/// # Errors
///
/// [`Error::Component`] if it is no component, or not one that exports the memory
/// interfaces and imports no more than is granted.
pub(crate) fn load(component: &[u8], cache: bool) -> Result<(Engine, ProviderPre<State>), Error> {
    let mut config = Config::new();
    config.epoch_interruption(true);
    if cache {
        config.cache(compilation_cache());
    }
    let engine = Engine::new(&config).map_err(Error::component("start the runtime"))?;
    let component = Component::from_binary(&engine, component)
        .map_err(Error::component("compile the component"))?;
    let linker = store::linker(&engine).map_err(Error::component("link the component"))?;
    let linked = linker.instantiate_pre(&component).map_err(|error| {
        // The root cause does not say which import it is about.
        let during = format!("link the component: {error}");
        Error::component(during)(error)
    })?;
    let pre = ProviderPre::new(linked).map_err(Error::component("link the component"))?;
    tick(&engine);
    Ok((engine, pre))
}

/// A cache in the user's cache folder; none where there is no such folder or it
/// cannot be written, since it only saves time.
fn compilation_cache() -> Option<Cache> {
    let folder = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
        .or_else(|| Some(env::home_dir()?.join(".cache")))?;
    let mut config = CacheConfig::new();
    config.with_directory(folder.join("session-memory"));
    Cache::new(config).ok()
}

/// Advances the engine's epoch for as long as it lives.
fn tick(engine: &Engine) {
    let engine = engine.weak();
    thread::spawn(move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    });
}

const TICK: Duration = Duration::from_millis(10);
