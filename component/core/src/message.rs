//! A message, and the JSON object it is in Redis.
//!
//! An element is what Python's `MemoryClient` writes: an object with the keys
//! `role`, `content`, `timestamp` and, if there is any, `metadata`, in that order.
//! An `id` comes last, if it has one.

mod chunk;
mod decode;
mod encode;
mod in_place;
mod list;
mod timestamp;
mod types;

pub use list::{MessageSpans, Messages, NewestFirst, Span};
pub use timestamp::timestamp;
pub use types::{Message, NewMessage, ParseRoleError, Role};
