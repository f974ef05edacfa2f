//! The `in-memory` provider: sessions in the memory of a component instance, for tests
//! and offline development. It keeps the same contract as the `redis` provider, down to
//! the elements.

use crate::error::Error;
use crate::message::Messages;
use crate::operation::{Action, Operation, Outcome, ReadMode, Session, Stamp, StartContext};
use crate::options::Settings;
use crate::store::Store;

/// Executes an operation. `now` is in nanoseconds of a monotonic clock.
///
/// # Errors
///
/// [`Error::InvalidArgument`] if the session id is empty, [`Error::LimitExceeded`] if the
/// messages to read have more bytes than `max_reply_bytes`, and the errors of
/// [`NewMessage::encode`](crate::message::NewMessage::encode). They name the operation
/// and the session.
pub fn run(
    store: &mut Store,
    settings: &Settings,
    operation: &Operation,
    stamp: Stamp<'_>,
    now: u64,
) -> Result<Outcome<Messages>, Error> {
    let Operation { session_id, action } = operation;
    run_action(store, settings, session_id, action, stamp, now)
        .map_err(|error| error.during(action.name(), session_id))
}

fn run_action(
    store: &mut Store,
    settings: &Settings,
    session_id: &str,
    action: &Action,
    stamp: Stamp<'_>,
    now: u64,
) -> Result<Outcome<Messages>, Error> {
    let key = settings.key(session_id)?;
    let session = Session {
        key: &key,
        settings,
    };
    let context = StartContext {
        stamp,
        read_mode: ReadMode::AtOnce,
        others: 0,
    };
    let mut procedure = action.start(session, context)?;
    procedure.run_in_memory(&mut store.session(&key, settings, now))
}
