//! The audit log: who got which key, when, why, and until when it can be misused.
//!
//! - [`Record`]: one event, as its writer knows it. Its line has a fixed format, described
//!   in `docs/audit.md`; the log adds `seq` and `time`.
//! - [`AuditLog`]: the seam. [`mod@file`] is the adapter; `memory` stands in for it in tests.
//! - [`mod@chain`]: the MACs that make a changed or lost line show; [`verify`] walks them.
//! - [`files`]: rotated files and how long they are kept. [`denials`]: what is merged.
//!
//! The committer is the only writer: a round's lines are on disk before its records are,
//! so nothing is ever granted that the log does not name. The log holds names and numbers,
//! never key material; it is not read back by the broker, and it decides nothing.

pub mod chain;
pub mod denials;
mod event;
pub mod file;
pub mod files;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
mod record;
mod tail;
pub mod verify;

use std::{path::PathBuf, time::SystemTime};

use crate::lease::Lease;

pub use chain::{Head, Mac};
pub use event::{Actor, Event, Exposure, Outcome};
pub use record::Record;

/// An event of a lease, with all that names it.
pub fn of_lease(event: Event, actor: Actor, lease: &Lease) -> Record {
    Record::new(event, actor)
        .lease(lease.id)
        .node(&lease.holder.node)
        .generation(lease.generation)
        .pod(&lease.holder.pod)
        .volume(&lease.holder.volume)
        .account(&lease.owner.account)
        .detail(&lease.reason)
}

/// An error and its causes as one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Where audit lines go.
///
/// Calls block; they are for a thread of their own.
pub trait AuditLog: Send + Sync {
    /// Appends a line for each record, in this order, makes them durable together, and
    /// returns the place of the last.
    ///
    /// # Errors
    /// When they can't be written. They don't count then, although some of them may be in
    /// the log; the next append begins anew after the last line that counted.
    fn append(&self, records: &[Record], now: SystemTime) -> Result<Head, AuditError>;

    /// The last durable line; zeros before the first.
    fn head(&self) -> Head;
}

/// Why the audit log can't be written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file operation failed.
    #[error("{operation} the audit log {}", path.display())]
    Io {
        /// What was tried: `opening`, `writing`.
        operation: &'static str,
        /// The log's file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process writes it.
    #[error("another process writes the audit log {}", path.display())]
    InUse {
        /// The log's file.
        path: PathBuf,
    },
    /// Its end holds no line of ours: it is some other file, or was damaged.
    #[error(
        "the last {bytes} bytes of the audit log {} hold no audit line; move the file away",
        path.display()
    )]
    Foreign {
        /// The log's file.
        path: PathBuf,
        /// How far back was looked.
        bytes: u64,
    },
}
