//! The operations, each a call of the component under a time limit.

use std::env::VarError;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fmt, fs, mem};

use session_memory::error::Error as MemoryError;
use session_memory::message::{Message, NewMessage, Role};
use session_memory::operation::{History, Operation, Outcome};
use session_memory::options::{Connect, Options, Provider, Settings, VARIABLES};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, error::Elapsed, timeout_at};
use wasmtime::component::ResourceAny;
use wasmtime::{Engine, Store};

use crate::bindings::{GuestClient, Provider as Exports, ProviderPre, types};
use crate::engine;
use crate::error::Error;
use crate::network::NetworkPolicy;
use crate::store::{self, Grants, State};

/// An open conversation memory. Clones share one instance of the component and
/// with it one connection; their calls are run one after the other.
#[derive(Clone)]
pub struct SessionMemory {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    pre: ProviderPre<State>,
    grants: Grants,
    options: Options,
    provider: Provider,
    operation_limit: Duration,
    slot: Mutex<Slot>,
}

/// An instance of the component with an open client.
struct Instance {
    store: Store<State>,
    exports: Exports,
    client: ResourceAny,
}

/// How much longer than its own timeout the component may take before it is
/// stopped from outside.
pub const GRACE: Duration = Duration::from_millis(100);

impl SessionMemory {
    /// Opens a memory with the embedded component: connects, authenticates,
    /// selects the database. [`SessionMemory::builder`] has more to choose from.
    ///
    /// # Errors
    ///
    /// As [`Builder::open`].
    pub async fn open(options: Options) -> Result<SessionMemory, Error> {
        SessionMemory::builder().options(options).open().await
    }

    /// What is to be opened, to be told step by step.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Appends a message to a session and applies the session's time to live, as
    /// one atomic unit; answers how many messages the session holds now.
    /// `metadata` is the text of a JSON object.
    ///
    /// # Errors
    ///
    /// [`MemoryError::InvalidArgument`] for an empty session id or metadata that
    /// is no JSON object; [`MemoryError::LimitExceeded`] for a message larger than
    /// `max_message_bytes`; [`MemoryError::WrongType`] if the key holds something
    /// other than a list; [`MemoryError::OutcomeUnknown`] if the message may or may
    /// not have been stored; [`Error::Component`] if the component trapped, which
    /// leaves that open too; otherwise the variant that says what was wrong with
    /// the server or the way to it.
    pub async fn add(
        &self,
        session_id: &str,
        role: Role,
        content: &str,
        metadata: Option<&str>,
    ) -> Result<u32, Error> {
        let call = self.call("add to", session_id, Effect::Writes).await?;
        call.run(async |guest, store, client| {
            guest
                .call_add(store, client, session_id, role.into(), content, metadata)
                .await
        })
        .await
    }

    /// Appends several messages in order, all or none, otherwise as
    /// [`SessionMemory::add`].
    ///
    /// # Errors
    ///
    /// As [`SessionMemory::add`].
    pub async fn add_all(&self, session_id: &str, messages: &[NewMessage]) -> Result<u32, Error> {
        let call = self.call("add-all to", session_id, Effect::Writes).await?;
        let messages: Vec<_> = messages.iter().map(types::NewMessage::from).collect();
        call.run(async |guest, store, client| {
            guest
                .call_add_all(store, client, session_id, &messages)
                .await
        })
        .await
    }

    /// A session's messages, oldest first; with a limit the last that many. Empty
    /// if there is no such session.
    ///
    /// # Errors
    ///
    /// [`MemoryError::InvalidArgument`] for an empty session id;
    /// [`MemoryError::WrongType`] if the key holds something other than a list;
    /// [`MemoryError::LimitExceeded`] for more than `max_reply_bytes`;
    /// [`Error::Component`] if the component trapped; otherwise the variant that
    /// says what was wrong with the server or the way to it.
    pub async fn get(&self, session_id: &str, limit: Option<u32>) -> Result<Vec<Message>, Error> {
        let call = self.call("get", session_id, Effect::Reads).await?;
        let messages = call
            .run(async |guest, store, client| {
                guest.call_get(store, client, session_id, limit).await
            })
            .await?;
        Ok(messages.into_iter().map(Message::from).collect())
    }

