//! Equal denials as one line a minute.
//!
//! A node that asks again and again for what it may not have, or a caller that knocks on
//! every door, would otherwise cost a sync each time. The first denial of its kind is
//! written at once; those that follow within a minute are counted, and one line with their
//! `count` and the times of the `first` and the `last` ends the minute. So the lines'
//! counts, 1 where there is none, add up to the denials there were.
//!
//! Two are equal when event, actor, reason, rule and holder are. The table is bounded: when
//! it is full, denials are merged by actor alone, and when there are too many actors, by
//! event. Nothing but denials is ever merged. This module decides; it writes nothing.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, SystemTime},
};

use super::{Actor, Event, Record, record::Likeness};
use crate::clock::{Boottime, Now};

/// For how long denials are merged.
pub const WINDOW: Duration = Duration::from_secs(60);

/// The most kinds of denials that are told apart.
const MOST_KINDS: usize = 4_096;
/// The most actors that are told apart beyond them.
const MOST_ACTORS: usize = 1_024;

/// Denials of the last minute.
#[derive(Debug)]
pub struct Denials {
    kinds: HashMap<Kind, Merged>,
    most_kinds: usize,
    most_actors: usize,
    actors: usize,
    merged: u64,
}

impl Default for Denials {
    fn default() -> Self {
        let (most_kinds, most_actors) = (MOST_KINDS, MOST_ACTORS);
        Self { kinds: HashMap::new(), most_kinds, most_actors, actors: 0, merged: 0 }
    }
}

/// What makes denials equal.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Kind {
    event: Event,
    of: Of,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Of {
    /// All that is known of it, hashed by its words.
    All(String, Likeness),
    /// The actor alone.
    Actor(String),
    Anybody,
}

#[derive(Debug)]
struct Merged {
    record: Record,
    since: Boottime,
    count: u64,
    first: SystemTime,
    last: SystemTime,
}

/// What becomes of a denial.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is the first of its kind: write it now. Should that fail, [`Denials::forget`] it.
    Write(Kind),
    /// It is counted, and told of at the end of its minute.
    Counted,
}

impl Denials {
    /// Takes a denial.
    pub fn take(&mut self, record: &Record, now: Now) -> Verdict {
        let kind = self.kind(record);
        if let Some(merged) = self.kinds.get_mut(&kind) {
            if merged.count == 0 {
                merged.first = now.wall;
            }
            merged.count += 1;
            merged.last = now.wall;
            self.merged += 1;
            return Verdict::Counted;
        }
        let record = match &kind.of {
            Of::All(..) => record.clone(),
            Of::Actor(_) => Record::new(record.event(), record.actor().clone())
                .detail("too many kinds of denials to tell apart"),
            Of::Anybody => Record::new(record.event(), Actor::Unknown("several".to_owned()))
                .detail("too many actors to tell apart"),
        };
        self.actors += usize::from(!matches!(kind.of, Of::All(..)));
        let (since, first, last) = (now.boot, now.wall, now.wall);
        self.kinds.insert(kind.clone(), Merged { record, since, count: 0, first, last });
        Verdict::Write(kind)
    }

    /// The first of this kind was not written: the next one is the first.
    pub fn forget(&mut self, kind: &Kind) {
        if self.kinds.get(kind).is_some_and(|merged| merged.count == 0) {
            self.remove(kind);
        }
    }

    /// The lines of the minutes that have ended; of all, where `all` is to end.
    pub fn ended(&mut self, now: Now, all: bool) -> Vec<Record> {
        let ended = |merged: &Merged| all || now.boot.since(merged.since) >= WINDOW;
        let kinds = self.kinds.iter().filter(|(_, merged)| ended(merged));
        let kinds: Vec<Kind> = kinds.map(|(kind, _)| kind.clone()).collect();
        let lines = kinds.iter().filter_map(|kind| {
            let Merged { record, count, first, last, .. } = self.remove(kind)?;
            (count > 0).then(|| record.merged(count, first, last))
        });
        lines.collect()
    }

