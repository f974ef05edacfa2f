//! Arguments, from the layout of the ABI to the types of the core library.
//!
//! The host puts the texts and lists of an argument into memory that it gets from
//! `cabi_realloc`. From then on they are the component's own: the conversions take over
//! the allocations, and copy no text.

#![allow(unsafe_code, reason = "arguments hold addresses")]

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::ptr;
use core::time::Duration;

use session_memory_core::message::NewMessage;
use session_memory_core::options::{Options, Password};

use super::layout::{AbiList, AbiOption, AbiString, NewMessageRecord, OptionsRecord};

impl<T> AbiList<T> {
    /// Takes over the items.
    ///
    /// # Safety
    ///
    /// The list is an argument that the host has passed, or a part of one, and nothing
    /// has taken it over before.
    pub unsafe fn into_vec(self) -> Vec<T> {
        let items = ptr::with_exposed_provenance_mut(self.address as usize);
        let length = self.length as usize;
        // SAFETY: the host has asked `cabi_realloc` for `length` items of this size and
        // alignment, which allocates them with the global allocator, or returns an
        // aligned address if there are none. The host has written that many items. No
        // one else owns them, since the caller takes them over once.
        unsafe { Vec::from_raw_parts(items, length, length) }
    }
}

impl AbiString {
    /// Takes over the text.
    ///
    /// # Safety
    ///
    /// The same as for [`AbiList::into_vec`].
    pub unsafe fn into_string(self) -> String {
        // SAFETY: the list is the string, of which the caller promises what `into_vec`
        // asks for. A host checks that strings are UTF-8 before it passes them.
        unsafe { String::from_utf8_unchecked(self.0.into_vec()) }
    }
}

impl AbiOption<AbiString> {
    /// Takes over the text, if there is one.
    ///
    /// # Safety
    ///
    /// The same as for [`AbiList::into_vec`].
    pub unsafe fn into_string(self) -> Option<String> {
        let text: Option<AbiString> = self.into();
        // SAFETY: the text is a part of the option, which is an argument that is taken
        // over here.
        text.map(|text| unsafe { text.into_string() })
    }
}

impl OptionsRecord {
    /// Takes over the options at this address.
    ///
    /// # Safety
    ///
    /// The host has passed the address as an argument, and nothing has taken over the
    /// options before.
    pub unsafe fn take(address: u32) -> Options {
        let record = ptr::with_exposed_provenance_mut(address as usize);
        // SAFETY: options have more fields than a function may have parameters, so the
        // host has asked `cabi_realloc` for a block of their size and alignment, which
        // comes from the global allocator. It has written a record there. No one else
        // owns it, since the caller takes it over once.
        let record: Box<OptionsRecord> = unsafe { Box::from_raw(record) };
        // SAFETY: the record is the argument, and this is the only place that takes it
        // over.
        unsafe { record.into_options() }
    }

    /// Takes over the texts.
    ///
    /// # Safety
    ///
    /// The same as for [`AbiList::into_vec`].
    unsafe fn into_options(self) -> Options {
        let seconds = |count: u32| Duration::from_secs(count.into());
        let milliseconds = |count: u32| Duration::from_millis(count.into());
        let mut options = Options::default();
        // SAFETY: the texts are parts of the record, which is an argument that is taken
        // over here, each text once.
        unsafe {
            options.provider = self.provider.into();
            options.host = self.host.into_string();
            options.port = self.port.into();
            options.username = self.username.into_string();
            options.password = self.password.into_string().map(Password::from);
            options.db = self.db.into();
            options.session_ttl = Option::from(self.session_ttl).map(seconds);
            options.ttl_policy = self.ttl_policy.into();
            options.delivery = self.delivery.into();
            options.key_prefix = self.key_prefix.into_string();
            options.connect_timeout = Option::from(self.connect_timeout).map(milliseconds);
            options.connect = self.connect.into();
            options.operation_timeout = Option::from(self.operation_timeout).map(milliseconds);
            options.response_timeout = Option::from(self.response_timeout).map(milliseconds);
            options.max_idle = Option::from(self.max_idle).map(milliseconds);
            options.max_messages = self.max_messages.into();
            options.max_message_bytes = self.max_message_bytes.into();
            options.max_reply_bytes = self.max_reply_bytes.into();
        }
        options
    }
}

impl NewMessageRecord {
    /// Takes over the texts.
    ///
    /// # Safety
    ///
    /// The same as for [`AbiList::into_vec`].
    pub unsafe fn into_message(self) -> NewMessage {
        // SAFETY: the texts are parts of the record, which is an argument that is taken
        // over here, each text once.
        unsafe {
            let mut message = NewMessage::new(self.role, self.content.into_string());
            message.metadata = self.metadata.into_string();
            message
        }
    }
}

impl AbiList<NewMessageRecord> {
    /// Takes over the messages.
    ///
    /// # Safety
    ///
    /// The same as for [`AbiList::into_vec`].
    pub unsafe fn into_messages(self) -> Vec<NewMessage> {
        // SAFETY: the caller promises what `into_vec` asks for.
        let records = unsafe { self.into_vec() };
        // SAFETY: each record is a part of the list, which is an argument that is taken
        // over here, and the iteration reaches it once.
        let message = |record: NewMessageRecord| unsafe { record.into_message() };
        records.into_iter().map(message).collect()
    }
}
