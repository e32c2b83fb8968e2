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

use super::{Held, ManagedPrincipal, Phase, Recipient};

/// The spans of a walk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WalkTimes {
    /// How long a revocation's walk waits for holders to acknowledge.
    pub acknowledge_within: Duration,
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
            kdc_propagation: Duration::from_secs(300),
            clock_skew: Duration::from_secs(300),
        }
    }
}

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
    /// Let it go to the KDC: it becomes Activating. Names holders that do not have it.
    Activate {
        /// Which.
        kvno: Kvno,
        /// Holders that will fail until they are heard of.
        without: Vec<LeaseId>,
    },
    /// Set it at the KDC, and see that each KDC uses it.
    Set(Kvno),
    /// Take it away: a fenced node has it, and the KDC does not use it yet.
    Burn(Kvno),
    /// Take it out of the keytabs: Retiring becomes Dropping.
    Drop(Kvno),
    /// Nobody has it any more: Dropping becomes Pruned.
    Prune {
        /// Which.
        kvno: Kvno,
        /// Until when what it made possible can be misused.
        exposed_until: SystemTime,
    },
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
        }
    }
}

/// How often holders that owe an acknowledgement are asked again.
pub const ASK_AGAIN: Duration = Duration::from_secs(30);

impl ManagedPrincipal {
    /// The next step of this principal's walk.
    pub fn next_step(&self, view: &WalkView<'_>) -> Step {
        if let Some(held) = self.under_way() {
            return self.step_forward(held, view);
        }
        if self.is_due(view.fenced) {
            return Step::Make;
        }
        self.step_of_the_retired(view)
    }

    /// Whether a new key is needed: there is none, or a fenced node has the Current one.
    pub fn is_due(&self, fenced: &dyn Fn(&Recipient) -> bool) -> bool {
        self.current().is_none_or(|held| held.delivered_to.iter().any(fenced))
    }

    /// Whether every key that `recipient` was ever given has been replaced at the KDCs.
    pub fn is_replaced_for(&self, recipient: &Recipient) -> bool {
        let newest_given = self.kvnos_given(recipient).last().copied();
        match (newest_given, self.current()) {
            (None, _) => true,
            (Some(given), Some(current)) => current.keyset.kvno > given,
            (Some(_), None) => false,
        }
    }

    fn step_forward(&self, held: &Held, view: &WalkView<'_>) -> Step {
        let kvno = held.keyset.kvno;
        let exposed = held.delivered_to.iter().any(view.fenced);
        match held.phase {
            Phase::Pending | Phase::Distributing if exposed => Step::Burn(kvno),
            // Nobody can miss a first key, and nobody waits for it but its pods.
            Phase::Pending if self.current().is_none() || view.holders.is_empty() => {
                Step::Activate { kvno, without: Vec::new() }
            }
            Phase::Pending => Step::Distribute(kvno),
            Phase::Distributing => {
                let from = lacking(&view.holders, |has| has.contains(&kvno));
                let until = held.since + view.times.acknowledge_within;
                if from.is_empty() || view.now >= until {
                    Step::Activate { kvno, without: from }
                } else {
                    Step::Wait { until, what: Waiting::Acknowledgements { kvno, from } }
                }
            }
            _ => Step::Set(kvno),
        }
    }

    /// Each retired keyset leaves the keytabs at its own time; only its end waits for holders.
    fn step_of_the_retired(&self, view: &WalkView<'_>) -> Step {
        let mut waits: Option<Step> = None;
        for held in self.keysets.values() {
            let step = match held.phase {
                Phase::Retiring => self.step_of_retiring(held, view),
                Phase::Dropping => step_of_dropping(held, view),
                _ => continue,
            };
            let Step::Wait { until, .. } = &step else { return step };
            if !matches!(&waits, Some(Step::Wait { until: sooner, .. }) if sooner <= until) {
                waits = Some(step);
            }
        }
        waits.unwrap_or(Step::Rest)
    }

    fn step_of_retiring(&self, held: &Held, view: &WalkView<'_>) -> Step {
        let kvno = held.keyset.kvno;
        let until = held.since + self.attributes.max_life + view.times.clock_skew;
        if view.now < until {
            Step::Wait { until, what: Waiting::Tickets { kvno } }
        } else {
            Step::Drop(kvno)
        }
    }
}

fn step_of_dropping(held: &Held, view: &WalkView<'_>) -> Step {
    let kvno = held.keyset.kvno;
    let from = lacking(&view.holders, |has| !has.contains(&kvno));
    if from.is_empty() {
        // Tickets that were got with it as a client, or issued under it, have ended: Dropping
        // began after them. Forged ones were good for any holder until now.
        Step::Prune { kvno, exposed_until: view.now + view.times.clock_skew }
    } else {
        Step::Wait { until: view.now + ASK_AGAIN, what: Waiting::Removal { kvno, from } }
    }
}

fn lacking(holders: &[HolderView], fits: impl Fn(&BTreeSet<Kvno>) -> bool) -> Vec<LeaseId> {
    let owes = |holder: &&HolderView| !holder.has.as_ref().is_some_and(&fits);
    holders.iter().filter(owes).map(|holder| holder.lease).collect()
}

#[cfg(test)]
mod tests;
