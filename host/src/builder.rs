//! Builds a memory: its options, its limits, and the component that it runs.

use std::borrow::Cow;
use std::env::VarError;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fmt, fs};

use session_memory_core::error::Error as MemoryError;
use session_memory_core::options::{Options, Provider, Settings, VARIABLES};

use crate::engine::{self, CodeCache};
use crate::error::{CallError, Error};
use crate::instance::{GRACE, Template};
use crate::memory::SessionMemory;
use crate::network::{NetworkPolicy, PinnedNames};
use crate::pool::{Pool, PoolLimits};
use crate::store::Grants;

/// Builds a [`SessionMemory`].
#[must_use]
pub struct Builder {
    component: ComponentSource,
    options: Options,
    environment: Option<Vec<(String, String)>>,
    variables: Vec<(String, String)>,
    network: Option<NetworkPolicy>,
    pinned: PinnedNames,
    max_memory: usize,
    limits: PoolLimits,
    preallocated: Option<u32>,
    cache: CodeCache,
}

enum ComponentSource {
    Embedded,
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl fmt::Debug for ComponentSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ComponentSource::Embedded => f.write_str("Embedded"),
            ComponentSource::File(path) => f.debug_tuple("File").field(path).finish(),
            ComponentSource::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
        }
    }
}

impl fmt::Debug for Builder {
    // The environment is left out, because it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("component", &self.component)
            .field("options", &self.options)
            .field("network", &self.network)
            .field("pinned", &self.pinned)
            .field("max_memory", &self.max_memory)
            .field("limits", &self.limits)
            .field("preallocated", &self.preallocated)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            component: ComponentSource::Embedded,
            options: Options::default(),
            environment: None,
            variables: Vec::new(),
            network: None,
            pinned: PinnedNames::default(),
            max_memory: 1 << 30,
            limits: PoolLimits {
                instances: 2,
                waiting: 1024,
            },
            preallocated: None,
            cache: CodeCache::OnDisk,
        }
    }
}

impl SessionMemory {
    /// Opens a memory with the embedded component: connects, authenticates and selects the
    /// database. This is not retried, see [`SessionMemoryPre::open`].
    /// [`SessionMemory::builder`] offers more choices.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::open`].
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with I/O and time enabled.
    pub async fn open(options: Options) -> Result<SessionMemory, Error> {
        SessionMemory::builder().options(options).open().await
    }

    /// Starts building a memory.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// Sets the options. Default: none given.
    pub fn options(mut self, options: Options) -> Builder {
        self.options = options;
        self
    }

    /// Replaces the environment variables of this process. In either case the component
    /// sees only those that the documentation of [`Options`] names.
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Builder {
        self.environment = Some(variables.into_iter().collect());
        self
    }

