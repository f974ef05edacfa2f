//! The memory that a thread allocates.

#![allow(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The most bytes that were on the heap at once while `run` ran, beyond those that
/// were there before.
pub fn most(run: impl FnOnce()) -> usize {
    let before = HELD.get();
    MOST.set(before);
    run();
    MOST.get().saturating_sub(before)
}

struct CountingHeap;

// `realloc` is the default one: the old and the new place are held at once.
//
// SAFETY: every call goes to the system's allocator, which keeps the promises of the trait.
// To count allocates nothing, because the counters are constants at first.
unsafe impl GlobalAlloc for CountingHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get() + layout.size());
        MOST.set(MOST.get().max(HELD.get()));
        // SAFETY: the caller promises the system's allocator what it promises this one.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // What another thread has allocated may end here.
        HELD.set(HELD.get().saturating_sub(layout.size()));
        // SAFETY: the block comes from the system's allocator, as every block does here. The
        // caller promises the rest.
        unsafe { System.dealloc(place, layout) }
    }
}

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: CountingHeap = CountingHeap;
