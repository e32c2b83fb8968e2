//! Which step of a principal's walk comes next.
//!
//! Pure: a step is a function of what is stored, of what the holders have acknowledged, and
//! of the time. Each step is stored before it is taken, and taking it twice does no harm, so
//! after a crash the walk goes on from what the store says.

use std::{
    collections::BTreeSet,
    fmt,
    time::{Duration, SystemTime},
};

use krb_proto::{Kvno, LeaseId};

use super::{
    Held, ManagedPrincipal, Phase, Recipient,
    due::{Begins, Kind},
    schedule::Schedule,
    standing::{Off, Standing},
};
use crate::{clock::rfc3339, lease::accepted_until};

/// The spans of a walk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WalkTimes {
    /// How long a revocation's walk waits for holders to acknowledge.
    pub acknowledge_within: Duration,
    /// How long a scheduled walk waits for holders until they count as silent; it is given up
    /// after [`DEADLINES`] of them.
    pub holder_deadline: Duration,
    /// The least time between two replacements of a principal's key.
    pub rekey_min_interval: Duration,
    /// How long a KDC that does not answer is waited for. One that answers with an older key
    /// is waited for without an end.
    pub kdc_propagation: Duration,
    /// The tolerated difference of clocks.
    pub clock_skew: Duration,
}

impl Default for WalkTimes {
    fn default() -> Self {
        Self {
            acknowledge_within: Duration::from_secs(30),
            holder_deadline: Duration::from_secs(600),
            rekey_min_interval: Duration::from_secs(600),
            kdc_propagation: Duration::from_secs(300),
            clock_skew: Duration::from_secs(300),
        }
    }
}

/// What walks go by.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct WalkRules {
    /// Their spans.
    pub times: WalkTimes,
    /// When keys are replaced in their own time.
    pub schedule: Schedule,
}

/// After so many deadlines a scheduled walk is given up.
pub const DEADLINES: u32 = 3;

/// A live lease that names the principal, and what its holder last acknowledged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HolderView {
    /// The lease.
    pub lease: LeaseId,
    /// The numbers in its keytab, as acknowledged on its node's stream; `None`: not known.
    pub has: Option<BTreeSet<Kvno>>,
}

/// What a step depends on, besides the principal itself.
pub struct WalkView<'a> {
    /// Whether the recipient's generation has passed.
    pub fenced: &'a dyn Fn(&Recipient) -> bool,
    /// The live leases that name the principal.
    pub holders: Vec<HolderView>,
    /// By the wall clock.
    pub now: SystemTime,
    /// Whether the wall clock can't be relied on: nothing that only time allows is done.
    pub clock_fault: bool,
    /// When its schedule says that the key is to be replaced.
    pub scheduled_at: Option<SystemTime>,
    /// The spans.
    pub times: WalkTimes,
}

/// What is to be done next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Nothing, until something happens.
    Rest,
    /// Nothing before this time, unless something happens.
    Wait {
        /// When to look again.
        until: SystemTime,
        /// What is waited for, for an operator.
        what: Waiting,
    },
    /// Make the next keyset and store it as Pending.
    Make,
    /// Let it go to the holders: Pending becomes Distributing.
    Distribute(Kvno),
    /// Holders have let another deadline pass: say so.
    Overdue {
        /// Which keyset.
        kvno: Kvno,
        /// How many deadlines have passed.
        missed: u32,
        /// Whose acknowledgement is missing.
        without: Vec<LeaseId>,
    },
    /// Let it go to the KDC: it becomes Activating. Names holders that do not have it.
    Activate {
        /// Which.
        kvno: Kvno,
        /// Holders that will fail until they are heard of.
        without: Vec<LeaseId>,
    },
    /// Set it at the KDC, and see that each KDC uses it.
    Set(Kvno),
    /// Take it away: its number is never used again.
    Burn {
        /// Which.
        kvno: Kvno,
        /// Why.
        why: Burnt,
    },
    /// Take it out of the keytabs: Retiring becomes Dropping.
    Drop(Kvno),
    /// Nobody has it any more: Dropping becomes Pruned.
    Prune {
        /// Which.
        kvno: Kvno,
        /// Until when what it made possible can be misused.
        exposed_until: SystemTime,
    },
    /// Store that the principal is about to be switched off.
    Leave(Off),
    /// Switch it off at the KDC.
    SwitchOff(Off),
    /// It is used again: give up whatever key it had.
    Return,
}

impl Step {
    /// Whether it is the same step, whenever it was chosen.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Prune { kvno, .. }, Self::Prune { kvno: other, .. }) => kvno == other,
            _ => self == other,
        }
    }
}

impl Step {
    /// The keyset that it is about.
    pub fn kvno(&self) -> Option<Kvno> {
        match self {
            Self::Distribute(kvno)
            | Self::Overdue { kvno, .. }
            | Self::Activate { kvno, .. }
            | Self::Set(kvno)
            | Self::Burn { kvno, .. }
            | Self::Drop(kvno)
            | Self::Prune { kvno, .. } => Some(*kvno),
            _ => None,
        }
    }
}

