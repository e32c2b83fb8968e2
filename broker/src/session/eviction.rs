//! Giving a node up by an operator's word, and letting it come back.
//!
//! An eviction asks neither a witness nor the brake. It is durable before its node is told.

use std::time::SystemTime;

use krb_proto::NodeName;

use super::{Cause, aftermath::Aftermath};
use crate::{
    audit::{Actor, Event, Record},
    keys::walk::WalkRules,
    ledger::{
        Ledger,
        bans::Ban,
        book::Lines,
        revoking::How,
        sessions::{Change, Loss},
    },
    revocation::{Plan, Revocation, Target, plan},
    store::committer::CommitError,
};

/// What an operator wants.
#[derive(Clone, Debug)]
pub struct Eviction {
    /// Which node.
    pub node: NodeName,
    /// Whether it may not come back.
    pub ban: bool,
    /// Whether the replacements go before their time, by dropping the oldest retiring keys.
    pub ahead: bool,
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
    /// What that does.
    pub plan: Plan,
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
    pub fn plan(
        &self,
        ledger: &Ledger,
        now: SystemTime,
        rules: &WalkRules,
    ) -> Result<Hit, EvictError> {
        self.check(ledger)?;
        let nodes = self.targets(ledger);
        let of_node = |node: &NodeName| {
            let asked = Revocation {
                target: Target::Node(node.clone()),
                how: How::Overlap,
                ahead: self.ahead,
                by: self.actor.clone(),
                reason: self.reason.clone(),
            };
            plan::of(ledger, &asked, now, rules)
        };
        let plan = nodes.iter().map(of_node).reduce(together).unwrap_or_default();
        Ok(Hit { nodes, plan })
    }

    fn check(&self, ledger: &Ledger) -> Result<(), EvictError> {
        if self.ban || ledger.session(&self.node).is_some() {
            Ok(())
        } else {
            Err(EvictError::Unknown(self.node.clone()))
        }
    }

    fn apply(&self, ledger: &mut Ledger, lines: &mut Lines, now: SystemTime) -> Vec<Loss> {
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
        if self.ahead {
            let principals = losses.iter().flat_map(|loss| &loss.principals);
            principals.for_each(|principal| ledger.go_ahead(principal));
        }
        losses
    }
}

/// Two plans as one: what ends by one of them is no sharer in the other.
fn together(mut first: Plan, second: Plan) -> Plan {
    first.leases.extend(second.leases);
    for more in second.principals {
        match first.principals.iter_mut().find(|known| known.principal == more.principal) {
            None => first.principals.push(more),
            Some(known) => {
                known.burnt.extend(more.burnt);
                known.burnt.sort();
                known.burnt.dedup();
                known.sharers.retain(|lease| more.sharers.contains(lease));
                known.usable_until = known.usable_until.max(more.usable_until);
            }
        }
    }
    first.principals.sort_by(|a, b| a.principal.cmp(&b.principal));
    first
}

impl Aftermath {
    /// Gives the node up, and does what follows.
    ///
    /// # Errors
    /// When there is nothing to evict or ban, or it can't be recorded: nothing was done then.
    pub async fn evict(&self, eviction: &Eviction) -> Result<Hit, EvictError> {
        // A caller that goes away must not leave it half done.
        let (aftermath, eviction) = (self.clone(), eviction.clone());
        let done = tokio::spawn(async move { aftermath.act(&eviction).await });
        done.await.unwrap_or(Err(EvictError::Store(CommitError::Closed)))
    }

    async fn act(&self, eviction: &Eviction) -> Result<Hit, EvictError> {
        let rules = self.walker.rules();
        let evict = |ledger: &mut Ledger, lines: &mut Lines, now: crate::clock::Now| {
            let hit = eviction.plan(ledger, now.wall, rules)?;
            Ok::<_, EvictError>((hit, eviction.apply(ledger, lines, now.wall)))
        };
        let (hit, losses) = self.book.commit_essential(evict).await??;
        losses.iter().for_each(|loss| self.follow(loss));
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
