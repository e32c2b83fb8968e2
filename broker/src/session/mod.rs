//! Node sessions: whether a node is there, and which generation of it counts.
//!
//! One heartbeat extends the session and with it every lease of the node; nothing is
//! written per lease. Silence is measured on the boottime clock, and a session that is not
//! heard of for long enough is lost: its generation is raised, and what it held is
//! replaced.
//!
//! [`Session`] and [`attach`] are pure: they take `now` and say what follows. [`sync`] runs
//! the stream, [`watch`] asks all sessions what their silence means, [`hub`] knows which
//! stream a node can be reached by.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use krb_proto::{Generation, NodeName};

use crate::clock::{Boottime, Now};

pub mod attach;
pub mod hub;
pub mod sync;
pub mod watch;

/// The spans that decide a session's life. All are configurable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Times {
    /// Between two heartbeats of an agent.
    pub heartbeat: Duration,
    /// A session that was not heard of for this long is silent: it gets nothing new.
    pub silent_after: Duration,
    /// After this much more it is lost.
    pub lost_after: Duration,
    /// However long nothing else ends a session, this does.
    pub lease_ttl: Duration,
    /// A lease whose volume no agent claims for this long after an attach is released.
    pub unclaimed_after: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            silent_after: Duration::from_secs(40),
            lost_after: Duration::from_secs(300),
            lease_ttl: Duration::from_secs(24 * 3600),
            unclaimed_after: Duration::from_secs(600),
        }
    }
}

/// What a node's session is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum SessionState {
    /// Heard of lately.
    Attached,
    /// Not heard of for a while: nothing is revoked, nothing new is issued.
    Silent,
    /// Given up: its generation has been raised.
    Lost,
    /// Went with nothing in its hands.
    Left,
}

/// One stream of a node; the newest wins.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StreamId(pub u64);

/// What the broker knows of one node's agent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Session {
    /// Which node.
    pub node: NodeName,
    /// Raised when the session is lost.
    pub generation: Generation,
    /// Of the last Hello.
    pub boot_id: String,
    /// Of the last Hello.
    pub instance: String,
    /// What it is.
    pub state: SessionState,
    /// When it was last heard of; a restart of the broker counts as such.
    pub last_heard: Boottime,
    /// The same by the wall clock, never renewed by a restart.
    pub last_heard_wall: SystemTime,
    /// The wall time that the store has; at most a minute behind.
    pub stored_wall: SystemTime,
    /// The stream that counts.
    pub stream: Option<StreamId>,
    /// When the agent's instance changed lately.
    pub changes: VecDeque<Boottime>,
}

/// What a second source says of a node. The file source has none: `NotApplicable`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Witness {
    /// There is no second source: time alone decides.
    NotApplicable,
}

/// What a node's silence means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It was heard of lately.
    Attached,
    /// It is silent, and may come back.
    Silent,
    /// Its time is up.
    Lost,
}

/// How often a session's last heartbeat is written.
const STORE_EVERY: Duration = Duration::from_secs(60);

impl Session {
    /// A session that has just been made.
    pub fn new(node: NodeName, generation: Generation, now: Now) -> Self {
        Self {
            node,
            generation,
            boot_id: String::new(),
            instance: String::new(),
            state: SessionState::Attached,
            last_heard: now.boot,
            last_heard_wall: now.wall,
            stored_wall: now.wall,
            stream: None,
            changes: VecDeque::new(),
        }
    }

    /// What this node's silence means at `now`.
    pub fn judge(&self, now: Now, witness: Witness, times: &Times) -> Verdict {
        let silent_for = now.boot.since(self.last_heard);
        if silent_for < times.silent_after {
            return Verdict::Attached;
        }
        let time_is_up =
            silent_for >= times.silent_after + times.lost_after || silent_for >= times.lease_ttl;
        match witness {
            Witness::NotApplicable if time_is_up => Verdict::Lost,
            Witness::NotApplicable => Verdict::Silent,
        }
    }

    /// The agent was heard of on `stream`. Says whether the wall time is due to be stored.
    ///
    /// # Errors
    /// When the stream is not the one that counts, or the session has ended.
    pub fn heard(&mut self, stream: StreamId, now: Now) -> Result<bool, StaleStream> {
        let attached = matches!(self.state, SessionState::Attached | SessionState::Silent);
        if self.stream != Some(stream) || !attached {
            return Err(StaleStream);
        }
        self.last_heard = now.boot;
        self.last_heard_wall = now.wall;
        self.state = SessionState::Attached;
        let due = now.wall.duration_since(self.stored_wall).is_ok_and(|age| age >= STORE_EVERY);
        if due {
            self.stored_wall = now.wall;
        }
        Ok(due)
    }

    /// Until when what the node holds may be served without another heartbeat.
    pub fn max_until(&self, times: &Times) -> SystemTime {
        self.last_heard_wall + times.lease_ttl
    }

    /// A whole new grace: after a restart of the broker, or a tick that came late.
    pub fn renew_grace(&mut self, now: Now) {
        self.last_heard = now.boot;
    }

    /// The node is given up: what carries its old generation is refused from now on.
    pub fn lose(&mut self) -> Generation {
        self.state = SessionState::Lost;
        self.generation = self.generation.next();
        self.stream = None;
        self.generation
    }

    /// The node went with nothing in its hands.
    pub fn leave(&mut self) {
        self.state = SessionState::Left;
        self.stream = None;
    }
}

/// Another stream of the node counts, or its session has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the stream no longer counts")]
pub struct StaleStream;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, TestClock};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_slow_node_is_not_a_dead_one() {
        let (clock, times) = (TestClock::default(), Times::default());
        let session = Session::new("node-a".parse().unwrap(), Generation(1), clock.now());
        let judge = |clock: &TestClock| session.judge(clock.now(), Witness::NotApplicable, &times);

        clock.advance(times.silent_after - SECOND);
        assert_eq!(judge(&clock), Verdict::Attached);
        clock.advance(SECOND);
        assert_eq!(judge(&clock), Verdict::Silent);
        clock.advance(times.lost_after - SECOND);
        assert_eq!(judge(&clock), Verdict::Silent);
        clock.advance(SECOND);
        assert_eq!(judge(&clock), Verdict::Lost);
    }

    #[test]
    fn only_the_stream_that_counts_keeps_a_session_alive() {
        let clock = TestClock::default();
        let mut session = Session::new("node-a".parse().unwrap(), Generation(1), clock.now());
        session.stream = Some(StreamId(2));
        assert_eq!(session.heard(StreamId(1), clock.now()), Err(StaleStream));
        assert_eq!(session.heard(StreamId(2), clock.now()), Ok(false));
        session.lose();
        assert_eq!(session.heard(StreamId(2), clock.now()), Err(StaleStream));
        assert_eq!(session.generation, Generation(2));
    }

    #[test]
    fn a_heartbeat_is_stored_once_a_minute() {
        let clock = TestClock::default();
        let mut session = Session::new("node-a".parse().unwrap(), Generation(1), clock.now());
        session.stream = Some(StreamId(1));
        let mut stored = 0;
        for _ in 0..30 {
            clock.advance(10 * SECOND);
            stored += u32::from(session.heard(StreamId(1), clock.now()).unwrap());
        }
        assert_eq!(stored, 5);
    }
}
