//! What a memory is to be, and what one is made of.

use std::borrow::Cow;
use std::env::VarError;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fmt, fs};

use session_memory_core::error::Error as MemoryError;
use session_memory_core::options::{Options, Provider, Settings, VARIABLES};

use crate::engine;
use crate::error::{CallError, Error};
use crate::instance::{GRACE, Template};
use crate::memory::SessionMemory;
use crate::network::{NetworkPolicy, PinnedNames};
use crate::pool::{Pool, PoolLimits};
use crate::store::Grants;

/// What a [`SessionMemory`] is to be.
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
    cache: bool,
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
    // Without the environment, which may hold a password.
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
            cache: true,
        }
    }
}

impl Builder {
    /// The options; default: none given.
    pub fn options(mut self, options: Options) -> Builder {
        self.options = options;
        self
    }

    /// Environment variables in place of those of this process. Of either, the
    /// component sees those that the documentation of [`Options`] names.
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Builder {
        self.environment = Some(variables.into_iter().collect());
        self
    }

    /// Sets one environment variable for the component, over the one of this process
    /// or of [`Builder::environment`]; default: none. The last call for a name counts.
    ///
    /// For settings that come as text: they are parsed, and refused, as the
    /// environment is. An option of [`Builder::options`] goes before its variable.
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Builder {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// The servers that may be reached; default: the one that options and
    /// environment name.
    pub fn network(mut self, policy: NetworkPolicy) -> Builder {
        self.network = Some(policy);
        self
    }

    /// Gives a name these addresses, to be tried in this order, like curl's
    /// `--resolve`: the name is not looked up in the DNS. Default: every name is
    /// looked up. The last call for a name counts, and an empty list has the name
    /// looked up again.
    ///
    /// `name` is spelled as in [`Options::host`] or [`Builder::network`]. Those still
    /// decide what may be reached: a name that is not one of theirs stays denied, and
    /// so do other ports. An IP address is never looked up, so setting others for it
    /// has no effect.
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

    /// The most memory an instance of the component may use, in bytes; default
    /// 1 GiB. A reply takes up to about three times its size.
    pub fn max_memory(mut self, bytes: usize) -> Builder {
        self.max_memory = bytes;
        self
    }

    /// How many instances of the component there may be, at least 1, each with a
    /// connection; default 2. A further one is made when a call finds all of them at
    /// work, and kept; from then on the calls of a session prefer one of those that there
    /// are. With [`Provider::InMemory`] there is one.
    pub fn max_instances(mut self, count: usize) -> Builder {
        self.limits.instances = count;
        self
    }

    /// How many calls may wait because all instances are at work; default 1024. One
    /// more ends at once with [`MemoryError::Unavailable`], and nothing is sent for
    /// it.
    pub fn max_waiting(mut self, calls: usize) -> Builder {
        self.limits.waiting = calls;
        self
    }

    /// Makes room beforehand for so many instances, of all memories that are opened
    /// from this builder; default: room is made for each instance when it is made.
    ///
    /// For functions at the edge that each open a memory of their own: a new
    /// instance takes about two thirds of the time. The price is 10 µs and more than
    /// 4 GiB of address space for each when the builder is prepared, and that there
    /// cannot be one instance more: that ends with [`Error::Component`].
    pub fn preallocate(mut self, instances: u32) -> Builder {
        self.preallocated = Some(instances);
        self
    }

    /// Whether compiled code is kept in `session-memory` below `XDG_CACHE_HOME`
    /// or `~/.cache`; default true. Where that folder cannot be written, nothing
    /// is kept.
    pub fn compilation_cache(mut self, keep: bool) -> Builder {
        self.cache = keep;
        self
    }

    /// A component in a file, in place of the embedded one.
    pub fn component_file(mut self, path: impl Into<PathBuf>) -> Builder {
        self.component = ComponentSource::File(path.into());
        self
    }

    /// A component in memory, in place of the embedded one.
    pub fn component_bytes(mut self, bytes: impl Into<Vec<u8>>) -> Builder {
        self.component = ComponentSource::Bytes(bytes.into());
        self
    }

    /// Opens the memory: loads the component, connects, authenticates, selects the
    /// database and pings. It is [`Builder::prepare`] and
    /// [`SessionMemoryPre::open`], and like that one it is not repeated.
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

    /// Does once what every memory of this kind needs: reads the environment,
    /// compiles the component, or finds it compiled, and links it.
    ///
    /// # Errors
    ///
    /// [`Error::Component`] if the component cannot be used;
    /// [`MemoryError::InvalidArgument`] for an option or environment variable that
    /// is not allowed.
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
        // The component does the same, to the same result; here it is to know
        // what to allow.
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
                // Its bytes, and the records around them.
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

/// A memory that is ready to be opened, as often as it is needed, by whoever is to
/// have connections of their own: a function at the edge that lives for one call,
/// say. With [`Options::connect`] other than at opening, that waits for no network.
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
    /// Opens a memory with instances and connections of its own: connects,
    /// authenticates, selects the database and pings, unless
    /// [`Options::connect`] leaves that to the first operation.
    ///
    /// It is not repeated, so that what is wrong is seen at once. Whoever would rather
    /// wait calls it again while the error [is retryable](Error::is_retryable), or lets
    /// the first operation connect, which is repeated until its deadline.
    ///
    /// # Errors
    ///
    /// [`Error::Component`] if the component traps;
    /// [`MemoryError::Unavailable`], [`MemoryError::Timeout`],
    /// [`MemoryError::AccessDenied`] or another variant for what is wrong with the
    /// server or the way to it.
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

    /// How long an operation may take: [`Options::operation_timeout`], with the
    /// environment and the default behind it.
    pub fn operation_timeout(&self) -> Duration {
        self.template.operation_limit.saturating_sub(GRACE)
    }

    /// Sets the addresses of a name, as [`SessionMemory::resolve`] does: for all
    /// memories opened from this one, before or after.
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

/// Those variables of this process that the component sees.
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
