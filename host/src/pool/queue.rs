//! The calls that wait for an instance, and which of them are sent together.

use std::collections::VecDeque;
use std::mem;

use session_memory_core::operation::Operation;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::CallResult;

/// Waiting calls, in the order of their arrival.
#[derive(Default)]
pub(super) struct Queue {
    /// Sorted by number.
    calls: VecDeque<QueuedCall>,
    /// The number of the next call.
    next: u64,
}

/// A call that waits.
pub(super) struct QueuedCall {
    /// From [`Queue::take_number`].
    pub(super) number: u64,
    pub(super) operations: Vec<Operation>,
    /// The slot that its session prefers.
    pub(super) slot: usize,
    /// Whether later calls were sent before it, on a slot that they prefer.
    pub(super) was_passed_over: bool,
    /// Whether it is sent on its own.
    pub(super) is_sent_alone: bool,
    /// Gives the caller its result.
    pub(super) response: oneshot::Sender<CallResult>,
    /// The caller's runtime. It runs the task that serves the queue if this call is first.
    pub(super) runtime: Handle,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn first(&self) -> Option<&QueuedCall> {
        self.calls.front()
    }

    /// The number of the next call to be pushed.
    pub(super) fn take_number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    pub(super) fn push(&mut self, call: QueuedCall) {
        self.calls.push_back(call);
    }

    /// Removes a call, if it still waits.
    pub(super) fn remove(&mut self, number: u64) -> Option<QueuedCall> {
        let index = self.calls.binary_search_by_key(&number, |call| call.number);
        self.calls.remove(index.ok()?)
    }

    pub(super) fn take_all(&mut self) -> VecDeque<QueuedCall> {
        mem::take(&mut self.calls)
    }

    /// Removes the next batch of a slot, which is sent as one pipeline. These are the calls
    /// that prefer the slot or were passed over before, or any calls if there are none of
    /// these. A batch has at most an equal share of the queue, so that the other slots of
    /// `slots` have work too. A batch of calls that prefer the slot may be larger.
    pub(super) fn next_batch(&mut self, slot: usize, slots: usize) -> Vec<QueuedCall> {
        let prefers = |call: &QueuedCall| call.slot == slot || call.was_passed_over;
        let any = !self.calls.iter().any(prefers);
        let share = self.calls.len().div_ceil(slots);
        let most = if any { share } else { share.max(PREFERRED) };
        let mut batch = Batch::default();
        let mut passed: Vec<QueuedCall> = Vec::new();
        let mut marked = 0;
        while let Some(call) = self.calls.pop_front() {
            if !any && !prefers(&call) {
                passed.push(call);
            } else if batch.calls.len() < most && batch.has_room_for(&call) {
                for call in &mut passed[marked..] {
                    call.was_passed_over = true;
                }
                marked = passed.len();
                batch.push(call);
            } else {
                self.calls.push_front(call);
                break;
            }
        }
        for call in passed.into_iter().rev() {
            self.calls.push_front(call);
        }
        batch.calls
    }
}

impl QueuedCall {
    /// Bytes that count towards [`BATCH_BYTES`].
    fn bytes(&self) -> usize {
        self.operations.iter().map(size).sum()
    }
}

fn size(operation: &Operation) -> usize {
    let messages = operation.action.new_messages();
    let messages = messages
        .iter()
        .map(|message| message.content.len() + message.metadata.as_ref().map_or(0, String::len));
    operation.session_id.len() + messages.sum::<usize>()
}

/// Calls that are sent together.
#[derive(Default)]
struct Batch {
    calls: Vec<QueuedCall>,
    operations: usize,
    bytes: usize,
}

impl Batch {
    fn has_room_for(&self, call: &QueuedCall) -> bool {
        let fits = || {
            !self.calls[0].is_sent_alone
                && !call.is_sent_alone
                && self.operations + call.operations.len() <= BATCH_OPERATIONS
                && self.bytes + call.bytes() <= BATCH_BYTES
        };
        self.calls.is_empty() || fits()
    }

