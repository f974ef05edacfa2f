//! How the calls of a memory share its instances.
//!
//! An instance runs one call at a time. A call leases an idle instance, or creates one
//! if there are fewer than allowed. It then runs in its caller's own future, so a
//! lone call pays nothing for sharing. If every instance is leased, the call waits in
//! the queue.
//!
//! When a lease ends and calls wait, a task takes the instance over and drives it. The
//! task takes as many calls from the queue as may be sent together, and runs them as one
//! pipeline. It gives each caller its result, and repeats that until the queue is empty.
//!
//! A session prefers one of the instances, because the instance that appended the last
//! message can spare the server a search. With 64 callers that saves 8 % of the time of
//! an append (`docs/decisions/sessions-prefer-an-instance.md`). If the preferred instance
//! is leased, the call takes any idle one. In the queue, calls that prefer another
//! instance pass it over at most once.
//!
//! As long as a call waits, every instance is leased, and the end of each lease checks
//! the queue. A caller that cancels while it waits leaves the queue, and nothing is sent
//! for it. A caller that cancels later loses its result, and the other results do not
//! change. A lock guards the slots and the queue; no code awaits while it holds the lock.

mod queue;
mod slots;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use session_memory_core::error::{ABANDONED, Error as MemoryError, WAITING};
use session_memory_core::operation::{Action, Operation};
use session_memory_core::options::{Delivery, Provider};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use crate::error::CallError;
use crate::instance::{Instance, Results, Template};
use queue::{Queue, QueuedCall};
use slots::Slots;

/// The instances of a memory, and the calls that wait for one.
pub(crate) struct Pool {
    pub(crate) template: Arc<Template>,
    limits: PoolLimits,
    /// Decides which slot a session prefers.
    hasher: RandomState,
    state: Mutex<PoolState>,
}

/// How many instances there may be, and how many calls may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolLimits {
    pub(crate) instances: usize,
    pub(crate) waiting: usize,
}

/// While the queue holds a call, there are as many slots as allowed, all leased.
struct PoolState {
    slots: Slots,
    queue: Queue,
}

/// The result of each operation of a call, or the error of the whole call.
type CallResult = Result<Results, CallError>;

impl Pool {
    /// Creates a pool with its first instance.
    pub(crate) fn new(template: Arc<Template>, limits: PoolLimits, first: Instance) -> Arc<Pool> {
        let instances = match template.provider {
            Provider::Redis => limits.instances.max(1),
            // The instance holds the sessions.
            Provider::InMemory => 1,
        };
        Arc::new(Pool {
            template,
            limits: PoolLimits {
                instances,
                ..limits
            },
            hasher: RandomState::new(),
            state: Mutex::new(PoolState {
                slots: Slots::new(first),
                queue: Queue::default(),
            }),
        })
    }

    /// Runs the operations of one call.
    pub(crate) async fn run(self: &Arc<Pool>, operations: Vec<Operation>) -> CallResult {
        let until = Instant::now() + self.template.operation_limit;
        match self.admit(operations)? {
            Admission::Leased(mut lease, operations) => lease.run(operations, until).await,
            Admission::Queued(mut ticket) => match timeout_at(until, &mut ticket.response).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(CallError::CutShort(abandoned())),
                Err(_) => Err(ticket.give_up()),
            },
        }
    }

    /// Leases an instance to a call, or puts the call into the queue.
    fn admit(self: &Arc<Pool>, operations: Vec<Operation>) -> Result<Admission<'_>, CallError> {
        let session = operations.first().map(|first| &first.session_id);
        let hash = self.hasher.hash_one(session);
        let mut state = self.lock();
        let preferred = (hash % state.slots.len() as u64) as usize;
        if let Some((slot, instance)) = state.slots.lease(preferred, self.limits.instances) {
            let lease = Lease {
                pool: Arc::clone(self),
                slot,
                instance,
                serves_queue: false,
            };
            return Ok(Admission::Leased(lease, operations));
        }
        if state.queue.len() >= self.limits.waiting {
            return Err(CallError::Refused(MemoryError::Unavailable(format!(
                "{} {WAITING}, allowed are {} (max_waiting)",
                state.queue.len(),
                self.limits.waiting
            ))));
        }
        let (sender, response) = oneshot::channel();
        let number = state.queue.take_number();
        state.queue.push(QueuedCall {
            number,
            slot: preferred,
            was_passed_over: false,
            is_sent_alone: !self.may_share(&operations),
            operations,
            response: sender,
            runtime: Handle::current(),
        });
        Ok(Admission::Queued(Ticket {
            pool: self,
            number,
            response,
        }))
    }

    /// Whether a call may be sent together with others. All results of a pipeline arrive
    /// together and share the limit for replies. So long reads are sent on their own, and no
    /// other caller waits for them.
    fn may_share(&self, operations: &[Operation]) -> bool {
        operations.iter().all(|operation| match operation.action {
            Action::Get(limit) | Action::History(limit) => {
                // If a reply does not fit, the outcome of an at-most-once append behind it
                // is unknown.
                limit.is_some_and(|limit| limit <= SHORT_READ)
                    && self.template.delivery == Delivery::ExactlyOnce
            }
            _ => true,
        })
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a call starts.
enum Admission<'a> {
    Leased(Lease, Vec<Operation>),
    Queued(Ticket<'a>),
}

/// The caller's side of a queued call. Dropping it cancels the call.
struct Ticket<'a> {
    pool: &'a Pool,
    number: u64,
    response: oneshot::Receiver<CallResult>,
}

