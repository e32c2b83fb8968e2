//! When to leave an address alone that does not answer.

use std::time::Duration;

use crate::clock::Boottime;

/// After how many failures in a row an address is left alone.
const TOLERATED: u32 = 2;
/// For how long at first; doubled with each further failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// For how long at most: a KDC that is back is used again before a mount is given up.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Counts the failures of one address. One attempt after each pause finds out whether it is back.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Breaker {
    failures: u32,
    closed_until: Boottime,
}

impl Breaker {
    /// Whether the address may be tried at `now`.
    pub(super) fn may_try(&self, now: Boottime) -> bool {
        now >= self.closed_until
    }

    /// It answered.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// It did not answer an attempt that ended at `now`.
    pub(super) fn failed(&mut self, now: Boottime) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= TOLERATED {
            let doublings = (self.failures - TOLERATED).min(10);
            let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
            self.closed_until = now + pause;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn at(seconds: u64) -> Boottime {
        Boottime(Duration::from_secs(seconds))
    }

    #[test]
    fn two_failures_make_a_pause_that_grows_and_one_answer_ends_it() {
        let mut breaker = Breaker::default();
        breaker.failed(at(10));
        assert!(breaker.may_try(at(10)), "one failure is tolerated");
        breaker.failed(at(10));
        assert!(!breaker.may_try(at(10)) && breaker.may_try(at(11)));
        breaker.failed(at(11));
        assert!(!breaker.may_try(at(12)) && breaker.may_try(at(13)));
        breaker.succeeded();
        assert!(breaker.may_try(at(11)));
    }

    proptest! {
        #[test]
        fn however_often_it_failed_it_is_tried_again_within_the_longest_pause(failures in 0_u32..5_000) {
            let mut breaker = Breaker::default();
            for _ in 0..failures {
                breaker.failed(at(100));
            }
            prop_assert!(breaker.may_try(at(100) + LONGEST_PAUSE));
        }
    }
}
