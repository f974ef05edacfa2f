//! What the standard library would provide: the allocator, the functions of the C library
//! that the compiler calls, the panic handler.

#![allow(unsafe_code, reason = "links functions of a C library")]

use super::allocator::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator::new();

// `memcpy`, `memcmp` and similar functions.
#[link(name = "c")]
unsafe extern "C" {}

unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// Calls the constructors of the C library. There are none.
///
/// Unless something calls them, the linker wraps every exported function in calls of the
/// constructors and the destructors.
pub fn call_constructors() {
    // SAFETY: the linker makes this function. It has no parameters and no result, and
    // calls the constructors that are linked, which are none.
    unsafe { __wasm_call_ctors() };
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
