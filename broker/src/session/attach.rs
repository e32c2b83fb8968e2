//! What a Hello means: the attach table.
//!
//! | session | the Hello's generation | answer |
//! |---|---|---|
//! | none, or Left | the node's, or none | attached, with the node's generation |
//! | Attached or Silent | the same, or none (a reboot) | attached, not fenced |
//! | Lost | the old one | fenced: the agent wipes, and says Hello without one |
//! | Lost | none | attached, with the raised generation |
//! | any | one that was never given | fenced |
//! | Attached or Silent, of another Node object | any | waits: what that one held is lost first |
//! | banned, by name or by key | any | told that it is banned: it wipes, and asks rarely |
//!
//! Where the uid of the Node object is known, the session is that object's. A Hello for another
//! object of the same name proves that the first was deleted: its session is lost as by a deletion,
//! past the brake, and only then the newcomer is welcome. A session that had no uid takes it up.
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
    /// The key of its certificate, or its pod's.
    pub key: Option<KeyHash>,
    /// The uid of its Node object, where that is known.
    pub node_uid: Option<String>,
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
    /// The session is another Node object's, which is about to be lost; try soon.
    Replaces {
        /// Whether this is the first Hello of the newcomer.
        first: bool,
    },
    /// The node is banned, or its key is: the agent wipes all it has.
    Banned,
}

impl Session {
    /// Attaches `stream`, or says why not.
    pub fn attach(&mut self, hello: &Hello, stream: StreamId, now: Now) -> Attach {
        if self.is_there() && self.is_anothers(hello) {
            let first = !std::mem::replace(&mut self.replaced, true);
            return Attach::Replaces { first };
        }
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
        self.node_uid = hello.node_uid.clone().or_else(|| self.node_uid.take());
        self.is_back();
        self.state = SessionState::Attached;
        self.stream = Some(stream);
        self.last_heard = now.boot;
        self.last_heard_wall = now.wall;
        self.stored_wall = now.wall;
        Attach::Welcome { generation: self.generation }
    }

    /// Whether the Hello is for another Node object than the session's: once one has come, its
    /// machine is gone.
    fn is_anothers(&self, hello: &Hello) -> bool {
        let differ = |(ours, theirs)| ours != theirs;
        self.replaced || self.node_uid.as_ref().zip(hello.node_uid.as_ref()).is_some_and(differ)
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
            node_uid: None,
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

    fn of_node(uid: &str, generation: Option<u64>) -> Hello {
        Hello { node_uid: Some(uid.to_owned()), ..hello("one", generation) }
    }

    #[test]
    fn a_session_takes_up_the_uid_of_its_node_and_keeps_it() {
        let clock = TestClock::default();
        let mut session = session(&clock);
        for hello in [of_node("a", Some(1)), hello("one", Some(1)), of_node("a", None)] {
            assert_eq!(session.attach(&hello, StreamId(2), clock.now()), WELCOME_1);
            assert_eq!(session.node_uid.as_deref(), Some("a"));
        }
    }

    #[test]
    fn another_node_object_of_the_name_waits_until_the_first_one_is_lost() {
        let (clock, rules) = (TestClock::default(), crate::session::Rules::default());
        let mut session = session(&clock);
        session.attach(&of_node("a", Some(1)), StreamId(2), clock.now());
        for first in [true, false] {
            let answer = session.attach(&of_node("b", None), StreamId(3), clock.now());
            assert_eq!(answer, Attach::Replaces { first });
        }
        assert!(session.heard(StreamId(2), clock.now()).is_err(), "the first one's stream ends");
        let back = session.attach(&of_node("a", Some(1)), StreamId(4), clock.now());
        assert_eq!(back, Attach::Replaces { first: false }, "it does not come back either");
        let verdict = session.judge(clock.now(), super::super::Witness::NodeReady, &rules);
        assert_eq!(verdict, super::super::Verdict::Lost(Cause::NodeDeleted));

        session.lose(Cause::NodeDeleted, clock.now().wall);
        assert_eq!(session.attach(&of_node("b", Some(1)), StreamId(5), clock.now()), FENCED_2);
        let answer = session.attach(&of_node("b", None), StreamId(6), clock.now());
        assert_eq!(answer, Attach::Welcome { generation: Generation(2) });
        assert_eq!(session.node_uid.as_deref(), Some("b"));
    }

    #[test]
    fn who_left_with_empty_hands_is_followed_by_any_machine() {
        let clock = TestClock::default();
        let mut session = session(&clock);
        session.attach(&of_node("a", Some(1)), StreamId(2), clock.now());
        session.leave();
        assert_eq!(session.attach(&of_node("b", None), StreamId(3), clock.now()), WELCOME_1);
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
