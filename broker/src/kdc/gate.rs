//! The gate in front of a realm: the one function that every request passes.
//!
//! Two lanes, the KDCs and kadmin, each with a hard cap: no second sees more than
//! `per_second` requests begin, and never are more than `in_flight` unanswered. Retries, probes
//! and start-up pass like anything else.
//!
//! Those who wait pass in the order they came. A request that could not pass before its
//! deadline is refused at once, with the time after which it could. Classes are counted, not
//! yet ordered.
//!
//! The gate knows nothing of Kerberos: the work is any future.

use std::{
    fmt,
    num::NonZeroU32,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, ReasonablyRealtime},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use krb_proto::Principal;
use tokio::{
    sync::{Mutex, Semaphore, SemaphorePermit},
    time::{self, Instant},
};

use super::KdcError;

/// Which part of the realm a request goes to.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Lane {
    /// AS and TGS requests, to any KDC.
    Kdc,
    /// Requests to kadmind.
    Kadmin,
}

impl Lane {
    /// Both lanes.
    pub const ALL: [Self; 2] = [Self::Kdc, Self::Kadmin];

    /// `kdc` or `kadmin`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kdc => "kdc",
            Self::Kadmin => "kadmin",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a request is for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// Replacing the keys that a dead or banned node held.
    Revocation,
    /// A ticket that ends soon.
    LateRefresh,
    /// A pod waits for it.
    PodStart,
    /// Scheduled replacement of keys, timely refreshes.
    Rotation,
    /// Checks, probes, tidying.
    Housekeeping,
}

impl Class {
    /// All classes, the most urgent first.
    pub const ALL: [Self; 5] =
        [Self::Revocation, Self::LateRefresh, Self::PodStart, Self::Rotation, Self::Housekeeping];

    /// Its name in metrics and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Revocation => "revocation",
            Self::LateRefresh => "late_refresh",
            Self::PodStart => "pod_start",
            Self::Rotation => "rotation",
            Self::Housekeeping => "housekeeping",
        }
    }
}

/// What a Kerberos administrator allows on one lane.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Caps {
    /// The most requests that begin in any second.
    pub per_second: NonZeroU32,
    /// The most requests that are unanswered at a time.
    pub in_flight: NonZeroU32,
}

/// The gate of one realm.
#[derive(Debug)]
pub struct Gate {
    kdc: LaneState,
    kadmin: LaneState,
}

impl Gate {
    /// A gate with these caps, nothing passed yet. Needs a tokio runtime.
    pub fn new(kdc: Caps, kadmin: Caps) -> Self {
        Self { kdc: LaneState::new(kdc), kadmin: LaneState::new(kadmin) }
    }

    /// Does `work` when the lane's caps allow; `deadline` is how long it may wait for that.
    ///
    /// The work itself is not bounded: it brings its own time-out. Dropping the future frees
    /// its place.
    ///
    /// # Errors
    /// [`GateFull`] when it can't begin within `deadline`; then nothing of `work` was done.
    pub async fn pass<T>(
        &self,
        lane: Lane,
        class: Class,
        deadline: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, GateFull> {
        let state = self.lane(lane);
        let refused = |retry_after| {
            state.refused.fetch_add(1, Relaxed);
            GateFull { lane, retry_after }
        };
        let place = state.line_up(deadline).map_err(refused)?;
        let admitted = time::timeout(deadline, state.admit()).await;
        drop(place);
        let permit = admitted.map_err(|_| refused(state.retry_after()))?;
        state.passed[class as usize].fetch_add(1, Relaxed);
        let done = work.await;
        drop(permit);
        Ok(done)
    }

    /// What passed and was refused so far, for each lane.
    pub fn counts(&self) -> [LaneCounts; 2] {
        Lane::ALL.map(|lane| self.lane(lane).counts(lane))
    }

    fn lane(&self, lane: Lane) -> &LaneState {
        match lane {
            Lane::Kdc => &self.kdc,
            Lane::Kadmin => &self.kadmin,
        }
    }
}

/// The lane can't take the request before its deadline.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the gate to the {lane} lane is full; try again in {retry_after:?}")]
pub struct GateFull {
    /// The lane.
    pub lane: Lane,
    /// When there may be room.
    pub retry_after: Duration,
}

impl GateFull {
    /// The same, said of the principal that the request was for.
    pub fn for_principal(self, principal: &Principal) -> KdcError {
        let principal = principal.clone();
        KdcError::GateFull { lane: self.lane.name(), principal, retry_after: self.retry_after }
    }
}

/// What passed one lane since the broker started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LaneCounts {
    /// The lane.
    pub lane: Lane,
    /// Its caps.
    pub caps: Caps,
    /// Requests that are unanswered now.
    pub in_flight: u32,
    /// Requests that wait for their turn now.
    pub waiting: u32,
    /// Requests that began, in the order of [`Class::ALL`].
    pub passed: [u64; 5],
    /// Requests that were refused.
    pub refused: u64,
}

