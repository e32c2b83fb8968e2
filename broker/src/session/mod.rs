//! Node sessions: whether a node is there, and which generation of it counts.
//!
//! One heartbeat extends the session and with it every lease of the node; nothing is
//! written per lease. Silence is measured on the boottime clock, and a session that is not
//! heard of for long enough is lost: its generation is raised, and what it held is
//! replaced.
//!
//! [`Session`], [`attach`], [`brake`] and [`clock_guard`] are pure: they take `now` and say what
//! follows. [`sync`] runs the stream, [`watch`] asks all sessions what their silence means,
//! [`hub`] knows which stream a node can be reached by, [`witness`] is the seam to a second
//! source, [`eviction`] is a loss by an operator's word, [`aftermath`] what follows a loss.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    time::{Duration, SystemTime},
};

use krb_proto::{Generation, NodeName};

use crate::clock::{Boottime, Now};

pub mod aftermath;
pub mod attach;
pub mod brake;
pub mod clock_guard;
pub mod clock_probe;
pub mod eviction;
pub mod hub;
pub mod pace;
pub mod sync;
pub mod watch;
pub mod witness;

pub use witness::Witness;

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
    /// The key that it last attached with.
    pub key: Option<KeyHash>,
    /// The uid of the Node object that it is the session of, once one was seen.
    pub node_uid: Option<String>,
    /// An agent of another Node object of this name came: this one's machine is gone.
    pub replaced: bool,
    /// When it was last lost; kept when it returns.
    pub last_loss: Option<LastLoss>,
    /// What an operator should look at now.
    pub alerts: BTreeSet<Alert>,
    /// Its time is up, and the brake holds it.
    pub braked: bool,
    /// An operator lets it pass the brake.
    pub brake_released: bool,
}

/// What decides whether a session that is silent is lost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// The spans.
    pub times: Times,
    /// Lose a node that works and whose agent is silent, too.
    pub agent_fault_is_loss: bool,
    /// When too many vanish at once.
    pub brake: brake::Limits,
}

/// Why a session was lost.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Cause {
    /// Its time was up, and no witness spoke against it.
    Silence,
    /// Its Node object was deleted while it was silent, or another has its name now.
    NodeDeleted,
    /// It was not heard of for the whole `lease_ttl`.
    LeaseTtl,
    /// An operator evicted it.
    Evicted {
        /// Who.
        by: String,
    },
    /// An operator banned it.
    Banned {
        /// Who.
        by: String,
    },
    /// The store came up with less than was once committed.
    StoreWentBack,
}

impl Cause {
    /// Whether the broker came to it by itself, so that the brake counts it.
    pub fn is_automatic(&self) -> bool {
        matches!(self, Self::Silence | Self::NodeDeleted)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence => f.write_str("its node is lost: silence"),
            Self::NodeDeleted => f.write_str("its node is lost: node deleted"),
            Self::LeaseTtl => f.write_str("its node is lost: lease_ttl"),
            Self::Evicted { by } => write!(f, "its node was evicted by {by}"),
            Self::Banned { by } => write!(f, "its node was banned by {by}"),
            Self::StoreWentBack => f.write_str("the store came up from its snapshot"),
        }
    }
}

/// When a session was last lost, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LastLoss {
    /// When.
    pub at: SystemTime,
    /// Why.
    pub cause: Cause,
}

/// What an operator should look at; said once when it begins.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Alert {
    /// The node works, and its agent has been silent for as long as would make it lost.
    AgentFault,
    /// So long silent, and no fresh witness says whether the node works.
    Unwitnessed,
    /// More agents come under one node's name than there can be.
    ManyAgents,
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AgentFault => "the node is Ready and its agent is silent",
            Self::Unwitnessed => "silent, and no fresh witness says whether the node works",
            Self::ManyAgents => "too many agents come under its name",
        })
    }
}

/// What a node's silence means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It was heard of lately.
    Attached,
    /// It is silent, and may come back.
    Silent,
    /// Its time is up, and yet the node works: for an operator, never automatic unless told so.
    AgentFault,
    /// Its time is up, and nobody says whether the node works; `lease_ttl` ends it.
    Unwitnessed,
    /// It is to be given up.
    Lost(Cause),
}

