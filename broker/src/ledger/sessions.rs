//! What may happen to node sessions. What their silence comes to, and the brake, is in
//! `judging`.

use std::time::SystemTime;

use krb_proto::{Generation, LeaseId, NodeName, Principal};

mod judging;

pub use judging::{HeldPods, Released};

use super::{Ledger, Touched};
use crate::{
    clock::Now,
    keys::Recipient,
    session::{
        Alert, Cause, Session, SessionState, StaleStream, StreamId, Times,
        attach::{Attach, Hello},
        clock_guard,
    },
};

/// A node that was given up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Loss {
    /// Which.
    pub node: NodeName,
    /// Why.
    pub cause: Cause,
    /// The generation that was fenced.
    pub fenced: Generation,
    /// Its leases, which are being revoked now.
    pub leases: Vec<LeaseId>,
    /// Those of them that had nothing to replace, and are Revoked at once.
    pub revoked: Vec<LeaseId>,
    /// The principals it had keys of.
    pub principals: Vec<Principal>,
}

/// What the silence of a node came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// It gets nothing new from now on.
    Silent(NodeName),
    /// It held nothing, and counts no more.
    Left(NodeName),
    /// It is given up.
    Lost(Loss),
    /// An operator should look at it.
    Alert(NodeName, Alert),
    /// Automatic revocation pauses: why.
    BrakeOn(String),
    /// It goes on.
    BrakeOff,
}

impl Ledger {
    /// The session of a node.
    pub fn session(&self, node: &NodeName) -> Option<&Session> {
        self.sessions.get(node)
    }

