//! What is taken away: leases from their holders, numbers from those who had them, principals
//! from use.
//!
//! A lease that is being revoked is Revoked when every number that its node had been given of
//! every principal it names has been replaced at the KDCs. What it had is counted by what was
//! delivered to its node, never by what an agent says.

use std::{collections::BTreeSet, time::SystemTime};

use krb_proto::{Kvno, LeaseId, NodeName, Principal};

use super::{Ledger, Touched};
use crate::{
    keys::{
        ManagedPrincipal, Recipient,
        due::Kind,
        standing::{Off, SwitchedOff},
    },
    lease::{Lease, LeaseState},
};

/// How many numbers of a principal may have been used since a snapshot was taken.
const NUMBERS_LOST: u32 = 16;

/// How a revocation goes about the keys.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum How {
    /// The replaced keys stay in the other holders' keytabs until the tickets under them end.
    #[default]
    Overlap,
    /// They leave the keytabs as the new ones are set: tickets that are outside break.
    Now,
    /// The principals are switched off.
    Disable,
}

/// What a revocation hit.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hit {
    /// Leases that are being revoked now.
    pub leases: Vec<LeaseId>,
    /// Those of them that had nothing to replace, and are Revoked at once.
    pub revoked: Vec<LeaseId>,
    /// Principals with numbers that are burnt now, or that are switched off.
    pub principals: BTreeSet<Principal>,
}

impl Ledger {
    /// Revokes leases: they end, and every number that was given to their nodes of the
    /// principals they name is burnt.
    pub fn revoke(&mut self, leases: &[LeaseId], reason: &str, now: SystemTime) -> Hit {
        let mut hit = Hit::default();
        for id in leases {
            let Some(lease) = self.lease(id).cloned() else { continue };
            if !self.start_revoking(id, reason, now) {
                continue;
            }
            hit.leases.push(*id);
            for principal in &lease.principals {
                if let Some(given) = self.given_to(principal, &lease.holder.node) {
                    self.burn_through(principal, given);
                    hit.principals.insert(principal.clone());
                }
            }
        }
        let ended = hit.leases.iter().filter(|id| self.finish_revoking_one(id));
        hit.revoked = ended.copied().collect::<Vec<_>>();
        hit
    }

    /// The highest number of the principal that the node was ever given, in any generation, and
    /// that somebody may still have.
    pub fn given_to(&self, principal: &Principal, node: &NodeName) -> Option<Kvno> {
        let given = |held: &&crate::keys::Held| held.delivered_to.iter().any(|(n, _)| n == node);
        let managed = self.principals.get(principal)?;
        managed.keysets.values().filter(given).map(|held| held.keyset.kvno).next_back()
    }

    /// The principals of which the node was ever given a number that somebody may still have.
    pub fn principals_given_to(&self, node: &NodeName) -> BTreeSet<Principal> {
        let given = |p: &&ManagedPrincipal| self.given_to(&p.principal, node).is_some();
        self.principals.values().filter(given).map(|p| p.principal.clone()).collect()
    }

    /// The highest number of the principal that anybody was ever given, or that is in use.
    pub fn highest_outside(&self, principal: &Principal) -> Option<Kvno> {
        let managed = self.principals.get(principal)?;
        let current = managed.current().map(|held| held.keyset.kvno);
        let given = managed.keysets.values().filter(|held| !held.delivered_to.is_empty());
        given.map(|held| held.keyset.kvno).next_back().max(current)
    }

    /// Every number of the principal up to this one is to be replaced, where one is in use.
    pub fn burn_through(&mut self, principal: &Principal, kvno: Kvno) {
        let in_use = |managed: &ManagedPrincipal| {
            managed.current().is_some_and(|held| held.keyset.kvno <= kvno)
        };
        if self.principals.get(principal).is_some_and(in_use) {
            self.of_principal(principal, |managed| managed.debt.burn_through(kvno));
        }
    }

