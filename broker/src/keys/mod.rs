//! The life of a principal's keys.
//!
//! The broker makes the keys, so it can hand them out before the KDC uses them:
//! `Pending -> Distributing -> Activating -> Current -> Retiring -> (Dropping) -> Pruned`;
//! Dropping is the end of Retiring: it is leaving the keytabs.
//!
//! What always holds:
//! - a keyset of (principal, kvno) never changes once it is stored, and a kvno is never
//!   used again;
//! - a kvno is outside only on nodes that its `delivered_to` names;
//! - at most one keyset is under way (Pending, Distributing or Activating), and at most one
//!   is Current;
//! - while a node that is fenced was ever given the Current keyset, or its number is burnt by a
//!   revocation, the principal is due for a new one. That is derived from what is stored, so
//!   that no crash forgets it.
//!
//! [`due`] says whether and why a key is to be replaced, and when that may begin; [`walk`] which
//! step comes next; [`walker`] takes it. [`standing`] is for principals that nobody uses, or
//! that an operator has switched off. [`upkeep`] and [`drift`] look after what nobody asks for.
//! Only they and the walker do I/O.

pub mod drift;
pub mod due;
pub mod propagation;
pub mod schedule;
pub mod standing;
pub mod upkeep;
pub mod walk;
pub mod walker;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use krb_proto::{Generation, Kvno, NodeName, Principal};

use self::{
    due::Debt,
    standing::{Standing, SwitchedOff},
};
use crate::{entitlement::Login, kdc::Attributes, krb5::key::Keyset, lease::Exposure};

/// Readers with 8 bits see another key above this.
pub const KVNO_ALERT: Kvno = Kvno(200);
/// MIT keeps 16 bits; beyond this no number is given out.
pub const KVNO_LIMIT: Kvno = Kvno(60_000);

/// Where a keyset is in its life. A pruned one is no longer held.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// Made and stored; nobody has it.
    Pending,
    /// Being given to every holder; the KDC does not use it yet.
    Distributing,
    /// Set, or being set, at the KDC; not every KDC uses it yet.
    Activating,
    /// What the KDCs use.
    Current,
    /// No longer used for new tickets; holders keep it for the tickets that are outside.
    Retiring,
    /// Past that: being taken out of the holders' keytabs.
    Dropping,
}

impl Phase {
    /// Whether it is in the keytabs that are given out.
    pub fn is_delivered(self) -> bool {
        matches!(self, Self::Distributing | Self::Activating | Self::Current | Self::Retiring)
    }

    /// Whether it is on its way to being Current.
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Pending | Self::Distributing | Self::Activating)
    }
}

/// A node as it was when it was given a key.
pub type Recipient = (NodeName, Generation);

/// A keyset and where it went.
#[derive(Clone, Debug)]
pub struct Held {
    /// The keys.
    pub keyset: Keyset,
    /// Where it is in its life.
    pub phase: Phase,
    /// Since when.
    pub since: SystemTime,
    /// When the last KDC switched away from it; `None` while one may use it, and for one that
    /// no KDC ever used.
    pub retired_at: Option<SystemTime>,
    /// How many deadlines its holders have let pass.
    pub missed: u32,
    /// Every node that was ever given it, durable before it left.
    pub delivered_to: BTreeSet<Recipient>,
    /// The KDCs, by address, that were seen with an older key since this one was set, and not
    /// with this one yet; for the Current one of a principal that is switched off, those that
    /// were seen to issue tickets to it since.
    pub lagging: BTreeSet<String>,
}