    /// All sessions.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values()
    }

    pub(super) fn insert_session(&mut self, session: Session) {
        self.sessions.insert(session.node.clone(), session);
    }

    /// Whether what was given to the recipient is to be replaced: its generation has passed.
    pub fn is_fenced(&self, (node, generation): &Recipient) -> bool {
        self.sessions.get(node).is_some_and(|session| *generation < session.generation)
    }

    /// Whether a request that comes from the Node object of this uid is for the node's session: it
    /// is where either's uid is not known.
    ///
    /// # Errors
    /// When the session is another Node object's.
    pub fn check_node_uid(&self, node: &NodeName, uid: Option<&str>) -> Result<(), NotServed> {
        let known = self.sessions.get(node).and_then(|session| session.node_uid.as_deref());
        match known.zip(uid) {
            Some((known, uid)) if known != uid => Err(NotServed::Replaced),
            _ => Ok(()),
        }
    }

    /// Whether a request of the node with this generation is to be served.
    ///
    /// # Errors
    /// When it is banned or braked, the generation has passed, or nobody has heard of the node
    /// for a while.
    pub fn check_session(&self, node: &NodeName, generation: Generation) -> Result<(), NotServed> {
        let session = self.sessions.get(node);
        if self.ban_on(node, session.and_then(|session| session.key)).is_some() {
            return Err(NotServed::Banned);
        }
        match session {
            None => Err(NotServed::NotAttached),
            Some(session) if session.generation != generation => Err(NotServed::Fenced),
            Some(session) if session.replaced => Err(NotServed::Replaced),
            Some(session) if session.braked => Err(NotServed::Braked),
            Some(session)
                if session.state == SessionState::Attached && session.stream.is_some() =>
            {
                Ok(())
            }
            Some(_) => Err(NotServed::NotAttached),
        }
    }

    /// Whether the node may be given something: besides what [`Self::check_session`] asks, the
    /// clock must be believed, since what is given ends by it.
    ///
    /// # Errors
    /// When not.
    pub fn check_issue(&self, node: &NodeName, generation: Generation) -> Result<(), NotServed> {
        self.check_session(node, generation)?;
        if self.clock_fault.is_some() { Err(NotServed::ClockFault) } else { Ok(()) }
    }

    /// Why the wall clock is not believed now; `None` while it is. Nothing that it ends ends by
    /// itself meanwhile.
    pub fn clock_fault(&self) -> Option<&str> {
        self.clock_fault.as_deref()
    }

    /// The clocks at a change: a wall clock that has jumped since the change before is in doubt
    /// from here on, not only when somebody looks.
    pub fn see_clock(&mut self, now: Now) {
        let jump = self.seen.and_then(|seen| clock_guard::jumped(seen, now));
        if self.clock_fault.is_none() {
            self.clock_fault = jump;
        }
        self.seen = Some(now);
    }

    /// The wall clock is in doubt from now on, or is believed again.
    pub fn set_clock_fault(&mut self, why: Option<String>) {
        self.clock_fault = why;
    }

    /// An agent says Hello on a new stream.
    pub fn attach(&mut self, node: &NodeName, hello: &Hello, stream: StreamId, now: Now) -> Attach {
        if self.ban_on(node, hello.key).is_some() {
            hello.key.into_iter().for_each(|key| self.ban_key(node, key));
            return Attach::Banned;
        }
        let session = self
            .sessions
            .entry(node.clone())
            .or_insert_with(|| Session::new(node.clone(), Generation(1), now));
        let answer = session.attach(hello, stream, now);
        if matches!(answer, Attach::Welcome { .. }) {
            self.touched.insert(Touched::Session(node.clone()));
        }
        answer
    }

    /// A heartbeat came on the stream. Returns until when the node may serve.
    ///
    /// # Errors
    /// When the stream is not the one that counts.
    pub fn heard(
        &mut self,
        node: &NodeName,
        stream: StreamId,
        now: Now,
        times: &Times,
    ) -> Result<SystemTime, StaleStream> {
        let session = self.sessions.get_mut(node).ok_or(StaleStream)?;
        if session.heard(stream, now)? {
            self.touched.insert(Touched::Session(node.clone()));
        }
        Ok(session.max_until(times))
    }

    /// The stream has ended; the session's silence begins to count.
    pub fn stream_ended(&mut self, node: &NodeName, stream: StreamId) {
        if let Some(session) = self.sessions.get_mut(node)
            && session.stream == Some(stream)
        {
            session.stream = None;
        }
    }

    /// The agent goes for good and says that it holds nothing. It is believed only where the
    /// broker knows of no live lease on the node either.
    pub fn goodbye_empty(&mut self, node: &NodeName, stream: StreamId) -> bool {
        let holds_nothing = self.live_on(node).is_empty();
        match self.sessions.get_mut(node) {
            Some(session) if session.stream == Some(stream) && holds_nothing => {
                session.leave();
                self.touched.insert(Touched::Session(node.clone()));
                true
            }
            _ => false,
        }
    }

    /// Gives the node up: its generation is fenced, its leases are being revoked, and each
    /// principal that it had a key of is due for a new one.
    pub fn lose(&mut self, node: &NodeName, cause: &Cause, now: SystemTime) -> Option<Loss> {
        let fenced = self.sessions.get(node)?.generation;
        let leases = self.live_on(node);
        for id in &leases {
            self.start_revoking(id, &cause.to_string(), now);
        }
        self.sessions.entry(node.clone()).and_modify(|session| {
            session.lose(cause.clone(), now);
        });
        self.touched.insert(Touched::Session(node.clone()));
        let revoked = leases.iter().filter(|id| self.finish_revoking_one(id)).copied().collect();
        let principals = self.held_by(node);
        Some(Loss { node: node.clone(), cause: cause.clone(), fenced, leases, revoked, principals })
    }

    /// The principals of which the node was given a key that somebody may still accept.
    pub fn held_by(&self, node: &NodeName) -> Vec<Principal> {
        let given = |held: &crate::keys::Held| held.delivered_to.iter().any(|(n, _)| n == node);
        self.principals
            .values()
            .filter(|known| known.keysets.values().any(given))
            .map(|known| known.principal.clone())
            .collect()
    }

    /// Every session gets a whole new grace: the broker itself was away.
    pub fn renew_all_graces(&mut self, now: Now) {
        self.sessions.values_mut().for_each(|session| session.renew_grace(now));
    }

    /// After a start from the snapshot: every generation has passed, so that each agent
    /// wipes and is issued anew, and every key is due once recovery is over.
    pub fn fence_all(&mut self, now: SystemTime) -> Vec<Loss> {
        let nodes: Vec<NodeName> = self.sessions.keys().cloned().collect();
        nodes.iter().filter_map(|node| self.lose(node, &Cause::StoreWentBack, now)).collect()
    }
}

/// Why a node's request is not served.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotServed {
    /// Its generation has passed.
    #[error("the node's generation has passed")]
    Fenced,
    /// It has no attached session.
    #[error("the node has no attached session")]
    NotAttached,
    /// An operator has banned it, or its key.
    #[error("the node is banned; an operator must unban it")]
    Banned,
    /// Another Node object has its name now.
    #[error("the node was deleted and made anew; what it held is revoked first")]
    Replaced,
    /// It is taken for dead, and the brake holds that.
    #[error("the node is silent, and the brake holds what follows")]
    Braked,
    /// The broker does not believe its wall clock.
    #[error("the broker's clock is in doubt; nothing new is issued meanwhile")]
    ClockFault,
}
