//! Whether a principal's key is to be replaced, why, and when that may begin.
//!
//! Four things make a key due: its number is burnt by a revocation, a fenced node was given it,
//! somebody asked, or its schedule says so. What is asked or burnt is stored with the principal,
//! so that it is never forgotten; the rest follows from what is stored.
//!
//! Holders keep a replaced key until the tickets under it have ended, so keys can't be replaced
//! as fast as nodes die. At most [`MAX_RETIRING`] keysets retire at a time; before that many
//! do, the replacements are spread over the time that one takes to retire, so that nobody waits
//! much longer than the others.

use std::time::{Duration, SystemTime};

use krb_proto::Kvno;

use super::{
    ManagedPrincipal, Phase, Recipient,
    walk::{WalkTimes, WalkView},
};

/// The most keysets that retire at a time.
pub const MAX_RETIRING: usize = 8;
/// As many may retire before the next replacement is put off.
const UNHURRIED: usize = 2;

/// How pressing a replacement is, and whom it waits for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// In its own time: it waits for every holder that is there or only silent.
    Scheduled,
    /// A node or a lease lost its right to it: it goes on without holders that do not answer.
    Revocation,
    /// The key is in wrong hands: as a revocation, and it waits for no interval. What it replaces
    /// leaves the keytabs at once.
    Emergency,
}

impl Kind {
    /// The word for it in the audit log and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Revocation => "revocation",
            Self::Emergency => "emergency",
        }
    }
}

/// What is owed to a principal's holders: stored until a new key pays it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Debt {
    /// A replacement that somebody asked for, or that something found at the KDC asks for.
    pub asked: Option<Kind>,
    /// Every number up to this one was given to somebody who has lost the right to it.
    pub burnt_through: Option<Kvno>,
    /// Whether the burnt keys leave the keytabs as the new one is set.
    pub abrupt: bool,
    /// Whether it goes before its time, and the oldest retiring key leaves the keytabs for it.
    pub ahead: bool,
}

impl Debt {
    /// Whether nothing is owed.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Asks for a replacement; a more pressing wish stands.
    pub fn ask(&mut self, kind: Kind) {
        self.asked = self.asked.max(Some(kind));
    }

    /// Every number up to `kvno` is to be replaced.
    pub fn burn_through(&mut self, kvno: Kvno) {
        self.burnt_through = self.burnt_through.max(Some(kvno));
    }

    /// Whether what is replaced leaves the keytabs at once.
    pub fn is_abrupt(&self) -> bool {
        self.abrupt || self.asked == Some(Kind::Emergency)
    }

    /// The KDCs use `kvno` now.
    pub fn is_paid_by(&mut self, kvno: Kvno) {
        if self.burnt_through.is_none_or(|burnt| burnt < kvno) {
            *self = Self::default();
        } else if self.asked == Some(Kind::Scheduled) {
            self.asked = None;
        }
    }
}

/// When the next replacement of a principal may begin, and what it waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Begins {
    /// At once.
    Now,
    /// At this time, so that not too many keys retire at once.
    At(SystemTime),
    /// At once, after this key has left the keytabs.
    AfterDropping(Kvno),
}

impl ManagedPrincipal {
    /// Why its key is to be replaced; `None` when it is not. A first key is no replacement.
    pub fn due(&self, view: &WalkView<'_>) -> Option<Kind> {
        let scheduled = view.scheduled_at.is_some_and(|at| at <= view.now) && !view.clock_fault;
        let wish = self.debt.asked.or(scheduled.then_some(Kind::Scheduled));
        wish.max(self.must_be_replaced(view.fenced).then_some(Kind::Revocation))
    }

    /// Whether the Current key is in the hands of somebody who has lost the right to it.
    pub fn must_be_replaced(&self, fenced: &dyn Fn(&Recipient) -> bool) -> bool {
        self.current().is_some_and(|held| self.is_exposed(held, fenced))
    }

    /// Whether this keyset is in such hands.
    pub(super) fn is_exposed(
        &self,
        held: &super::Held,
        fenced: &dyn Fn(&Recipient) -> bool,
    ) -> bool {
        self.debt.burnt_through.is_some_and(|burnt| held.keyset.kvno <= burnt)
            || held.delivered_to.iter().any(fenced)
    }

    /// When a replacement of this kind may begin.
    pub fn begins(&self, kind: Kind, now: SystemTime, times: &WalkTimes) -> Begins {
        let retires = |held: &&super::Held| held.phase == Phase::Retiring;
        let retiring = self.keysets.values().filter(retires).count();
        let oldest = self.keysets.values().find(retires);
        let full = retiring >= MAX_RETIRING;
        if kind == Kind::Emergency || self.debt.ahead {
            let oldest = oldest.filter(|_| full).map(|held| held.keyset.kvno);
            return oldest.map_or(Begins::Now, Begins::AfterDropping);
        }
        let retirement = self.retirement(times);
        let gap = if retiring < UNHURRIED {
            times.rekey_min_interval
        } else {
            times.rekey_min_interval.max(retirement / MAX_RETIRING as u32)
        };
        let room = oldest.filter(|_| full).map(|held| held.since + retirement);
        let earliest = self.replaced_at.map(|at| at + gap).max(room);
        match earliest {
            Some(at) if at > now => Begins::At(at),
            _ => Begins::Now,
        }
    }

    /// How long a replaced key stays in the keytabs: as long as the tickets under it live. The
    /// broker's clock may be off by the skew at either end of that time, to either side.
    pub fn retirement(&self, times: &WalkTimes) -> Duration {
        self.attributes.max_life + 2 * times.clock_skew
    }
}

#[cfg(test)]
mod tests;