    /// The numbers up to this one leave the keytabs: those that retire now, the one in use as a
    /// new key is set.
    pub fn be_abrupt(&mut self, principal: &Principal, kvno: Kvno, now: SystemTime) {
        self.of_all_keysets(principal, |managed| {
            managed.drop_retired(kvno, now);
            managed.debt.abrupt |= managed.debt.burnt_through.is_some();
        });
    }

    /// The principal's replacement goes before its time, where there is one to come.
    pub fn go_ahead(&mut self, principal: &Principal) {
        let fenced = |recipient: &Recipient| self.is_fenced(recipient);
        let known = self.principals.get(principal);
        if known.is_some_and(|known| known.must_be_replaced(&fenced)) {
            self.of_principal(principal, |managed| managed.debt.ahead = true);
        }
    }

    /// Asks for a new key of the principal. In an emergency every number that is outside is in
    /// wrong hands, one that is on its way too.
    pub fn ask_rekey(&mut self, principal: &Principal, kind: Kind) {
        let outside = self.highest_outside(principal).filter(|_| kind == Kind::Emergency);
        self.of_principal(principal, |managed| {
            managed.debt.ask(kind);
            if let Some(outside) = outside {
                managed.debt.burn_through(outside);
            }
        });
    }

    /// After a recovery: who was given what since the snapshot is not known, nor which numbers
    /// were used. Every key is replaced, above all that may have been.
    pub fn replace_every_key(&mut self) {
        let names: Vec<Principal> = self.principals.keys().cloned().collect();
        for name in names {
            self.of_principal(&name, |managed| {
                managed.high_water = Kvno(managed.high_water.0.saturating_add(NUMBERS_LOST));
                if let Some(current) = managed.current().map(|held| held.keyset.kvno) {
                    managed.debt.burn_through(current);
                }
            });
        }
    }

    /// The principal is to be switched off; `by` is the operator who says so.
    pub fn switch_off(
        &mut self,
        principal: &Principal,
        how: Off,
        by: Option<String>,
        now: SystemTime,
    ) {
        self.of_principal(principal, |managed| {
            managed.switched_off = Some(SwitchedOff { how, by, since: now });
        });
    }

    /// Nobody holds the principal, as was noticed now.
    pub(crate) fn is_idle_since(&mut self, principal: &Principal, now: SystemTime) {
        self.of_principal(principal, |managed| managed.idle_since = Some(now));
    }

    /// The principal is to be used again.
    pub fn switch_on(&mut self, principal: &Principal) {
        self.of_principal(principal, |managed| {
            managed.switched_off = None;
            managed.idle_since = None;
        });
    }

    /// Leases that are being revoked and whose keys have all been replaced become Revoked.
    pub fn finish_revoking(&mut self, principal: &Principal) -> Vec<LeaseId> {
        let ids: Vec<LeaseId> =
            self.by_principal.get(principal).into_iter().flatten().copied().collect();
        ids.into_iter().filter(|id| self.finish_revoking_one(id)).collect()
    }

    pub(super) fn finish_revoking_one(&mut self, id: &LeaseId) -> bool {
        let Some(lease) = self.leases.get(id) else { return false };
        if lease.state != LeaseState::Revoking || self.awaited(lease).next().is_some() {
            return false;
        }
        let reason = lease.reason.clone();
        let Some(lease) = self.leases.get_mut(id) else { return false };
        lease.revoked(&reason);
        self.touched.insert(Touched::Lease(*id));
        true
    }

    /// The principals of an ended lease with a number that has not been replaced yet.
    pub fn awaited<'a>(&'a self, lease: &'a Lease) -> impl Iterator<Item = &'a Principal> {
        let given = lease.end.iter().flat_map(|end| &end.kvnos);
        given.filter_map(|(principal, kvnos)| {
            let managed = self.principals.get(principal)?;
            let last = *kvnos.iter().max()?;
            (!managed.is_replaced(last)).then_some(principal)
        })
    }
}
