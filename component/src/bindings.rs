//! What the component model and the target need: the generated bindings, and where the
//! host puts what it hands over; the panic handler.

#![allow(unsafe_code, reason = "generated code, and the ABI that it relies on")]
#![allow(missing_docs, reason = "wit/ documents the contract")]

use alloc::alloc::{alloc, realloc};
use alloc::vec::Vec;
use core::alloc::Layout;
use core::cell::{RefCell, RefMut};
use core::mem::MaybeUninit;
use core::ptr::{null_mut, slice_from_raw_parts_mut};

use crate::abi::allocator::Allocator;
use crate::transport::socket::Handles;
use crate::wasi::clock::Alarm;
use session_memory_core::ids::Ids;

use session_memory_core::recent::RecentAppends;
use session_memory_core::store::Store;
use wasi::io::error::Error;
use wasi::io::streams::{InputStream, StreamError};

wit_bindgen::generate!({
    world: "provider",
    path: "../wit",
    generate_all,
});

/// The sessions of the `in-memory` provider, which all clients share.
pub fn sessions() -> RefMut<'static, Store> {
    SESSIONS.0.borrow_mut()
}

/// What makes the ids of all messages that the instance adds.
pub fn ids() -> RefMut<'static, Ids> {
    IDS.0.borrow_mut()
}

/// The recent appends of the instance.
pub fn recent() -> RefMut<'static, RecentAppends> {
    RECENT.0.borrow_mut()
}

/// What wakes the instance up in time.
pub fn alarm() -> RefMut<'static, Alarm> {
    ALARM.0.borrow_mut()
}

/// Sockets with a write under way, which cannot be dropped yet.
pub fn unsent() -> RefMut<'static, Vec<Handles>> {
    UNSENT.0.borrow_mut()
}

struct Shared<T>(RefCell<T>);

// SAFETY: a component instance has one thread.
unsafe impl<T> Sync for Shared<T> {}

static SESSIONS: Shared<Store> = Shared(RefCell::new(Store::new()));
static IDS: Shared<Ids> = Shared(RefCell::new(Ids::new()));
static RECENT: Shared<RecentAppends> = Shared(RefCell::new(RecentAppends::new()));
static ALARM: Shared<Alarm> = Shared(RefCell::new(Alarm::new()));
static UNSENT: Shared<Vec<Handles>> = Shared(RefCell::new(Vec::new()));

#[global_allocator]
static ALLOCATOR: Allocator = Allocator::new();

// memcpy, memcmp and their like.
#[link(name = "c")]
unsafe extern "C" {}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

/// Reads from a stream into a buffer, which has room for `size` bytes more; answers
/// how many came. The generated binding puts them into a place of their own.
///
/// # Errors
///
/// That of `input-stream.read`.
pub fn read(stream: &InputStream, size: usize, buffer: &mut Vec<u8>) -> Result<usize, StreamError> {
    let room = buffer.spare_capacity_mut();
    assert!(size <= room.len());
    LANDING.0.replace(&raw mut *room as *mut [u8]);
    let mut result = MaybeUninit::uninit();
    // SAFETY: the host gives no more than it is asked for, and puts it where it is told
    // to by `cabi_realloc`; then it writes the result.
    let result = unsafe {
        read_stream(stream.handle(), size as u64, result.as_mut_ptr());
        result.assume_init()
    };
    LANDING.0.replace(NOWHERE);
    match result {
        ReadResult::Ok { length, .. } => {
            // SAFETY: so many bytes were written there.
            unsafe { buffer.set_len(buffer.len() + length) };
            Ok(length)
        }
        ReadResult::Err(ReadError::LastOperationFailed(error)) => {
            // SAFETY: the host has just handed it over.
            let error = unsafe { Error::from_handle(error) };
            Err(StreamError::LastOperationFailed(error))
        }
        ReadResult::Err(ReadError::Closed) => Err(StreamError::Closed),
    }
}

#[link(wasm_import_module = "wasi:io/streams@0.2.0")]
unsafe extern "C" {
    #[link_name = "[method]input-stream.read"]
    fn read_stream(stream: u32, size: u64, result: *mut ReadResult);
}

/// `result<list<u8>, stream-error>`, as it lies in memory.
#[allow(dead_code, reason = "the host makes it")]
#[repr(C, u8)]
enum ReadResult {
    Ok { _start: *mut u8, length: usize },
    Err(ReadError),
}

/// `stream-error`.
#[allow(dead_code, reason = "the host makes it")]
#[repr(C, u8)]
enum ReadError {
    LastOperationFailed(u32),
    Closed,
}

/// Where the next value that the host hands over is to lie.
static LANDING: Shared<*mut [u8]> = Shared(RefCell::new(NOWHERE));

const NOWHERE: *mut [u8] = slice_from_raw_parts_mut(null_mut(), 0);

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
    let landing = LANDING.0.replace(NOWHERE);
    if !landing.is_null() {
        assert!(new_size <= landing.len());
        return landing.cast();
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