/// A principal whose keys are the broker's.
#[derive(Clone, Debug)]
pub struct ManagedPrincipal {
    /// Its name.
    pub principal: Principal,
    /// The first account that got it.
    pub owner: Login,
    /// Whether other accounts may have it too.
    pub shared: bool,
    /// How it is to be at the KDC.
    pub attributes: Attributes,
    /// When the broker first took it up.
    pub made_at: SystemTime,
    /// The highest kvno ever used or seen.
    pub high_water: Kvno,
    /// The keysets that somebody may still have or need.
    pub keysets: BTreeMap<Kvno, Held>,
    /// Until when each pruned kvno can still be misused.
    pub pruned: BTreeMap<Kvno, SystemTime>,
    /// Whether the broker made it at the KDC, or adopted it: nothing is set on any other.
    pub ours: bool,
    /// Whether it is one pod's own: deleted soon after that pod has gone.
    pub of_pod: bool,
    /// What it is at the KDC.
    pub standing: Standing,
    /// What it is to be there; `None`: in use.
    pub switched_off: Option<SwitchedOff>,
    /// Why its key is to be replaced, besides what follows from its recipients.
    pub debt: Debt,
    /// When its key was last replaced.
    pub replaced_at: Option<SystemTime>,
    /// When a replacement was last given up, since holders did not answer.
    pub given_up_at: Option<SystemTime>,
    /// Since when no live lease names it, as far as was noticed.
    pub idle_since: Option<SystemTime>,
}

impl ManagedPrincipal {
    /// A principal that the broker takes up now. It has no key yet.
    pub fn new(
        principal: Principal,
        owner: Login,
        shared: bool,
        attributes: Attributes,
        made_at: SystemTime,
    ) -> Self {
        Self {
            principal,
            owner,
            shared,
            attributes,
            made_at,
            high_water: Kvno(Kvno::FIRST.0 - 1),
            keysets: BTreeMap::new(),
            pruned: BTreeMap::new(),
            ours: false,
            of_pod: false,
            standing: Standing::InUse,
            switched_off: None,
            debt: Debt::default(),
            replaced_at: None,
            given_up_at: None,
            idle_since: None,
        }
    }

    /// What the KDC uses, as far as the broker knows.
    pub fn current(&self) -> Option<&Held> {
        self.keysets.values().find(|held| held.phase == Phase::Current)
    }

    /// The keyset on its way to being Current.
    pub fn under_way(&self) -> Option<&Held> {
        self.keysets.values().find(|held| held.phase.is_under_way())
    }

    /// Whether its walk waits for what holders say, or may have to.
    pub fn asks_holders(&self) -> bool {
        let asks = |held: &Held| matches!(held.phase, Phase::Distributing | Phase::Dropping);
        self.keysets.values().any(asks)
    }

    /// Whether its keys may be given to a pod: the KDC uses one of them.
    pub fn is_ready(&self) -> bool {
        self.standing == Standing::InUse && self.switched_off.is_none() && self.current().is_some()
    }

    /// What a keytab of it holds now, ascending.
    pub fn delivered(&self) -> impl Iterator<Item = &Held> {
        self.keysets.values().filter(|held| held.phase.is_delivered())
    }

    /// The numbers of [`Self::delivered`].
    pub fn delivered_kvnos(&self) -> Vec<Kvno> {
        self.delivered().map(|held| held.keyset.kvno).collect()
    }

    /// The number for the next keyset.
    ///
    /// # Errors
    /// When the numbers are used up.
    pub fn next_kvno(&self) -> Result<Kvno, NumbersUsedUp> {
        let next = self.high_water.next();
        if next > KVNO_LIMIT { Err(NumbersUsedUp) } else { Ok(next) }
    }

    /// Stores a keyset that was just made.
    ///
    /// # Errors
    /// When its number was used before: a keyset never changes.
    pub fn add(&mut self, keyset: Keyset, now: SystemTime) -> Result<(), KvnoUsed> {
        let kvno = keyset.kvno;
        if kvno <= self.high_water {
            return Err(KvnoUsed(kvno));
        }
        self.high_water = kvno;
        let held = Held {
            keyset,
            phase: Phase::Pending,
            since: now,
            retired_at: None,
            missed: 0,
            delivered_to: BTreeSet::new(),
            lagging: BTreeSet::new(),
        };
        self.keysets.insert(kvno, held);
        Ok(())
    }

