//! How the calls of a memory share its instances.
//!
//! An instance runs one call at a time. A call that finds one idle, or fewer than
//! there may be, has its turn at once, in its caller's own future: a lone call pays
//! for no sharing. Otherwise it waits in line. When a turn ends and calls wait, a
//! task takes the instance over and drives it: it takes as many calls from the
//! line as may go together, runs them as one pipeline, gives each caller its
//! result, and goes on until nobody waits.
//!
//! A session prefers one of the instances, since the one that appended the last
//! message can spare the server a search. That is a matter of cost alone: where the
//! preferred instance is not idle, a call has any other that is, and in line it is
//! passed over once at the most.
//!
//! So as long as a call waits, every instance is at work, and the end of each turn
//! looks at the line. A caller that gives up while it waits leaves the line, and
//! nothing is sent for it; later, its result is thrown away, and those of the
//! others stay what they are. All of this is decided under a lock that is never
//! held while anything is waited for.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{mem, slice};

use session_memory_core::error::Error as MemoryError;
use session_memory_core::operation::{Action, Operation};
use session_memory_core::options::{Delivery, Provider};
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
    /// What tells which instance a session prefers.
    hasher: RandomState,
    state: Mutex<State>,
}

/// How many instances there may be, and how many calls may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) instances: usize,
    pub(crate) waiting: usize,
}

struct State {
    /// As many as were needed at once, and no more than there may be.
    seats: Vec<Seat>,
    /// In the order of their numbers. If there are any, there are as many seats as there
    /// may be, and all are taken.
    line: VecDeque<Waiting>,
    /// The number of the next one in line.
    next: u64,
}

/// Where an instance is.
enum Seat {
    /// The instance is idle, or one can be made.
    Free(Option<Instance>),
    /// A turn has the instance, or the right to make it.
    Taken,
}

