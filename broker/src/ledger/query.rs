//! What operators ask: leases by filters, in pages.

use std::collections::BTreeSet;

use krb_proto::{LeaseId, Namespace, NodeName, PodUid, Principal};

use super::Ledger;
use crate::{
    keys::walk::{Step, WalkRules},
    lease::{Lease, LeaseState},
};

/// What a lease must be to be listed. An empty filter lists all.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LeaseFilter {
    /// On this node.
    pub node: Option<NodeName>,
    /// Of a pod in this namespace.
    pub namespace: Option<Namespace>,
    /// Of the pod with this uid.
    pub pod_uid: Option<PodUid>,
    /// Of a pod with this name.
    pub pod_name: Option<String>,
    /// Naming this principal, in its keytab or as a ticket's client.
    pub principal: Option<Principal>,
    /// In one of these states; none: in any.
    pub states: BTreeSet<LeaseState>,
    /// In one of these namespaces, which is all that the caller may see; `None`: any.
    pub visible: Option<BTreeSet<Namespace>>,
}

impl LeaseFilter {
    /// Whether the caller may see the lease at all.
    pub fn may_see(&self, lease: &Lease) -> bool {
        let namespace = &lease.holder.pod.namespace;
        self.visible.as_ref().is_none_or(|visible| visible.contains(namespace))
    }

    /// Whether the lease is one of those that are asked for.
    pub fn fits(&self, lease: &Lease) -> bool {
        let pod = &lease.holder.pod;
        let names = |principal: &Principal| {
            lease.principals.contains(principal)
                || lease.tickets.iter().any(|ticket| &ticket.client == principal)
        };
        self.may_see(lease)
            && self.node.as_ref().is_none_or(|node| node == &lease.holder.node)
            && self.namespace.as_ref().is_none_or(|namespace| namespace == &pod.namespace)
            && self.pod_uid.as_ref().is_none_or(|uid| uid == &pod.uid)
            && self.pod_name.as_ref().is_none_or(|name| name == pod.name.as_str())
            && self.principal.as_ref().is_none_or(names)
            && (self.states.is_empty() || self.states.contains(&lease.state))
    }
}

/// One page of leases, by id.
#[derive(Debug)]
pub struct Page<'a> {
    /// The leases.
    pub leases: Vec<&'a Lease>,
    /// After which id the next page begins; `None` on the last.
    pub next: Option<LeaseId>,
}

impl Ledger {
    /// Up to `size` leases after `after` that fit.
    pub fn list(&self, filter: &LeaseFilter, after: Option<LeaseId>, size: usize) -> Page<'_> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let in_order = |id: &&LeaseId| after.is_none_or(|after| **id > after);
        let index = match (&filter.node, &filter.principal) {
            (Some(node), _) => Some(self.by_node.get(node)),
            // A ticket's client is in no index: only names with keys are.
            (None, Some(principal)) => {
                self.by_principal.get(principal).filter(|ids| !ids.is_empty()).map(Some)
            }
            (None, None) => None,
        };
        let all: Box<dyn Iterator<Item = &Lease>> = match index {
            Some(ids) => Box::new(
                ids.into_iter().flatten().filter(in_order).filter_map(|id| self.leases.get(id)),
            ),
            None => Box::new(self.leases.range((from, Unbounded)).map(|(_, lease)| lease)),
        };
        let mut leases: Vec<&Lease> =
            all.filter(|lease| filter.fits(lease)).take(size + 1).collect();
        let next = (leases.len() > size).then(|| {
            leases.truncate(size);
            leases.last().map(|lease| lease.id)
        });
        Page { leases, next: next.flatten() }
    }

    /// How many records the store has of it.
    pub fn records(&self) -> u64 {
        let of = |p: &crate::keys::ManagedPrincipal| {
            1 + p.keysets.values().map(|held| 1 + held.delivered_to.len()).sum::<usize>()
        };
        let names = self.sessions.len() + self.accounts.len() + self.pins.len();
        let principals: usize = self.principals.values().map(of).sum();
        (self.leases.len() + names + self.finished.len() + principals) as u64
    }

    /// Why the lease is as it is, in full: what its end waits for, too.
    pub fn reason(&self, lease: &Lease) -> String {
        if lease.state != LeaseState::Revoking {
            return lease.reason.clone();
        }
        let waits: Vec<String> = self
            .awaited(lease)
            .map(|principal| {
                let waits = self.waiting(principal).unwrap_or("its key is being replaced");
                format!("{principal}: {waits}")
            })
            .collect();
        if waits.is_empty() {
            lease.reason.clone()
        } else {
            format!("{}; {}", lease.reason, waits.join("; "))
        }
    }

    /// The walks that are not at rest: the principal, its newest phase, what it waits for.
    pub fn walks(&self, now: std::time::SystemTime, rules: &WalkRules) -> Vec<WalkLine> {
        let line = |principal: &Principal| {
            let managed = self.principals.get(principal)?;
            let step = self.next_step(principal, now, rules);
            if step == Step::Rest {
                return None;
            }
            let newest = managed.keysets.values().next_back();
            let moving = managed.under_way().or_else(|| {
                managed.keysets.values().find(|h| h.phase > crate::keys::Phase::Current)
            });
            let held = moving.or(newest);
            Some(WalkLine {
                principal: principal.clone(),
                phase: held.map_or_else(
                    || "no key".to_owned(),
                    |h| format!("{:?} kvno {}", h.phase, h.keyset.kvno),
                ),
                waits_for: self.waiting(principal).unwrap_or_default().to_owned(),
                since: held.map_or(managed.made_at, |held| held.since),
            })
        };
        let mut lines: Vec<WalkLine> = self.principals.keys().filter_map(line).collect();
        lines.sort_by(|a, b| a.principal.cmp(&b.principal));
        lines
    }
}

/// A walk that is not at rest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WalkLine {
    /// Whose.
    pub principal: Principal,
    /// Where it is.
    pub phase: String,
    /// What it waits for.
    pub waits_for: String,
    /// Since when it is in this phase.
    pub since: std::time::SystemTime,
}