/// Why a keyset was given up before it was Current.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Burnt {
    /// Somebody who has lost the right to it had been given it.
    Exposed,
    /// Holders did not acknowledge it in time.
    GivenUp,
    /// Its principal is switched off.
    SwitchedOff,
    /// The KDC has a number that is not below it.
    InTheWay,
}

impl fmt::Display for Burnt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exposed => "a node that lost its right to it had been given it",
            Self::GivenUp => "holders did not acknowledge it in time; the replacement is given up",
            Self::SwitchedOff => "its principal is switched off",
            Self::InTheWay => "the KDC has a number that is not below it",
        })
    }
}

/// What a walk waits for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Waiting {
    /// These holders have not acknowledged this kvno yet.
    Acknowledgements {
        /// Which keyset.
        kvno: Kvno,
        /// Whose.
        from: Vec<LeaseId>,
    },
    /// The tickets that were issued under this kvno.
    Tickets {
        /// Which keyset.
        kvno: Kvno,
    },
    /// These holders have not acknowledged a keytab without this kvno yet.
    Removal {
        /// Which keyset.
        kvno: Kvno,
        /// Whose.
        from: Vec<LeaseId>,
    },
    /// Its turn: keys that retire leave no room for another before.
    Turn {
        /// When it comes.
        at: SystemTime,
    },
    /// The broker's wall clock, which can't be relied on.
    Clock,
}

impl Waiting {
    /// Whether holders are asked for it.
    pub(super) fn asks(&self) -> bool {
        matches!(self, Self::Acknowledgements { .. } | Self::Removal { .. })
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acknowledgements { kvno, from } => {
                write!(f, "{} holders to acknowledge kvno {kvno}", from.len())
            }
            Self::Tickets { kvno } => write!(f, "tickets under kvno {kvno} to end"),
            Self::Removal { kvno, from } => {
                write!(f, "{} holders to give up kvno {kvno}", from.len())
            }
            Self::Turn { at } => {
                write!(f, "its turn: the replacement begins at {}", rfc3339(*at))
            }
            Self::Clock => f.write_str("a wall clock that can be relied on"),
        }
    }
}

/// How often holders that owe an acknowledgement are asked again.
pub const ASK_AGAIN: Duration = Duration::from_secs(30);

impl ManagedPrincipal {
    /// The next step of this principal's walk. None is taken while the wall clock can't be relied
    /// on: when each was taken is what ends keys later.
    pub fn next_step(&self, view: &WalkView<'_>) -> Step {
        match self.step_by_the_clock(view) {
            step @ (Step::Rest | Step::Wait { .. }) => step,
            _ if view.clock_fault => {
                Step::Wait { until: view.now + ASK_AGAIN, what: Waiting::Clock }
            }
            step => step,
        }
    }

    fn step_by_the_clock(&self, view: &WalkView<'_>) -> Step {
        if let Some(step) = self.step_of_standing(view) {
            return step;
        }
        let forward = match (self.under_way(), self.current(), self.due(view)) {
            (Some(held), ..) => self.step_forward(held, view),
            (None, None, _) => Step::Make,
            (None, Some(_), Some(kind)) => self.step_to_begin(kind, view),
            (None, Some(_), None) => Step::Rest,
        };
        // What retires goes on meanwhile.
        match forward {
            Step::Rest | Step::Wait { .. } => sooner(forward, self.step_of_the_retired(view)),
            step => step,
        }
    }

    /// Whether every number up to `given` has been replaced at the KDCs, or opens nothing there.
    pub fn is_replaced(&self, given: Kvno) -> bool {
        let is_off = matches!(self.standing, Standing::Off(_));
        is_off || self.current().is_some_and(|current| current.keyset.kvno > given)
    }

    /// Takes a step that is nothing but a record. False for one that needs more.
    pub fn take(&mut self, step: &Step, now: SystemTime) -> bool {
        match step {
            Step::Distribute(kvno) => self.enter(*kvno, Phase::Distributing, now),
            Step::Activate { kvno, .. } => self.enter(*kvno, Phase::Activating, now),
            Step::Drop(kvno) => self.enter(*kvno, Phase::Dropping, now),
            Step::Overdue { kvno, missed, .. } => {
                self.keysets.entry(*kvno).and_modify(|held| held.missed = *missed);
            }
            Step::Burn { kvno, why } => {
                self.burn(*kvno, now);
                if *why == Burnt::GivenUp {
                    self.given_up_at = Some(now);
                    self.debt.asked = None;
                }
            }
            Step::Prune { kvno, exposed_until } => self.prune(*kvno, *exposed_until),
            Step::Leave(how) => self.standing = Standing::Leaving(*how),
            Step::Return => self.give_up_all(now),
            Step::Rest | Step::Wait { .. } | Step::Make | Step::Set(_) | Step::SwitchOff(_) => {
                return false;
            }
        }
        true
    }

