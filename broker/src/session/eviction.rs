//! Giving a node up by an operator's word, and letting it come back.
//!
//! An eviction asks neither a witness nor the brake. It is durable before its node is told.

use krb_proto::{LeaseId, NodeName, Principal};

use super::{Cause, aftermath::Aftermath};
use crate::{
    audit::{Actor, Event, Record},
    ledger::{
        Ledger,
        bans::Ban,
        book::Lines,
        sessions::{Change, Loss},
    },
    store::committer::CommitError,
};

/// What an operator wants.
#[derive(Clone, Debug)]
pub struct Eviction {
    /// Which node.
    pub node: NodeName,
    /// Whether it may not come back.
    pub ban: bool,
    /// Why, in the operator's words.
    pub reason: String,
    /// Who.
    pub actor: Actor,
}

/// What an eviction hits, or would hit.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hit {
    /// The nodes that are given up.
    pub nodes: Vec<NodeName>,
    /// Their live leases.
    pub leases: Vec<LeaseId>,
    /// The principals whose keys are replaced, ascending.
    pub principals: Vec<Principal>,
}

/// Why a node is not evicted.
#[derive(Debug, thiserror::Error)]
pub enum EvictError {
    /// It never attached; it can only be banned.
    #[error("no node {0} ever attached; it can be banned")]
    Unknown(NodeName),
    /// The record can't be made durable.
    #[error("recording the eviction")]
    Store(#[from] CommitError),
}

impl Eviction {
    /// The nodes to be given up: not those that were before, and have not come back.
    fn targets(&self, ledger: &Ledger) -> Vec<NodeName> {
        let named =
            if self.ban { ledger.with_its_key(&self.node) } else { vec![self.node.clone()] };
        let mut nodes = named;
        nodes.retain(|node| ledger.session(node).is_some_and(|session| !session.is_lost()));
        nodes
    }

    /// What it would hit.
    ///
    /// # Errors
    /// When there is nothing to evict or ban.
    pub fn plan(&self, ledger: &Ledger) -> Result<Hit, EvictError> {
        self.check(ledger)?;
        let nodes = self.targets(ledger);
        let leases = nodes.iter().flat_map(|node| ledger.live_on(node)).collect();
        let mut principals: Vec<_> = nodes.iter().flat_map(|node| ledger.held_by(node)).collect();
        principals.sort();
        principals.dedup();
        Ok(Hit { nodes, leases, principals })
    }

    fn check(&self, ledger: &Ledger) -> Result<(), EvictError> {
        if self.ban || ledger.session(&self.node).is_some() {
            Ok(())
        } else {
            Err(EvictError::Unknown(self.node.clone()))
        }
    }

    fn apply(
        &self,
        ledger: &mut Ledger,
        lines: &mut Lines,
        now: std::time::SystemTime,
    ) -> Vec<Loss> {
        let by = self.actor.to_string();
        let targets = self.targets(ledger);
        if self.ban {
            ledger.ban(&self.node, &by, &self.reason, now);
            let line = Record::new(Event::NodeBanned, self.actor.clone()).node(&self.node);
            lines.push(line.detail(&self.reason));
        }
        let cause = if self.ban { Cause::Banned { by } } else { Cause::Evicted { by } };
        let mut losses = Vec::new();
        for node in targets {
            let line = Record::new(Event::NodeEvicted, self.actor.clone()).node(&node);
            lines.push(line.detail(&self.reason));
            if let Some(loss) = ledger.lose(&node, &cause, now) {
                super::watch::record(ledger, lines, &Change::Lost(loss.clone()));
                losses.push(loss);
            }
        }
        losses
    }
}

impl Aftermath {
    /// Gives the node up, and does what follows.
    ///
    /// # Errors
    /// When there is nothing to evict or ban, or it can't be recorded: nothing was done then.
    pub async fn evict(&self, eviction: &Eviction) -> Result<Hit, EvictError> {
        self.book.read(|ledger| eviction.check(ledger))?;
        let losses = self
            .book
            .commit_essential(|ledger, lines, now| eviction.apply(ledger, lines, now.wall))
            .await?;
        losses.iter().for_each(|loss| self.follow(loss));
        let mut hit = Hit::default();
        for loss in losses {
            hit.nodes.push(loss.node);
            hit.leases.extend(loss.leases);
            hit.principals.extend(loss.principals);
        }
        hit.principals.sort();
        hit.principals.dedup();
        Ok(hit)
    }

    /// Ends a node's ban, if there is one.
    ///
    /// # Errors
    /// When it can't be recorded.
    pub async fn unban(&self, node: &NodeName, actor: Actor) -> Result<Option<Ban>, CommitError> {
        let ended = self.book.commit_if(|ledger, lines, _| {
            let ban = ledger.unban(node)?;
            let line = Record::new(Event::NodeUnbanned, actor).node(node);
            lines.push(line.detail(&format!("banned by {}: {}", ban.by, ban.reason)));
            Some(ban)
        });
        ended.await
    }
}
