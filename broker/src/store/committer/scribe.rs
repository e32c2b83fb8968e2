//! Writes the rounds' audit lines, and keeps them while the log can't be written.
//!
//! When an append fails, the lines that were to be written, and those of essential rounds
//! that come after, wait here in their order, up to a bound; what is beyond it is counted.
//! The log is tried again with back-off. Once it works, a line tells of the gap, and the
//! kept lines follow with the times at which they happened.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::{
    audit::{self, Actor, AuditLog, Event, Head, Record},
    clock::{Boottime, Clock},
};

/// The pauses between two tries: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// The most lines that are kept.
const MOST_KEPT: usize = 10_000;

/// What is wrong with the audit log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditTrouble {
    /// Why it can't be written, as it was said last.
    pub why: Arc<str>,
    /// Since when.
    pub since: SystemTime,
    /// Lines that wait to be written.
    pub kept: u64,
    /// Lines that were too many to keep.
    pub lost: u64,
}

/// How the audit log is, for all to see.
#[derive(Debug)]
pub(super) struct AuditHealth {
    works: AtomicBool,
    trouble: Mutex<Option<AuditTrouble>>,
}

impl Default for AuditHealth {
    fn default() -> Self {
        Self { works: AtomicBool::new(true), trouble: Mutex::default() }
    }
}

impl AuditHealth {
    pub fn works(&self) -> bool {
        self.works.load(Ordering::SeqCst)
    }

