//! Each operation, with the messages of its session before and after.

use session_memory_host::{Action, Delivery, Error, NewMessage, Outcome, Role, SessionMemory};

use super::operation;

pub const SCENARIOS: [Scenario; 8] = [
    Scenario::Add,
    Scenario::AddAll,
    Scenario::Turn,
    Scenario::Get,
    Scenario::History,
    Scenario::Clear,
    Scenario::Exists,
    Scenario::Count,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    Add,
    AddAll,
    /// A pipeline that adds a message and gets the last messages.
    Turn,
    Get,
    History,
    Clear,
    Exists,
    Count,
}

impl Scenario {
    /// The messages in the session before.
    pub fn before(self) -> &'static [&'static str] {
        match self {
            Scenario::Add | Scenario::AddAll | Scenario::Turn => &[],
            _ => &["one", "two"],
        }
    }

    /// The messages in the session when the operation has been applied.
    pub fn after(self) -> &'static [&'static str] {
        match self {
            Scenario::Add | Scenario::Turn => &["new"],
            Scenario::AddAll => &["first", "second", "third"],
            Scenario::Clear => &[],
            _ => self.before(),
        }
    }

    pub fn appends(self) -> bool {
        matches!(self, Scenario::Add | Scenario::AddAll | Scenario::Turn)
    }

    pub fn writes(self) -> bool {
        self.appends() || self == Scenario::Clear
    }

    /// Whether the operation may be sent again when its reply is lost.
    pub fn is_repeatable(self, delivery: Delivery) -> bool {
        match self {
            Scenario::Clear => false,
            scenario => !scenario.appends() || delivery == Delivery::ExactlyOnce,
        }
    }

    /// The variant of the error when the server never replies.
    pub fn error_without_reply(self) -> &'static str {
        if self.writes() {
            "outcome-unknown"
        } else {
            "timeout"
        }
    }

    /// Runs the operation. Returns whether its result is the right one.
    pub async fn run(self, memory: &SessionMemory, session: &str) -> Result<bool, Error> {
        Ok(match self {
            Scenario::Add => memory.add(session, Role::User, "new", None).await? == 1,
            Scenario::AddAll => {
                let contents = self.after().iter();
                let messages = contents.map(|content| NewMessage::assistant(*content));
                let messages: Vec<_> = messages.collect();
                memory.add_all(session, messages).await? == 3
            }
            Scenario::Turn => {
                let turn = [
                    operation(session, Action::Add(NewMessage::user("new"))),
                    operation(session, Action::Get(Some(10))),
                ];
                let mut results = memory.pipeline(&turn).await?.into_iter();
                let (added, got) = (results.next().unwrap()?, results.next().unwrap()?);
                let Outcome::Messages(messages) = got else {
                    panic!("{got:?}");
                };
                added == Outcome::Length(1) && messages.iter().map(|m| &m.content).eq(self.after())
            }
            Scenario::Get => {
                let messages = memory.get(session, None).await?;
                messages.iter().map(|m| &m.content).eq(self.before())
            }
            Scenario::History => {
                let history = memory.history(session, None).await?;
                let ttl = history.ttl.is_some_and(|ttl| ttl.as_secs() <= 3600);
                history
                    .messages
                    .iter()
                    .map(|m| &m.content)
                    .eq(self.before())
                    && (history.total, history.skipped, ttl) == (2, 0, true)
            }
            Scenario::Clear => memory.clear(session).await.map(|()| true)?,
            Scenario::Exists => memory.exists(session).await?,
            Scenario::Count => memory.count(session).await? == 2,
        })
    }
}
