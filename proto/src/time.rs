//! Wall-clock times and spans as the API writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A time as the API writes it. Times before 1970 become 1970.
pub fn timestamp(at: SystemTime) -> prost_types::Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    prost_types::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}

/// A span as the API writes it.
pub fn duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

/// The span that the API wrote; a negative or malformed one is none at all.
pub fn span(written: &prost_types::Duration) -> Duration {
    let seconds = u64::try_from(written.seconds).unwrap_or(0);
    let nanos = u32::try_from(written.nanos).unwrap_or(0).min(999_999_999);
    Duration::new(seconds, nanos)
}
