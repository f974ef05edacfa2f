//! `clear`: deletes a session (`LTRIM`).

use alloc::borrow::ToOwned;

use super::outcome::Outcome;
use super::procedure::{Effect, Procedure, Progress, Session};
use crate::error::Error;
use crate::message::Messages;
use crate::resp::{Commands, Replies};
use crate::store::StoredSession;

/// Deletes a session. `LTRIM` to an empty range deletes a list and refuses a key of
/// another type, which `DEL` would delete.
pub struct Clear;

impl Procedure for Clear {
    fn effect(&self) -> Effect {
        Effect::Clears
    }

    fn request(&self, session: Session<'_>, commands: &mut Commands) {
        commands.push(&[b"LTRIM", session.key.as_bytes(), b"1", b"0"]);
    }

    fn response(&mut self, replies: Replies<'_>) -> Result<Progress, Error> {
        match &*replies.last()?.simple_string()? {
            b"OK" => Ok(Progress::Done(Outcome::Cleared)),
            _ => Err(Error::Protocol("the reply to LTRIM is not OK".to_owned())),
        }
    }

    fn run_in_memory(
        &mut self,
        session: &mut StoredSession<'_>,
    ) -> Result<Outcome<Messages>, Error> {
        session.clear();
        Ok(Outcome::Cleared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::*;
    use crate::operation::Action;
    use crate::options::Options;

    #[test]
    fn a_session_is_trimmed_to_nothing() {
        let settings = settings(Options::default());
        for (reply, expected) in [
            ("+OK\r\n", Ok(Progress::Done(Outcome::Cleared))),
            ("-WRONGTYPE x\r\n", Err(Error::from_reply("WRONGTYPE x"))),
            (
                "+QUEUED\r\n",
                Err(Error::protocol("the reply to LTRIM is not OK")),
            ),
        ] {
            let mut procedure = start(&Action::Clear, &settings);
            assert_eq!(request(&*procedure, &settings), "LTRIM k 1 0\n");
            assert_eq!(procedure.effect(), Effect::Clears);
            assert_eq!(respond(&mut *procedure, 1, reply), expected);
        }
    }
}
