//! `get`: the messages of a session (`LRANGE`).

use super::outcome::Outcome;
use super::paging::{Paging, ReadMode};
use super::procedure::{Effect, Procedure, Progress, Session};
use crate::error::Error;
use crate::message::Messages;
use crate::resp::{Commands, Replies};
use crate::store::StoredSession;

/// Reads the messages of a session.
pub struct Get(Paging);

impl Get {
    /// Reads the last `limit` messages, or all of them.
    pub fn new(limit: Option<u32>, read_mode: ReadMode) -> Get {
        Get(Paging::new(limit, read_mode))
    }
}

impl Procedure for Get {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn request(&self, session: Session<'_>, commands: &mut Commands) {
        self.0.request(session.key, commands);
    }

    fn response(&mut self, replies: Replies<'_>) -> Result<Progress, Error> {
        let read = self.0.response(replies);
        Ok(match self.0.or_smaller_page(read)? {
            Some(read) => Progress::Done(Outcome::Messages(read.messages)),
            None => Progress::NeedsMore,
        })
    }

    fn reply_was_cut(&mut self, bytes: usize) -> Result<(), Error> {
        self.0.reply_was_cut(bytes)
    }

    fn run_in_memory(
        &mut self,
        session: &mut StoredSession<'_>,
    ) -> Result<Outcome<Messages>, Error> {
        let (messages, _) = session.read(self.0.limit())?;
        Ok(Outcome::Messages(messages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::*;
    use crate::operation::Action;
    use crate::options::Options;

    #[test]
    fn a_limit_reads_the_end_of_the_list() {
        let settings = settings(Options::default());
        for (limit, expected) in [
            (None, "LRANGE k 0 -1\n"),
            (Some(0), "LRANGE k 1 0\n"),
            (Some(10), "LRANGE k -10 -1\n"),
        ] {
            let procedure = start(&Action::Get(limit), &settings);
            assert_eq!(request(&*procedure, &settings), expected);
            assert_eq!(procedure.effect(), Effect::Reads);
        }
    }
}
