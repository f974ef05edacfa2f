//! The bytes of a reply. Messages point into them.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Ref, RefCell, RefMut};
use core::ops::Range;

/// The bytes of a reply, shared with the messages that were read from it.
#[derive(Clone, Default)]
pub struct ReplyBuffer(Rc<RefCell<Vec<u8>>>);

impl ReplyBuffer {
    /// Creates a buffer.
    pub fn new(bytes: Vec<u8>) -> ReplyBuffer {
        ReplyBuffer(Rc::new(RefCell::new(bytes)))
    }

    /// Number of bytes.
    pub fn size(&self) -> usize {
        self.0.borrow().len()
    }

    /// The bytes in a range.
    pub fn bytes(&self, range: Range<usize>) -> Ref<'_, [u8]> {
        Ref::map(self.0.borrow(), |bytes| &bytes[range])
    }

    /// Returns all bytes for changes: elements are unescaped in place, and messages that
    /// cannot be read in place are appended.
    pub fn bytes_mut(&self) -> RefMut<'_, Vec<u8>> {
        self.0.borrow_mut()
    }

    /// The address of the first byte. It stays valid until the buffer is changed.
    pub fn address(&self) -> *const u8 {
        self.0.borrow().as_ptr()
    }
}
