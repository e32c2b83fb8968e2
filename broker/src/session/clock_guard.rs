//! Whether the wall clock can be believed.
//!
//! Ends of tickets, of key phases and of `lease_ttl` are wall-clock times. A clock that is set
//! by hand, or by a machine that woke up wrong, would end them all at once. It is therefore held
//! against the boottime clock, which nobody sets, and against the KDCs', as replies that only
//! they could make have told it.
//!
//! While the clock is in doubt nothing is revoked, expired or moved on by itself. This module is
//! pure: it takes the time and the readings, and says what follows.

use std::time::Duration;

use crate::{
    clock::{Boottime, Now},
    kdc::ClockReading,
};

/// How far the wall clock may move against the boottime clock.
pub const MAX_STEP: Duration = Duration::from_secs(60);

/// What became of the clock since it was last looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Turn {
    /// It is in doubt now: why.
    Fault(String),
    /// It can be believed again: why.
    Cleared(String),
}

/// Watches the wall clock.
#[derive(Clone, Debug)]
pub struct ClockGuard {
    /// Where the wall clock was right, for all that is known.
    base: Now,
    last: Now,
    /// When the wall clock was last seen to move by itself.
    moved_at: Boottime,
    clock_skew: Duration,
    fault: Option<String>,
}

impl ClockGuard {
    /// A guard that believes the clock as it is now. `clock_skew` is how far a KDC's may be off.
    pub fn new(now: Now, clock_skew: Duration) -> Self {
        Self { base: now, last: now, moved_at: now.boot, clock_skew, fault: None }
    }

    /// Why the clock is in doubt; `None` while it is not.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Looks at the clock.
    pub fn look(&mut self, now: Now, readings: &[ClockReading]) -> Option<Turn> {
        let step = drift(self.last, now);
        if step.unsigned_abs() > MAX_STEP.as_secs() {
            self.moved_at = now.boot;
        }
        self.last = now;
        // A reading from before a jump says nothing of the clock as it is now.
        let current: Vec<&ClockReading> =
            readings.iter().filter(|r| r.at >= self.moved_at).collect();
        let agrees = |r: &&&ClockReading| r.offset.0.unsigned_abs() <= self.clock_skew.as_secs();
        let agreeing = current.iter().find(agrees).map(|reading| reading.kdc.clone());
        let off = if agreeing.is_some() { None } else { current.first().copied() };
        let drifted = drift(self.base, now);
        let wrong = if drifted.unsigned_abs() > MAX_STEP.as_secs() && agreeing.is_none() {
            Some(format!("the wall clock has moved by {drifted} s by itself"))
        } else {
            off.map(|r| format!("the clock of {} is {} s ahead of the broker's", r.kdc, r.offset.0))
        };
        if agreeing.is_some() && drifted.unsigned_abs() > MAX_STEP.as_secs() {
            self.base = now; // the clock was set right
        }
        self.turn(wrong, agreeing)
    }

    fn turn(&mut self, wrong: Option<String>, agreeing: Option<String>) -> Option<Turn> {
        match (self.fault.is_some(), wrong) {
            (false, Some(why)) => {
                self.fault = Some(why.clone());
                Some(Turn::Fault(why))
            }
            (true, Some(why)) => {
                self.fault = Some(why); // its figure may have changed
                None
            }
            (true, None) => {
                self.fault = None;
                Some(Turn::Cleared(match agreeing {
                    Some(kdc) => format!("the clock of {kdc} agrees with the broker's"),
                    None => "the wall clock is back".to_owned(),
                }))
            }
            (false, None) => None,
        }
    }
}

/// Why the clock is in doubt at once, before a guard has looked, where it has moved since `from`.
pub fn jumped(from: Now, to: Now) -> Option<String> {
    let moved = drift(from, to);
    (moved.unsigned_abs() > MAX_STEP.as_secs())
        .then(|| format!("the wall clock has moved by {moved} s by itself"))
}