    /// Sets one environment variable for the component. It replaces the variable of this
    /// process or of [`Builder::environment`]. The last call for a name counts.
    ///
    /// Use it for settings that come as text: the component parses and validates them like
    /// the environment. An option of [`Builder::options`] takes precedence over its
    /// variable.
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Builder {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Sets the servers that the component may reach. Default: the server that options and
    /// environment name.
    pub fn network(mut self, policy: NetworkPolicy) -> Builder {
        self.network = Some(policy);
        self
    }

    /// Sets the addresses of a name, to be tried in this order, like curl's `--resolve`.
    /// The name is not looked up in the DNS then. Default: every name is looked up. The
    /// last call for a name counts. With an empty list the name is looked up again.
    ///
    /// Spell `name` as in [`Options::host`](field@Options::host) or [`Builder::network`].
    /// These still decide what may be reached: other names and other ports stay denied. An
    /// IP address is never looked up, so addresses for it have no effect.
    ///
    /// [`SessionMemory::resolve`] and [`SessionMemoryPre::resolve`] change it later.
    ///
    /// ```
    /// use session_memory_host::{Connect, Options, SessionMemory};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), session_memory_host::Error> {
    /// let options = Options::new()
    ///     .host("redis.internal")
    ///     .connect(Connect::AtFirstOperation);
    /// let memory = SessionMemory::builder()
    ///     .options(options)
    ///     .resolve("redis.internal", ["192.0.2.1".parse().unwrap()])
    ///     .open()
    ///     .await?;
    /// // The server has moved: new connections go to the new address.
    /// memory.resolve("redis.internal", ["192.0.2.2".parse().unwrap()]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn resolve(
        self,
        name: impl Into<String>,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Builder {
        self.pinned.set(name.into(), addresses);
        self
    }

    /// Limits the memory of an instance of the component, in bytes. Default: 1 GiB. A
    /// reply takes up to about three times its size.
    pub fn max_memory(mut self, bytes: usize) -> Builder {
        self.max_memory = bytes;
        self
    }

    /// Limits the instances of the component. Each has a connection. At least 1; default 2.
    ///
    /// A call that finds all instances busy creates another one, which is kept. The calls
    /// of a session prefer one of the instances. With [`Provider::InMemory`] there is one.
    pub fn max_instances(mut self, count: usize) -> Builder {
        self.limits.instances = count;
        self
    }

    /// Limits the calls that wait while all instances are busy. Default: 1024. One more
    /// fails at once with [`MemoryError::Unavailable`], and nothing is sent for it.
    pub fn max_waiting(mut self, calls: usize) -> Builder {
        self.limits.waiting = calls;
        self
    }

    /// Allocates memory in advance for this many instances, of all memories that are opened
    /// from this builder. Default: each instance allocates its own.
    ///
    /// For functions that live for one call and each open a memory of their own: a new
    /// instance takes about two thirds of the time. Each instance costs 10 µs and more than
    /// 4 GiB of address space when the builder is prepared. There cannot be more instances:
    /// another one fails with [`Error::Component`].
    pub fn preallocate(mut self, instances: u32) -> Builder {
        self.preallocated = Some(instances);
        self
    }

    /// Keeps no compiled code, and uses none. Default: compiled code is kept in
    /// `session-memory` below `XDG_CACHE_HOME` or `~/.cache`, if that folder can be written.
    pub fn without_compilation_cache(mut self) -> Builder {
        self.cache = CodeCache::None;
        self
    }

    /// Runs the component in this file, in place of the embedded one.
    pub fn component_file(mut self, path: impl Into<PathBuf>) -> Builder {
        self.component = ComponentSource::File(path.into());
        self
    }

    /// Runs this component, in place of the embedded one.
    pub fn component_bytes(mut self, bytes: impl Into<Vec<u8>>) -> Builder {
        self.component = ComponentSource::Bytes(bytes.into());
        self
    }

    /// Opens the memory: loads the component, connects, authenticates, selects the database
    /// and pings. This is [`Builder::prepare`], then [`SessionMemoryPre::open`], which is
    /// not retried.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::prepare`] and [`SessionMemoryPre::open`].
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with I/O and time enabled.
    pub async fn open(self) -> Result<SessionMemory, Error> {
        self.prepare()?.open().await
    }

    /// Prepares what all memories of this builder share: reads the environment, compiles
    /// the component, or loads it from the cache, and links it.
    ///
    /// # Errors
    ///
    /// - [`Error::Component`] if the component cannot be used.
    /// - [`MemoryError::InvalidArgument`] for an option or environment variable that is not
    ///   allowed.
    pub fn prepare(self) -> Result<SessionMemoryPre, Error> {
        let mut environment = match self.environment {
            Some(variables) => variables,
            None => own_environment()?,
        };
        for (name, value) in self.variables {
            environment.retain(|(other, _)| *other != name);
            environment.push((name, value));
        }
        environment.retain(|(name, _)| VARIABLES.contains(&name.as_str()));
        // The component resolves the same settings. The host needs them for the network
        // policy and the limits.
        let settings = Settings::resolve(self.options.clone(), &environment)?;
        let network = self.network.unwrap_or_else(|| match settings.provider {
            Provider::Redis => NetworkPolicy::deny_all().allow(&settings.host, settings.port),
            Provider::InMemory => NetworkPolicy::deny_all(),
        });
        let component = match self.component {
            ComponentSource::Embedded => Cow::Borrowed(crate::COMPONENT),
            ComponentSource::Bytes(bytes) => bytes.into(),
            ComponentSource::File(path) => fs::read(&path)
                .map_err(|error| {
                    let step = format!("read {}", path.display());
                    Error::component(step, wasmtime::Error::from(error))
                })?
                .into(),
        };
        let (engine, pre) = engine::load(&component, self.cache, self.preallocated)?;
        let limit = |milliseconds: u32| Duration::from_millis(milliseconds.into()) + GRACE;
        let template = Template {
            engine,
            pre,
            grants: Grants {
                environment,
                network: Arc::new(network),
                pinned: self.pinned,
                max_memory: self.max_memory,
                // The bytes of the replies, and the records around them.
                max_result: (settings.max_reply_bytes as usize)
                    .saturating_mul(2)
                    .max(64 << 20),
            },
            options: self.options,
            provider: settings.provider,
            delivery: settings.delivery,
            connect: settings.connect,
            connect_limit: limit(settings.connect_timeout),
            operation_limit: limit(settings.operation_timeout),
        };
        Ok(SessionMemoryPre {
            template: Arc::new(template),
            limits: self.limits,
        })
    }
}

/// A prepared memory. Open it as often as needed, for callers with connections of their
/// own: functions that live for one call, for example. Opening does not wait for the
/// network if [`Options::connect`](field@Options::connect) leaves that to the first
/// operation.
///
/// ```
/// use session_memory_host::{Options, Provider, Role, SessionMemory};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), session_memory_host::Error> {
/// let options = Options::new().provider(Provider::InMemory);
/// let prepared = SessionMemory::builder().options(options).prepare()?;
/// for call in 0..3 {
///     let memory = prepared.open().await?;
///     memory.add("user-123", Role::User, &format!("call {call}"), None).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SessionMemoryPre {
    template: Arc<Template>,
    limits: PoolLimits,
}

