//! Which KDCs use a key that was set, or no key of a principal that was switched off, and which
//! are still waited for.
//!
//! A KDC that answers with an older key is waited for without an end, since that key still
//! works there. One that does not answer is waited for until it has been silent for the whole
//! propagation time, and only if it never answered with an older key since the key was set;
//! the ledger remembers that it did, over restarts of the broker. Silence is only that of a KDC
//! that was asked: one that could not be asked, or answered something else, is waited for.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use krb_proto::Kvno;

use crate::{
    clock::Boottime,
    kdc::{Observation, Unsaid},
};

/// A key that was set at kadmin, or a principal that was switched off there, and what each KDC
/// said since.
#[derive(Debug)]
pub struct Setting {
    /// The key's number; above every number for a principal that was switched off.
    pub kvno: Kvno,
    at: Boottime,
    kdcs: HashMap<String, Seen>,
    only: bool,
}

/// No key has it. A KDC says of a disabled service what it says of one that it does not know.
const SWITCHED_OFF: Kvno = Kvno(u32::MAX);

/// What one KDC said.
#[derive(Debug, Default)]
struct Seen {
    /// The older key that it last answered with, or that it does not know the principal.
    older: Option<String>,
    /// When it was first asked in vain since it last answered.
    silent_since: Option<Boottime>,
}

impl Setting {
    /// A key that was set now. The KDCs in `lagging`, by address, were seen with an older key
    /// since it was first set.
    pub fn new(kvno: Kvno, now: Boottime, lagging: &BTreeSet<String>) -> Self {
        let seen = |kdc: &String| {
            let older = Some(format!("{kdc} had an older key when it last answered"));
            (kdc.clone(), Seen { older, silent_since: None })
        };
        Self { kvno, at: now, kdcs: lagging.iter().map(seen).collect(), only: false }
    }

    /// The first key of a principal that had none before, set now: no KDC can have another.
    pub fn only_key(kvno: Kvno, now: Boottime) -> Self {
        Self { only: true, ..Self::new(kvno, now, &BTreeSet::new()) }
    }

    /// A principal that was switched off now: a KDC that still issues tickets to it lags. Those
    /// in `lagging`, by address, were seen to do so since it was first switched off.
    pub fn switched_off(now: Boottime, lagging: &BTreeSet<String>) -> Self {
        Self::new(SWITCHED_OFF, now, lagging)
    }

    /// Whether a KDC may have another key, so that all are to be asked.
    pub fn may_lag(&self) -> bool {
        !self.only
    }

    /// The KDCs, by address, that had an older key when they last answered.
    pub fn lagging(&self) -> BTreeSet<String> {
        let older = self.kdcs.iter().filter(|(_, seen)| seen.older.is_some());
        older.map(|(kdc, _)| kdc.clone()).collect()
    }

    /// What is still waited for, for an operator, and how long to wait before another look.
    pub fn lags(
        &mut self,
        seen: &[Observation],
        now: Boottime,
        propagation: Duration,
    ) -> (Vec<String>, Duration) {
        let lag = |one: &Observation| self.lag(one, now, propagation);
        let lags = seen.iter().filter_map(lag).collect();
        (lags, now.since(self.at) / 4)
    }

    fn lag(&mut self, seen: &Observation, now: Boottime, propagation: Duration) -> Option<String> {
        let kvno = self.kvno;
        let known = self.kdcs.entry(seen.kdc.clone()).or_default();
        let kdc = &seen.kdc;
        let why = match &seen.kvno {
            Ok(found) if is_up_to_date(*found, kvno) => {
                *known = Seen::default();
                return None;
            }
            Ok(found) => {
                known.silent_since = None;
                known.older = Some(match found {
                    Some(found) => format!("{kdc} still has kvno {found}"),
                    None => format!("{kdc} does not know it yet"),
                });
                return known.older.clone();
            }
            Err(why) => why,
        };
        match why {
            Unsaid::Absent(_) => {
                let since = *known.silent_since.get_or_insert(now);
                if known.older.is_none() && now.since(since) >= propagation {
                    return None;
                }
            }
            Unsaid::NotAsked(_) => {} // whether it would have answered is not known
            Unsaid::Unclear(_) => known.silent_since = None,
        }
        let waits = || format!("{kdc} does not say which key it has: {why}");
        Some(known.older.clone().unwrap_or_else(waits))
    }
}

