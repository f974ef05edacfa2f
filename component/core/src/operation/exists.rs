//! `exists`: whether a session has entries (`LLEN`).

use super::outcome::Outcome;
use super::procedure::{Effect, Procedure, Progress, Session};
use crate::error::Error;
use crate::message::Messages;
use crate::resp::{Commands, Replies};
use crate::store::StoredSession;

/// Checks whether a session has entries. `EXISTS` would find a key of another type as
/// well, which `LLEN` refuses.
pub struct Exists;

impl Procedure for Exists {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn request(&self, session: Session<'_>, commands: &mut Commands) {
        commands.push(&[b"LLEN", session.key.as_bytes()]);
    }

    fn response(&mut self, replies: Replies<'_>) -> Result<Progress, Error> {
        let length = replies.last()?.length()?;
        Ok(Progress::Done(Outcome::Exists(length > 0)))
    }

    fn run_in_memory(
        &mut self,
        session: &mut StoredSession<'_>,
    ) -> Result<Outcome<Messages>, Error> {
        Ok(Outcome::Exists(session.length() > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::*;
    use crate::operation::Action;
    use crate::options::Options;

    #[test]
    fn a_session_exists_if_it_has_entries() {
        let settings = settings(Options::default());
        for (reply, expected) in [(":0\r\n", false), (":2\r\n", true)] {
            let mut procedure = start(&Action::Exists, &settings);
            assert_eq!(request(&*procedure, &settings), "LLEN k\n");
            assert_eq!(procedure.effect(), Effect::Reads);
            let progress = respond(&mut *procedure, 1, reply);
            assert_eq!(progress, Ok(Progress::Done(Outcome::Exists(expected))));
        }
    }
}
