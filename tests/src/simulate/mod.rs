//! A deterministic simulator of what keys and leases go through.
//!
//! The state machines are the broker's own (`ledger`, `keys`, `session`, `lease`); the glue
//! around them (`walking`, `at_kdc`, `broker`, `upkeep`) is the broker's in small, and so are the
//! KDCs, the agents, the disk and the clock: everything runs in virtual time, and a seed decides
//! all of it. Nothing but the state machines is put to the test here; the real glue has its
//! stories on real parts.
//!
//! What is checked, after every event:
//! - no key is outside without the store knowing who has it, whenever the broker dies;
//! - no kvno has two keys, none is used again, none is activated after a revocation that the
//!   revoked node had been given;
//! - no lease is Active on a fenced generation, none is Revoked while a KDC uses what its node
//!   had, and `exposed_until` is never earlier than the truth;
//! - every holder can open every ticket that any client can have, unless an operator chose
//!   otherwise or the holder was out of reach for longer than a revocation waits: these are
//!   counted apart;
//! - after the last fault everything comes right by itself.
//!
//! A history that breaks a rule is told by its seed and number, and replays.

mod at_kdc;
mod broker;
mod checks;
pub mod day;
mod disk;
mod history;
mod message;
mod mishaps;
mod node;
mod plan;
mod random;
mod realm;
mod sim;
mod truth;
mod upkeep;
mod walking;
mod wellness;
mod world;

use std::{fmt, time::Duration};

use krb_broker::clock::{Clock, SystemClock};

pub use history::Outcome;
pub use plan::Sabotage;
pub use truth::Counts;

use plan::Plan;
use random::Random;

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// It stops after so many that broke a rule.
    pub violations: usize,
    /// At most so many histories.
    pub histories: u64,
    /// Decides all of them.
    pub seed: u64,
    /// At most so long.
    pub time: Duration,
    /// What is done wrong on purpose.
    pub sabotage: Option<Sabotage>,
}

/// A history that broke a rule.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its number.
    pub history: u64,
    /// The rule.
    pub violation: String,
    /// The end of what happened.
    pub trace: Vec<String>,
}

/// What a run found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Histories that were run.
    pub histories: u64,
    /// The seed.
    pub seed: u64,
    /// Those that broke a rule.
    pub found: Vec<Found>,
    /// What happened, in numbers.
    pub counts: Counts,
    /// Whether the day on which nodes are lost one by one broke a rule, too.
    pub day_broke_a_rule: bool,
}

impl Report {
    /// How many histories broke a rule, the day included.
    pub fn violations(&self) -> usize {
        self.found.len() + usize::from(self.day_broke_a_rule)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for found in &self.found {
            let Found { history, violation, trace } = found;
            writeln!(f, "simulate: seed {} history {history}: {violation}", self.seed)?;
            for line in trace {
                writeln!(f, "  {line}")?;
            }
            writeln!(f, "  replay: simulate --seed {} --history {history}", self.seed)?;
        }
        let counts = &self.counts;
        writeln!(
            f,
            "simulate: seed={} events={} rotations={} crashes={} losses={} tickets broken by \
             choice={} of holders out of reach={}",
            self.seed,
            counts.events,
            counts.rotations,
            counts.crashes,
            counts.losses,
            counts.chosen,
            counts.out_of_reach
        )?;
        write!(f, "simulate: histories={} violations={}", self.histories, self.violations())
    }
}

/// Runs one history.
pub fn replay(seed: u64, history: u64, sabotage: Option<Sabotage>, tracing: bool) -> Outcome {
    let mut random = Random::of_history(seed, history);
    let mut plan = Plan::of_trouble(&mut random);
    plan.sabotage = sabotage;
    history::run(plan, random, tracing)
}

/// Runs histories until there are enough, the time is up, or enough of them broke a rule.
pub fn run(limits: Limits) -> Report {
    let clock = SystemClock;
    let began = clock.now().boot;
    let mut report = Report { seed: limits.seed, ..Report::default() };
    for history in 0..limits.histories {
        if clock.now().boot.since(began) >= limits.time || report.found.len() >= limits.violations {
            break;
        }
        let outcome = replay(limits.seed, history, limits.sabotage, false);
        report.histories += 1;
        report.counts.add(&outcome.counts);
        if let Some(violation) = outcome.violation {
            report.found.push(found(limits, history, violation));
        }
    }
    report
}

/// The same history once more, with its trace; it must end alike.
fn found(limits: Limits, history: u64, violation: String) -> Found {
    let again = replay(limits.seed, history, limits.sabotage, true);
    let violation = if again.violation.as_ref() == Some(&violation) {
        violation
    } else {
        format!("{violation} (and not so when it was run again: {:?})", again.violation)
    };
    let skip = again.trace.len().saturating_sub(60);
    Found { history, violation, trace: again.trace.into_iter().skip(skip).collect() }
}
