//! Many notices, few writes.
//!
//! The same notice of the same pod raises a count instead of being written again. At most
//! ten writes a second leave, in the order in which they fell due, and what waits is bounded:
//! the oldest is dropped, and counted. This module decides; it writes nothing and reads no clock.
//!
//! It always holds that a notice that is written says how often it was told since its first, for as
//! long as it is remembered.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, SystemTime},
};

use krb_proto::PodUid;
use sha2::{Digest, Sha256};

use super::{About, Notice};
use crate::clock::{Boottime, Now, unix_millis};

/// Between two writes: ten a second.
pub const EVERY: Duration = Duration::from_millis(100);
/// How many may wait to be written.
const MOST_WAITING: usize = 1_000;
/// How many are remembered, those included.
const MOST_KNOWN: usize = 5_000;
/// How long one that was written is remembered: the API server keeps events for an hour.
const KNOWN_FOR: Duration = Duration::from_secs(3_600);
/// The longest text, in bytes: what the API server takes of a message.
const MAX_TEXT: usize = 1_024;

/// What makes notices the same.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Key {
    pod: PodUid,
    about: About,
    text: String,
}

/// What is known of a notice.
#[derive(Debug)]
struct Known {
    notice: Notice,
    count: u32,
    first: SystemTime,
    last: SystemTime,
    told: Boottime,
    /// Whether it waits to be written.
    waits: bool,
    /// The name it was written under.
    written: Option<String>,
}

/// A write that is due.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Write {
    /// For [`Merge::done`].
    pub key: Key,
    /// What is written.
    pub notice: Notice,
    /// How often it was told.
    pub count: u32,
    /// When first.
    pub first: SystemTime,
    /// When last.
    pub last: SystemTime,
    /// The name to write it under: no other notice has it.
    pub name: String,
    /// Whether something of that name was written before.
    pub again: bool,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It is written.
    Written,
    /// What was written before is no more: it has to be written anew.
    Gone,
    /// It could not be written; the next notice of its kind tries again.
    Failed,
}

/// What to do next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Next {
    /// Write this.
    Write(Box<Write>),
    /// Ask again after this: something waits.
    After(Duration),
    /// Nothing waits.
    Nothing,
}

/// The notices of the last hour.
#[derive(Debug, Default)]
pub struct Merge {
    known: HashMap<Key, Known>,
    waiting: VecDeque<Key>,
    next_at: Boottime,
    dropped: u64,
}

impl Merge {
    /// Takes a notice.
    pub fn take(&mut self, mut notice: Notice, now: Now) {
        let end = (0..=MAX_TEXT).rev().find(|at| notice.text.is_char_boundary(*at));
        notice.text.truncate(end.unwrap_or(0));
        let (pod, text) = (notice.pod.uid.clone(), notice.text.clone());
        let key = Key { pod, about: notice.about, text };
        self.make_room(now);
        let known = self.known.entry(key.clone()).or_insert_with(|| Known {
            notice,
            count: 0,
            first: now.wall,
            last: now.wall,
            told: now.boot,
            waits: false,
            written: None,
        });
        known.count = known.count.saturating_add(1);
        (known.last, known.told) = (now.wall, now.boot);
        if !std::mem::replace(&mut known.waits, true) {
            self.waiting.push_back(key);
        }
        while self.waiting.len() > MOST_WAITING {
            let oldest = self.waiting.pop_front();
            let forgotten = oldest.and_then(|oldest| self.known.remove(&oldest));
            self.dropped += forgotten.map_or(0, |known| u64::from(known.count));
        }
    }

    /// What to do at `now`.
    pub fn next(&mut self, now: Now) -> Next {
        if self.waiting.is_empty() {
            return Next::Nothing;
        }
        if now.boot < self.next_at {
            return Next::After(self.next_at.since(now.boot));
        }
        let Some(key) = self.waiting.pop_front() else { return Next::Nothing };
        let Some(known) = self.known.get_mut(&key) else { return self.next(now) };
        known.waits = false;
        self.next_at = now.boot + EVERY;
        Next::Write(Box::new(Write {
            notice: known.notice.clone(),
            count: known.count,
            first: known.first,
            last: known.last,
            again: known.written.is_some(),
            name: known.written.clone().unwrap_or_else(|| name(&key, known)),
            key,
        }))
    }

    /// What came of a write.
    pub fn done(&mut self, write: &Write, outcome: Outcome) {
        let Some(known) = self.known.get_mut(&write.key) else { return };
        match outcome {
            Outcome::Written => known.written = Some(write.name.clone()),
            Outcome::Failed => {}
            Outcome::Gone => {
                (known.written, known.first) = (None, write.last);
                if !std::mem::replace(&mut known.waits, true) {
                    self.waiting.push_back(write.key.clone());
                }
            }
        }
    }

    /// How many notices were dropped since this was last asked.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    fn make_room(&mut self, now: Now) {
        if self.known.len() < MOST_KNOWN {
            return;
        }
        self.known.retain(|_, known| known.waits || now.boot.since(known.told) < KNOWN_FOR);
        if self.known.len() >= MOST_KNOWN {
            self.known.retain(|_, known| known.waits); // they are written anew, counted from one
        }
    }
}

/// A name as Kubernetes takes it: the pod's, and what tells this notice from its others.
fn name(key: &Key, known: &Known) -> String {
    let mut hash = Sha256::new();
    for part in [key.pod.as_str(), key.about.reason(), &key.text] {
        hash.update(part);
        hash.update([0]);
    }
    hash.update(unix_millis(known.first).to_be_bytes());
    let hash = hash.finalize();
    let told: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let pod = known.notice.pod.name.as_str();
    let pod = pod.get(..200).unwrap_or(pod); // a DNS name: any place in it is a boundary
    format!("{}.{told}", pod.trim_end_matches(['.', '-']))
}

