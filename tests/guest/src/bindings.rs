//! The generated bindings, the allocator, the panic handler, as the component has
//! them; and values that only a hostile guest makes.

#![allow(unsafe_code, reason = "generated code, the ABI, and what breaks it")]
#![allow(missing_docs, reason = "wit/ documents the contract")]

extern crate alloc;

use alloc::alloc::{alloc, realloc};
use alloc::string::String;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::mem;

use crate::misdeeds::Guest;

wit_bindgen::generate!({
    world: "provider",
    path: "../../wit",
    generate_all,
});

export!(Guest with_types_in self);

pub use exports::edge::session_memory as contract;

/// Returns this many strings that share the same bytes in memory: a result that is many
/// times larger than the guest.
pub fn overlapping(count: usize, size: usize) -> Vec<String> {
    let text = alloc::vec![b'x'; size].leak();
    let copy = |_| {
        // SAFETY: that the strings share their bytes breaks the rules, which is the point.
        // Nothing writes to the bytes, and the host is to refuse the result before the
        // strings are freed.
        unsafe { String::from_raw_parts(text.as_mut_ptr(), size, size) }
    };
    (0..count).map(copy).collect()
}

/// Returns a string whose bytes are outside of the guest's memory.
pub fn out_of_bounds() -> String {
    // SAFETY: the string breaks the rules, which is the point. The guest never reads it, and
    // the host is to refuse the result before the string is freed.
    unsafe {
        String::from_raw_parts(
            core::ptr::without_provenance_mut(0xffff_0000),
            0xffff,
            0xffff,
        )
    }
}

/// Returns a string that is not UTF-8.
pub fn not_utf8() -> String {
    // SAFETY: the string breaks the rules, which is the point. The guest never reads it as
    // text, and bytes of any kind can be freed.
    unsafe { String::from_utf8_unchecked([0xff; 4].to_vec()) }
}

/// Takes memory until there is none, and writes to all of it.
pub fn grow() -> ! {
    loop {
        mem::forget(alloc::vec![1u8; 1 << 20]);
    }
}

pub fn trap() -> ! {
    core::arch::wasm32::unreachable()
}

#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

// `memcpy`, `memcmp` and their like.
#[link(name = "c")]
unsafe extern "C" {}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    trap()
}

/// Returns a place for a value that the host hands over.
///
/// # Safety
///
/// `old` is null, with a size of 0, or a block that this function has returned, with the
/// size and the alignment that it was asked for.
#[unsafe(no_mangle)]
unsafe extern "C" fn cabi_realloc(
    old: *mut u8,
    old_size: usize,
    align: usize,
    new_size: usize,
) -> *mut u8 {
    if new_size == 0 {
        return core::ptr::without_provenance_mut(align);
    }
    // SAFETY: the ABI asks for alignments that are powers of two, and for sizes that fit
    // into 32 bits of memory with them. A block of a size other than 0 comes from the
    // global allocator, with the old size and this alignment. The new size is not 0.
    let new = unsafe {
        if old_size == 0 {
            alloc(Layout::from_size_align_unchecked(new_size, align))
        } else {
            realloc(
                old,
                Layout::from_size_align_unchecked(old_size, align),
                new_size,
            )
        }
    };
    if new.is_null() {
        trap();
    }
    new
}
