//! The allocator: talc, with small blocks kept aside when they are freed. An operation
//! asks for some dozen of them, and the next operation for the same again: there is no
//! gap to be merged with another and split again in between.

#![allow(unsafe_code, reason = "an allocator is an unsafe trait")]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::ptr::null_mut;

use talc::wasm::{WasmDynamicTalc, new_wasm_dynamic_allocator};

/// Talc, and for each size the small blocks that are free.
pub struct Allocator {
    talc: WasmDynamicTalc,
    /// Each list is linked through the blocks themselves. Blocks stay in it: they are
    /// no more than there were in use at one time.
    free: [Cell<*mut Block>; SIZES],
}

struct Block {
    next: *mut Block,
}

// SAFETY: a component instance has one thread.
unsafe impl Sync for Allocator {}

impl Allocator {
    /// With no block aside.
    pub const fn new() -> Allocator {
        Allocator {
            talc: new_wasm_dynamic_allocator(),
            free: [const { Cell::new(null_mut()) }; SIZES],
        }
    }

    /// The list of blocks that serve this layout, and the layout that they have; none if
    /// they would be large.
    fn small(&self, layout: Layout) -> Option<(&Cell<*mut Block>, Layout)> {
        let size = layout.size().div_ceil(STEP);
        let free = self.free.get(size)?;
        let is_aligned = layout.align() <= ALIGNMENT;
        let layout = Layout::from_size_align(size * STEP, ALIGNMENT).ok()?;
        is_aligned.then_some((free, layout))
    }
}

// SAFETY: a block is either in one list or in use, and lists hold blocks of one layout,
// which is at least the one that is asked for.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((free, layout)) = self.small(layout) else {
            return unsafe { self.talc.alloc(layout) };
        };
        let block = free.get();
        if block.is_null() {
            return unsafe { self.talc.alloc(layout) };
        }
        free.set(unsafe { (*block).next });
        block.cast()
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        let Some((free, _)) = self.small(layout) else {
            return unsafe { self.talc.dealloc(place, layout) };
        };
        let block: *mut Block = place.cast();
        unsafe { block.write(Block { next: free.get() }) };
        free.set(block);
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(new_layout) = Layout::from_size_align(size, layout.align()) else {
            return null_mut();
        };
        match (self.small(layout), self.small(new_layout)) {
            (Some((_, old)), Some((_, new))) if old == new => place,
            (None, None) => unsafe { self.talc.realloc(place, layout, size) },
            _ => unsafe {
                let new = self.alloc(new_layout);
                if !new.is_null() {
                    new.copy_from_nonoverlapping(place, size.min(layout.size()));
                    self.dealloc(place, layout);
                }
                new
            },
        }
    }
}

/// Sizes of small blocks: 1 to 32 steps. None has a size of 0.
const SIZES: usize = 33;
/// Bytes.
const STEP: usize = 16;
/// Of every small block.
const ALIGNMENT: usize = 8;