    /// The KDC has a kvno that is not ours: no number up to it will be used.
    pub fn seen_at_kdc(&mut self, kvno: Kvno) {
        self.high_water = self.high_water.max(kvno);
    }

    /// Moves a keyset on. An unknown kvno is no error: it was pruned or burnt meanwhile.
    pub fn enter(&mut self, kvno: Kvno, phase: Phase, now: SystemTime) {
        if let Some(held) = self.keysets.get_mut(&kvno) {
            held.phase = phase;
            held.since = now;
        }
    }

    /// The KDCs use `kvno` now; what they used before retires. After a compromise it leaves the
    /// keytabs at once, with all that is retiring and was burnt.
    pub fn became_current(&mut self, kvno: Kvno, now: SystemTime) -> Vec<Kvno> {
        let abrupt = self.debt.is_abrupt();
        let was_used = self.may_still_be_used();
        let mut retired = Vec::new();
        for (number, held) in &mut self.keysets {
            let was_current = held.phase == Phase::Current && *number != kvno;
            if was_current {
                (held.phase, held.since, held.retired_at) = (Phase::Retiring, now, Some(now));
                retired.push(*number);
            }
            if was_used && held.phase == Phase::Dropping && held.retired_at.is_some() {
                held.retired_at = Some(now);
            }
            if abrupt && held.phase == Phase::Retiring && *number < kvno {
                (held.phase, held.since) = (Phase::Dropping, now);
            }
        }
        if !retired.is_empty() {
            self.replaced_at = Some(now);
        }
        self.enter(kvno, Phase::Current, now);
        self.standing = Standing::InUse;
        self.debt.is_paid_by(kvno);
        retired
    }

    /// What retires up to `kvno` leaves the keytabs before the tickets under it have ended.
    pub fn drop_retired(&mut self, kvno: Kvno, now: SystemTime) {
        for (_, held) in self.keysets.range_mut(..=kvno) {
            if held.phase == Phase::Retiring {
                (held.phase, held.since) = (Phase::Dropping, now);
            }
        }
    }

    /// Gives a keyset up that never became Current. Its number is not used again. Holders that
    /// have it accept tickets under it, so it is taken out of their keytabs like a retired one.
    pub fn burn(&mut self, kvno: Kvno, now: SystemTime) {
        match self.keysets.get_mut(&kvno) {
            Some(held) if !held.delivered_to.is_empty() => {
                (held.phase, held.since) = (Phase::Dropping, now);
            }
            Some(_) => drop(self.keysets.remove(&kvno)),
            None => {}
        }
    }

    /// Every holder has a keytab without `kvno`: it is accepted nowhere.
    /// `exposed_until` is the end of the last thing that it could be used for.
    pub fn prune(&mut self, kvno: Kvno, exposed_until: SystemTime) {
        if self.keysets.remove(&kvno).is_some() {
            self.pruned.insert(kvno, exposed_until);
        }
    }

    /// Forgets until when numbers pruned before could be misused, where that ended before `at`.
    pub fn forget_pruned(&mut self, at: SystemTime) -> bool {
        let before = self.pruned.len();
        self.pruned.retain(|_, until| *until >= at);
        before != self.pruned.len()
    }

    /// The numbers that were given to a node.
    pub fn kvnos_given(&self, recipient: &Recipient) -> Vec<Kvno> {
        let given = |held: &&Held| held.delivered_to.contains(recipient);
        self.keysets.values().filter(given).map(|held| held.keyset.kvno).collect()
    }

    /// Until when a key of this number can be misused by whoever had it.
    pub fn exposure(&self, kvno: Kvno) -> Exposure {
        match (self.keysets.get(&kvno), self.pruned.get(&kvno)) {
            (Some(_), _) => Exposure::Open,
            (None, Some(until)) => Exposure::Until(*until),
            (None, None) => Exposure::Nothing,
        }
    }
}

/// A kvno that was used before.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("kvno {0} was used before")]
pub struct KvnoUsed(pub Kvno);

/// No kvno is left that MIT would keep.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("every kvno up to 60000 has been used")]
pub struct NumbersUsedUp;
