//! Time limits, on the boottime clock.
//!
//! The driver is one thread that does one thing, so it may sleep.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long a `mount` may take from the start of the process: longer than the agent's own 90 s,
/// shorter than the two minutes after which kubelet complains of its own accord.
pub const MOUNT_LIMIT: Duration = Duration::from_secs(100);

/// The limit that tests set with `KRB_FLEXVOLUME_LIMIT_MS`, in milliseconds. Only a debug build
/// reads it: the driver's environment is kubelet's, and what is installed takes nothing from it.
#[cfg(debug_assertions)]
fn shortened(limit: Duration) -> Duration {
    let set = std::env::var("KRB_FLEXVOLUME_LIMIT_MS").ok().and_then(|ms| ms.parse().ok());
    set.map_or(limit, |ms| limit.min(Duration::from_millis(ms)))
}

#[cfg(not(debug_assertions))]
fn shortened(limit: Duration) -> Duration {
    limit
}

/// An instant by which something must have ended.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Duration);

impl Deadline {
    /// So long from now.
    pub fn after(limit: Duration) -> Self {
        Self(since_boot() + shortened(limit))
    }

    /// How long there is left; none when it has passed.
    pub fn left(&self) -> Option<Duration> {
        self.0.checked_sub(since_boot()).filter(|left| !left.is_zero())
    }
}

/// Waits that begin short and double up to a cap.
#[derive(Debug)]
pub struct Waits {
    next: Duration,
    cap: Duration,
}

impl Waits {
    /// The first wait, and the longest.
    pub fn between(first: Duration, cap: Duration) -> Self {
        Self { next: first, cap }
    }

    /// Waits once, not past the deadline. False when the deadline has passed already.
    pub fn wait(&mut self, deadline: &Deadline) -> bool {
        let Some(left) = deadline.left() else { return false };
        #[expect(clippy::disallowed_methods, reason = "this process has nothing else to do")]
        std::thread::sleep(self.next.min(left));
        self.next = (self.next * 2).min(self.cap);
        true
    }
}

/// Seconds since 1970, for the log.
pub fn unix_seconds() -> i64 {
    clock_gettime(ClockId::Realtime).tv_sec
}

fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}
