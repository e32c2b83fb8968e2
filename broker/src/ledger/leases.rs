//! What may happen to leases.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use krb_proto::{Generation, LeaseId, NodeName, PodRef, PodUid, Principal, reason::Reason};

use super::{Acknowledged, Ledger, Touched};
use crate::{
    clock::Now,
    entitlement::{Denial, Grant},
    keys::walk::HolderView,
    lease::{
        End, Ended, Exposure, FileOwner, Holder, HolderKey, Lease, LeaseState, accepted_until,
    },
    session::{StreamId, Times},
};

/// A lease that was found or made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Admitted {
    /// Which.
    pub lease: LeaseId,
    /// Whether it was made now.
    pub new: bool,
    /// The holder's lease until now, which has ended.
    pub superseded: Option<LeaseId>,
}

impl Ledger {
    /// A lease, ended ones too as long as they are kept.
    pub fn lease(&self, id: &LeaseId) -> Option<&Lease> {
        self.leases.get(id)
    }

    /// All leases, by id.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// The live leases of a node.
    pub fn live_on(&self, node: &NodeName) -> Vec<LeaseId> {
        self.live(self.by_node.get(node))
    }

    /// The leases whose holders have keys of the principal: the Active ones.
    pub fn active_with(&self, principal: &Principal) -> Vec<LeaseId> {
        let ids = self.by_principal.get(principal);
        ids.into_iter().flatten().filter(|id| self.is_active(id)).copied().collect()
    }

    /// Whether a live lease names the principal.
    pub fn is_named(&self, principal: &Principal) -> bool {
        let ids = self.by_principal.get(principal);
        ids.into_iter().flatten().any(|id| self.leases.get(id).is_some_and(Lease::is_live))
    }

    /// Whether the holder has material under the lease.
    pub fn is_active(&self, id: &LeaseId) -> bool {
        self.leases.get(id).is_some_and(|lease| lease.state == LeaseState::Active)
    }

    /// Whether the holder has a lease that waits for its first delivery.
    pub fn is_pending_for(&self, holder: &HolderKey) -> bool {
        let lease = self.by_holder.get(holder).and_then(|id| self.leases.get(id));
        lease.is_some_and(|lease| lease.state == LeaseState::Pending)
    }

    /// The pods that have live leases.
    pub fn live_pods(&self) -> BTreeSet<PodUid> {
        self.by_holder.keys().map(|key| key.pod.clone()).collect()
    }

    /// The same, with their names.
    pub fn live_pod_refs(&self) -> Vec<PodRef> {
        let leases = self.by_holder.values().filter_map(|id| self.leases.get(id));
        let named: BTreeMap<&PodUid, &PodRef> =
            leases.map(|lease| (&lease.holder.pod.uid, &lease.holder.pod)).collect();
        named.into_values().cloned().collect()
    }

    fn live(&self, ids: Option<&BTreeSet<LeaseId>>) -> Vec<LeaseId> {
        let live = |id: &&LeaseId| self.leases.get(id).is_some_and(Lease::is_live);
        ids.into_iter().flatten().filter(live).copied().collect()
    }

    /// The live lease of this holder, or a new one with `id`; its principals become the
    /// account's, if they are nobody's yet.
    ///
    /// # Errors
    /// When a principal is another account's, or a limit is reached. Nothing has changed then.
    pub fn admit(
        &mut self,
        id: LeaseId,
        holder: Holder,
        generation: Generation,
        grant: &Grant,
        now: SystemTime,
    ) -> Result<Admitted, Denial> {
        self.check_principals(grant, now)?;
        let existing = self.by_holder.get(&holder.key()).copied();
        if let Some(lease) =
            existing.filter(|id| self.leases.get(id).is_some_and(|l| is_for(l, grant, generation)))
        {
            self.unclaimed.remove(&lease);
            return Ok(Admitted { lease, new: false, superseded: None });
        }
        let live = self.live_by_account.get(&grant.account).copied().unwrap_or(0);
        if live >= grant.limits.leases && existing.is_none() {
            return Err(limit(grant, "leases", grant.limits.leases));
        }
        if let Some(old) = &existing {
            // What it names has changed: what was given under it stays on record with it.
            self.release(old, "its grant has changed", now);
        }
        self.insert(Lease {
            id,
            holder,
            generation,
            owner: FileOwner {
                account: grant.account.clone(),
                uid: grant.uid,
                gid: grant.gid,
                keytab_gid: grant.keytab_gid,
            },
            principals: grant.principals.iter().map(|granted| granted.principal.clone()).collect(),
            tickets: grant.tickets.clone(),
            state: LeaseState::Pending,
            reason: String::new(),
            acquired_at: now,
            end: None,
        });
        self.touched.insert(Touched::Lease(id));
        Ok(Admitted { lease: id, new: true, superseded: existing })
    }

