//! What is really so: which keys are outside, which tickets can be good, what was taken away.
//!
//! Only the model sees all of it. A ticket is reckoned with for as long as one could be: from
//! the moment a KDC uses a key until the longest life after the last KDC stopped.

use std::collections::{BTreeMap, BTreeSet};

use krb_broker::{keys::due::Kind, lease::LeaseState};
use krb_proto::{Kvno, LeaseId, NodeName, Principal};

use super::{
    disk::Note,
    message::ToAgent,
    node::Kind as NodeKind,
    plan::{Millis, SECOND},
    realm::KeyPrint,
    world::World,
};

type Numbers = BTreeMap<Principal, BTreeSet<Kvno>>;

/// What is really so.
#[derive(Debug, Default)]
pub struct Truth {
    /// Every keyset that was ever flushed.
    pub stored: BTreeMap<(Principal, Kvno), KeyPrint>,
    /// Every key that left the broker.
    pub outside: BTreeMap<(Principal, Kvno), KeyPrint>,
    /// What left for each node.
    pub left: BTreeMap<NodeName, Numbers>,
    /// What it is on record that each node was given, or was.
    pub taken: BTreeMap<NodeName, Numbers>,
    /// What a node had that lost its right to it.
    pub burnt: Numbers,
    /// What was let go to the KDC.
    pub activating: BTreeSet<(Principal, Kvno)>,
    /// What each lease's node had when it ended.
    pub ended_with: BTreeMap<LeaseId, (NodeName, Numbers)>,
    /// What is on record of each lease.
    pub leases: BTreeMap<LeaseId, LeaseState>,
    /// Under which numbers there can be good tickets: until then, or as long as it is used.
    pub tickets: BTreeMap<Principal, BTreeMap<Kvno, Option<Millis>>>,
    /// Whom a revocation went on without.
    pub without: BTreeSet<(Principal, Kvno, LeaseId)>,
    /// Up to which number an operator chose to break tickets.
    pub abrupt: BTreeMap<Principal, Kvno>,
    /// Whose holders an operator chose to break.
    pub chosen: BTreeSet<Principal>,
    /// When the broker last started, or its clock was last wrong.
    pub unsteady_at: Millis,
}

/// What happened, in numbers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Events.
    pub events: u64,
    /// Keys that became current.
    pub rotations: u64,
    /// Crashes of the broker.
    pub crashes: u64,
    /// Nodes that were given up.
    pub losses: u64,
    /// Tickets that a holder could not open since an operator chose so.
    pub chosen: u64,
    /// The same, since it was out of reach for longer than a revocation waits, or given up.
    pub out_of_reach: u64,
    /// Most numbers in one keytab of one principal.
    pub most_kvnos: usize,
}

impl Counts {
    /// Adds another history's.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.rotations += other.rotations;
        self.crashes += other.crashes;
        self.losses += other.losses;
        self.chosen += other.chosen;
        self.out_of_reach += other.out_of_reach;
        self.most_kvnos = self.most_kvnos.max(other.most_kvnos);
    }
}

impl World {
    /// A round is on the disk.
    pub fn now_durable(&mut self, note: &Note) {
        for (principal, kvno, print) in &note.keysets {
            let stored = *self.truth.stored.entry((principal.clone(), *kvno)).or_insert(*print);
            if stored != *print {
                self.violate(format!("kvno {kvno} of {principal} was stored with two keys"));
            }
        }
        for taken in &note.taken {
            let of_node = self.truth.taken.entry(taken.node.clone()).or_default();
            of_node.entry(taken.principal.clone()).or_default().insert(taken.kvno);
        }
        for node in &note.fenced {
            self.counts.losses += 1;
            let had = self.truth.taken.get(node).cloned().unwrap_or_default();
            self.burn(&had);
        }
        for lease in &note.leases {
            let before = self.truth.leases.insert(lease.lease, lease.state);
            if lease.state.is_live() {
                continue;
            }
            if before.is_some_and(LeaseState::is_live) || before.is_none() {
                // A lease that was never Active gave its node nothing.
                let was_active = before == Some(LeaseState::Active);
                let had = self.truth.taken.get(&lease.node).filter(|_| was_active);
                let had = had.cloned().unwrap_or_default();
                let of_lease: Numbers =
                    had.into_iter().filter(|(p, _)| lease.principals.contains(p)).collect();
                if matches!(lease.state, LeaseState::Revoking | LeaseState::Revoked) {
                    self.burn(&of_lease);
                }
                self.truth.ended_with.insert(lease.lease, (lease.node.clone(), of_lease));
            }
        }
        for (principal, kvno) in &note.activating {
            let burnt = self.truth.burnt.get(principal).is_some_and(|burnt| burnt.contains(kvno));
            if burnt {
                self.violate(format!(
                    "kvno {kvno} of {principal} is activated after a revocation, and the revoked \
                     node had been given it"
                ));
            }
            self.truth.activating.insert((principal.clone(), *kvno));
        }
    }

    fn burn(&mut self, had: &Numbers) {
        for (principal, kvnos) in had {
            self.truth.burnt.entry(principal.clone()).or_default().extend(kvnos);
        }
    }

