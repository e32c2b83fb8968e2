//! Which KDCs use a key that was set, or no key of a principal that was switched off, and which
//! are still waited for.
//!
//! A KDC that answers with an older key is waited for without an end, since that key still
//! works there. One that does not answer is waited for until it has been silent for the whole
//! propagation time, and only if it never answered with an older key since the key was set.

use std::{collections::HashMap, time::Duration};

use krb_proto::Kvno;

use crate::{clock::Boottime, kdc::Observation};

/// A key that was set at kadmin, or a principal that was switched off there, and what each KDC
/// said since.
#[derive(Debug)]
pub struct Setting {
    /// The key's number; above every number for a principal that was switched off.
    pub kvno: Kvno,
    at: Boottime,
    kdcs: HashMap<String, Seen>,
}

/// No key has it. A KDC says of a disabled service what it says of one that it does not know.
const SWITCHED_OFF: Kvno = Kvno(u32::MAX);

/// What one KDC said.
#[derive(Debug, Default)]
struct Seen {
    /// The older key that it last answered with, or that it does not know the principal.
    older: Option<String>,
    /// Since when it has not answered.
    silent_since: Option<Boottime>,
}

impl Setting {
    /// A key that was set now.
    pub fn new(kvno: Kvno, now: Boottime) -> Self {
        Self { kvno, at: now, kdcs: HashMap::new() }
    }

    /// A principal that was switched off now: a KDC that still issues tickets to it lags.
    pub fn switched_off(now: Boottime) -> Self {
        Self::new(SWITCHED_OFF, now)
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
        match &seen.kvno {
            Ok(Some(found)) if *found >= kvno => {
                *known = Seen::default();
                return None;
            }
            Ok(None) if kvno == SWITCHED_OFF => {
                *known = Seen::default();
                return None;
            }
            Ok(found) => {
                known.silent_since = None;
                known.older = Some(match found {
                    Some(found) => format!("{kdc} still has kvno {found}"),
                    None => format!("{kdc} does not know it yet"),
                });
            }
            Err(why) => {
                let since = *known.silent_since.get_or_insert(now);
                if known.older.is_none() {
                    let overdue = now.since(since) >= propagation;
                    let waits = format!("{kdc} does not say which key it has: {why}");
                    return (!overdue).then_some(waits);
                }
            }
        }
        known.older.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROPAGATION: Duration = Duration::from_secs(300);

    fn at(seconds: u64) -> Boottime {
        Boottime(Duration::from_secs(seconds))
    }

    fn says(kvno: Result<Option<u32>, &str>) -> [Observation; 1] {
        let kvno = kvno.map(|kvno| kvno.map(Kvno)).map_err(str::to_owned);
        [Observation { kdc: "kdc2".to_owned(), kvno }]
    }

    #[test]
    fn a_kdc_that_had_the_older_key_is_waited_for_even_when_it_falls_silent() {
        let mut setting = Setting::new(Kvno(3), at(0));
        for (second, said) in [(0, Ok(Some(2))), (10, Err("away")), (10_000, Err("away"))] {
            let (lags, _) = setting.lags(&says(said), at(second), PROPAGATION);
            assert_eq!(lags, ["kdc2 still has kvno 2"], "after {second} s");
        }
        assert!(setting.lags(&says(Ok(Some(3))), at(10_001), PROPAGATION).0.is_empty());
    }

    #[test]
    fn a_kdc_that_never_answered_is_waited_for_as_long_as_it_was_silent_and_no_longer() {
        let mut setting = Setting::new(Kvno(3), at(0));
        assert_eq!(setting.lags(&says(Err("away")), at(1_000), PROPAGATION).0.len(), 1);
        assert_eq!(setting.lags(&says(Err("away")), at(1_299), PROPAGATION).0.len(), 1);
        assert!(setting.lags(&says(Err("away")), at(1_300), PROPAGATION).0.is_empty());
    }

    #[test]
    fn a_kdc_that_issues_tickets_to_a_principal_that_was_switched_off_is_waited_for() {
        let mut off = Setting::switched_off(at(0));
        let (lags, _) = off.lags(&says(Ok(Some(3))), at(100_000), PROPAGATION);
        assert_eq!(lags, ["kdc2 still has kvno 3"]);
        assert!(off.lags(&says(Ok(None)), at(100_001), PROPAGATION).0.is_empty());
    }

    #[test]
    fn a_kdc_that_does_not_know_the_principal_is_waited_for() {
        let mut setting = Setting::new(Kvno(3), at(0));
        let (lags, _) = setting.lags(&says(Ok(None)), at(100_000), PROPAGATION);
        assert_eq!(lags, ["kdc2 does not know it yet"]);
    }
}
