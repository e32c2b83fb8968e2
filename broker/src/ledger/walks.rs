//! The steps of keys, as the ledger records them.
//!
//! Which step is next is decided in [`keys::walk`](crate::keys::walk); what is done at the KDC
//! in [`keys::walker`](crate::keys::walker). Here is what each step changes in the records.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use krb_proto::{Kvno, Principal};

use super::{Ledger, Touched};
use crate::{
    keys::{
        KvnoUsed, ManagedPrincipal, Phase, Recipient,
        due::Kind,
        standing::Off,
        walk::{Step, WalkRules, WalkView},
    },
    krb5::key::Keyset,
};

/// How long it is remembered until when a pruned key could be misused, after that time.
const REMEMBER_PRUNED: Duration = Duration::from_secs(30 * 24 * 3600);

impl Ledger {
    /// The next step of a principal's walk; `Rest` for one that is not known.
    pub fn next_step(&self, principal: &Principal, now: SystemTime, rules: &WalkRules) -> Step {
        self.principals.get(principal).map_or(Step::Rest, |managed| {
            self.viewed(managed, now, rules, |view| managed.next_step(view))
        })
    }

    /// Why the principal's key is to be replaced; `None` when it is not.
    pub fn due(&self, principal: &Principal, now: SystemTime, rules: &WalkRules) -> Option<Kind> {
        let managed = self.principals.get(principal)?;
        self.viewed(managed, now, rules, |view| managed.due(view))
    }

    fn viewed<T>(
        &self,
        managed: &ManagedPrincipal,
        now: SystemTime,
        rules: &WalkRules,
        look: impl FnOnce(&WalkView<'_>) -> T,
    ) -> T {
        let fenced = |recipient: &Recipient| self.is_fenced(recipient);
        // There may be thousands; they are only looked at where a step may depend on them.
        let pending = managed.under_way().is_some_and(|held| held.phase == Phase::Pending);
        let asks = pending || managed.asks_holders();
        let holders = if asks { self.holders(&managed.principal) } else { Vec::new() };
        look(&WalkView {
            fenced: &fenced,
            holders,
            now,
            clock_fault: self.clock_fault.is_some(),
            scheduled_at: rules.schedule.at(managed),
            times: rules.times,
        })
    }

    /// Principals whose walk is not at rest. A first key is made when a pod asks.
    pub fn walking(&self, now: SystemTime, rules: &WalkRules) -> Vec<Principal> {
        let may_walk =
            |known: &&ManagedPrincipal| known.current().is_some() || known.switched_off.is_some();
        let walks = |known: &&ManagedPrincipal| {
            may_walk(known) && self.next_step(&known.principal, now, rules) != Step::Rest
        };
        self.principals.values().filter(walks).map(|known| known.principal.clone()).collect()
    }

    /// Takes a step that is nothing but a record. False for one that needs more: a new key, or
    /// the KDC.
    pub fn take_step(&mut self, principal: &Principal, step: &Step, now: SystemTime) -> bool {
        let Some(managed) = self.principals.get_mut(principal) else { return false };
        let of = |managed: &ManagedPrincipal, kvno: Kvno| {
            managed.keysets.get(&kvno).map(|held| held.delivered_to.clone())
        };
        let had = step.kvno().map(|kvno| (kvno, of(managed, kvno).unwrap_or_default()));
        if !managed.take(step, now) {
            return false;
        }
        let touched = &mut self.touched;
        touched.insert(Touched::Principal(principal.clone()));
        match had {
            None => touched.extend(
                managed.keysets.keys().map(|kvno| Touched::Keyset(principal.clone(), *kvno)),
            ),
            Some((kvno, recipients)) => {
                touched.insert(Touched::Keyset(principal.clone(), kvno));
                if !managed.keysets.contains_key(&kvno) {
                    let delivered = |to| Touched::Delivered(principal.clone(), kvno, to);
                    touched.extend(recipients.into_iter().map(delivered));
                }
            }
        }
        true
    }

    /// Stores a keyset that was just made.
    ///
    /// # Errors
    /// When its number was used before.
    pub fn add_keyset(
        &mut self,
        principal: &Principal,
        keyset: Keyset,
        now: SystemTime,
    ) -> Result<(), KvnoUsed> {
        let kvno = keyset.kvno;
        let managed = self.principals.get_mut(principal).ok_or(KvnoUsed(kvno))?;
        managed.add(keyset, now)?;
        self.touched.insert(Touched::Principal(principal.clone()));
        self.touched.insert(Touched::Keyset(principal.clone(), kvno));
        Ok(())
    }

    /// The KDCs use `kvno` now. Returns the numbers that retire.
    pub fn became_current(
        &mut self,
        principal: &Principal,
        kvno: Kvno,
        now: SystemTime,
    ) -> Vec<Kvno> {
        let mut retired = Vec::new();
        self.of_all_keysets(principal, |managed| retired = managed.became_current(kvno, now));
        retired
    }

    /// The KDC has switched it off.
    pub fn went_off(&mut self, principal: &Principal, how: Off, now: SystemTime) {
        self.of_all_keysets(principal, |managed| managed.went_off(how, now));
    }

    /// The broker has made the principal at the KDC, or an administrator gave it to the broker.
    pub fn is_ours_now(&mut self, principal: &Principal) {
        self.of_principal(principal, |managed| managed.ours = true);
    }

    /// These KDCs, by address, and no others were seen to lag behind the keyset. False when that
    /// is what was known.
    pub fn set_lagging(
        &mut self,
        principal: &Principal,
        kvno: Kvno,
        lagging: &BTreeSet<String>,
    ) -> bool {
        let managed = self.principals.get_mut(principal);
        let held = managed.and_then(|managed| managed.keysets.get_mut(&kvno));
        let Some(held) = held.filter(|held| held.lagging != *lagging) else { return false };
        held.lagging.clone_from(lagging);
        self.touched.insert(Touched::Keyset(principal.clone(), kvno));
        true
    }

    /// The KDC has a higher number than the broker has used.
    pub fn seen_at_kdc(&mut self, principal: &Principal, kvno: Kvno) {
        if let Some(managed) = self.principals.get_mut(principal) {
            managed.seen_at_kdc(kvno);
            self.touched.insert(Touched::Principal(principal.clone()));
        }
    }

    /// Forgets of each principal until when keys that were pruned long ago could be misused.
    pub fn forget_pruned(&mut self, now: SystemTime) {
        let Some(before) = now.checked_sub(REMEMBER_PRUNED) else { return };
        for (name, managed) in &mut self.principals {
            if managed.forget_pruned(before) {
                self.touched.insert(Touched::Principal(name.clone()));
            }
        }
    }

    /// Changes a principal, without its keysets.
    pub(super) fn of_principal(
        &mut self,
        principal: &Principal,
        change: impl FnOnce(&mut ManagedPrincipal),
    ) {
        if let Some(managed) = self.principals.get_mut(principal) {
            change(managed);
            self.touched.insert(Touched::Principal(principal.clone()));
        }
    }

    /// Changes a principal and its keysets.
    pub(super) fn of_all_keysets(
        &mut self,
        principal: &Principal,
        change: impl FnOnce(&mut ManagedPrincipal),
    ) {
        if let Some(managed) = self.principals.get_mut(principal) {
            change(managed);
            for kvno in managed.keysets.keys() {
                self.touched.insert(Touched::Keyset(principal.clone(), *kvno));
            }
            self.touched.insert(Touched::Principal(principal.clone()));
        }
    }
}
