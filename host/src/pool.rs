//! How the calls of a memory share its instances.
//!
//! An instance runs one call at a time. A call that finds one idle, or fewer than
//! there may be, has its turn at once, in its caller's own future: a lone call pays
//! for no sharing. Otherwise it waits in line. When a turn ends and calls wait, a
//! task takes the instance over and drives it: it takes as many calls from the
//! front of the line as may go together, runs them as one pipeline, gives each
//! caller its result, and goes on until nobody waits.
//!
//! So as long as a call waits, every instance is at work, and the end of each turn
//! looks at the line. A caller that gives up while it waits leaves the line, and
//! nothing is sent for it; later, its result is thrown away, and those of the
//! others stay what they are. All of this is decided under a lock that is never
//! held while anything is waited for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{mem, slice};

use session_memory::error::Error as MemoryError;
use session_memory::operation::{Action, Operation};
use session_memory::options::{Delivery, Provider};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use crate::error::Failure;
use crate::instance::{Instance, Results, Template};

/// The instances of a memory, and the calls that wait for one.
pub(crate) struct Pool {
    pub(crate) template: Arc<Template>,
    limits: Limits,
    state: Mutex<State>,
}

/// How many instances there may be, and how many calls may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) instances: usize,
    pub(crate) waiting: usize,
}

struct State {
    /// The one used last is used first.
    idle: Vec<Instance>,
    /// Turns that are taken, each with an instance or the right to make one. With
    /// the idle instances they are no more than there may be.
    turns: usize,
    /// In the order of their numbers. If there are any, all turns are taken.
    line: VecDeque<Waiting>,
    /// The number of the next one in line.
    next: u64,
}

/// A call that waits for its turn.
struct Waiting {
    number: u64,
    operations: Vec<Operation>,
    /// Whether it goes out with no other.
    alone: bool,
    answer: oneshot::Sender<Answer>,
    /// The caller's, which runs the task that drives if this call is the first.
    runtime: Handle,
}

type Answer = Result<Results, Failure>;

impl Pool {
    /// A pool with its first instance.
    pub(crate) fn new(template: Arc<Template>, limits: Limits, first: Instance) -> Arc<Pool> {
        let instances = match template.provider {
            Provider::Redis => limits.instances.max(1),
            // It is what keeps the sessions.
            Provider::InMemory => 1,
        };
        Arc::new(Pool {
            template,
            limits: Limits {
                instances,
                ..limits
            },
            state: Mutex::new(State {
                idle: vec![first],
                turns: 0,
                line: VecDeque::new(),
                next: 0,
            }),
        })
    }

    /// Runs the operations of one call.
    pub(crate) async fn run(self: &Arc<Pool>, operations: Vec<Operation>) -> Answer {
        let until = Instant::now() + self.template.operation_limit;
        match self.enter(operations)? {
            Entry::Turn(mut turn, operations) => turn.run(operations, until).await,
            Entry::Place(mut place) => match timeout_at(until, &mut place.answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(Failure::CutShort(abandoned())),
                Err(_) => Err(place.leave()),
            },
        }
    }

