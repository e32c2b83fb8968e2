//! Time and randomness as parameters.
//!
//! Silence is measured on the boottime clock, which goes on through a suspend and never
//! jumps; ends are wall-clock times. Decisions take a [`Now`]; nothing but [`SystemClock`]
//! reads a clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An instant on both clocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Now {
    /// Since the machine booted, suspends included.
    pub boot: Boottime,
    /// By the wall clock.
    pub wall: SystemTime,
}

/// An instant on the boottime clock.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Boottime(pub Duration);

impl Boottime {
    /// How long `earlier` is ago; zero when it is not.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Boottime {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0 + span)
    }
}

/// Tells the time.
pub trait Clock: Send + Sync {
    /// This instant.
    fn now(&self) -> Now;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(boot.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(boot.tv_nsec).unwrap_or(0);
        #[expect(clippy::disallowed_methods, reason = "this is the clock")]
        let wall = SystemTime::now();
        Now { boot: Boottime(Duration::new(seconds, nanos)), wall }
    }
}

/// Draws random bytes.
pub trait Entropy: Send + Sync {
    /// Fills `bytes`, each bit fit for a key.
    fn fill(&self, bytes: &mut [u8]);
}

/// The kernel's random bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        // The kernel fails this only before it is seeded, and then nothing may go on.
        getrandom::fill(bytes).expect("the kernel gives random bytes");
    }
}

/// Whole seconds since 1970, as Kerberos and the store write times; 0 before it.
pub fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Milliseconds since 1970; 0 before it.
pub fn unix_millis(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// The time so many milliseconds after 1970.
pub fn from_unix_millis(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

/// RFC 3339 in UTC, whole seconds, for people.
pub fn rfc3339(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map_or_else(|_| "no time".to_owned(), |at| format!("{at:.0}"))
}

#[cfg(any(test, feature = "testing"))]
pub use testing::{SeededEntropy, TestClock};

#[cfg(any(test, feature = "testing"))]
mod testing {
    use std::sync::Mutex;

    use super::{Boottime, Clock, Duration, Entropy, Now, UNIX_EPOCH};

    /// A clock that stands until it is told to move.
    #[derive(Debug)]
    pub struct TestClock(Mutex<Now>);

    impl Default for TestClock {
        fn default() -> Self {
            let wall = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
            Self(Mutex::new(Now { boot: Boottime(Duration::from_secs(1_000)), wall }))
        }
    }

    impl TestClock {
        /// Moves both clocks.
        pub fn advance(&self, span: Duration) {
            let mut now = self.0.lock().expect("no test panicked with the clock");
            now.boot = now.boot + span;
            now.wall += span;
        }

        /// Sets the wall clock forward, or back, by so many seconds.
        pub fn step_wall(&self, seconds: i64) {
            let mut now = self.0.lock().expect("no test panicked with the clock");
            let span = Duration::from_secs(seconds.unsigned_abs());
            now.wall = if seconds < 0 { now.wall - span } else { now.wall + span };
        }
    }

    impl Clock for TestClock {
        fn now(&self) -> Now {
            *self.0.lock().expect("no test panicked with the clock")
        }
    }

    /// Bytes that a seed decides: for tests that must repeat.
    #[derive(Debug)]
    pub struct SeededEntropy(Mutex<u64>);

    impl SeededEntropy {
        /// The stream of this seed.
        pub fn new(seed: u64) -> Self {
            Self(Mutex::new(seed))
        }
    }

    impl Entropy for SeededEntropy {
        fn fill(&self, bytes: &mut [u8]) {
            let mut state = self.0.lock().expect("no test panicked with the entropy");
            for byte in bytes {
                // SplitMix64, one byte a step
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                *byte = (z ^ (z >> 31)) as u8;
            }
        }
    }
}