impl SessionMemoryPre {
    /// Opens a memory with instances and connections of its own: connects, authenticates,
    /// selects the database and pings, unless
    /// [`Options::connect`](field@Options::connect) leaves that to the first operation.
    ///
    /// This is not retried, so that a wrong setting is reported at once. To wait for a
    /// server, call it again while the error [is retryable](Error::is_retryable). Or let
    /// the first operation connect, which is retried until its deadline.
    ///
    /// # Errors
    ///
    /// - [`Error::Component`] if the component traps.
    /// - [`MemoryError::Unavailable`], [`MemoryError::Timeout`],
    ///   [`MemoryError::AccessDenied`] or another variant for a failure of the server or of
    ///   the network.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with I/O and time enabled.
    pub async fn open(&self) -> Result<SessionMemory, Error> {
        let first = self
            .template
            .open()
            .await
            .map_err(CallError::into_open_error)?;
        let template = Arc::clone(&self.template);
        Ok(SessionMemory {
            pool: Pool::new(template, self.limits, first),
        })
    }

    /// Returns how long an operation may take:
    /// [`Options::operation_timeout`](field@Options::operation_timeout), else the
    /// environment variable, else the default.
    pub fn operation_timeout(&self) -> Duration {
        self.template.operation_limit.saturating_sub(GRACE)
    }

    /// Sets the addresses of a name, as [`SessionMemory::resolve`] does, for all memories
    /// that were or will be opened from this one.
    pub fn resolve(&self, name: impl Into<String>, addresses: impl IntoIterator<Item = IpAddr>) {
        self.template.grants.pinned.set(name.into(), addresses);
    }
}

impl fmt::Debug for SessionMemoryPre {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionMemoryPre")
            .field("options", &self.template.options)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Returns the variables of this process that the component sees.
fn own_environment() -> Result<Vec<(String, String)>, Error> {
    let mut environment = Vec::new();
    for name in VARIABLES {
        match env::var(name) {
            Ok(value) => environment.push((name.to_owned(), value)),
            Err(VarError::NotPresent) => {}
            Err(VarError::NotUnicode(_)) => {
                let text = format!("open: environment variable {name} is not UTF-8");
                return Err(MemoryError::InvalidArgument(text).into());
            }
        }
    }
    Ok(environment)
}
