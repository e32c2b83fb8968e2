//! What a revocation would do: what is hit, who shares it, what breaks, and until when what was
//! handed out stays usable.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use krb_proto::{Kvno, LeaseId, Principal};

use super::{Revocation, Target};
use crate::{
    keys::{
        ManagedPrincipal,
        due::{Begins, Kind},
        walk::WalkRules,
    },
    lease::Lease,
    lease::accepted_until,
    ledger::{Ledger, revoking::How},
};

/// What would be done.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// The leases that end.
    pub leases: Vec<PlannedLease>,
    /// The principals whose keys are replaced, or that are switched off.
    pub principals: Vec<PlannedPrincipal>,
}

/// A lease that would end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlannedLease {
    /// Which.
    pub lease: LeaseId,
    /// Until when tickets that it was given can be used, whatever is done.
    pub tickets_until: Option<SystemTime>,
}

/// A principal that would be touched.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlannedPrincipal {
    /// Which.
    pub principal: Principal,
    /// The numbers that would be burnt.
    pub burnt: Vec<Kvno>,
    /// Live leases that have it too, and go on.
    pub sharers: Vec<LeaseId>,
    /// When its replacement begins.
    pub begins: Begins,
    /// What breaks for the sharers and for clients, in a sentence; empty: nothing.
    pub breaks: String,
    /// Until when the burnt numbers are usable, if every sharer answers in time.
    pub usable_until: SystemTime,
}

/// The plan of a revocation that would begin now.
pub fn of(ledger: &Ledger, asked: &Revocation, now: SystemTime, rules: &WalkRules) -> Plan {
    let leases = asked.target.leases(ledger);
    let ended: BTreeSet<LeaseId> = leases.iter().copied().collect();
    let named = leases.iter().filter_map(|id| ledger.lease(id));
    let mut principals: BTreeSet<Principal> =
        named.flat_map(|lease| lease.principals.iter().cloned()).collect();
    principals.extend(asked.target.principals(ledger));
    let planned = |id: &LeaseId| PlannedLease {
        lease: *id,
        tickets_until: ledger.lease(id).and_then(|lease| ledger.latest_endtime(lease)),
    };
    let touched = |name: &Principal| {
        let managed = ledger.principal(name)?;
        Some(touched(ledger, managed, asked, &ended, now, rules))
    };
    Plan {
        leases: leases.iter().map(planned).collect(),
        principals: principals.iter().filter_map(touched).collect(),
    }
}

fn touched(
    ledger: &Ledger,
    managed: &ManagedPrincipal,
    asked: &Revocation,
    ended: &BTreeSet<LeaseId>,
    now: SystemTime,
    rules: &WalkRules,
) -> PlannedPrincipal {
    let principal = &managed.principal;
    let mut sharers = ledger.active_with(principal);
    sharers.retain(|id| !ended.contains(id));
    let mut as_asked = managed.clone();
    as_asked.debt.ahead |= asked.ahead;
    let begins = as_asked.begins(Kind::Revocation, now, &rules.times);
    PlannedPrincipal {
        principal: principal.clone(),
        burnt: burnt(ledger, managed, asked, ended),
        breaks: breaks(managed, asked.how, sharers.len(), begins),
        usable_until: usable_until(managed, asked.how, begins, now, rules),
        sharers,
        begins,
    }
}

/// The highest number of each principal that anybody who loses it was given.
pub(super) fn given(ledger: &Ledger, asked: &Revocation) -> Vec<(Principal, Kvno)> {
    let ended: BTreeSet<LeaseId> = asked.target.leases(ledger).into_iter().collect();
    let named = ended.iter().filter_map(|id| ledger.lease(id));
    let mut names: BTreeSet<Principal> =
        named.flat_map(|lease| lease.principals.iter().cloned()).collect();
    names.extend(asked.target.principals(ledger));
    let highest = |name: Principal| {
        let highest = highest_given(ledger, &name, asked, &ended)?;
        Some((name, highest))
    };
    names.into_iter().filter_map(highest).collect()
}

fn highest_given(
    ledger: &Ledger,
    name: &Principal,
    asked: &Revocation,
    ended: &BTreeSet<LeaseId>,
) -> Option<Kvno> {
    let names_it = |lease: &&Lease| lease.principals.contains(name);
    let leases = ended.iter().filter_map(|id| ledger.lease(id)).filter(names_it);
    let of_leases = leases.filter_map(|lease| ledger.given_to(name, &lease.holder.node)).max();
    match &asked.target {
        Target::Node(node) => of_leases.max(ledger.given_to(name, node)),
        Target::Principal(target) if target == name => of_leases.max(ledger.highest_outside(name)),
        _ => of_leases,
    }
}

/// Every number up to that one.
fn burnt(
    ledger: &Ledger,
    managed: &ManagedPrincipal,
    asked: &Revocation,
    ended: &BTreeSet<LeaseId>,
) -> Vec<Kvno> {
    let highest = highest_given(ledger, &managed.principal, asked, ended);
    let numbers = managed.keysets.keys().copied();
    numbers.filter(|kvno| highest.is_some_and(|highest| *kvno <= highest)).collect()
}

fn breaks(managed: &ManagedPrincipal, how: How, sharers: usize, begins: Begins) -> String {
    let mut parts = Vec::new();
    match how {
        How::Overlap => {}
        How::Now if sharers == 0 => {}
        How::Now => parts.push(format!(
            "clients with tickets under the burnt numbers are refused by {sharers} other holders \
             until they get new ones"
        )),
        How::Disable => parts.push(format!(
            "nobody gets tickets for {}, and {sharers} other holders lose its keys, until an \
             operator switches it on",
            managed.principal
        )),
    }
    if let Begins::AfterDropping(kvno) = begins {
        parts.push(format!("tickets under kvno {kvno} are refused before they end"));
    }
    parts.join("; ")
}

fn usable_until(
    managed: &ManagedPrincipal,
    how: How,
    begins: Begins,
    now: SystemTime,
    rules: &WalkRules,
) -> SystemTime {
    let begin = match begins {
        Begins::At(at) => at,
        Begins::Now | Begins::AfterDropping(_) => now,
    };
    let times = &rules.times;
    let handing_out = match how {
        How::Disable => Duration::ZERO,
        How::Overlap | How::Now => times.acknowledge_within,
    };
    let last_use = begin + handing_out + managed.retirement(times);
    accepted_until(last_use, times.clock_skew)
}
