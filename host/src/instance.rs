//! Instances of the component: creates them, and runs calls.

use std::sync::Arc;
use std::time::Duration;

use session_memory_core::error::Error as MemoryError;
use session_memory_core::operation::{Operation, Outcome};
use session_memory_core::options::{Connect, Delivery, Options, Provider};
use tokio::time::{Instant, error::Elapsed, timeout_at};
use wasmtime::component::ResourceAny;
use wasmtime::{Engine, Store};

use crate::bindings::{Exports, ExportsPre, memory, types};
use crate::error::CallError;
use crate::store::{self, Grants, InstanceState};

/// How much longer than its own timeout the component may take before the host stops it.
pub const GRACE: Duration = Duration::from_millis(100);

/// Creates instances: the component, compiled and linked, and what an instance is given.
pub(crate) struct Template {
    pub(crate) engine: Engine,
    pub(crate) pre: ExportsPre<InstanceState>,
    pub(crate) grants: Grants,
    pub(crate) options: Options,
    pub(crate) provider: Provider,
    pub(crate) delivery: Delivery,
    pub(crate) connect: Connect,
    /// Time limit for opening, [`GRACE`] included.
    pub(crate) connect_limit: Duration,
    /// Time limit for a call, [`GRACE`] included.
    pub(crate) operation_limit: Duration,
}

/// An instance of the component with an open client.
pub(crate) struct Instance {
    store: Store<InstanceState>,
    /// Boxed, because it is large and moves with every call.
    exports: Box<Exports>,
    client: ResourceAny,
}

/// A result for each operation of a call.
pub(crate) type Results = Vec<Result<Outcome, MemoryError>>;

impl Template {
    /// Creates the first instance of a memory.
    pub(crate) async fn open(&self) -> Result<Instance, CallError> {
        let until = Instant::now() + self.connect_limit;
        self.instantiate((&self.options).into(), until).await
    }

    /// Creates an instance for a call on a slot without one. The call itself connects, so
    /// its deadline and its retries cover the connection.
    pub(crate) async fn replace(&self, until: Instant) -> Result<Instance, CallError> {
        if self.provider == Provider::InMemory {
            return Err(CallError::Refused(MemoryError::Unavailable(
                GONE.to_owned(),
            )));
        }
        let mut options = types::Options::from(&self.options);
        if self.connect == Connect::AtOpen {
            options.connect = Some(types::Connect::AtFirstOperation);
        }
        self.instantiate(options, until).await
    }

    async fn instantiate(
        &self,
        options: types::Options,
        until: Instant,
    ) -> Result<Instance, CallError> {
        let begin = Instant::now();
        let mut store = store::store(&self.engine, &self.grants);
        let opened = timeout_at(until, async {
            let exports = Box::new(self.pre.instantiate_async(&mut store).await?);
            let guest = exports.edge_session_memory_memory().client();
            let client = guest.call_open(&mut store, &options).await?;
            wasmtime::Result::Ok((exports, client))
        });
        match opened.await {
            Ok(Ok((exports, Ok(client)))) => Ok(Instance {
                store,
                exports,
                client,
            }),
            Ok(Ok((_, Err(error)))) => Err(CallError::Refused(error.into())),
            Ok(Err(trap)) => Err(CallError::Unopened(Arc::new(trap))),
            Err(Elapsed { .. }) => {
                let text = format!("open: {}", stopped(until - begin));
                Err(CallError::Refused(MemoryError::Timeout(text)))
            }
        }
    }
}

const GONE: &str = "the sessions are gone with the component instance that kept them in memory, \
                    since a call of it was stopped";

impl Instance {
    /// Runs operations as one call of the component. The call ends at `until`, which is
    /// `limit` after it was made. After an error the instance must be discarded.
    pub(crate) async fn run(
        &mut self,
        operations: Vec<Operation>,
        until: Instant,
        limit: Duration,
    ) -> Result<Results, CallError> {
        self.store.data_mut().begin_call();
        let count = operations.len();
        match timeout_at(until, self.pipeline(operations)).await {
            Ok(Ok(results)) if results.len() == count => Ok(results),
            Ok(Ok(results)) => {
                let how = format!("{} results for {count} operations", results.len());
                Err(CallError::broken(how))
            }
            Ok(Err(trap)) if self.store.data().was_denied_memory() => {
                Err(CallError::CutShort(MemoryError::LimitExceeded(format!(
                    "the memory that is granted is used up: {}",
                    trap.root_cause()
                ))))
            }
            Ok(Err(trap)) => Err(CallError::Trapped(Arc::new(trap))),
            Err(Elapsed { .. }) => Err(CallError::CutShort(MemoryError::Timeout(stopped(limit)))),
        }
    }

    async fn pipeline(&mut self, operations: Vec<Operation>) -> wasmtime::Result<Results> {
        let guest = self.exports.edge_session_memory_memory().client();
        let operations: Vec<_> = operations
            .into_iter()
            .map(memory::Operation::from)
            .collect();
        let results = guest
            .call_pipeline(&mut self.store, self.client, &operations)
            .await?;
        let results = results.into_iter();
        Ok(results
            .map(|result| result.map(Outcome::from).map_err(MemoryError::from))
            .collect())
    }
}

fn stopped(limit: Duration) -> String {
    format!("the component was stopped after {} ms", limit.as_millis())
}