    /// [`SessionMemory::get`], with the number of entries, the number of those
    /// that are no messages, and the remaining time to live, all of one moment.
    ///
    /// # Errors
    ///
    /// As [`SessionMemory::get`].
    pub async fn history(&self, session_id: &str, limit: Option<u32>) -> Result<History, Error> {
        let call = self.call("history of", session_id, Effect::Reads).await?;
        let history = call
            .run(async |guest, store, client| {
                guest.call_history(store, client, session_id, limit).await
            })
            .await?;
        Ok(history.into())
    }

    /// Deletes a session. Succeeds if there is none.
    ///
    /// # Errors
    ///
    /// As [`SessionMemory::get`], and [`MemoryError::OutcomeUnknown`] if it may or
    /// may not have been deleted.
    pub async fn clear(&self, session_id: &str) -> Result<(), Error> {
        let call = self.call("clear", session_id, Effect::Writes).await?;
        call.run(async |guest, store, client| guest.call_clear(store, client, session_id).await)
            .await
    }

    /// Whether a session has messages.
    ///
    /// # Errors
    ///
    /// As [`SessionMemory::get`].
    pub async fn exists(&self, session_id: &str) -> Result<bool, Error> {
        let call = self.call("exists", session_id, Effect::Reads).await?;
        call.run(async |guest, store, client| guest.call_exists(store, client, session_id).await)
            .await
    }

    /// How many messages a session holds.
    ///
    /// # Errors
    ///
    /// As [`SessionMemory::get`].
    pub async fn count(&self, session_id: &str) -> Result<u32, Error> {
        let call = self.call("count", session_id, Effect::Reads).await?;
        call.run(async |guest, store, client| guest.call_count(store, client, session_id).await)
            .await
    }

    /// Several operations, of any sessions, in one round trip: for each its own
    /// result, in the order given. They share one deadline, and together are no
    /// atomic unit.
    ///
    /// # Errors
    ///
    /// [`Error::Component`] if the component trapped: then an operation that writes
    /// may or may not have been applied. Each result has the errors of its operation.
    pub async fn pipeline(
        &self,
        operations: &[Operation],
    ) -> Result<Vec<Result<Outcome, MemoryError>>, Error> {
        let call = self.call("pipeline", "", Effect::Writes).await?;
        let operations: Vec<_> = operations.iter().map(types::Operation::from).collect();
        let results = call
            .run(async |guest, store, client| {
                Ok(Ok(guest.call_pipeline(store, client, &operations).await?))
            })
            .await?;
        Ok(results
            .into_iter()
            .map(|result| result.map(Outcome::from).map_err(MemoryError::from))
            .collect())
    }

    async fn call<'a>(
        &'a self,
        operation: &'static str,
        session_id: &'a str,
        effect: Effect,
    ) -> Result<Call<'a>, Error> {
        let shared = &*self.shared;
        let during = |error| match error {
            Error::Memory(error) => error.during(operation, session_id).into(),
            error => error,
        };
        let until = Instant::now() + shared.operation_limit;
        let mut slot = timeout_at(until, shared.slot.lock()).await.map_err(|_| {
            during(MemoryError::Timeout("other calls took all of the time".to_owned()).into())
        })?;
        // Out of the slot until the call has ended as it should: if the caller
        // gives up in the middle, the instance goes with the call.
        let mut instance = match mem::replace(&mut *slot, shared.without_instance()) {
            Slot::Open(instance) => instance,
            Slot::Empty => Box::new(shared.open(until).await.map_err(during)?),
            Slot::Gone => {
                return Err(during(MemoryError::Unavailable(GONE.to_owned()).into()));
            }
        };
        instance.store.data_mut().begin_call();
        Ok(Call {
            slot,
            instance,
            operation,
            session_id,
            effect,
            until,
            limit: shared.operation_limit,
        })
    }
}