#[cfg(test)]
mod tests {
    use krb_proto::PodRef;

    use super::*;
    use crate::clock::{Clock, TestClock};

    fn notice(pod: &str, text: &str) -> Notice {
        let pod = PodRef {
            cluster: "test".into(),
            namespace: "tsfoo".parse().unwrap(),
            name: pod.parse().unwrap(),
            uid: format!("uid-{:.50}", pod.replace('.', "-")).parse().unwrap(),
        };
        Notice { pod, about: About::Denied, text: text.to_owned() }
    }

    fn write(merge: &mut Merge, clock: &TestClock) -> Option<Write> {
        clock.advance(EVERY);
        match merge.next(clock.now()) {
            Next::Write(write) => Some(*write),
            _ => None,
        }
    }

    #[test]
    fn the_same_notice_raises_the_count_of_what_was_written() {
        let (mut merge, clock) = (Merge::default(), TestClock::default());
        merge.take(notice("web-0", "no"), clock.now());
        let first = write(&mut merge, &clock).unwrap();
        assert_eq!((first.count, first.again), (1, false));
        merge.done(&first, Outcome::Written);
        assert_eq!(merge.next(clock.now()), Next::Nothing);
        for _ in 0..3 {
            merge.take(notice("web-0", "no"), clock.now());
        }
        let second = write(&mut merge, &clock).unwrap();
        assert_eq!((second.count, second.again), (4, true));
        assert_eq!((&second.name, second.first), (&first.name, first.first));
        assert!(second.last > first.last);
        assert_eq!(write(&mut merge, &clock), None);
    }

    #[test]
    fn what_differs_is_written_apart() {
        let (mut merge, clock) = (Merge::default(), TestClock::default());
        let delayed = Notice { about: About::Delayed, ..notice("web-0", "no") };
        for one in [notice("web-0", "no"), notice("web-0", "never"), notice("web-1", "no"), delayed]
        {
            merge.take(one, clock.now());
        }
        let names: Vec<String> =
            std::iter::from_fn(|| write(&mut merge, &clock)).map(|write| write.name).collect();
        let apart: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!((names.len(), apart.len()), (4, 4), "{names:?}");
        assert!(names[0].starts_with("web-0.") && names[0].len() == "web-0.".len() + 16);
    }

    #[test]
    fn ten_a_second_leave_whatever_comes() {
        let (mut merge, clock) = (Merge::default(), TestClock::default());
        let mut written = 0;
        for second in 0..10 {
            for n in 0..50 {
                merge.take(notice(&format!("web-{second}-{n}"), "no"), clock.now());
            }
            for _ in 0..1_000 {
                clock.advance(Duration::from_millis(1));
                written += u32::from(matches!(merge.next(clock.now()), Next::Write(_)));
            }
        }
        assert!((99..=101).contains(&written), "{written}");
        clock.advance(EVERY / 2);
        assert!(matches!(merge.next(clock.now()), Next::Write(_) | Next::After(_)));
    }

    #[test]
    fn the_oldest_of_too_many_are_dropped_and_counted() {
        let (mut merge, clock) = (Merge::default(), TestClock::default());
        for n in 0..2 * MOST_KNOWN {
            merge.take(notice(&format!("web-{n}"), "no"), clock.now());
        }
        assert_eq!(merge.take_dropped(), (2 * MOST_KNOWN - MOST_WAITING) as u64);
        assert_eq!((merge.take_dropped(), merge.known.len()), (0, MOST_WAITING));
        let oldest = write(&mut merge, &clock).unwrap();
        assert_eq!(
            oldest.notice.pod.name.as_str(),
            format!("web-{}", 2 * MOST_KNOWN - MOST_WAITING)
        );
    }

    #[test]
    fn what_was_written_is_forgotten_after_a_while_and_never_fills_the_memory() {
        let (mut merge, clock) = (Merge::default(), TestClock::default());
        for n in 0..3 * MOST_KNOWN {
            merge.take(notice(&format!("web-{n}"), "no"), clock.now());
            let due = write(&mut merge, &clock).unwrap();
            merge.done(&due, Outcome::Written);
            assert!(merge.known.len() <= MOST_KNOWN);
        }
    }

    #[test]
    fn one_that_is_gone_is_written_anew_and_one_that_failed_with_its_next() {
        let (mut merge, clock) = (Merge::default(), TestClock::default());
        merge.take(notice("web-0", "no"), clock.now());
        let failed = write(&mut merge, &clock).unwrap();
        merge.done(&failed, Outcome::Failed);
        assert_eq!(write(&mut merge, &clock), None);
        merge.take(notice("web-0", "no"), clock.now());
        let second = write(&mut merge, &clock).unwrap();
        assert_eq!((second.count, second.again), (2, false));
        merge.done(&second, Outcome::Written);
        merge.take(notice("web-0", "no"), clock.now());
        let third = write(&mut merge, &clock).unwrap();
        merge.done(&third, Outcome::Gone);
        let anew = write(&mut merge, &clock).unwrap();
        assert!(!anew.again && anew.name != third.name);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let (mut merge, clock) = (Merge::default(), TestClock::default());
        merge.take(notice("web-0", &"é".repeat(1_000)), clock.now());
        assert_eq!(write(&mut merge, &clock).unwrap().notice.text.len(), MAX_TEXT);
        let long = [63, 63, 63, 20].map(|n| "a".repeat(n)).join(".");
        merge.take(notice(&long, "no"), clock.now());
        assert!(write(&mut merge, &clock).unwrap().name.len() <= 217);
    }
}
