//! What the component model and the target need: the generated bindings, the
//! allocator, the panic handler. All unsafe code is here.

#![allow(unsafe_code, reason = "generated code, and the ABI that it relies on")]
#![allow(missing_docs, reason = "wit/ documents the contract")]

use alloc::alloc::{alloc, realloc};
use core::alloc::Layout;
use core::cell::{RefCell, RefMut};

use crate::in_memory::Sessions;
use crate::random::Ids;
use talc::wasm::{WasmDynamicTalc, new_wasm_dynamic_allocator};

wit_bindgen::generate!({
    world: "provider",
    path: "../wit",
    generate_all,
});

export!(Component with_types_in self);

pub use exports::edge::session_memory as contract;

/// The implementation of the exports, in [`crate::export`].
pub struct Component;

/// The sessions of the `in-memory` provider, which all clients share.
pub fn sessions() -> RefMut<'static, Sessions> {
    SESSIONS.0.borrow_mut()
}

/// What makes the ids of all messages that the instance adds.
pub fn ids() -> RefMut<'static, Ids> {
    IDS.0.borrow_mut()
}

struct Shared<T>(RefCell<T>);

// SAFETY: a component instance has one thread.
unsafe impl<T> Sync for Shared<T> {}

static SESSIONS: Shared<Sessions> = Shared(RefCell::new(Sessions::new()));
static IDS: Shared<Ids> = Shared(RefCell::new(Ids::new()));

#[global_allocator]
static ALLOCATOR: WasmDynamicTalc = new_wasm_dynamic_allocator();

// memcpy, memcmp and their like.
#[link(name = "c")]
unsafe extern "C" {}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

/// Where the host puts values that it hands over. Without std there is none but
/// this one.
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
        core::arch::wasm32::unreachable();
    }
    new
}