/// By how many seconds the wall clock has moved against the boottime clock; rounded to zero.
fn drift(from: Now, to: Now) -> i64 {
    let expected = to.boot.since(from.boot);
    let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    match to.wall.duration_since(from.wall + expected) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{Clock, TestClock},
        krb5::exchange::ClockOffset,
    };

    const SKEW: Duration = Duration::from_secs(300);

    fn kdc(name: &str, ahead: i64, at: Now) -> ClockReading {
        ClockReading { kdc: name.to_owned(), offset: ClockOffset(ahead), at: at.boot }
    }

    fn moved(clock: &TestClock, seconds: i64) -> Now {
        clock.step_wall(seconds);
        clock.now()
    }

    fn guard() -> (TestClock, ClockGuard) {
        let clock = TestClock::default();
        let guard = ClockGuard::new(clock.now(), SKEW);
        (clock, guard)
    }

    #[test]
    fn a_clock_that_goes_on_evenly_or_is_set_a_little_is_believed() {
        let (clock, mut guard) = guard();
        for step in [0, 30, -60, 60, -30] {
            clock.advance(Duration::from_secs(3600));
            assert_eq!(guard.look(moved(&clock, step), &[]), None);
        }
    }

    #[test]
    fn a_jump_either_way_is_a_fault_until_the_clock_is_back() {
        for jump in [61, -61, 86_400 * 365, -86_400] {
            let (clock, mut guard) = guard();
            clock.advance(Duration::from_secs(10));
            let turn = guard.look(moved(&clock, jump), &[]);
            assert!(matches!(turn, Some(Turn::Fault(_))), "{jump}");
            clock.advance(Duration::from_secs(3600));
            assert_eq!(guard.look(clock.now(), &[]), None, "said once");
            assert!(guard.fault().is_some(), "time alone heals nothing");
            let turn = guard.look(moved(&clock, -jump), &[]);
            assert_eq!(turn, Some(Turn::Cleared("the wall clock is back".to_owned())));
        }
    }

    #[test]
    fn many_small_steps_are_a_jump_too() {
        let (clock, mut guard) = guard();
        assert_eq!(guard.look(moved(&clock, 40), &[]), None);
        assert!(matches!(guard.look(moved(&clock, 40), &[]), Some(Turn::Fault(_))));
    }

    #[test]
    fn only_a_kdc_read_after_the_jump_can_say_that_the_jump_was_right() {
        let (clock, mut guard) = guard();
        let before = kdc("kdc1", 0, clock.now());
        clock.advance(Duration::from_secs(10));
        let jumped = moved(&clock, 1000);
        assert!(matches!(guard.look(jumped, std::slice::from_ref(&before)), Some(Turn::Fault(_))));
        clock.advance(Duration::from_secs(10));
        assert_eq!(guard.look(clock.now(), &[before]), None);
        let after = kdc("kdc1", 2, clock.now());
        let turn = guard.look(clock.now(), std::slice::from_ref(&after));
        assert_eq!(
            turn,
            Some(Turn::Cleared("the clock of kdc1 agrees with the broker's".to_owned()))
        );
        clock.advance(Duration::from_secs(10));
        assert_eq!(guard.look(clock.now(), &[]), None, "the new time is the base from now on");
        assert!(matches!(guard.look(moved(&clock, -1000), &[after]), Some(Turn::Fault(_))));
    }

    #[test]
    fn a_broker_that_is_off_from_every_kdc_is_in_doubt_and_from_one_of_two_is_not() {
        let (clock, mut guard) = guard();
        let (good, bad) = (kdc("kdc1", -299, clock.now()), kdc("kdc2", 301, clock.now()));
        assert_eq!(guard.look(clock.now(), &[bad.clone(), good.clone()]), None);
        assert!(matches!(
            guard.look(clock.now(), std::slice::from_ref(&bad)),
            Some(Turn::Fault(_))
        ));
        assert!(matches!(guard.look(clock.now(), &[bad, good]), Some(Turn::Cleared(_))));
    }
}