    /// Denials that got no line of their own, since the start.
    pub fn merged(&self) -> u64 {
        self.merged
    }

    fn kind(&self, record: &Record) -> Kind {
        let event = record.event();
        let actor = record.actor().to_string();
        let all = Kind { event, of: Of::All(actor.clone(), record.likeness()) };
        if self.kinds.contains_key(&all) || self.kinds.len() - self.actors < self.most_kinds {
            return all;
        }
        let by_actor = Kind { event, of: Of::Actor(actor) };
        if self.kinds.contains_key(&by_actor) || self.actors < self.most_actors {
            return by_actor;
        }
        Kind { event, of: Of::Anybody }
    }

    fn remove(&mut self, kind: &Kind) -> Option<Merged> {
        let removed = self.kinds.remove(kind)?;
        self.actors -= usize::from(!matches!(kind.of, Of::All(..)));
        Some(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, TestClock};

    fn denial(actor: &str, rule: &str) -> Record {
        Record::new(Event::CallDenied, Actor::Viewer(actor.to_owned())).rule(rule)
    }

    fn json(record: &Record) -> serde_json::Value {
        serde_json::to_value(record).unwrap()
    }

    #[test]
    fn the_first_is_written_at_once_and_the_rest_of_its_minute_as_one_line() {
        let (clock, mut denials) = (TestClock::default(), Denials::default());
        let record = denial("vera", "List");
        assert!(matches!(denials.take(&record, clock.now()), Verdict::Write(_)));
        for _ in 0..3 {
            clock.advance(Duration::from_secs(1));
            assert_eq!(denials.take(&record, clock.now()), Verdict::Counted);
        }
        assert_eq!(denials.ended(clock.now(), false), []);
        clock.advance(WINDOW);
        let lines = denials.ended(clock.now(), false);
        let line = json(&lines[0]);
        assert_eq!((lines.len(), &line["count"], &line["rule"]), (1, &3.into(), &"List".into()));
        assert_eq!(line["first"], "2023-11-14T22:13:21.000000Z");
        assert_eq!(line["last"], "2023-11-14T22:13:23.000000Z");
        assert!(matches!(denials.take(&record, clock.now()), Verdict::Write(_)), "a new minute");
        assert_eq!(denials.merged(), 3);
    }

    #[test]
    fn what_differs_is_not_merged_and_one_alone_gets_no_second_line() {
        let (clock, mut denials) = (TestClock::default(), Denials::default());
        for record in [denial("vera", "a"), denial("vera", "b"), denial("victor", "a")] {
            assert!(matches!(denials.take(&record, clock.now()), Verdict::Write(_)));
        }
        assert_eq!(denials.ended(clock.now(), true), []);
    }

    #[test]
    fn a_first_that_was_not_written_is_forgotten() {
        let (clock, mut denials) = (TestClock::default(), Denials::default());
        let Verdict::Write(kind) = denials.take(&denial("vera", "a"), clock.now()) else {
            panic!()
        };
        denials.forget(&kind);
        assert!(matches!(denials.take(&denial("vera", "a"), clock.now()), Verdict::Write(_)));
    }

    #[test]
    fn a_full_table_merges_by_actor_then_by_event_and_loses_no_count() {
        let clock = TestClock::default();
        let mut denials = Denials { most_kinds: 3, most_actors: 2, ..Denials::default() };
        let mut written = 0;
        for n in 0..1_000 {
            let record = denial(&format!("v{}", n % 10), &format!("rule {n}"));
            written += u64::from(matches!(denials.take(&record, clock.now()), Verdict::Write(_)));
        }
        assert_eq!(written, 3 + 2 + 1);
        let lines = denials.ended(clock.now(), true);
        let counted: u64 = lines.iter().map(|line| json(line)["count"].as_u64().unwrap()).sum();
        assert_eq!(written + counted, 1_000);
        assert_eq!(denials.actors, 0);
    }
}