impl Ticket<'_> {
    /// Gives up at the deadline.
    fn give_up(&self) -> CallError {
        let limit = self.pool.template.operation_limit.as_millis();
        if self.pool.lock().queue.remove(self.number).is_some() {
            CallError::Refused(MemoryError::Timeout(
                "other calls took all of the time".to_owned(),
            ))
        } else {
            CallError::CutShort(MemoryError::Timeout(format!(
                "no reply within {limit} ms, of which other calls took some"
            )))
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        // The call is dropped after the lock is released.
        let call = self.pool.lock().queue.remove(self.number);
        drop(call);
    }
}

/// The exclusive right to the instance of a slot, or to create one there. However a lease
/// ends, the calls that wait are served.
struct Lease {
    pool: Arc<Pool>,
    slot: usize,
    instance: Option<Instance>,
    /// Whether it belongs to the task that serves the queue.
    serves_queue: bool,
}

impl Lease {
    async fn run(&mut self, operations: Vec<Operation>, until: Instant) -> CallResult {
        let template = &*self.pool.template;
        // Taken out until the call has ended properly: if the caller gives up in the
        // middle, the instance is dropped with the call.
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => template.replace(until).await?,
        };
        let limit = template.operation_limit;
        let results = instance.run(operations, until, limit).await?;
        let holds_a_socket = results.iter().any(may_hold_a_socket);
        if !holds_a_socket || template.provider == Provider::InMemory {
            self.instance = Some(instance);
        }
        Ok(results)
    }

    /// Serves the queue until it is empty.
    async fn serve_queue(mut self) {
        loop {
            let batch = self.pool.lock().next_batch(self.slot);
            if batch.is_empty() {
                break;
            }
            let together = batch.len();
            let mut operations = Vec::with_capacity(together);
            let mut callers = Vec::with_capacity(together);
            for call in batch {
                callers.push((call.operations.len(), call.response));
                operations.extend(call.operations);
            }
            let until = Instant::now() + self.pool.template.operation_limit;
            let result = self.run(operations, until).await;
            let mut results = result.map(Vec::into_iter);
            for (count, caller) in callers {
                let own = match &mut results {
                    Ok(results) => Ok(results.by_ref().take(count).collect()),
                    Err(error) => Err(error.clone()),
                };
                // A caller that has given up does not listen.
                let _ = caller.send(own);
            }
            // Callers that have their results return with their next calls, which are then
            // sent together. A single caller should find the instance idle.
            if together > 1 {
                yield_now().await;
            }
        }
        self.serves_queue = false;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        let next = state.queue.first().map(|call| call.runtime.clone());
        if let Some(runtime) = next
            && !self.serves_queue
        {
            drop(state);
            let lease = Lease {
                pool: Arc::clone(&self.pool),
                slot: self.slot,
                instance: self.instance.take(),
                serves_queue: true,
            };
            runtime.spawn(lease.serve_queue());
            return;
        }
        state.slots.release(self.slot, self.instance.take());
        // The task that serves the queue ends early when its runtime is shut down. The
        // next caller may be of the same runtime, so no other task is started.
        let left = match state.slots.are_all_free() {
            true => state.queue.take_all(),
            false => VecDeque::new(),
        };
        drop(state);
        for call in left {
            let _ = call.response.send(Err(CallError::Refused(abandoned())));
        }
    }
}

impl PoolState {
    fn next_batch(&mut self, slot: usize) -> Vec<QueuedCall> {
        self.queue.next_batch(slot, self.slots.len())
    }
}

/// Whether an instance may hold a socket with a pending write. The socket stays open
/// until the instance is dropped.
fn may_hold_a_socket<T>(result: &Result<T, MemoryError>) -> bool {
    matches!(
        result,
        Err(MemoryError::Timeout(_)
            | MemoryError::OutcomeUnknown(_)
            | MemoryError::Protocol(_)
            | MemoryError::LimitExceeded(_))
    )
}

fn abandoned() -> MemoryError {
    MemoryError::Unavailable(ABANDONED.to_owned())
}

/// Largest limit of a read that is sent together with other calls.
const SHORT_READ: u32 = 100;
