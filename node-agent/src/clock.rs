//! Time as a parameter.
//!
//! How long material may be served is counted on the boottime clock: it goes on through a
//! suspend and nobody can set it. Nothing but [`SystemClock`] reads a clock.

use std::{ops::Add, time::Duration};

/// An instant on the boottime clock.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Boottime(pub Duration);

impl Boottime {
    /// How long `earlier` is ago; zero when it is not.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Boottime {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

/// Tells the time.
pub trait Clock: Send + Sync {
    /// This instant.
    fn now(&self) -> Boottime;
}

/// The machine's boottime clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Boottime {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(boot.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(boot.tv_nsec).unwrap_or(0);
        Boottime(Duration::new(seconds, nanos))
    }
}
