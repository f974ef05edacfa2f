//! An allocator that counts, when it is told to: while latencies are measured, it
//! costs every contender one predicted branch.

// An allocator cannot be written without.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What was asked for.
#[derive(Clone, Copy)]
pub struct Allocations {
    /// How often memory was asked for.
    pub count: u64,
    /// How much together.
    pub bytes: u64,
}

/// Counts from now on.
pub fn count() {
    COUNT.store(0, Relaxed);
    BYTES.store(0, Relaxed);
    COUNTS.store(true, Relaxed);
}

/// Counts no more, and answers what was counted.
pub fn counted() -> Allocations {
    COUNTS.store(false, Relaxed);
    Allocations {
        count: COUNT.load(Relaxed),
        bytes: BYTES.load(Relaxed),
    }
}

static COUNTS: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn asked_for(bytes: usize) {
    if COUNTS.load(Relaxed) {
        COUNT.fetch_add(1, Relaxed);
        BYTES.fetch_add(bytes as u64, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator, which keeps the promises of the trait.
// To count allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        asked_for(layout.size());
        // SAFETY: the caller promises the system's allocator what it promises this one.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        asked_for(layout.size());
        // SAFETY: the caller promises the system's allocator what it promises this one.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        asked_for(size);
        // SAFETY: the block comes from the system's allocator, as every block does here. The
        // caller promises the rest.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the block comes from the system's allocator, as every block does here. The
        // caller promises the rest.
        unsafe { System.dealloc(pointer, layout) }
    }
}
