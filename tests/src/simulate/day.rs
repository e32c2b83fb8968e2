//! A day on which 300 nodes are lost one by one: what their 3,000 holders see of it.
//!
//! Each loss makes the key of the one service due. Replacing it 300 times would leave hundreds of
//! keys in every keytab, since tickets live for ten hours: replacements are spread instead.

use std::fmt;

use super::{
    history,
    plan::{DAY_HOLDERS, DAY_NODES, Plan},
    random::Random,
    truth::Counts,
};

/// The most numbers that a keytab may have of one service.
pub const MOST_KVNOS: usize = 10;
/// The most often that its key may be replaced.
pub const MOST_ROTATIONS: u64 = 20;

/// What came of the day.
#[derive(Clone, Debug)]
pub struct Day {
    /// What happened, in numbers.
    pub counts: Counts,
    /// What was against a rule.
    pub violation: Option<String>,
}

impl Day {
    /// Replacements of the service's key: its first is none.
    pub fn rotations(&self) -> u64 {
        self.counts.rotations.saturating_sub(1)
    }

    /// Tickets that a holder could not open, for whatever reason.
    pub fn failed(&self) -> u64 {
        self.counts.chosen + self.counts.out_of_reach
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "simulate: a day: nodes lost={} of {DAY_NODES} holders={DAY_HOLDERS} most kvnos in a \
             keytab={} rotations={} failed authentications={}",
            self.counts.losses,
            self.counts.most_kvnos,
            self.rotations(),
            self.failed()
        )?;
        self.violation.iter().try_for_each(|what| write!(f, "\nsimulate: a day: {what}"))
    }
}

/// Runs the day. It is always the same.
pub fn run() -> Day {
    let outcome = history::run(Plan::of_a_day(), Random::of_history(0, 1), false);
    let mut day = Day { counts: outcome.counts, violation: outcome.violation };
    let lost = usize::try_from(day.counts.losses).unwrap_or(usize::MAX);
    let wrong = [
        (lost < DAY_NODES - 1, "not all nodes were lost"),
        (day.counts.most_kvnos > MOST_KVNOS, "a keytab had too many keys"),
        (day.rotations() > MOST_ROTATIONS, "the key was replaced too often"),
        (day.failed() > 0, "authentications failed"),
    ];
    for (_, what) in wrong.into_iter().filter(|(wrong, _)| *wrong) {
        day.violation.get_or_insert_with(|| what.to_owned());
    }
    day
}