/// What a ban tells an agent by, whatever name it comes under: the SHA-256 of its certificate's
/// public key (SubjectPublicKeyInfo, RFC 5280 4.1.2.7), the same for each certificate that is
/// made for the key; or, where it proves itself by a token, of its own pod's uid.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyHash(pub [u8; 32]);

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
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
            key: None,
            node_uid: None,
            replaced: false,
            last_loss: None,
            alerts: BTreeSet::new(),
            braked: false,
            brake_released: false,
        }
    }

    /// What this node's silence means at `now`, given what a fresh witness says of the node.
    pub fn judge(&self, now: Now, witness: Witness, rules: &Rules) -> Verdict {
        let times = &rules.times;
        let silent_for = now.boot.since(self.last_heard);
        let over = silent_for >= times.lease_ttl || now.wall >= self.max_until(times);
        if self.replaced && !over {
            return Verdict::Lost(Cause::NodeDeleted);
        }
        if silent_for < times.silent_after {
            return Verdict::Attached;
        }
        if over {
            return Verdict::Lost(Cause::LeaseTtl);
        }
        if witness == Witness::NodeGone {
            return Verdict::Lost(Cause::NodeDeleted);
        }
        if silent_for < times.silent_after + times.lost_after {
            return Verdict::Silent;
        }
        match witness {
            Witness::NodeReady if !rules.agent_fault_is_loss => Verdict::AgentFault,
            Witness::Unknown => Verdict::Unwitnessed,
            _ => Verdict::Lost(Cause::Silence),
        }
    }

    /// The agent was heard of on `stream`. Says whether the wall time is due to be stored.
    ///
    /// # Errors
    /// When the stream is not the one that counts, or the session has ended.
    pub fn heard(&mut self, stream: StreamId, now: Now) -> Result<bool, StaleStream> {
        if self.stream != Some(stream) || !self.is_there() || self.replaced {
            return Err(StaleStream);
        }
        self.last_heard = now.boot;
        self.last_heard_wall = now.wall;
        self.state = SessionState::Attached;
        self.is_back();
        // A stored time that is to come was written by a clock that has been set back since.
        let age = now.wall.duration_since(self.stored_wall);
        let due = age.is_err() || age.is_ok_and(|age| age >= STORE_EVERY);
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

    /// Whether it was given up, and has not come back.
    pub fn is_lost(&self) -> bool {
        self.state == SessionState::Lost
    }

    /// Whether it is neither lost nor has left.
    pub fn is_there(&self) -> bool {
        matches!(self.state, SessionState::Attached | SessionState::Silent)
    }

    /// Notes what an operator should look at. Says what was not so before.
    pub fn alert(&mut self, verdict: &Verdict, now: Now) -> Option<Alert> {
        if self.agents_are_few(now) {
            self.alerts.remove(&Alert::ManyAgents);
        }
        let alert = match verdict {
            Verdict::AgentFault => Some(Alert::AgentFault),
            Verdict::Unwitnessed => Some(Alert::Unwitnessed),
            _ => None,
        };
        self.alerts.retain(|known| *known == Alert::ManyAgents || Some(*known) == alert);
        alert.filter(|alert| self.alerts.insert(*alert))
    }

    /// What was said of its silence holds no more.
    fn is_back(&mut self) {
        (self.braked, self.brake_released) = (false, false);
        self.alerts.remove(&Alert::AgentFault);
        self.alerts.remove(&Alert::Unwitnessed);
    }

    /// The node is given up: what carries its old generation is refused from now on.
    pub fn lose(&mut self, cause: Cause, now: SystemTime) -> Generation {
        self.end_as(SessionState::Lost);
        self.generation = self.generation.next();
        self.last_loss = Some(LastLoss { at: now, cause });
        self.generation
    }

    /// The node went with nothing in its hands.
    pub fn leave(&mut self) {
        self.end_as(SessionState::Left);
    }

    fn end_as(&mut self, state: SessionState) {
        self.state = state;
        self.stream = None;
        self.replaced = false;
        self.is_back();
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

    fn session(clock: &TestClock) -> Session {
        Session::new("node-a".parse().unwrap(), Generation(1), clock.now())
    }

    #[test]
    fn a_slow_node_is_not_a_dead_one() {
        let (clock, rules) = (TestClock::default(), Rules::default());
        let times = rules.times;
        let session = session(&clock);
        let judge = |clock: &TestClock| session.judge(clock.now(), Witness::NotApplicable, &rules);

        clock.advance(times.silent_after - SECOND);
        assert_eq!(judge(&clock), Verdict::Attached);
        clock.advance(SECOND);
        assert_eq!(judge(&clock), Verdict::Silent);
        clock.advance(times.lost_after - SECOND);
        assert_eq!(judge(&clock), Verdict::Silent);
        clock.advance(SECOND);
        assert_eq!(judge(&clock), Verdict::Lost(Cause::Silence));
    }

    #[test]
    fn a_witness_decides_what_the_end_of_a_silence_means() {
        let (clock, rules) = (TestClock::default(), Rules::default());
        let session = session(&clock);
        let all = [
            Witness::NotApplicable,
            Witness::NodeReady,
            Witness::NodeNotReady,
            Witness::NodeGone,
            Witness::Unknown,
        ];
        let judge = |clock: &TestClock, rules: &Rules| {
            all.map(|witness| session.judge(clock.now(), witness, rules))
        };
        let (lost, gone) = (Verdict::Lost(Cause::Silence), Verdict::Lost(Cause::NodeDeleted));

        clock.advance(rules.times.silent_after - SECOND);
        let attached = std::array::from_fn(|_| Verdict::Attached);
        assert_eq!(judge(&clock, &rules), attached, "a deleted Node whose agent beats stays");
        clock.advance(SECOND);
        let silent = || Verdict::Silent;
        let expected = [silent(), silent(), silent(), gone.clone(), silent()];
        assert_eq!(judge(&clock, &rules), expected, "a deleted Node need not be waited for");
        clock.advance(rules.times.lost_after);
        let (fault, unseen) = (Verdict::AgentFault, Verdict::Unwitnessed);
        let expected = [lost.clone(), fault, lost.clone(), gone.clone(), unseen.clone()];
        assert_eq!(judge(&clock, &rules), expected);
        let strict = Rules { agent_fault_is_loss: true, ..rules };
        let expected = [lost.clone(), lost.clone(), lost, gone, unseen];
        assert_eq!(judge(&clock, &strict), expected);
    }

    #[test]
    fn lease_ttl_ends_a_silent_session_whatever_anybody_says() {
        let (clock, rules) = (TestClock::default(), Rules::default());
        let mut session = session(&clock);
        let judge = |session: &Session, clock: &TestClock| {
            session.judge(clock.now(), Witness::NodeReady, &rules)
        };
        clock.advance(rules.times.lease_ttl - SECOND);
        assert_eq!(judge(&session, &clock), Verdict::AgentFault);
        clock.advance(SECOND);
        assert_eq!(judge(&session, &clock), Verdict::Lost(Cause::LeaseTtl));
        session.renew_grace(clock.now());
        assert_eq!(judge(&session, &clock), Verdict::Attached, "a restart lets it come back");
        clock.advance(rules.times.silent_after);
        assert_eq!(judge(&session, &clock), Verdict::Lost(Cause::LeaseTtl), "max_until stays");
    }

    #[test]
    fn only_the_stream_that_counts_keeps_a_session_alive() {
        let clock = TestClock::default();
        let mut session = session(&clock);
        session.stream = Some(StreamId(2));
        assert_eq!(session.heard(StreamId(1), clock.now()), Err(StaleStream));
        assert_eq!(session.heard(StreamId(2), clock.now()), Ok(false));
        session.lose(Cause::Silence, clock.now().wall);
        assert_eq!(session.heard(StreamId(2), clock.now()), Err(StaleStream));
        assert_eq!(session.generation, Generation(2));
    }

    #[test]
    fn a_heartbeat_is_stored_once_a_minute() {
        let clock = TestClock::default();
        let mut session = session(&clock);
        session.stream = Some(StreamId(1));
        let mut stored = 0;
        for _ in 0..30 {
            clock.advance(10 * SECOND);
            stored += u32::from(session.heard(StreamId(1), clock.now()).unwrap());
        }
        assert_eq!(stored, 5);
    }

    #[test]
    fn a_time_that_a_wrong_clock_stored_is_written_over_once_the_clock_is_back() {
        let clock = TestClock::default();
        let mut session = session(&clock);
        session.stream = Some(StreamId(1));
        clock.step_wall(86_400);
        assert_eq!(session.heard(StreamId(1), clock.now()), Ok(true));
        clock.step_wall(-86_400);
        assert_eq!(session.heard(StreamId(1), clock.now()), Ok(true));
        assert_eq!(session.stored_wall, clock.now().wall);
    }
}
