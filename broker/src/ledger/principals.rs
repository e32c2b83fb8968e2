//! What may happen to the principals whose keys are the broker's.

use std::time::{Duration, SystemTime};

use krb_proto::{Kvno, Principal, reason::Reason};

use super::{Ledger, Touched, leases::limit_of_principals};
use crate::{
    entitlement::{AccountMode, Denial, Grant, GrantedPrincipal, GrantedTicket},
    kdc::Attributes,
    keys::{
        KvnoUsed, ManagedPrincipal, Phase, Recipient,
        walk::{Step, WalkTimes, WalkView},
    },
    krb5::key::Keyset,
};

const HOUR: Duration = Duration::from_secs(3600);

impl Ledger {
    /// A principal whose keys are the broker's.
    pub fn principal(&self, principal: &Principal) -> Option<&ManagedPrincipal> {
        self.principals.get(principal)
    }

    /// Whether every key that the grant names is made and in use.
    pub fn is_ready(&self, grant: &Grant) -> bool {
        let ready = |name| self.principals.get(name).is_some_and(ManagedPrincipal::is_ready);
        grant.principals.iter().all(|granted| ready(&granted.principal))
    }

    /// All of them.
    pub fn principals(&self) -> impl Iterator<Item = &ManagedPrincipal> {
        self.principals.values()
    }

    /// Whether the account may have these principals: none is another's, and the new ones
    /// keep within its limits.
    pub(super) fn check_principals(&self, grant: &Grant, now: SystemTime) -> Result<(), Denial> {
        let mut new = 0_u32;
        for granted in &grant.principals {
            match self.principals.get(&granted.principal) {
                None => new += 1,
                Some(known) if known.owner == grant.account => {}
                Some(known) if known.shared && granted.shared => {}
                Some(known) => return Err(taken(granted, known)),
            }
        }
        if new == 0 {
            return Ok(());
        }
        let (mut owned, mut lately) = (new, new);
        let owns = |known: &&ManagedPrincipal| known.owner == grant.account;
        for known in self.principals.values().filter(owns) {
            owned += 1;
            lately += u32::from(now.duration_since(known.made_at).is_ok_and(|age| age < HOUR));
        }
        if owned > grant.limits.principals {
            return Err(limit_of_principals(grant, false));
        }
        if lately > grant.limits.new_principals_per_hour {
            return Err(limit_of_principals(grant, true));
        }
        Ok(())
    }

    /// The account takes up those of its granted principals that are nobody's yet.
    pub fn take_up(&mut self, grant: &Grant, max_life: Duration, now: SystemTime) {
        for granted in &grant.principals {
            if self.principals.contains_key(&granted.principal) {
                continue;
            }
            let attributes = Attributes::service(max_life, granted.client);
            let managed = ManagedPrincipal::new(
                granted.principal.clone(),
                grant.account.clone(),
                granted.shared,
                attributes,
                now,
            );
            self.principals.insert(granted.principal.clone(), managed);
            self.touched.insert(Touched::Principal(granted.principal.clone()));
        }
    }

    /// The client principals of the managed accounts whose tickets the grant names are taken
    /// up, each for its own account. No keytab ever has their keys.
    pub fn take_up_accounts(&mut self, grant: &Grant, max_life: Duration, now: SystemTime) {
        let managed = grant.tickets.iter().filter(|ticket| ticket.mode == AccountMode::Managed);
        for GrantedTicket { login, client, .. } in managed {
            if self.principals.contains_key(client) {
                continue;
            }
            let attributes = Attributes::role_account(max_life);
            let account =
                ManagedPrincipal::new(client.clone(), login.clone(), false, attributes, now);
            self.principals.insert(client.clone(), account);
            self.touched.insert(Touched::Principal(client.clone()));
        }
    }

    pub(super) fn insert_principal(&mut self, managed: ManagedPrincipal) {
        self.principals.insert(managed.principal.clone(), managed);
    }

    pub(super) fn principal_mut(&mut self, principal: &Principal) -> Option<&mut ManagedPrincipal> {
        self.principals.get_mut(principal)
    }

    /// The next step of a principal's walk; `Rest` for one that is not known.
    pub fn next_step(&self, principal: &Principal, now: SystemTime, times: WalkTimes) -> Step {
        let Some(managed) = self.principals.get(principal) else { return Step::Rest };
        let fenced = |recipient: &Recipient| self.is_fenced(recipient);
        let holders = self.holders(principal);
        managed.next_step(&WalkView { fenced: &fenced, holders, now, times })
    }

