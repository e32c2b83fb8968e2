//! Which principals are the broker's, whose they are, and who was given their keys.

use std::time::{Duration, SystemTime};

use krb_proto::{Principal, reason::Reason};

use super::{Ledger, Touched, leases::limit_of_principals};
use crate::{
    entitlement::{AccountMode, Denial, Grant, GrantedPrincipal, GrantedTicket, Login},
    kdc::Attributes,
    keys::{
        ManagedPrincipal, Recipient,
        standing::{Off, Standing},
    },
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
    ///
    /// # Errors
    /// The first rule that is missing.
    pub fn check_principals(&self, grant: &Grant, now: SystemTime) -> Result<(), Denial> {
        let clients = grant.tickets.iter().filter_map(|ticket| self.principals.get(&ticket.client));
        if let Some(off) = clients.into_iter().find(|known| known.is_switched_off_by_operator()) {
            return Err(switched_off(off));
        }
        let mut new = 0_u32;
        for granted in &grant.principals {
            match self.principals.get(&granted.principal) {
                None => new += 1,
                Some(known) if known.is_switched_off_by_operator() => {
                    return Err(switched_off(known));
                }
                Some(known) if known.owner == grant.account => {}
                Some(known) if known.shared && granted.shared => {}
                Some(known) => return Err(taken(granted, known)),
            }
        }
        if new == 0 {
            return Ok(());
        }
        let (mut owned, mut lately) = (new, new);
        let is_there = |known: &ManagedPrincipal| known.standing != Standing::Off(Off::Deleted);
        let owns = |known: &&ManagedPrincipal| known.owner == grant.account && is_there(known);
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

    /// The account takes up those of its granted principals that are nobody's yet, and those
    /// that nobody used for long.
    pub fn take_up(&mut self, grant: &Grant, max_life: Duration, now: SystemTime) {
        for granted in &grant.principals {
            if let Some(known) = self.principals.get(&granted.principal) {
                if known.switched_off.is_some() || known.idle_since.is_some() {
                    self.switch_on(&granted.principal);
                }
                continue;
            }
            let attributes = Attributes::service(max_life, granted.client);
            let mut managed = ManagedPrincipal::new(
                granted.principal.clone(),
                grant.account.clone(),
                granted.shared,
                attributes,
                now,
            );
            managed.of_pod = granted.of_pod;
            self.principals.insert(granted.principal.clone(), managed);
            self.touched.insert(Touched::Principal(granted.principal.clone()));
        }
    }

    /// An administrator gives a principal to the broker. False when it is the broker's already,
    /// or another account's.
    pub fn adopt(
        &mut self,
        principal: &Principal,
        account: &Login,
        shared: bool,
        attributes: Attributes,
        now: SystemTime,
    ) -> bool {
        if let Some(known) = self.principals.get(principal) {
            // a pod that asked before has made it the account's
            let may_be = !known.ours && known.owner == *account;
            if may_be {
                self.is_ours_now(principal);
            }
            return may_be;
        }
        let mut managed =
            ManagedPrincipal::new(principal.clone(), account.clone(), shared, attributes, now);
        managed.ours = true;
        self.principals.insert(principal.clone(), managed);
        self.touched.insert(Touched::Principal(principal.clone()));
        true
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

fn switched_off(known: &ManagedPrincipal) -> Denial {
    let by = known.switched_off.as_ref().and_then(|off| off.by.as_deref()).unwrap_or_default();
    Denial {
        reason: Reason::PrincipalDisabled,
        message: format!("{} is switched off; ask an operator", known.principal),
        rule: format!("{} was switched off by {by}", known.principal),
    }
}

fn taken(granted: &GrantedPrincipal, known: &ManagedPrincipal) -> Denial {
    Denial {
        reason: Reason::PrincipalTaken,
        message: format!("{} belongs to another account", granted.principal),
        rule: format!("{} belongs to {} and is not shared", granted.principal, known.owner),
    }
}