    /// A turn at once, or a place in line.
    fn enter(self: &Arc<Pool>, operations: Vec<Operation>) -> Result<Entry<'_>, Failure> {
        let mut state = self.state();
        if state.turns < self.limits.instances {
            state.turns += 1;
            let turn = Turn {
                pool: Arc::clone(self),
                instance: state.idle.pop(),
                drives: false,
            };
            return Ok(Entry::Turn(turn, operations));
        }
        if state.line.len() >= self.limits.waiting {
            return Err(Failure::Refused(MemoryError::Unavailable(format!(
                "{} calls are waiting, allowed are {} (max_waiting)",
                state.line.len(),
                self.limits.waiting
            ))));
        }
        let number = state.next;
        state.next += 1;
        let (sender, answer) = oneshot::channel();
        state.line.push_back(Waiting {
            number,
            alone: !self.may_share(&operations),
            operations,
            answer: sender,
            runtime: Handle::current(),
        });
        Ok(Entry::Place(Place {
            pool: self,
            number,
            answer,
        }))
    }

    /// Whether a call may go out with others. All results of a pipeline come at
    /// once, and share what replies may have together: nobody is to wait for the
    /// long history that someone else reads.
    fn may_share(&self, operations: &[Operation]) -> bool {
        operations.iter().all(|operation| match operation.action {
            Action::Get(limit) | Action::History(limit) => {
                // An append that must not be sent twice is not known to have been
                // applied when a reply before it finds no room.
                limit.is_some_and(|limit| limit <= SHORT_READ)
                    && self.template.delivery == Delivery::ExactlyOnce
            }
            _ => true,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a call is given when it comes.
enum Entry<'a> {
    Turn(Turn, Vec<Operation>),
    Place(Place<'a>),
}

/// A place in line, and then in flight. It is given up by dropping it.
struct Place<'a> {
    pool: &'a Pool,
    number: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Place<'_> {
    /// Gives up because the time is over.
    fn leave(&self) -> Failure {
        let limit = self.pool.template.operation_limit.as_millis();
        if self.pool.state().leave(self.number).is_some() {
            Failure::Refused(MemoryError::Timeout(
                "other calls took all of the time".to_owned(),
            ))
        } else {
            Failure::CutShort(MemoryError::Timeout(format!(
                "no answer within {limit} ms, of which other calls took some"
            )))
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // What it holds is dropped when the lock is open again.
        let waiting = self.pool.state().leave(self.number);
        drop(waiting);
    }
}

impl State {
    fn leave(&mut self, number: u64) -> Option<Waiting> {
        let place = self.line.binary_search_by_key(&number, |call| call.number);
        self.line.remove(place.ok()?)
    }

    /// The calls that go out next, as one pipeline: of those that wait, the share of one
    /// of so many instances, since the others will come for theirs.
    fn next_batch(&mut self, instances: usize) -> Vec<Waiting> {
        let share = self.line.len().div_ceil(instances);
        let Some(first) = self.line.pop_front() else {
            return Vec::new();
        };
        if first.alone {
            return vec![first];
        }
        let mut bytes = first.bytes();
        let mut operations = first.operations.len();
        let mut batch = vec![first];
        loop {
            let fits = |next: &mut Waiting| {
                !next.alone
                    && batch.len() < share
                    && operations + next.operations.len() <= BATCH_OPERATIONS
                    && bytes + next.bytes() <= BATCH_BYTES
            };
            let Some(next) = self.line.pop_front_if(fits) else {
                return batch;
            };
            bytes += next.bytes();
            operations += next.operations.len();
            batch.push(next);
        }
    }
}

impl Waiting {
    /// What it takes of the bytes of a batch.
    fn bytes(&self) -> usize {
        self.operations.iter().map(size).sum()
    }
}

fn size(operation: &Operation) -> usize {
    let messages = match &operation.action {
        Action::Add(message) => slice::from_ref(message),
        Action::AddAll(messages) => messages,
        _ => &[],
    };
    let messages = messages
        .iter()
        .map(|message| message.content.len() + message.metadata.as_ref().map_or(0, String::len));
    operation.session_id.len() + messages.sum::<usize>()
}

/// The right to an instance: to the one that is here, or to make one. Whatever way
/// a turn ends, those who wait are seen to.
struct Turn {
    pool: Arc<Pool>,
    instance: Option<Instance>,
    /// Whether it belongs to the task that serves the line.
    drives: bool,
}

impl Turn {
    async fn run(&mut self, operations: Vec<Operation>, until: Instant) -> Answer {
        let template = &*self.pool.template;
        // Out of its place until the call has ended as it should: if the caller
        // gives up in the middle, the instance goes with the call.
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

    /// Serves the line until it is empty.
    async fn drive(mut self) {
        loop {
            let batch = self.pool.state().next_batch(self.pool.limits.instances);
            if batch.is_empty() {
                break;
            }
            let together = batch.len();
            let mut operations = Vec::with_capacity(together);
            let mut callers = Vec::with_capacity(together);
            for call in batch {
                callers.push((call.operations.len(), call.answer));
                operations.extend(call.operations);
            }
            let until = Instant::now() + self.pool.template.operation_limit;
            let answer = self.run(operations, until).await;
            let mut results = answer.map(Vec::into_iter);
            for (count, caller) in callers {
                let own = match &mut results {
                    Ok(results) => Ok(results.by_ref().take(count).collect()),
                    Err(failure) => Err(failure.clone()),
                };
                // Whoever has given up does not listen.
                let _ = caller.send(own);
            }
            // Those who have their results come back with their next calls, which
            // then go out together. One alone is to find the instance idle.
            if together > 1 {
                yield_now().await;
            }
        }
        self.drives = false;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        let next = state.line.front().map(|call| call.runtime.clone());
        if let Some(runtime) = next
            && !self.drives
        {
            drop(state);
            let turn = Turn {
                pool: Arc::clone(&self.pool),
                instance: self.instance.take(),
                drives: true,
            };
            runtime.spawn(turn.drive());
            return;
        }
        state.turns -= 1;
        state.idle.extend(self.instance.take());
        // A task that drives ends before the line does when its runtime is shut
        // down, which may be that of the next one in line as well.
        let left = match state.turns {
            0 => mem::take(&mut state.line),
            _ => VecDeque::new(),
        };
        drop(state);
        for call in left {
            let _ = call.answer.send(Err(Failure::Refused(abandoned())));
        }
    }
}

/// A socket on which a write is still pending stays open until its instance is gone.
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
    MemoryError::Unavailable("the task that served the calls that wait was ended".to_owned())
}

/// Operations in a pipeline of more than one call.
const BATCH_OPERATIONS: usize = 128;
/// Bytes of sessions and messages in it.
const BATCH_BYTES: usize = 256 << 10;
/// Messages of a read that goes out together with other calls.
const SHORT_READ: u32 = 100;