    /// Takes a lease into the indices: a new one, or one read from the store.
    pub(super) fn insert(&mut self, lease: Lease) {
        let id = lease.id;
        self.by_node.entry(lease.holder.node.clone()).or_default().insert(id);
        for principal in &lease.principals {
            self.by_principal.entry(principal.clone()).or_default().insert(id);
        }
        if lease.is_live() {
            self.by_holder.insert(lease.holder.key(), id);
            *self.live_by_account.entry(lease.owner.account.clone()).or_default() += 1;
            for ticket in lease.shared_tickets() {
                self.by_ticket.entry(ticket).or_default().insert(id);
            }
        }
        self.leases.insert(id, lease);
    }

    /// The material of the lease is about to leave the broker: it is Active, and its node is
    /// recorded as having every key that the keytab will hold.
    ///
    /// # Errors
    /// When the lease has ended.
    pub fn deliver(&mut self, id: &LeaseId) -> Result<Lease, Ended> {
        let lease = self.leases.get_mut(id).ok_or(Ended { state: LeaseState::Released })?;
        let was = lease.state;
        lease.activate()?;
        if was != lease.state {
            self.touched.insert(Touched::Lease(*id));
        }
        let lease = lease.clone();
        let recipient = (lease.holder.node.clone(), lease.generation);
        for principal in &lease.principals {
            self.delivered_to(principal, &recipient);
        }
        self.forget_older_word(&lease);
        Ok(lease)
    }

    /// What the holder acknowledged says nothing of a key that leaves for it now: it may have it
    /// before it says so.
    fn forget_older_word(&mut self, lease: &Lease) {
        let Some(said) = self.acknowledged.get(&lease.id) else { return };
        let has = |principal: &Principal, kvno| {
            said.kvnos.get(principal).is_some_and(|kvnos| kvnos.contains(&kvno))
        };
        let known = lease.principals.iter().filter_map(|name| self.principals.get(name));
        let news = known.into_iter().any(|known| {
            known.delivered_kvnos().into_iter().any(|kvno| !has(&known.principal, kvno))
        });
        if news {
            self.acknowledged.remove(&lease.id);
        }
    }

    /// What a holder acknowledged on its node's stream.
    pub fn acknowledge(&mut self, id: &LeaseId, acknowledged: Acknowledged) {
        let current = self.leases.get(id).is_some_and(|lease| {
            let stream = self.sessions.get(&lease.holder.node).and_then(|session| session.stream);
            lease.is_live() && stream == Some(acknowledged.stream)
        });
        if current {
            self.unclaimed.remove(id);
            self.acknowledged.insert(*id, acknowledged);
        }
    }

    /// The holders of a principal, as its walk sees them.
    pub fn holders(&self, principal: &Principal) -> Vec<HolderView> {
        let view = |lease: LeaseId| {
            let has = self
                .acknowledged
                .get(&lease)
                .map(|said| said.kvnos.get(principal).cloned().unwrap_or_default());
            HolderView { lease, has }
        };
        self.active_with(principal).into_iter().map(view).collect()
    }

    /// The holder ended it, or its pod is gone. False when it had ended already.
    pub fn release(&mut self, id: &LeaseId, reason: &str, now: SystemTime) -> bool {
        self.end(id, now, |lease, end| lease.release(reason, end))
    }

    pub(super) fn start_revoking(&mut self, id: &LeaseId, reason: &str, now: SystemTime) -> bool {
        self.end(id, now, |lease, end| lease.start_revoking(reason, end))
    }

    fn end(
        &mut self,
        id: &LeaseId,
        now: SystemTime,
        how: impl FnOnce(&mut Lease, End) -> bool,
    ) -> bool {
        let Some(end) = self.leases.get(id).map(|lease| self.what_is_outside(lease, now)) else {
            return false;
        };
        let Some(lease) = self.leases.get_mut(id) else { return false };
        if !how(lease, end) {
            return false;
        }
        self.by_holder.remove(&lease.holder.key());
        if let Some(live) = self.live_by_account.get_mut(&lease.owner.account) {
            *live = live.saturating_sub(1);
        }
        for ticket in lease.shared_tickets() {
            if let Some(leases) = self.by_ticket.get_mut(&ticket) {
                leases.remove(id);
                if leases.is_empty() {
                    self.by_ticket.remove(&ticket);
                }
            }
        }
        self.acknowledged.remove(id);
        self.unclaimed.remove(id);
        self.touched.insert(Touched::Lease(*id));
        true
    }

    fn what_is_outside(&self, lease: &Lease, now: SystemTime) -> End {
        let recipient = (lease.holder.node.clone(), lease.generation);
        let mut kvnos = BTreeMap::new();
        for principal in &lease.principals {
            if let Some(managed) = self.principals.get(principal) {
                let mut given = managed.kvnos_given(&recipient);
                if lease.state == LeaseState::Active {
                    // Who had these is forgotten, and this lease may have.
                    given.extend(managed.pruned.iter().filter(|(_, at)| **at > now).map(|p| *p.0));
                }
                kvnos.insert(principal.clone(), given);
            }
        }
        End { at: now, kvnos, ticket_endtime: self.latest_endtime(lease) }
    }

