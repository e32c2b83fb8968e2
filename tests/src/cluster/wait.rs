//! Waiting for something that tells nobody when it happens.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::ClusterError;

/// How often to look.
const LOOK: Duration = Duration::from_millis(200);

/// Looks until `look` has an answer.
///
/// # Errors
/// When `look` fails, or `limit` is over: named by `what`.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>, ClusterError>,
) -> Result<T, ClusterError> {
    let end = monotonic() + limit;
    loop {
        if let Some(answer) = look()? {
            return Ok(answer);
        }
        if monotonic() > end {
            let detail = format!("not within {} s", limit.as_secs());
            return Err(ClusterError::new(format!("waiting for {what}"), detail));
        }
        pause(LOOK);
    }
}

/// Lets time pass on the cluster.
#[expect(clippy::disallowed_methods, reason = "the cluster has no clock of ours, and no event")]
pub fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// The time since some moment in the past, for spans.
pub fn monotonic() -> Duration {
    read(ClockId::Monotonic)
}

/// The time since the machine booted, which `/proc/uptime` shows in every container.
pub fn since_boot() -> Duration {
    read(ClockId::Boottime)
}

fn read(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    // the kernel's clock starts at boot: neither part is negative
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}