    pub fn trouble(&self) -> Option<AuditTrouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, trouble: Option<AuditTrouble>) {
        self.works.store(trouble.is_none(), Ordering::SeqCst);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// The committer's hand in the audit log.
pub(super) struct Scribe {
    audit: Arc<dyn AuditLog>,
    clock: Arc<dyn Clock>,
    health: Arc<AuditHealth>,
    most_kept: usize,
    kept: Vec<Record>,
    broken: Option<Broken>,
}

struct Broken {
    trouble: AuditTrouble,
    tried: Boottime,
    pause: Duration,
}

impl Scribe {
    pub fn new(audit: Arc<dyn AuditLog>, clock: Arc<dyn Clock>, health: Arc<AuditHealth>) -> Self {
        Self { audit, clock, health, most_kept: MOST_KEPT, kept: Vec::new(), broken: None }
    }

    /// The last durable line.
    pub fn head(&self) -> Head {
        self.audit.head()
    }

    /// Writes the lines, after those that wait. Says whether they are durable; where not,
    /// they wait too.
    pub fn write(&mut self, lines: Vec<Record>) -> bool {
        let now = self.clock.now();
        if self.broken.as_ref().is_some_and(|b| now.boot.since(b.tried) >= b.pause) {
            self.mend();
        }
        if self.broken.is_some() {
            self.keep(lines);
            return false;
        }
        if lines.is_empty() {
            return true;
        }
        match self.audit.append(&lines, now.wall) {
            Ok(_) => true,
            Err(error) => {
                let why: Arc<str> = audit::chain(&error).into();
                tracing::error!(%why, "THE AUDIT LOG CAN'T BE WRITTEN: nothing is issued until it can");
                let trouble = AuditTrouble { why, since: now.wall, kept: 0, lost: 0 };
                self.broken = Some(Broken { trouble, tried: now.boot, pause: PAUSE.0 });
                self.keep(lines);
                false
            }
        }
    }

    /// Tries to write what waits.
    pub fn mend(&mut self) {
        let now = self.clock.now();
        let Some(broken) = &mut self.broken else { return };
        let gap = broken.trouble.gap(self.kept.len());
        self.kept.insert(0, gap);
        let written = self.audit.append(&self.kept, now.wall);
        self.kept.remove(0);
        match written {
            Ok(_) => {
                tracing::warn!(lines = self.kept.len(), "the audit log can be written again");
                self.kept = Vec::new();
                self.broken = None;
                self.health.set(None);
            }
            Err(error) => {
                broken.trouble.why = audit::chain(&error).into();
                broken.tried = now.boot;
                broken.pause = (broken.pause * 2).min(PAUSE.1);
                let why = &broken.trouble.why;
                tracing::error!(%why, "the audit log still can't be written: nothing is issued");
                self.health.set(Some(broken.trouble.clone()));
            }
        }
    }

    /// How long the next try may be waited for; `None` where none is needed.
    pub fn patience(&self) -> Option<Duration> {
        self.broken.as_ref().map(|broken| broken.pause)
    }

    /// Why the log can't be written.
    pub fn why(&self) -> Arc<str> {
        self.broken.as_ref().map_or_else(|| "".into(), |broken| broken.trouble.why.clone())
    }

    /// The end: what still waits is lost.
    pub fn close(&mut self) {
        self.mend();
        if self.broken.is_some() {
            for record in &self.kept {
                tracing::error!(?record, "an audit line is lost: the log can't be written");
            }
        }
    }

    fn keep(&mut self, lines: Vec<Record>) {
        let now = self.clock.now().wall;
        let Some(broken) = &mut self.broken else { return };
        for line in lines {
            if self.kept.len() < self.most_kept {
                self.kept.push(line.happened(now));
            } else {
                tracing::error!(record = ?line, "an audit line is lost: too many wait");
                broken.trouble.lost += 1;
            }
        }
        broken.trouble.kept = self.kept.len() as u64;
        self.health.set(Some(broken.trouble.clone()));
    }
}

impl AuditTrouble {
    fn gap(&self, kept: usize) -> Record {
        let Self { why, since, lost, .. } = self;
        let detail = format!("{why}; {kept} lines were kept and follow, {lost} are lost");
        Record::new(Event::AuditGap, Actor::Broker).happened(*since).detail(&detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{audit::memory::MemoryAudit, clock::TestClock};

    fn line(n: u32) -> Record {
        Record::new(Event::LeaseRevoked, Actor::Broker).detail(&n.to_string())
    }

    struct World {
        log: MemoryAudit,
        clock: Arc<TestClock>,
        health: Arc<AuditHealth>,
        scribe: Scribe,
    }

    impl World {
        fn new() -> Self {
            let (log, clock) = (MemoryAudit::default(), Arc::<TestClock>::default());
            let health = Arc::new(AuditHealth::default());
            let scribe = Scribe::new(Arc::new(log.clone()), clock.clone(), health.clone());
            Self { log, clock, health, scribe }
        }
    }

    #[test]
    fn what_could_not_be_written_is_written_first_and_after_a_line_that_says_so() {
        let mut world = World::new();
        assert!(world.scribe.write(vec![line(1)]));
        world.log.fail();
        assert!(!world.scribe.write(vec![line(2)]));
        assert!(!world.health.works());
        world.clock.advance(Duration::from_millis(100));
        assert!(!world.scribe.write(vec![line(3)]), "it is not tried yet");
        world.log.mend();
        world.clock.advance(Duration::from_millis(100));
        assert!(world.scribe.write(vec![line(4)]));
        assert!(world.health.works() && world.health.trouble().is_none());
        let revoked = Event::LeaseRevoked;
        assert_eq!(world.log.events(), [revoked, Event::AuditGap, revoked, revoked, revoked]);
        let text = world.log.text();
        let details: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|line| (line["detail"].as_str().unwrap().to_owned(), line["happened"].is_string()))
            .collect();
        assert!(details[1].0.ends_with("2 lines were kept and follow, 0 are lost"), "{details:?}");
        let told = details.iter().map(|(n, late)| (n.as_str(), *late)).collect::<Vec<_>>();
        assert_eq!((told[2], told[3], told[4]), (("2", true), ("3", true), ("4", false)));
    }

    #[test]
    fn too_many_lines_are_counted_and_the_pauses_grow_to_a_bound() {
        let mut world = World::new();
        world.scribe.most_kept = 3;
        world.log.fail();
        assert!(!world.scribe.write((0..5).map(line).collect()));
        let trouble = world.health.trouble().unwrap();
        assert_eq!((trouble.kept, trouble.lost), (3, 2));
        for _ in 0..10 {
            world.scribe.mend();
        }
        assert_eq!(world.scribe.patience(), Some(PAUSE.1));
        world.log.mend();
        world.scribe.mend();
        assert_eq!(world.log.events().len(), 4);
        assert!(world.log.text().contains("3 lines were kept and follow, 2 are lost"));
    }
}
