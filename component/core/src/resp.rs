//! RESP, the Redis serialization protocol: commands as bytes, and bytes as replies.

mod buffer;
mod command;
mod error_reply;
mod reader;
mod reply;

pub use buffer::ReplyBuffer;
pub use command::{Commands, decimal};
pub use error_reply::is_refusal;
pub use reader::{ReplyReader, Scan};
pub use reply::{ELEMENT_COST, Received, Replies, Reply};