/// A call that waits for its turn.
struct Waiting {
    number: u64,
    operations: Vec<Operation>,
    /// The seat that its session prefers.
    seat: usize,
    /// Whether calls that came later went out before it, from a seat that they prefer.
    passed_over: bool,
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
            hasher: RandomState::new(),
            state: Mutex::new(State {
                seats: vec![Seat::Free(Some(first))],
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
        let session = operations.first().map(|first| &first.session_id);
        let hash = self.hasher.hash_one(session);
        let mut state = self.state();
        let preferred = (hash % state.seats.len() as u64) as usize;
        if let Some((seat, instance)) = state.take_seat(preferred, self.limits.instances) {
            let turn = Turn {
                pool: Arc::clone(self),
                seat,
                instance,
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
            seat: preferred,
            passed_over: false,
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

    /// A seat that is free, with its instance if it has one: the preferred one if it
    /// can be, and rather one with an instance than one without. None if there are no
    /// more than are taken.
    fn take_seat(&mut self, preferred: usize, at_most: usize) -> Option<(usize, Option<Instance>)> {
        let rank = |(number, seat): (usize, &Seat)| match seat {
            Seat::Free(instance) => Some((instance.is_none(), number != preferred, number)),
            Seat::Taken => None,
        };
        let best = self.seats.iter().enumerate().filter_map(rank).min();
        let number = match best {
            Some((_, _, number)) => number,
            None if self.seats.len() < at_most => {
                self.seats.push(Seat::Free(None));
                self.seats.len() - 1
            }
            None => return None,
        };
        match mem::replace(&mut self.seats[number], Seat::Taken) {
            Seat::Free(instance) => Some((number, instance)),
            Seat::Taken => None,
        }
    }

    /// The calls that go out next from a seat, as one pipeline: those that prefer it, and
    /// those that were passed over before; if there are none, any. It takes the share of
    /// one of all seats, since the others will come for theirs.
    fn next_batch(&mut self, seat: usize) -> Vec<Waiting> {
        let prefers = |call: &Waiting| call.seat == seat || call.passed_over;
        let any = !self.line.iter().any(prefers);
        let share = self.line.len().div_ceil(self.seats.len());
        let most = if any { share } else { share.max(PREFERRED) };
        let mut batch = Batch::default();
        let mut passed: Vec<Waiting> = Vec::new();
        let mut marked = 0;
        while let Some(call) = self.line.pop_front() {
            if !any && !prefers(&call) {
                passed.push(call);
            } else if batch.calls.len() < most && batch.has_room_for(&call) {
                for call in &mut passed[marked..] {
                    call.passed_over = true;
                }
                marked = passed.len();
                batch.push(call);
            } else {
                self.line.push_front(call);
                break;
            }
        }
        for call in passed.into_iter().rev() {
            self.line.push_front(call);
        }
        batch.calls
    }
}

/// Calls that go out together.
#[derive(Default)]
struct Batch {
    calls: Vec<Waiting>,
    operations: usize,
    bytes: usize,
}

impl Batch {
    fn has_room_for(&self, call: &Waiting) -> bool {
        let fits = || {
            !self.calls[0].alone
                && !call.alone
                && self.operations + call.operations.len() <= BATCH_OPERATIONS
                && self.bytes + call.bytes() <= BATCH_BYTES
        };
        self.calls.is_empty() || fits()
    }

    fn push(&mut self, call: Waiting) {
        self.operations += call.operations.len();
        self.bytes += call.bytes();
        self.calls.push(call);
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
    seat: usize,
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
            let batch = self.pool.state().next_batch(self.seat);
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
                seat: self.seat,
                instance: self.instance.take(),
                drives: true,
            };
            runtime.spawn(turn.drive());
            return;
        }
        state.seats[self.seat] = Seat::Free(self.instance.take());
        // A task that drives ends before the line does when its runtime is shut
        // down, which may be that of the next one in line as well.
        let is_free = |seat: &Seat| matches!(seat, Seat::Free(_));
        let left = match state.seats.iter().all(is_free) {
            true => mem::take(&mut state.line),
            false => VecDeque::new(),
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

/// Calls that an instance takes because they prefer it, whatever is left to the others:
/// in a pipeline of so many, each costs next to nothing more than its own work.
const PREFERRED: usize = 32;
/// Operations in a pipeline of more than one call.
const BATCH_OPERATIONS: usize = 128;
/// Bytes of sessions and messages in it.
const BATCH_BYTES: usize = 256 << 10;
/// Messages of a read that goes out together with other calls.
const SHORT_READ: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    /// A line before so many seats, which are all taken.
    fn line(seats: usize, calls: &[(usize, bool)]) -> State {
        let waiting = |(number, (seat, alone)): (usize, &(usize, bool))| Waiting {
            number: number as u64,
            operations: vec![Operation {
                session_id: String::new(),
                action: Action::Count,
            }],
            seat: *seat,
            passed_over: false,
            alone: *alone,
            answer: oneshot::channel().0,
            runtime: Handle::current(),
        };
        State {
            seats: (0..seats).map(|_| Seat::Taken).collect(),
            line: calls.iter().enumerate().map(waiting).collect(),
            next: calls.len() as u64,
        }
    }

    fn numbers(calls: &[Waiting]) -> Vec<u64> {
        calls.iter().map(|call| call.number).collect()
    }

    #[tokio::test]
    async fn a_seat_takes_the_calls_that_prefer_it() {
        let mut state = line(2, &[0, 1, 0, 1, 1, 0].map(|seat| (seat, false)));
        assert_eq!(numbers(&state.next_batch(1)), [1, 3, 4]);
        assert_eq!(numbers(state.line.make_contiguous()), [0, 2, 5]);
        assert_eq!(numbers(&state.next_batch(0)), [0, 2, 5]);
        assert!(state.next_batch(0).is_empty());
    }

    #[tokio::test]
    async fn a_call_is_passed_over_once() {
        let mut state = line(2, &[0, 1, 0, 1, 0].map(|seat| (seat, false)));
        assert_eq!(numbers(&state.next_batch(1)), [1, 3]);
        assert_eq!(numbers(&state.next_batch(1)), [0, 2]);
        assert_eq!(numbers(&state.next_batch(1)), [4]);
    }

    #[tokio::test]
    async fn a_seat_that_none_prefers_takes_its_share() {
        let mut state = line(2, &[(0, false); 5]);
        assert_eq!(numbers(&state.next_batch(1)), [0, 1, 2]);
        assert_eq!(numbers(&state.next_batch(1)), [3]);
        assert_eq!(numbers(&state.next_batch(1)), [4]);
    }

    #[tokio::test]
    async fn a_seat_that_all_prefer_leaves_the_others_their_share() {
        let mut state = line(2, &[(0, false); 100]);
        assert_eq!(state.next_batch(0).len(), 50);
        assert_eq!(state.next_batch(1).len(), 25);
        assert_eq!(state.next_batch(0).len(), 25);
        let mut state = line(2, &[(0, false); PREFERRED]);
        assert_eq!(state.next_batch(0).len(), PREFERRED);
    }

    #[tokio::test]
    async fn what_goes_alone_goes_in_its_turn() {
        let calls = [(0, false), (1, true), (0, true), (0, false), (1, false)];
        let mut state = line(2, &calls);
        assert_eq!(numbers(&state.next_batch(0)), [0]);
        assert_eq!(numbers(&state.next_batch(0)), [2]);
        // It was passed over by the one before.
        assert_eq!(numbers(&state.next_batch(0)), [1]);
        assert_eq!(numbers(&state.next_batch(0)), [3]);
        assert_eq!(numbers(&state.next_batch(0)), [4]);
    }

    #[tokio::test]
    async fn there_are_no_more_seats_than_instances() {
        let mut state = line(1, &[]);
        let number = |taken: Option<(usize, Option<Instance>)>| taken.map(|(number, _)| number);
        assert_eq!(number(state.take_seat(0, 3)), Some(1));
        assert_eq!(number(state.take_seat(0, 3)), Some(2));
        assert_eq!(number(state.take_seat(0, 3)), None);
        state.seats[1] = Seat::Free(None);
        state.seats[2] = Seat::Free(None);
        assert_eq!(number(state.take_seat(2, 3)), Some(2));
        assert_eq!(number(state.take_seat(2, 3)), Some(1));
        assert_eq!(number(state.take_seat(1, 3)), None);
    }
}
