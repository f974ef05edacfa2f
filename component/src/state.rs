//! The state of a component instance, which all clients share.

use alloc::vec::Vec;
use core::cell::RefMut;

use session_memory_core::ids::Ids;
use session_memory_core::recent::RecentAppends;
use session_memory_core::store::Store;

use crate::abi::single_threaded::SingleThreaded;
use crate::wasi::clock::Alarm;
use crate::wasi::tcp::TcpStream;

/// The sessions of the `in-memory` provider.
pub fn store() -> RefMut<'static, Store> {
    STORE.borrow_mut()
}

/// The ids of the messages that the instance adds.
pub fn ids() -> RefMut<'static, Ids> {
    IDS.borrow_mut()
}

/// The recent appends of the instance.
pub fn recent_appends() -> RefMut<'static, RecentAppends> {
    RECENT_APPENDS.borrow_mut()
}

/// The alarm that ends waits.
pub fn alarm() -> RefMut<'static, Alarm> {
    ALARM.borrow_mut()
}

/// Connections to close when their peers have taken all bytes.
pub fn unsent() -> RefMut<'static, Vec<TcpStream>> {
    UNSENT.borrow_mut()
}

static STORE: SingleThreaded<Store> = SingleThreaded::new(Store::new());
static IDS: SingleThreaded<Ids> = SingleThreaded::new(Ids::new());
static RECENT_APPENDS: SingleThreaded<RecentAppends> = SingleThreaded::new(RecentAppends::new());
static ALARM: SingleThreaded<Alarm> = SingleThreaded::new(Alarm::new());
static UNSENT: SingleThreaded<Vec<TcpStream>> = SingleThreaded::new(Vec::new());