    /// Principals whose key is being replaced, or retired. A first key is made when a pod asks.
    pub fn walking(&self, now: SystemTime, times: WalkTimes) -> Vec<Principal> {
        let walks = |known: &&ManagedPrincipal| {
            known.is_ready() && self.next_step(&known.principal, now, times) != Step::Rest
        };
        self.principals.values().filter(walks).map(|known| known.principal.clone()).collect()
    }

    /// Records that the node has every key that a keytab of the principal holds now.
    pub(super) fn delivered_to(&mut self, principal: &Principal, recipient: &Recipient) {
        let Some(managed) = self.principals.get_mut(principal) else { return };
        for (kvno, held) in &mut managed.keysets {
            if held.phase.is_delivered() && held.delivered_to.insert(recipient.clone()) {
                let touched = Touched::Delivered(principal.clone(), *kvno, recipient.clone());
                self.touched.insert(touched);
            }
        }
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

    /// Moves a keyset on.
    pub fn enter_phase(
        &mut self,
        principal: &Principal,
        kvno: Kvno,
        phase: Phase,
        now: SystemTime,
    ) {
        if let Some(managed) = self.principals.get_mut(principal) {
            managed.enter(kvno, phase, now);
            self.touched.insert(Touched::Keyset(principal.clone(), kvno));
        }
    }

    /// The KDCs use `kvno` now.
    pub fn became_current(
        &mut self,
        principal: &Principal,
        kvno: Kvno,
        now: SystemTime,
    ) -> Vec<Kvno> {
        let Some(managed) = self.principals.get_mut(principal) else { return Vec::new() };
        let retired = managed.became_current(kvno, now);
        for kvno in retired.iter().chain([&kvno]) {
            self.touched.insert(Touched::Keyset(principal.clone(), *kvno));
        }
        retired
    }

    /// Takes a keyset away that the KDC does not use.
    pub fn burn(&mut self, principal: &Principal, kvno: Kvno, now: SystemTime) {
        self.let_go(principal, kvno, |managed| managed.burn(kvno, now));
    }

    /// A keyset that nobody has any more.
    pub fn prune(&mut self, principal: &Principal, kvno: Kvno, exposed_until: SystemTime) {
        self.let_go(principal, kvno, |managed| managed.prune(kvno, exposed_until));
    }

    /// The KDC has a higher number than the broker has used.
    pub fn seen_at_kdc(&mut self, principal: &Principal, kvno: Kvno) {
        if let Some(managed) = self.principals.get_mut(principal) {
            managed.seen_at_kdc(kvno);
            self.touched.insert(Touched::Principal(principal.clone()));
        }
    }

    fn let_go(
        &mut self,
        principal: &Principal,
        kvno: Kvno,
        how: impl FnOnce(&mut ManagedPrincipal),
    ) {
        let Some(managed) = self.principals.get_mut(principal) else { return };
        let recipients: Vec<Recipient> = managed
            .keysets
            .get(&kvno)
            .map(|held| held.delivered_to.iter().cloned().collect())
            .unwrap_or_default();
        how(managed);
        self.touched.insert(Touched::Principal(principal.clone()));
        self.touched.insert(Touched::Keyset(principal.clone(), kvno));
        for recipient in recipients {
            self.touched.insert(Touched::Delivered(principal.clone(), kvno, recipient));
        }
    }

    /// What the principal's walk waits for, for an operator; `None` when for nothing.
    pub fn set_waiting(&mut self, principal: &Principal, what: Option<String>) {
        match what {
            Some(what) => self.waits.insert(principal.clone(), what),
            None => self.waits.remove(principal),
        };
    }

    /// What the walks wait for.
    pub fn waiting(&self, principal: &Principal) -> Option<&str> {
        self.waits.get(principal).map(String::as_str)
    }
}

fn taken(granted: &GrantedPrincipal, known: &ManagedPrincipal) -> Denial {
    Denial {
        reason: Reason::PrincipalTaken,
        message: format!("{} belongs to another account", granted.principal),
        rule: format!("{} belongs to {} and is not shared", granted.principal, known.owner),
    }
}
