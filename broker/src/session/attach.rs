//! What a Hello means: the attach table.
//!
//! | session | the Hello's generation | answer |
//! |---|---|---|
//! | none, or Left | the node's, or none | attached, with the node's generation |
//! | Attached or Silent | the same, or none (a reboot) | attached, not fenced |
//! | Lost | the old one | fenced: the agent wipes, and says Hello without one |
//! | Lost | none | attached, with the raised generation |
//! | any | one that was never given | fenced |
//! | banned, by name or by key | any | told that it is banned: it wipes, and asks rarely |
//!
//! The newest stream wins. More than three changes of instance in a minute are one agent
//! too many under one name: the newest waits, and an operator is told.

use std::time::Duration;

use krb_proto::Generation;

use super::{Alert, KeyHash, Session, SessionState, StreamId};
use crate::clock::Now;

/// The most changes of instance in [`CHANGES_IN`] before the newest waits.
const MAX_CHANGES: usize = 3;
const CHANGES_IN: Duration = Duration::from_secs(60);

/// Who says Hello.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hello {
    /// The node's boot id.
    pub boot_id: String,
    /// The agent's instance.
    pub instance: String,
    /// The generation it last got.
    pub generation: Option<Generation>,
    /// The key of its certificate.
    pub key: Option<KeyHash>,
}

/// The answer to a Hello.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Attach {
    /// The session is attached to this stream.
    Welcome {
        /// What the agent's requests carry from now on.
        generation: Generation,
    },
    /// The agent wipes all it has, and says Hello without a generation.
    Fenced {
        /// The generation that counts.
        generation: Generation,
    },
    /// Too many agents under one name; try later.
    Wait {
        /// Whether this is the first of them to wait: an operator is told.
        first: bool,
    },
    /// The node is banned, or its key is: the agent wipes all it has.
    Banned,
}

impl Session {
    /// Attaches `stream`, or says why not.
    pub fn attach(&mut self, hello: &Hello, stream: StreamId, now: Now) -> Attach {
        if hello.generation.is_some_and(|generation| generation != self.generation) {
            return Attach::Fenced { generation: self.generation };
        }
        if self.instance != hello.instance {
            if !self.agents_are_few(now) {
                return Attach::Wait { first: self.alerts.insert(Alert::ManyAgents) };
            }
            if !self.instance.is_empty() {
                self.changes.push_back(now.boot);
            }
        }
        self.boot_id.clone_from(&hello.boot_id);
        self.instance.clone_from(&hello.instance);
        self.key = hello.key.or(self.key);
        self.is_back();
        self.state = SessionState::Attached;
        self.stream = Some(stream);
        self.last_heard = now.boot;
        self.last_heard_wall = now.wall;
        self.stored_wall = now.wall;
        Attach::Welcome { generation: self.generation }
    }

    /// Whether no more agents come under the node's name than there can be.
    pub(super) fn agents_are_few(&mut self, now: Now) -> bool {
        self.changes.retain(|at| now.boot.since(*at) < CHANGES_IN);
        self.changes.len() < MAX_CHANGES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{Clock, TestClock},
        session::Cause,
    };

    fn hello(instance: &str, generation: Option<u64>) -> Hello {
        Hello {
            boot_id: "boot".to_owned(),
            instance: instance.to_owned(),
            generation: generation.map(Generation),
            key: None,
        }
    }

    fn session(clock: &TestClock) -> Session {
        let mut session = Session::new("node-a".parse().unwrap(), Generation(1), clock.now());
        session.attach(&hello("one", None), StreamId(1), clock.now());
        session
    }

    const WELCOME_1: Attach = Attach::Welcome { generation: Generation(1) };
    const FENCED_2: Attach = Attach::Fenced { generation: Generation(2) };

    #[test]
    fn a_reboot_or_a_restart_that_nobody_noticed_is_not_fenced() {
        let clock = TestClock::default();
        for generation in [None, Some(1)] {
            let mut session = session(&clock);
            let answer = session.attach(&hello("two", generation), StreamId(2), clock.now());
            assert_eq!(answer, WELCOME_1);
            assert_eq!(session.stream, Some(StreamId(2)), "the newest stream wins");
        }
    }

    #[test]
    fn a_lost_node_that_returns_is_fenced_once_and_then_served() {
        let clock = TestClock::default();
        let mut session = session(&clock);
        session.lose(Cause::Silence, clock.now().wall);
        assert_eq!(session.attach(&hello("one", Some(1)), StreamId(2), clock.now()), FENCED_2);
        assert_eq!(session.stream, None);
        let answer = session.attach(&hello("one", None), StreamId(3), clock.now());
        assert_eq!(answer, Attach::Welcome { generation: Generation(2) });
    }

    #[test]
    fn a_generation_that_was_never_given_is_fenced() {
        let clock = TestClock::default();
        let answer = session(&clock).attach(&hello("one", Some(7)), StreamId(2), clock.now());
        assert_eq!(answer, Attach::Fenced { generation: Generation(1) });
    }

    #[test]
    fn many_agents_under_one_name_do_not_take_turns() {
        let clock = TestClock::default();
        let mut session = session(&clock);
        for n in 0..3 {
            let hello = hello(&format!("other-{n}"), Some(1));
            assert_eq!(session.attach(&hello, StreamId(2), clock.now()), WELCOME_1);
        }
        let fourth = hello("fourth", Some(1));
        for first in [true, false] {
            let answer = session.attach(&fourth, StreamId(9), clock.now());
            assert_eq!(answer, Attach::Wait { first });
        }
        assert!(session.alerts.contains(&Alert::ManyAgents));
        clock.advance(Duration::from_secs(61));
        assert_eq!(session.attach(&fourth, StreamId(9), clock.now()), WELCOME_1);
    }
}
