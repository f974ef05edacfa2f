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

/// As many strings as are asked for, all of the same bytes in memory: an answer
/// that is many times larger than the guest.
pub fn overlapping(count: usize, size: usize) -> Vec<String> {
    let text = alloc::vec![b'x'; size].leak();
    let copy = |_| {
        // SAFETY: none. They are freed more than once, if it ever comes to that.
        unsafe { String::from_raw_parts(text.as_mut_ptr(), size, size) }
    };
    (0..count).map(copy).collect()
}

/// A string whose bytes are outside of the guest's memory.
pub fn out_of_bounds() -> String {
    // SAFETY: none.
    unsafe {
        String::from_raw_parts(
            core::ptr::without_provenance_mut(0xffff_0000),
            0xffff,
            0xffff,
        )
    }
}

/// A string that is not UTF-8.
pub fn not_utf8() -> String {
    // SAFETY: none.
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

// memcpy, memcmp and their like.
#[link(name = "c")]
unsafe extern "C" {}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    trap()
}

/// Where the host puts values that it hands over.
///
/// # Safety
///
/// The canonical ABI calls it with what it got from it before, or with null.
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
    // SAFETY: sizes and alignment are those of the canonical ABI.
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
