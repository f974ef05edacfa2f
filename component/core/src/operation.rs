//! Operations on a session: what a caller asks for, and how each is carried out.
//!
//! Every operation has a file of its own, with its requests and the reading of their
//! replies. Appends have two, one for each [`Delivery`].

mod append_at_most_once;
mod append_exactly_once;
mod clear;
mod count;
mod exists;
mod get;
mod history;
mod paging;
mod procedure;
mod types;

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::error::Error;
use crate::ids::Id;
use crate::message::NewMessage;
use crate::options::{Delivery, Settings};

use append_at_most_once::AppendAtMostOnce;
use append_exactly_once::AppendExactlyOnce;
use clear::Clear;
use count::Count;
use exists::Exists;
use get::Get;
use history::ReadHistory;

pub use append_exactly_once::APPEND;
pub use history::HISTORY;
pub use paging::Reading;
pub use procedure::{Effect, Procedure, Progress, Session, Stamp, Start};
pub use types::{Action, History, Operation, Outcome};

/// Starts to carry out an operation.
///
/// # Errors
///
/// As [`NewMessage::encode`].
pub fn start(
    action: &Action,
    session: Session<'_>,
    start: Start<'_>,
) -> Result<Box<dyn Procedure>, Error> {
    let settings = session.settings;
    let procedure: Box<dyn Procedure> = match action {
        Action::AddAll(messages) if messages.is_empty() => Box::new(Count),
        Action::Add(_) | Action::AddAll(_) => {
            let elements = elements(action.new_messages(), settings, start.stamp)?;
            match settings.delivery {
                Delivery::ExactlyOnce => {
                    let previous = start.stamp.recent.of(session.key);
                    let append = AppendExactlyOnce::new(elements, previous, start.others);
                    Box::new(append)
                }
                Delivery::AtMostOnce => Box::new(AppendAtMostOnce::new(elements, settings)),
            }
        }
        Action::Get(limit) => Box::new(Get::new(*limit, start.reading)),
        Action::History(limit) => {
            Box::new(ReadHistory::new(*limit, start.reading, settings.delivery))
        }
        Action::Clear => Box::new(Clear),
        Action::Exists => Box::new(Exists),
        Action::Count => Box::new(Count),
    };
    Ok(procedure)
}

/// Messages as the elements that are stored.
///
/// # Errors
///
/// As [`NewMessage::encode`].
pub fn elements(
    messages: &[NewMessage],
    settings: &Settings,
    stamp: Stamp<'_>,
) -> Result<Vec<Vec<u8>>, Error> {
    let encode = |message: &NewMessage| {
        let id = match settings.delivery {
            Delivery::ExactlyOnce => Some((stamp.id)()),
            Delivery::AtMostOnce => None,
        };
        let id = id.as_ref().map(Id::as_str);
        message.encode(stamp.timestamp, id, settings.max_message_bytes)
    };
    messages.iter().map(encode).collect()
}
