//! Mutable statics.

#![allow(
    unsafe_code,
    reason = "the target has no threads, which the compiler cannot know"
)]

use core::cell::{RefCell, RefMut};

/// A value that is shared by all calls of an instance.
pub struct SingleThreaded<T>(RefCell<T>);

// SAFETY: `Sync` is about references that several threads share. The target has no
// threads, so that an instance has one.
unsafe impl<T> Sync for SingleThreaded<T> {}

impl<T> SingleThreaded<T> {
    /// Creates a value.
    pub const fn new(value: T) -> SingleThreaded<T> {
        SingleThreaded(RefCell::new(value))
    }

    /// Borrows the value.
    pub fn borrow_mut(&self) -> RefMut<'_, T> {
        self.0.borrow_mut()
    }

    /// Replaces the value, and returns the previous one.
    pub fn replace(&self, value: T) -> T {
        self.0.replace(value)
    }
}