impl LaneCounts {
    /// All requests that began.
    pub fn passed_in_all(&self) -> u64 {
        self.passed.iter().sum()
    }
}

#[derive(Debug)]
struct LaneState {
    caps: Caps,
    rate: RateLimiter<NotKeyed, InMemoryState, TimerClock, NoOpMiddleware<Nanos>>,
    /// The time between two requests at full rate.
    spacing: Duration,
    in_flight: Semaphore,
    /// Whoever holds it is next.
    turnstile: Mutex<()>,
    waiting: AtomicU32,
    passed: [AtomicU64; 5],
    refused: AtomicU64,
}

impl LaneState {
    fn new(caps: Caps) -> Self {
        let quota = quota(caps.per_second);
        Self {
            caps,
            rate: RateLimiter::direct_with_clock(quota, TimerClock { start: Instant::now() }),
            spacing: quota.replenish_interval(),
            in_flight: Semaphore::new(caps.in_flight.get() as usize),
            turnstile: Mutex::new(()),
            waiting: AtomicU32::new(0),
            passed: Default::default(),
            refused: AtomicU64::new(0),
        }
    }

    /// Joins those who wait, unless they are so many that the wait is in vain: then the time
    /// until it would not be.
    fn line_up(&self, deadline: Duration) -> Result<Place<'_>, Duration> {
        let ahead = self.waiting.fetch_add(1, Relaxed);
        let place = Place(&self.waiting);
        // the one at the head waits for at most one spacing, each behind him for one more
        let wait = self.spacing.saturating_mul(ahead.saturating_sub(1));
        if wait > deadline {
            Err(wait.saturating_sub(deadline).max(self.spacing))
        } else {
            Ok(place)
        }
    }

    /// Waits for its turn, a free place in flight, and the rate.
    async fn admit(&self) -> SemaphorePermit<'_> {
        let _turn = self.turnstile.lock().await;
        let permit = self.in_flight.acquire().await.expect("the semaphore is never closed");
        while let Err(not_yet) = self.rate.check() {
            time::sleep(not_yet.wait_time_from(self.rate.clock().now())).await;
        }
        permit
    }

    fn retry_after(&self) -> Duration {
        self.spacing.saturating_mul(self.waiting.load(Relaxed).saturating_add(1))
    }

    fn counts(&self, lane: Lane) -> LaneCounts {
        let free = u32::try_from(self.in_flight.available_permits()).unwrap_or(u32::MAX);
        LaneCounts {
            lane,
            caps: self.caps,
            in_flight: self.caps.in_flight.get().saturating_sub(free),
            waiting: self.waiting.load(Relaxed),
            passed: self.passed.each_ref().map(|count| count.load(Relaxed)),
            refused: self.refused.load(Relaxed),
        }
    }
}

/// One who waits; counted until dropped.
struct Place<'a>(&'a AtomicU32);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A quota under which at most `per_second` requests begin in any second, wherever it starts.
///
/// A burst of a hundredth of it bridges the timer's grain of a millisecond; the rate between
/// bursts is lowered by as much, so that burst and replenishment together stay below the cap.
fn quota(per_second: NonZeroU32) -> Quota {
    let burst = NonZeroU32::new(per_second.get() / 100).unwrap_or(NonZeroU32::MIN);
    let rate = per_second.get() - burst.get() + 1;
    let spacing = Duration::from_nanos(1_000_000_000_u64.div_ceil(u64::from(rate)));
    Quota::with_period(spacing).expect("the spacing is never zero").allow_burst(burst)
}

/// tokio's timer as governor's clock, so that paused time holds for both.
#[derive(Clone, Debug)]
struct TimerClock {
    start: Instant,
}

impl governor::clock::Clock for TimerClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.start.elapsed().into()
    }
}

impl ReasonablyRealtime for TimerClock {}

#[cfg(test)]
mod tests;