    /// The broker says something: what is in it is outside now.
    pub fn check_leaves(&mut self, node: &NodeName, message: &ToAgent) {
        let (ToAgent::Push { lease, keytab, .. } | ToAgent::Issued { lease, keytab, .. }) = message
        else {
            return;
        };
        let Some(generation) = self.ledger().lease(lease).map(|lease| lease.generation) else {
            return;
        };
        for (principal, keys) in keytab.iter() {
            self.counts.most_kvnos = self.counts.most_kvnos.max(keys.len());
            for (kvno, print) in keys {
                let pruned = self.truth.stored.contains_key(&(principal.clone(), *kvno))
                    && !self.disk.has_keyset(principal, *kvno);
                if !pruned && !self.disk.knows_delivery(principal, *kvno, node, generation) {
                    self.violate(format!(
                        "kvno {kvno} of {principal} leaves for {node} and the store does not \
                         know that it has it"
                    ));
                }
                let key = (principal.clone(), *kvno);
                if *self.truth.outside.entry(key).or_insert(*print) != *print {
                    self.violate(format!("kvno {kvno} of {principal} is outside with two keys"));
                }
                let left = self.truth.left.entry(node.clone()).or_default();
                left.entry(principal.clone()).or_default().insert(*kvno);
            }
        }
    }

    /// The broker is about to set a key at the KDC.
    pub fn check_activation(&mut self, principal: &Principal, kvno: Kvno) {
        if !self.truth.activating.contains(&(principal.clone(), kvno)) {
            self.violate(format!(
                "kvno {kvno} of {principal} is set at the KDC before that is on record"
            ));
        }
    }

    /// kadmin has set a key.
    pub fn check_set(&mut self, principal: &Principal, kvno: Kvno, print: KeyPrint) {
        let highest = self.realm.highest.get(principal).copied();
        match highest {
            Some((before, key)) if before == kvno && key != print => {
                self.violate(format!("kvno {kvno} of {principal} is set with two keys"));
            }
            Some((before, _)) if before > kvno => {
                self.violate(format!("kvno {kvno} of {principal} is set after {before}"));
            }
            _ => {}
        }
        self.realm.highest.insert(principal.clone(), (kvno, print));
        let key = (principal.clone(), kvno);
        if *self.truth.outside.entry(key).or_insert(print) != print {
            self.violate(format!("kvno {kvno} of {principal} is set with two keys"));
        }
    }

    /// A revocation goes on without these holders: it may, where they could not be reached.
    pub fn goes_without(
        &mut self,
        principal: &Principal,
        kvno: Kvno,
        without: &[LeaseId],
        kind: Option<Kind>,
        since: Option<Millis>,
    ) {
        if without.is_empty() {
            return;
        }
        if !matches!(kind, Some(Kind::Revocation | Kind::Emergency)) {
            self.violate(format!(
                "kvno {kvno} of {principal} goes on in its own time without \
                                  {} holders",
                without.len()
            ));
        }
        let since = since.unwrap_or(self.now);
        for lease in without {
            let steady = since > self.truth.unsteady_at;
            if steady && self.was_there(lease, since) && self.lacks(lease, principal, kvno) {
                self.violate(format!(
                    "kvno {kvno} of {principal} goes on without {lease}, whose node could be \
                     reached all the time"
                ));
            }
            self.truth.without.insert((principal.clone(), kvno, *lease));
        }
    }

    /// Whether the lease's holder was there and quick since then.
    fn was_there(&self, lease: &LeaseId, since: Millis) -> bool {
        let Some(known) = self.ledger().lease(lease) else { return false };
        let Some(node) = self.nodes.get(&known.holder.node) else { return false };
        node.kind == NodeKind::Honest
            && node.reachable(self.now)
            && node.agent.attached
            && node.agent.held.contains_key(lease)
            && node.away_at + SECOND < since
    }

    /// Whether the holder does not have the key on its disk.
    fn lacks(&self, lease: &LeaseId, principal: &Principal, kvno: Kvno) -> bool {
        let volumes = self.nodes.values().filter_map(|node| node.agent.held.get(lease));
        let has = |volume: &super::node::Volume| {
            volume.keytab.get(principal).is_some_and(|keys| keys.contains_key(&kvno))
        };
        !volumes.into_iter().any(has)
    }

    /// Keys up to this one leave the keytabs before the tickets under them have ended.
    pub fn leaves_abruptly(&mut self, principal: &Principal, through: Kvno) {
        if !self.truth.chosen.contains(principal) {
            self.violate(format!(
                "kvno {through} of {principal} leaves the keytabs at once, and nobody chose that"
            ));
        }
        let abrupt = self.truth.abrupt.entry(principal.clone()).or_insert(through);
        *abrupt = (*abrupt).max(through);
    }

    /// Every key of the principal leaves the keytabs: it was switched off.
    pub fn gave_up_all(&mut self, principal: &Principal) {
        let high_water = self.ledger().principal(principal).map(|known| known.high_water);
        let has = |(_, lease, volume): (_, &LeaseId, &super::node::Volume)| {
            volume.keytab.contains_key(principal)
                && self.truth.leases.get(lease) == Some(&LeaseState::Active)
        };
        let held = self.honest_volumes().any(has);
        if held && !self.truth.chosen.contains(principal) {
            self.violate(format!("{principal} is given up under its holders"));
        }
        if let Some(through) = high_water {
            self.truth.abrupt.insert(principal.clone(), through);
        }
    }

    /// A KDC has changed: which tickets there can be.
    pub fn realm_changed(&mut self) {
        self.changed = true;
        let ends = self.now + self.plan.max_life.as_millis() as Millis;
        for principal in self.services.clone() {
            let used: BTreeSet<Kvno> = (0..2)
                .filter_map(|kdc| self.realm.uses(kdc, &principal))
                .map(|(kvno, _)| kvno)
                .collect();
            let tickets = self.truth.tickets.entry(principal.clone()).or_default();
            for (kvno, until) in tickets.iter_mut() {
                if until.is_none() && !used.contains(kvno) {
                    *until = Some(ends);
                }
            }
            let mut new = false;
            for kvno in used {
                new |= tickets.insert(kvno, None) != Some(None);
            }
            if new {
                self.check_holders(&principal);
            }
        }
    }
}
