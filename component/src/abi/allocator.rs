//! The allocator: talc, with a source of memory that grows as the memory of an instance does.
//!
//! Memory begins with the pages that the instance has anyway, and grows at its end. The
//! last block grows in place with it: a reply that is received piece by piece is in memory
//! once, not twice.

#![allow(unsafe_code, reason = "an allocator is an unsafe trait")]

use core::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32::{memory_grow, memory_size};
use core::cell::UnsafeCell;
use core::ptr::{self, NonNull, null_mut};

use talc::base::binning::Binning;
use talc::base::{CHUNK_UNIT, Talc};
use talc::source::Source;
use talc::wasm::WasmBinning;

/// Talc on the linear memory of an instance.
pub struct Allocator {
    talc: UnsafeCell<Talc<LinearMemory, WasmBinning>>,
}

// SAFETY: `Sync` is about references that several threads share. The target has no
// threads, so that an instance has one.
unsafe impl Sync for Allocator {}

impl Allocator {
    /// Creates an allocator. It takes memory for the first block.
    pub const fn new() -> Allocator {
        Allocator {
            talc: UnsafeCell::new(Talc::new(LinearMemory { end: None })),
        }
    }

    /// Makes a block larger or smaller where it is, if it can.
    ///
    /// # Safety
    ///
    /// The same as for [`GlobalAlloc::realloc`], and talc has allocated the block with
    /// this layout.
    unsafe fn resize(&self, place: *mut u8, layout: Layout, size: usize) -> bool {
        // SAFETY: no other reference to talc exists, because there is one thread and talc
        // calls nothing that allocates.
        let talc = unsafe { &mut *self.talc.get() };
        // SAFETY: the caller promises that talc has allocated the block with this layout,
        // and that the new size is not 0 and not too large.
        unsafe {
            talc.try_realloc_in_place(place, layout, size)
                || LinearMemory::grow_behind(talc, place, layout, size)
                    && talc.try_realloc_in_place(place, layout, size)
        }
    }
}

// SAFETY: talc keeps what the trait asks for, and `realloc` keeps the contents.
unsafe impl GlobalAlloc for Allocator {
    // Inlined wherever it is called, it would take 4 KB of the component.
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: no other reference to talc exists, because there is one thread and talc
        // calls nothing that allocates. The caller promises that the size is not 0.
        let block = unsafe { (*self.talc.get()).allocate(layout) };
        block.map_or(null_mut(), NonNull::as_ptr)
    }

    #[inline(never)]
    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: no other reference to talc exists, because there is one thread and talc
        // calls nothing that allocates. The caller gives up a block of this layout.
        unsafe { (*self.talc.get()).deallocate(place, layout) };
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(new_layout) = Layout::from_size_align(size, layout.align()) else {
            return null_mut();
        };
        // SAFETY: the caller promises that the block was allocated with `layout` and that
        // the new size is not 0. The new block is another one, and both have at least the
        // smaller of the two sizes.
        unsafe {
            if self.resize(place, layout, size) {
                return place;
            }
            let new = self.alloc(new_layout);
            if !new.is_null() {
                new.copy_from_nonoverlapping(place, size.min(layout.size()));
                self.dealloc(place, layout);
            }
            new
        }
    }
}

/// The memory of the instance, behind the data that the linker has placed.
#[derive(Debug)]
struct LinearMemory {
    /// End of the memory that talc manages.
    end: Option<NonNull<u8>>,
}

// SAFETY: `acquire` calls talc and the instructions for memory, none of which allocate.
unsafe impl Source for LinearMemory {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let Some(end) = talc.source.end else {
            // Grows by a page only if the initial memory is too small even for talc's own data.
            let base = (&raw const __heap_base).cast_mut();
            let claim = |talc: &mut Talc<Self, B>| {
                // SAFETY: the memory behind the data that the linker has placed is the
                // heap, which nothing else uses.
                unsafe { talc.claim(base, memory_size::<0>() * PAGE - base.addr()) }
            };
            talc.source.end = claim(talc).or_else(|| {
                memory_grow::<0>(1);
                claim(talc)
            });
            return talc.source.end.map(drop).ok_or(());
        };
        // SAFETY: `end` is the end of the memory that talc has claimed.
        let used = unsafe { talc.reserved(end) }.up_to;
        let free = end.addr().get() - used.addr().get();
        let missing = (layout.size() + layout.align()).saturating_sub(free);
        LinearMemory::grow(talc, end, missing)
    }
}

impl LinearMemory {
    /// Grows the memory behind a block, if it is the last one, so that the block can have
    /// this size.
    ///
    /// # Safety
    ///
    /// The same as for [`GlobalAlloc::realloc`].
    unsafe fn grow_behind<B: Binning>(
        talc: &mut Talc<Self, B>,
        place: *mut u8,
        layout: Layout,
        size: usize,
    ) -> bool {
        let Some(end) = talc.source.end else {
            return false;
        };
        // SAFETY: `end` is the end of the memory that talc has claimed.
        let used = unsafe { talc.reserved(end) }.up_to;
        let is_last = used.addr().get() - place.addr() < layout.size() + 2 * CHUNK_UNIT;
        let missing = size.saturating_sub(end.addr().get() - place.addr());
        is_last && LinearMemory::grow(talc, end, missing).is_ok()
    }

    /// Grows the memory by this many bytes behind `end`, and by what talc itself needs.
    fn grow<B: Binning>(
        talc: &mut Talc<Self, B>,
        end: NonNull<u8>,
        bytes: usize,
    ) -> Result<(), ()> {
        let pages = (bytes + 2 * CHUNK_UNIT).div_ceil(PAGE);
        let before = memory_grow::<0>(pages);
        if before == usize::MAX {
            return Err(());
        }
        // One byte less: at 4 GiB the end would wrap around to 0.
        let last = (before + pages).wrapping_mul(PAGE).wrapping_sub(1);
        let new_end = ptr::without_provenance_mut(last);
        // SAFETY: `end` is the end of the memory that talc has claimed. Nothing else makes
        // memory grow, so the new pages follow it, and nothing else uses them.
        talc.source.end = Some(unsafe { talc.extend(end, new_end) });
        Ok(())
    }
}

unsafe extern "C" {
    /// End of the data that the linker has placed.
    static __heap_base: u8;
}

/// Bytes by which memory grows.
const PAGE: usize = 64 * 1024;