    fn step_to_begin(&self, kind: Kind, view: &WalkView<'_>) -> Step {
        match self.begins(kind, view.now, &view.times) {
            Begins::Now => Step::Make,
            Begins::AfterDropping(kvno) => Step::Drop(kvno),
            Begins::At(until) => Step::Wait { until, what: Waiting::Turn { at: until } },
        }
    }

    fn step_forward(&self, held: &Held, view: &WalkView<'_>) -> Step {
        let kvno = held.keyset.kvno;
        match held.phase {
            Phase::Pending | Phase::Distributing if self.is_exposed(held, view.fenced) => {
                Step::Burn { kvno, why: Burnt::Exposed }
            }
            // Nobody can miss a first key, and nobody waits for it but its pods.
            Phase::Pending if self.current().is_none() || view.holders.is_empty() => {
                Step::Activate { kvno, without: Vec::new() }
            }
            Phase::Pending => Step::Distribute(kvno),
            Phase::Distributing => self.step_of_distributing(held, view),
            _ => Step::Set(kvno),
        }
    }

    /// A replacement in its own time waits for every holder; a pressing one goes on without
    /// those that do not answer.
    fn step_of_distributing(&self, held: &Held, view: &WalkView<'_>) -> Step {
        let kvno = held.keyset.kvno;
        let from = lacking(&view.holders, |has| has.contains(&kvno));
        if from.is_empty() {
            return Step::Activate { kvno, without: from };
        }
        let until = match self.due(view) {
            Some(Kind::Revocation | Kind::Emergency) => {
                let until = held.since + view.times.acknowledge_within;
                if view.now >= until {
                    return Step::Activate { kvno, without: from };
                }
                until
            }
            _ => {
                let until = held.since + view.times.holder_deadline * (held.missed + 1);
                if view.now >= until {
                    let missed = held.missed + 1;
                    return if missed < DEADLINES {
                        Step::Overdue { kvno, missed, without: from }
                    } else {
                        Step::Burn { kvno, why: Burnt::GivenUp }
                    };
                }
                until
            }
        };
        Step::Wait { until, what: Waiting::Acknowledgements { kvno, from } }
    }

    /// Each retired keyset leaves the keytabs at its own time; only its end waits for holders.
    pub(super) fn step_of_the_retired(&self, view: &WalkView<'_>) -> Step {
        let step = |held: &Held| match held.phase {
            Phase::Retiring => self.step_of_retiring(held, view),
            Phase::Dropping => self.step_of_dropping(held, view),
            _ => Step::Rest,
        };
        self.keysets.values().map(step).fold(Step::Rest, sooner)
    }

    fn step_of_retiring(&self, held: &Held, view: &WalkView<'_>) -> Step {
        let kvno = held.keyset.kvno;
        let until = held.since + self.retirement(&view.times);
        if view.now < until {
            Step::Wait { until, what: Waiting::Tickets { kvno } }
        } else {
            Step::Drop(kvno)
        }
    }

    fn step_of_dropping(&self, held: &Held, view: &WalkView<'_>) -> Step {
        let kvno = held.keyset.kvno;
        let from = lacking(&view.holders, |has| !has.contains(&kvno));
        if !from.is_empty() {
            return Step::Wait {
                until: view.now + ASK_AGAIN,
                what: Waiting::Removal { kvno, from },
            };
        }
        if self.may_still_be_used() {
            return Step::Rest; // until the KDCs use the key that it comes back with
        }
        // Forged tickets were good for any holder until now; a ticket that was got with it as a
        // client lives as long as the KDC let it when it still took the key.
        let as_client = held.retired_at.map(|at| at + self.attributes.max_life);
        let last_use = as_client.map_or(view.now, |at| at.max(view.now));
        Step::Prune { kvno, exposed_until: accepted_until(last_use, view.times.clock_skew) }
    }
}

/// Of two steps the one that can be taken now; of two waits the one for which holders are asked,
/// until the sooner time.
fn sooner(one: Step, other: Step) -> Step {
    match (one, other) {
        (one, Step::Rest) => one,
        (Step::Rest, other) => other,
        (Step::Wait { until, what }, Step::Wait { until: second, what: other }) => {
            let what = if other.asks() && !what.asks() { other } else { what };
            Step::Wait { until: until.min(second), what }
        }
        (Step::Wait { .. }, other) => other,
        (one, _) => one,
    }
}

fn lacking(holders: &[HolderView], fits: impl Fn(&BTreeSet<Kvno>) -> bool) -> Vec<LeaseId> {
    let owes = |holder: &&HolderView| !holder.has.as_ref().is_some_and(&fits);
    holders.iter().filter(owes).map(|holder| holder.lease).collect()
}

#[cfg(test)]
mod tests;
