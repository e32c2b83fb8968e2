//! Which KDCs use a key that was set, and which are still waited for.
//!
//! A KDC that answers with an older key is waited for without an end, since that key still
//! works there. One that does not answer is waited for until it has been silent for the whole
//! propagation time, and only if it never answered with an older key since the key was set.

use std::{collections::HashMap, time::Duration};

use krb_proto::Kvno;

use crate::{clock::Boottime, kdc::Observation};

/// A key that was set at kadmin, and what each KDC said since.
#[derive(Debug)]
pub struct Setting {
    /// The key's number.
    pub kvno: Kvno,
    at: Boottime,
    kdcs: HashMap<String, Seen>,
}

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
    fn a_kdc_that_does_not_know_the_principal_is_waited_for() {
        let mut setting = Setting::new(Kvno(3), at(0));
        let (lags, _) = setting.lags(&says(Ok(None)), at(100_000), PROPAGATION);
        assert_eq!(lags, ["kdc2 does not know it yet"]);
    }
}
