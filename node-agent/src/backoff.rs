//! How long to wait before trying again.
//!
//! Full jitter: each wait is drawn evenly between nothing and a limit that doubles up to a
//! ceiling, so that the agents of a cluster that lost their broker at one instant do not
//! come back at one instant.

use std::time::Duration;

/// The waits of one series of attempts.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    base: Duration,
    ceiling: Duration,
    attempts: u32,
}

impl Backoff {
    /// A series whose first wait is at most `base` and whose waits never exceed `ceiling`.
    pub fn new(base: Duration, ceiling: Duration) -> Self {
        Self { base, ceiling, attempts: 0 }
    }

    /// The most that the next wait can be.
    pub fn limit(&self) -> Duration {
        let factor = 1u32.checked_shl(self.attempts.min(20)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.ceiling)
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        let limit = self.limit();
        self.attempts = self.attempts.saturating_add(1);
        limit.mul_f64(fraction())
    }

    /// Begins a new series: the last attempt succeeded.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// A wait that somebody else asked for, up to half as long again, so that those who were
/// told the same do not come at once.
pub fn jittered(asked: Duration) -> Duration {
    asked.mul_f64(1.0 + fraction() / 2.0)
}

/// A random number from 0 up to 1.
fn fraction() -> f64 {
    // A kernel that gives no random bytes yet costs the jitter, nothing else.
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_ceiling_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for limit in [1, 2, 4, 5, 5] {
            assert_eq!(backoff.limit(), Duration::from_secs(limit));
            assert!(backoff.wait() <= Duration::from_secs(limit));
        }
        backoff.reset();
        assert_eq!(backoff.limit(), Duration::from_secs(1));
    }

    #[test]
    fn a_hundred_waits_are_spread_over_the_whole_span() {
        let waits: Vec<_> = (0..100)
            .map(|_| Backoff::new(Duration::from_secs(8), Duration::from_secs(8)).wait())
            .collect();
        assert!(waits.iter().any(|w| *w < Duration::from_secs(2)));
        assert!(waits.iter().any(|w| *w > Duration::from_secs(6)));
    }

    #[test]
    fn a_wait_that_was_asked_for_is_never_cut_short() {
        let asked = Duration::from_secs(2);
        for _ in 0..100 {
            let wait = jittered(asked);
            assert!(wait >= asked && wait <= Duration::from_secs(3));
        }
    }
}