impl fmt::Debug for SessionMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionMemory")
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// A new instance with an open client.
    async fn open(&self, until: Instant) -> Result<Instance, Error> {
        let begin = Instant::now();
        let mut store = store::store(&self.engine, &self.grants);
        let opened = timeout_at(until, async {
            let exports = self.pre.instantiate_async(&mut store).await?;
            let guest = exports.edge_session_memory_memory().client();
            let client = guest.call_open(&mut store, &(&self.options).into()).await?;
            wasmtime::Result::Ok((exports, client))
        });
        match opened.await {
            Ok(Ok((exports, client))) => Ok(Instance {
                store,
                exports,
                client: client.map_err(MemoryError::from)?,
            }),
            Ok(Err(trap)) => Err(Error::component("open")(trap)),
            Err(Elapsed { .. }) => {
                let text = format!("open: {}", stopped(until - begin));
                Err(MemoryError::Timeout(text).into())
            }
        }
    }

    /// What is left when an instance is discarded.
    fn without_instance(&self) -> Slot {
        match self.provider {
            Provider::Redis => Slot::Empty,
            Provider::InMemory => Slot::Gone,
        }
    }
}

/// The place of the instance.
enum Slot {
    /// It is there, and no call is using it.
    Open(Box<Instance>),
    /// The next call gets a new one.
    Empty,
    /// It kept the sessions in its memory, so there is none to take its place.
    Gone,
}

const GONE: &str = "the sessions are gone with the component instance that kept them in memory, \
                    since a call of it was stopped";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Reads,
    Writes,
}

/// A call in progress.
struct Call<'a> {
    slot: MutexGuard<'a, Slot>,
    instance: Box<Instance>,
    operation: &'static str,
    session_id: &'a str,
    effect: Effect,
    until: Instant,
    limit: Duration,
}

impl Call<'_> {
    /// Runs a function of the component until the call's time is over, and keeps the
    /// instance for the next call, if nothing speaks against it.
    async fn run<T>(
        mut self,
        function: impl AsyncFnOnce(
            GuestClient<'_>,
            &mut Store<State>,
            ResourceAny,
        ) -> wasmtime::Result<Result<T, types::Error>>,
    ) -> Result<T, Error> {
        let Instance {
            store,
            exports,
            client,
        } = &mut *self.instance;
        let guest = exports.edge_session_memory_memory().client();
        let result = timeout_at(self.until, function(guest, store, *client)).await;
        let error = match result {
            Ok(Ok(Ok(value))) => {
                *self.slot = Slot::Open(self.instance);
                return Ok(value);
            }
            Ok(Ok(Err(error))) => MemoryError::from(error),
            Ok(Err(trap)) if self.instance.store.data().was_denied_memory() => {
                let why = format!(
                    "the memory that is granted is used up: {}",
                    trap.root_cause()
                );
                return Err(self.cut_short(why, MemoryError::LimitExceeded));
            }
            Ok(Err(trap)) => {
                let during = format!("{} {:?}", self.operation, self.session_id);
                return Err(Error::component(during)(trap));
            }
            Err(Elapsed { .. }) => {
                return Err(self.cut_short(stopped(self.limit), MemoryError::Timeout));
            }
        };
        // A socket on which a write is still pending stays open until its instance
        // is gone.
        let may_hold_a_socket = matches!(
            error,
            MemoryError::Timeout(_)
                | MemoryError::OutcomeUnknown(_)
                | MemoryError::Protocol(_)
                | MemoryError::LimitExceeded(_)
        );
        if !may_hold_a_socket || matches!(*self.slot, Slot::Gone) {
            *self.slot = Slot::Open(self.instance);
        }
        Err(error.into())
    }

    /// The error for a call that did not come to its end: for one that only reads,
    /// the given one.
    fn cut_short(&self, why: String, of_a_read: fn(String) -> MemoryError) -> Error {
        let error = match self.effect {
            Effect::Writes => MemoryError::OutcomeUnknown(why),
            Effect::Reads => of_a_read(why),
        };
        error.during(self.operation, self.session_id).into()
    }
}

fn stopped(limit: Duration) -> String {
    format!("the component was stopped after {} ms", limit.as_millis())
}

/// What a [`SessionMemory`] is to be.
pub struct Builder {
    component: Source,
    options: Options,
    environment: Option<Vec<(String, String)>>,
    network: Option<NetworkPolicy>,
    max_memory: usize,
    cache: bool,
}

enum Source {
    Embedded,
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Embedded => f.write_str("Embedded"),
            Source::File(path) => f.debug_tuple("File").field(path).finish(),
            Source::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
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
            .field("max_memory", &self.max_memory)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            component: Source::Embedded,
            options: Options::default(),
            environment: None,
            network: None,
            max_memory: 1 << 30,
            cache: true,
        }
    }
}