    /// The latest endtime of any ticket that the lease may have been given.
    pub fn latest_endtime(&self, lease: &Lease) -> Option<SystemTime> {
        if lease.state == LeaseState::Pending {
            return None;
        }
        let endtime = |login| self.accounts.get(login).and_then(|account| account.latest_endtime);
        lease.tickets.iter().filter_map(|ticket| endtime(&ticket.login)).max()
    }

    /// Until when anything that the lease handed out can be misused.
    pub fn exposure(&self, lease: &Lease, clock_skew: std::time::Duration) -> Exposure {
        let endtime = match &lease.end {
            Some(end) => end.ticket_endtime,
            None => self.latest_endtime(lease),
        };
        let tickets = endtime
            .map_or(Exposure::Nothing, |end| Exposure::Until(accepted_until(end, clock_skew)));
        let keys = match &lease.end {
            None if lease.state == LeaseState::Active && !lease.principals.is_empty() => {
                Exposure::Open
            }
            None => Exposure::Nothing,
            Some(end) => end
                .kvnos
                .iter()
                .filter_map(|(principal, kvnos)| Some((self.principals.get(principal)?, kvnos)))
                .flat_map(|(known, kvnos)| kvnos.iter().map(|kvno| known.exposure(*kvno)))
                .max()
                .unwrap_or(Exposure::Nothing),
        };
        tickets.or_later(keys)
    }

    /// After an attach: these leases are on the node; the other live ones of it wait to be
    /// claimed. Returns ids of the inventory that are not live here.
    pub fn take_inventory(
        &mut self,
        node: &NodeName,
        claimed: &BTreeSet<LeaseId>,
        now: Now,
    ) -> Vec<LeaseId> {
        let live: BTreeSet<LeaseId> = self.live_on(node).into_iter().collect();
        for id in &live {
            self.acknowledged.remove(id);
            if claimed.contains(id) {
                self.unclaimed.remove(id);
            } else {
                self.unclaimed.entry(*id).or_insert(now.boot);
            }
        }
        claimed.difference(&live).copied().collect()
    }

    /// Live leases that no agent has claimed for too long.
    pub fn unclaimed(&self, now: Now, times: &Times) -> Vec<LeaseId> {
        let late = |at: &crate::clock::Boottime| now.boot.since(*at) >= times.unclaimed_after;
        self.unclaimed.iter().filter(|(_, at)| late(at)).map(|(id, _)| *id).collect()
    }

    /// The live leases of a pod.
    pub fn live_of_pod(&self, uid: &PodUid) -> Vec<LeaseId> {
        self.by_holder.iter().filter(|(key, _)| &key.pod == uid).map(|(_, id)| *id).collect()
    }

    /// Forgets ended leases that were kept long enough; a lease that is being revoked never.
    pub fn forget_ended(
        &mut self,
        keep: std::time::Duration,
        skew: std::time::Duration,
        now: SystemTime,
    ) {
        let kept_since = now.checked_sub(keep).unwrap_or(SystemTime::UNIX_EPOCH);
        let forgettable = |lease: &&Lease| {
            let Some(end) = &lease.end else { return false };
            match lease.state {
                LeaseState::Released | LeaseState::Expired => end.at < kept_since,
                LeaseState::Revoked => match self.exposure(lease, skew) {
                    Exposure::Open => false,
                    Exposure::Until(until) => end.at.max(until) < kept_since,
                    Exposure::Nothing => end.at < kept_since,
                },
                _ => false,
            }
        };
        let old: Vec<LeaseId> =
            self.leases.values().filter(forgettable).map(|lease| lease.id).collect();
        for id in old {
            self.forget(&id);
        }
    }

    fn forget(&mut self, id: &LeaseId) {
        let Some(lease) = self.leases.remove(id) else { return };
        if let Some(leases) = self.by_node.get_mut(&lease.holder.node) {
            leases.remove(id);
        }
        for principal in &lease.principals {
            if let Some(leases) = self.by_principal.get_mut(principal) {
                leases.remove(id);
            }
        }
        self.touched.insert(Touched::Lease(*id));
        self.forgotten.push(lease);
    }

    /// Whether the stream is the one of the lease's node that counts.
    pub fn is_current_stream(&self, node: &NodeName, stream: StreamId) -> bool {
        self.sessions.get(node).is_some_and(|session| session.stream == Some(stream))
    }
}

/// Whether the lease names exactly what is granted, to the node as it is now.
fn is_for(lease: &Lease, grant: &Grant, generation: Generation) -> bool {
    let granted = grant.principals.iter().map(|granted| &granted.principal);
    lease.generation == generation
        && lease.principals.iter().eq(granted)
        && lease.tickets == grant.tickets
}

fn limit(grant: &Grant, what: &str, limit: u32) -> Denial {
    Denial {
        reason: Reason::LimitReached,
        message: format!("the account {} has reached its limit of {limit} {what}", grant.account),
        rule: format!("limits.{what}: {limit} of {}", grant.account),
    }
}

pub(super) fn limit_of_principals(grant: &Grant, per_hour: bool) -> Denial {
    if per_hour {
        let cap = grant.limits.new_principals_per_hour;
        limit(grant, "new_principals_per_hour", cap)
    } else {
        limit(grant, "principals", grant.limits.principals)
    }
}