/// Whether a KDC that has `found` has all that it is to have.
fn is_up_to_date(found: Option<Kvno>, wanted: Kvno) -> bool {
    match found {
        Some(found) => found >= wanted,
        None => wanted == SWITCHED_OFF,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROPAGATION: Duration = Duration::from_secs(300);

    fn at(seconds: u64) -> Boottime {
        Boottime(Duration::from_secs(seconds))
    }

    fn new(kvno: u32) -> Setting {
        Setting::new(Kvno(kvno), at(0), &BTreeSet::new())
    }

    fn says(kvno: Option<u32>) -> [Observation; 1] {
        [Observation { kdc: "kdc2".to_owned(), kvno: Ok(kvno.map(Kvno)) }]
    }

    fn says_not(why: fn(String) -> Unsaid) -> [Observation; 1] {
        [Observation { kdc: "kdc2".to_owned(), kvno: Err(why("away".to_owned())) }]
    }

    #[test]
    fn a_kdc_that_had_the_older_key_is_waited_for_even_when_it_falls_silent() {
        let mut setting = new(3);
        let silent = says_not(Unsaid::Absent);
        for (second, said) in [(0, &says(Some(2))), (10, &silent), (10_000, &silent)] {
            let (lags, _) = setting.lags(said, at(second), PROPAGATION);
            assert_eq!(lags, ["kdc2 still has kvno 2"], "after {second} s");
        }
        assert!(setting.lags(&says(Some(3)), at(10_001), PROPAGATION).0.is_empty());
    }

    #[test]
    fn a_kdc_that_had_the_older_key_before_a_restart_is_waited_for_however_long_it_is_silent() {
        let mut before = new(3);
        before.lags(&says(Some(2)), at(0), PROPAGATION);
        let mut setting = Setting::new(Kvno(3), at(0), &before.lagging());
        for second in [0, 10_000] {
            let (lags, _) = setting.lags(&says_not(Unsaid::Absent), at(second), PROPAGATION);
            assert_eq!(lags, ["kdc2 had an older key when it last answered"]);
        }
        assert!(setting.lags(&says(Some(3)), at(10_001), PROPAGATION).0.is_empty());
        assert!(setting.lagging().is_empty(), "it has the key");
    }

    #[test]
    fn a_kdc_that_never_answered_is_waited_for_as_long_as_it_was_silent_and_no_longer() {
        let (mut setting, silent) = (new(3), says_not(Unsaid::Absent));
        assert_eq!(setting.lags(&silent, at(1_000), PROPAGATION).0.len(), 1);
        assert_eq!(setting.lags(&silent, at(1_299), PROPAGATION).0.len(), 1);
        assert!(setting.lags(&silent, at(1_300), PROPAGATION).0.is_empty());
    }

    #[test]
    fn a_kdc_that_was_not_asked_or_refuses_to_tell_is_not_silent() {
        for why in [Unsaid::NotAsked as fn(String) -> Unsaid, Unsaid::Unclear] {
            let mut setting = new(3);
            for second in [0, 300, 100_000] {
                let (lags, _) = setting.lags(&says_not(why), at(second), PROPAGATION);
                assert_eq!(lags.len(), 1, "after {second} s");
            }
            let (lags, _) = setting.lags(&says_not(Unsaid::Absent), at(100_001), PROPAGATION);
            assert_eq!(lags.len(), 1, "its silence begins only now");
        }
    }

    #[test]
    fn a_refusal_ends_a_silence_and_a_full_gate_ends_none() {
        let (mut setting, silent) = (new(3), says_not(Unsaid::Absent));
        setting.lags(&silent, at(0), PROPAGATION);
        assert_eq!(setting.lags(&says_not(Unsaid::NotAsked), at(300), PROPAGATION).0.len(), 1);
        assert!(setting.lags(&silent, at(301), PROPAGATION).0.is_empty());
        setting.lags(&says_not(Unsaid::Unclear), at(302), PROPAGATION);
        assert_eq!(setting.lags(&silent, at(303), PROPAGATION).0.len(), 1);
    }

    #[test]
    fn a_kdc_that_issues_tickets_to_a_principal_that_was_switched_off_is_waited_for() {
        let mut off = Setting::switched_off(at(0), &BTreeSet::new());
        let (lags, _) = off.lags(&says(Some(3)), at(100_000), PROPAGATION);
        assert_eq!(lags, ["kdc2 still has kvno 3"]);
        assert!(off.lags(&says(None), at(100_001), PROPAGATION).0.is_empty());
    }

    #[test]
    fn a_kdc_that_does_not_know_the_principal_is_waited_for() {
        let (lags, _) = new(3).lags(&says(None), at(100_000), PROPAGATION);
        assert_eq!(lags, ["kdc2 does not know it yet"]);
    }
}
