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
        #[expect(clippy::disallowed_methods, reason = "there is no event to wait for: a poll")]
        std::thread::sleep(LOOK);
    }
}

/// The time since some moment in the past, for spans.
pub fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    // the kernel's clock starts at boot: neither part is negative
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}