impl Builder {
    /// The options; default: none given.
    #[must_use]
    pub fn options(mut self, options: Options) -> Builder {
        self.options = options;
        self
    }

    /// Environment variables in place of those of this process. Of either, the
    /// component sees those that the documentation of [`Options`] names.
    #[must_use]
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Builder {
        self.environment = Some(variables.into_iter().collect());
        self
    }

    /// The servers that may be reached; default: the one that options and
    /// environment name.
    #[must_use]
    pub fn network(mut self, policy: NetworkPolicy) -> Builder {
        self.network = Some(policy);
        self
    }

    /// The most memory the component may use, in bytes; default 1 GiB. A reply
    /// takes up to about three times its size.
    #[must_use]
    pub fn max_memory(mut self, bytes: usize) -> Builder {
        self.max_memory = bytes;
        self
    }

    /// Whether compiled code is kept in `session-memory` below `XDG_CACHE_HOME`
    /// or `~/.cache`; default true. Where that folder cannot be written, nothing
    /// is kept.
    #[must_use]
    pub fn compilation_cache(mut self, keep: bool) -> Builder {
        self.cache = keep;
        self
    }

    /// A component in a file, in place of the embedded one.
    #[must_use]
    pub fn component_file(mut self, path: impl Into<PathBuf>) -> Builder {
        self.component = Source::File(path.into());
        self
    }

    /// A component in memory, in place of the embedded one.
    #[must_use]
    pub fn component_bytes(mut self, bytes: impl Into<Vec<u8>>) -> Builder {
        self.component = Source::Bytes(bytes.into());
        self
    }

    /// Opens the memory: loads the component, connects, authenticates, selects the
    /// database and pings.
    ///
    /// # Errors
    ///
    /// [`Error::Component`] if the component cannot be used;
    /// [`MemoryError::InvalidArgument`] for an option or environment variable that
    /// is not allowed; [`MemoryError::Unavailable`], [`MemoryError::Timeout`],
    /// [`MemoryError::AccessDenied`] or another variant for what is wrong with the
    /// server or the way to it.
    pub async fn open(self) -> Result<SessionMemory, Error> {
        let environment = match self.environment {
            Some(variables) => variables
                .into_iter()
                .filter(|(name, _)| VARIABLES.contains(&name.as_str()))
                .collect(),
            None => own_environment()?,
        };
        // The component does the same, to the same result; here it is to know
        // what to allow.
        let settings = Settings::resolve(self.options.clone(), &environment)?;
        let network = self.network.unwrap_or_else(|| match settings.provider {
            Provider::Redis => NetworkPolicy::deny_all().allow(&settings.host, settings.port),
            Provider::InMemory => NetworkPolicy::deny_all(),
        });
        let component = match self.component {
            Source::Embedded => crate::COMPONENT.to_vec(),
            Source::Bytes(bytes) => bytes,
            Source::File(path) => fs::read(&path).map_err(|error| {
                Error::component(format!("read {}", path.display()))(error.into())
            })?,
        };
        let (engine, pre) = engine::load(&component, self.cache)?;
        let limit = |milliseconds: u32| Duration::from_millis(milliseconds.into()) + GRACE;
        let mut shared = Shared {
            engine,
            pre,
            grants: Grants {
                environment,
                network: Arc::new(network),
                max_memory: self.max_memory,
                // Its bytes, and the records around them.
                max_result: (settings.max_reply_bytes as usize)
                    .saturating_mul(2)
                    .max(64 << 20),
            },
            options: self.options,
            provider: settings.provider,
            operation_limit: limit(settings.operation_timeout),
            slot: Mutex::new(Slot::Empty),
        };
        let instance = shared
            .open(Instant::now() + limit(settings.connect_timeout))
            .await?;
        shared.slot = Mutex::new(Slot::Open(Box::new(instance)));
        // From now on it is an operation that needs an instance, and that connects.
        if settings.connect == Connect::AtOpen {
            shared.options.connect = Some(Connect::AtFirstOperation);
        }
        Ok(SessionMemory {
            shared: Arc::new(shared),
        })
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