    fn push(&mut self, call: QueuedCall) {
        self.operations += call.operations.len();
        self.bytes += call.bytes();
        self.calls.push(call);
    }
}

/// Largest batch of calls that prefer the slot, if that is more than its share. In a pipeline
/// of that size, each call costs little more than its own work.
const PREFERRED: usize = 32;
/// Most operations in a pipeline of more than one call.
const BATCH_OPERATIONS: usize = 128;
/// Most bytes of session ids and messages in a pipeline of more than one call.
const BATCH_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use session_memory_core::operation::Action;

    /// A queue of calls, each with the slot that it prefers and whether it is sent on its own.
    fn queue(calls: &[(usize, bool)]) -> Queue {
        let mut queue = Queue::default();
        for (slot, is_sent_alone) in calls {
            let call = QueuedCall {
                number: queue.take_number(),
                operations: vec![Operation {
                    session_id: String::new(),
                    action: Action::Count,
                }],
                slot: *slot,
                was_passed_over: false,
                is_sent_alone: *is_sent_alone,
                response: oneshot::channel().0,
                runtime: Handle::current(),
            };
            queue.push(call);
        }
        queue
    }

    fn numbers(calls: &[QueuedCall]) -> Vec<u64> {
        calls.iter().map(|call| call.number).collect()
    }

    #[tokio::test]
    async fn a_slot_takes_the_calls_that_prefer_it() {
        let mut queue = queue(&[0, 1, 0, 1, 1, 0].map(|slot| (slot, false)));
        assert_eq!(numbers(&queue.next_batch(1, 2)), [1, 3, 4]);
        assert_eq!(numbers(queue.calls.make_contiguous()), [0, 2, 5]);
        assert_eq!(numbers(&queue.next_batch(0, 2)), [0, 2, 5]);
        assert!(queue.next_batch(0, 2).is_empty());
    }

    #[tokio::test]
    async fn a_call_is_passed_over_once() {
        let mut queue = queue(&[0, 1, 0, 1, 0].map(|slot| (slot, false)));
        assert_eq!(numbers(&queue.next_batch(1, 2)), [1, 3]);
        assert_eq!(numbers(&queue.next_batch(1, 2)), [0, 2]);
        assert_eq!(numbers(&queue.next_batch(1, 2)), [4]);
    }

    #[tokio::test]
    async fn a_slot_that_none_prefers_takes_its_share() {
        let mut queue = queue(&[(0, false); 5]);
        assert_eq!(numbers(&queue.next_batch(1, 2)), [0, 1, 2]);
        assert_eq!(numbers(&queue.next_batch(1, 2)), [3]);
        assert_eq!(numbers(&queue.next_batch(1, 2)), [4]);
    }

    #[tokio::test]
    async fn a_slot_that_all_prefer_leaves_the_others_their_share() {
        let mut all = queue(&[(0, false); 100]);
        assert_eq!(all.next_batch(0, 2).len(), 50);
        assert_eq!(all.next_batch(1, 2).len(), 25);
        assert_eq!(all.next_batch(0, 2).len(), 25);
        let mut few = queue(&[(0, false); PREFERRED]);
        assert_eq!(few.next_batch(0, 2).len(), PREFERRED);
    }

    #[tokio::test]
    async fn calls_sent_on_their_own_keep_their_place() {
        let calls = [(0, false), (1, true), (0, true), (0, false), (1, false)];
        let mut queue = queue(&calls);
        assert_eq!(numbers(&queue.next_batch(0, 2)), [0]);
        assert_eq!(numbers(&queue.next_batch(0, 2)), [2]);
        // It was passed over by call 2.
        assert_eq!(numbers(&queue.next_batch(0, 2)), [1]);
        assert_eq!(numbers(&queue.next_batch(0, 2)), [3]);
        assert_eq!(numbers(&queue.next_batch(0, 2)), [4]);
    }
}
