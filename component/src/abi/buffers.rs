//! The memory that the host writes to: arguments of calls, and results of imported
//! functions.
//!
//! The host asks `cabi_realloc` for each place. Bytes that are read from a stream go into the
//! buffer that they are for. The generated binding would put them into a block of their
//! own, from which they would have to be copied.

#![allow(unsafe_code, reason = "the host writes to addresses that it is given")]

use alloc::alloc::{alloc, realloc};
use alloc::vec::Vec;
use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::ptr::{null_mut, slice_from_raw_parts_mut, without_provenance_mut};

use super::layout::{AbiResult, ReadResult, StreamErrorVariant};
use super::single_threaded::SingleThreaded;
use crate::bindings::wasi::io::error::Error;
use crate::bindings::wasi::io::streams::{InputStream, StreamError};

/// Reads up to `size` bytes from a stream to the end of a buffer, which has room for as
/// many. Returns the number of bytes.
///
/// # Errors
///
/// The error of `input-stream.read`.
pub fn read(stream: &InputStream, size: usize, buffer: &mut Vec<u8>) -> Result<usize, StreamError> {
    let room = buffer.spare_capacity_mut();
    assert!(size <= room.len());
    DESTINATION.replace(&raw mut *room as *mut [u8]);
    let mut result = MaybeUninit::uninit();
    // SAFETY: the import has the signature that the ABI gives to `input-stream.read`,
    // and the handle is that of a stream. The host writes the bytes to the place that
    // `cabi_realloc` returns, and the result to `result`, which has its layout.
    let result: ReadResult = unsafe {
        read_stream(stream.handle(), size as u64, result.as_mut_ptr());
        result.assume_init()
    };
    DESTINATION.replace(NO_DESTINATION);
    match result {
        AbiResult::Ok(bytes) => {
            let length = bytes.length as usize;
            // SAFETY: `cabi_realloc` returned the beginning of the room for a list of
            // this length, which it checked to be in the room. The host has written as
            // many bytes there.
            unsafe { buffer.set_len(buffer.len() + length) };
            Ok(length)
        }
        AbiResult::Err(StreamErrorVariant::LastOperationFailed(error)) => {
            // SAFETY: the host has just handed over this resource, and nothing else has
            // the handle.
            let error = unsafe { Error::from_handle(error.0) };
            Err(StreamError::LastOperationFailed(error))
        }
        AbiResult::Err(StreamErrorVariant::Closed) => Err(StreamError::Closed),
    }
}

#[link(wasm_import_module = "wasi:io/streams@0.2.0")]
unsafe extern "C" {
    #[link_name = "[method]input-stream.read"]
    fn read_stream(stream: u32, size: u64, result: *mut ReadResult);
}

/// Where the host writes the next value, in place of a new block.
static DESTINATION: SingleThreaded<*mut [u8]> = SingleThreaded::new(NO_DESTINATION);

const NO_DESTINATION: *mut [u8] = slice_from_raw_parts_mut(null_mut(), 0);

/// Returns memory for a value from the host. `wit-bindgen` provides this function only with
/// the standard library.
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
        return without_provenance_mut(align);
    }
    let destination = DESTINATION.replace(NO_DESTINATION);
    if !destination.is_null() {
        assert!(new_size <= destination.len());
        return destination.cast();
    }
    // SAFETY: the ABI asks for alignments that are powers of two, and for sizes that fit
    // into 32 bits of memory with them. A block of a size other than 0 comes from the
    // global allocator, with the old size and this alignment. The new size is not 0.
    let new = unsafe {
        if old_size == 0 {
            alloc(Layout::from_size_align_unchecked(new_size, align))
        } else {
            let old_layout = Layout::from_size_align_unchecked(old_size, align);
            realloc(old, old_layout, new_size)
        }
    };
    if new.is_null() {
        core::arch::wasm32::unreachable();
    }
    new
}
