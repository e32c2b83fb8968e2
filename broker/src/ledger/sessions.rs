//! What may happen to node sessions.

use std::time::SystemTime;

use krb_proto::{Generation, LeaseId, NodeName, Principal};

use super::{Ledger, Touched};
use crate::{
    clock::Now,
    keys::Recipient,
    session::{
        Session, SessionState, StaleStream, StreamId, Times, Verdict, Witness,
        attach::{Attach, Hello},
    },
};

/// A node that was given up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Loss {
    /// Which.
    pub node: NodeName,
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

    /// Whether a request of the node with this generation is to be served.
    ///
    /// # Errors
    /// When the generation has passed, or nobody has heard of the node for a while.
    pub fn check_session(&self, node: &NodeName, generation: Generation) -> Result<(), NotServed> {
        match self.sessions.get(node) {
            None => Err(NotServed::NotAttached),
            Some(session) if session.generation != generation => Err(NotServed::Fenced),
            Some(session)
                if session.state == SessionState::Attached && session.stream.is_some() =>
            {
                Ok(())
            }
            Some(_) => Err(NotServed::NotAttached),
        }
    }

    /// An agent says Hello on a new stream.
    pub fn attach(&mut self, node: &NodeName, hello: &Hello, stream: StreamId, now: Now) -> Attach {
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

    /// What each node's silence means now; what it means is done.
    pub fn judge_all(&mut self, now: Now, witness: Witness, times: &Times) -> Vec<Change> {
        let verdicts: Vec<(NodeName, SessionState, Verdict)> = self
            .sessions
            .values()
            .filter(|s| matches!(s.state, SessionState::Attached | SessionState::Silent))
            .map(|s| (s.node.clone(), s.state, s.judge(now, witness, times)))
            .collect();
        let mut changes = Vec::new();
        for (node, state, verdict) in verdicts {
            match verdict {
                Verdict::Attached => {}
                Verdict::Silent if state == SessionState::Attached => {
                    self.set_silent(&node);
                    changes.push(Change::Silent(node));
                }
                Verdict::Silent => {}
                Verdict::Lost if self.has_nothing(&node) => {
                    self.sessions.entry(node.clone()).and_modify(Session::leave);
                    self.touched.insert(Touched::Session(node.clone()));
                    changes.push(Change::Left(node));
                }
                Verdict::Lost => {
                    changes
                        .extend(self.lose(&node, "its node is lost", now.wall).map(Change::Lost));
                }
            }
        }
        changes
    }

    fn set_silent(&mut self, node: &NodeName) {
        if let Some(session) = self.sessions.get_mut(node) {
            session.state = SessionState::Silent;
            self.touched.insert(Touched::Session(node.clone()));
        }
    }

    /// Whether the node has no live lease, and no key that is still held was ever given to it.
    fn has_nothing(&self, node: &NodeName) -> bool {
        let given = |held: &crate::keys::Held| held.delivered_to.iter().any(|(n, _)| n == node);
        self.live_on(node).is_empty()
            && !self.principals.values().any(|p| p.keysets.values().any(given))
    }

    /// Gives the node up: its generation is fenced, its leases are being revoked, and each
    /// principal that it had a key of is due for a new one.
    pub fn lose(&mut self, node: &NodeName, reason: &str, now: SystemTime) -> Option<Loss> {
        let fenced = self.sessions.get(node)?.generation;
        let leases = self.live_on(node);
        for id in &leases {
            self.start_revoking(id, reason, now);
        }
        self.sessions.entry(node.clone()).and_modify(|session| {
            session.lose();
        });
        self.touched.insert(Touched::Session(node.clone()));
        let revoked = leases.iter().filter(|id| self.finish_revoking_one(id)).copied().collect();
        let given = |held: &crate::keys::Held| held.delivered_to.iter().any(|(n, _)| n == node);
        let principals = self
            .principals
            .values()
            .filter(|p| p.keysets.values().any(given))
            .map(|p| p.principal.clone())
            .collect();
        Some(Loss { node: node.clone(), fenced, leases, revoked, principals })
    }

    /// Every session gets a whole new grace: the broker itself was away.
    pub fn renew_all_graces(&mut self, now: Now) {
        self.sessions.values_mut().for_each(|session| session.renew_grace(now));
    }

    /// After a start from the snapshot: every generation has passed, so that each agent
    /// wipes and is issued anew, and every key is due once recovery is over.
    pub fn fence_all(&mut self, now: SystemTime) -> Vec<Loss> {
        let nodes: Vec<NodeName> = self.sessions.keys().cloned().collect();
        let reason = "the store came up from its snapshot";
        nodes.iter().filter_map(|node| self.lose(node, reason, now)).collect()
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
}
