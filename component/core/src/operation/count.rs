//! `count`: the number of entries in a session (`LLEN`).

use super::outcome::Outcome;
use super::procedure::{Effect, Procedure, Progress, Session};
use crate::error::Error;
use crate::message::Messages;
use crate::resp::{Commands, Replies};
use crate::store::StoredSession;

/// Counts the entries of a session.
pub struct Count;

impl Procedure for Count {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn request(&self, session: Session<'_>, commands: &mut Commands) {
        commands.push(&[b"LLEN", session.key.as_bytes()]);
    }

    fn response(&mut self, replies: Replies<'_>) -> Result<Progress, Error> {
        Ok(Progress::Done(Outcome::Length(replies.last()?.length()?)))
    }

    fn run_in_memory(
        &mut self,
        session: &mut StoredSession<'_>,
    ) -> Result<Outcome<Messages>, Error> {
        Ok(Outcome::Length(session.length()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::*;
    use crate::operation::Action;
    use crate::options::Options;

    #[test]
    fn entries_are_counted() {
        let settings = settings(Options::default());
        for action in [Action::Count, Action::AddAll(Vec::new())] {
            let mut procedure = start(&action, &settings);
            assert_eq!(request(&*procedure, &settings), "LLEN k\n");
            assert_eq!(procedure.effect(), Effect::Reads);
            let progress = respond(&mut *procedure, 1, ":4294967295\r\n");
            assert_eq!(progress, Ok(Progress::Done(Outcome::Length(u32::MAX))));
        }
    }
}
