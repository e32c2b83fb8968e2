//! What must survive the broker: opaque records, written in rounds, sealed and checked.
//!
//! - [`LeaseStore`]: the seam. [`sled`] is the adapter for one broker; `memory` stands in
//!   for it in tests, and both pass `contract`.
//! - [`committer`]: the only caller of [`LeaseStore::commit`]: one flush for all who wait.
//! - [`seal`]: the master key, and the sealing of single keys inside records.
//! - [`mark_file`]: how far the store has come, kept in a second place.
//! - `snapshot`: the sealed copy beside the database, for the day it can't be read.
//!
//! The ledger makes the records and keeps them in memory; nothing here knows what they
//! mean, keeps an index or answers a query. A commit is durable when it returns, and a
//! store that has existed never comes up empty.

pub mod committer;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
pub mod directory;
mod envelope;
pub(crate) mod lock;
pub mod mark_file;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
pub mod seal;
pub mod sled;
mod snapshot;

use std::{fmt, path::PathBuf, time::SystemTime};

use seal::KeyId;

use crate::audit::{Head, Mac};

/// The longest key of a record, in bytes.
pub const MAX_KEY: usize = 1024;

/// The longest value of a record, in bytes.
pub const MAX_VALUE: usize = 64 * 1024;

/// Where the ledger's records are kept.
///
/// Calls block; they are for a thread of their own. One process at a time has the store.
pub trait LeaseStore: Send + Sync {
    /// All records, ascending by key, as the last commit left them, and whether they are
    /// less than what was once committed.
    ///
    /// # Errors
    /// When the store can't be read, a record was tampered with, or both the database and
    /// its snapshot are lost.
    fn load(&self) -> Result<Loaded, StoreError>;

    /// Makes the batch durable, all of it or nothing, and returns its sequence number,
    /// which is above that of every batch before it. An empty batch is a batch.
    ///
    /// # Errors
    /// When a record is too long (nothing is written), or the disk fails (the batch may or
    /// may not be found at the next load).
    fn commit(&self, batch: &Batch) -> Result<u64, StoreError>;

    /// Writes a sealed copy of everything committed so far. Commits go on meanwhile.
    ///
    /// # Errors
    /// When it can't be written; the copy before it stays.
    fn snapshot(&self) -> Result<(), StoreError>;

    /// How the store is.
    fn stats(&self) -> StoreStats;
}

/// One round's changes. A key that is put twice has the later value; one that is put and
/// deleted is deleted.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Batch {
    /// Records to write, as (key, value).
    pub puts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Keys of records to remove; one that is not there is no error.
    pub deletes: Vec<Vec<u8>>,
    /// The last line of the audit log that was durable before this batch. The store keeps
    /// the latest it has seen.
    pub audit_head: Head,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} puts, {} deletes)", self.puts.len(), self.deletes.len())
    }
}

/// How far the store had come, as far as is known.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Mark {
    /// The highest sequence number.
    pub sequence: u64,
    /// The last line of the audit log that is known.
    pub audit_head: Head,
}

impl Mark {
    /// Bytes of a mark: sequence (8), `seq` (8) and MAC (16) of the audit head.
    const LEN: usize = 32;

    /// The mark that comes of knowing both.
    #[must_use]
    pub fn later(self, other: Self) -> Self {
        let sequence = self.sequence.max(other.sequence);
        Self { sequence, audit_head: self.audit_head.later(other.audit_head) }
    }

    fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.audit_head.seq.to_be_bytes());
        bytes[16..].copy_from_slice(&self.audit_head.mac.0);
        bytes
    }

    fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let number = |at: usize| {
            bytes[at..at + 8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let mut mac = Mac::default();
        mac.0.copy_from_slice(&bytes[16..]);
        Self { sequence: number(0), audit_head: Head { seq: number(8), mac } }
    }
}

/// What a store held when it was loaded.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Loaded {
    /// Every record as (key, value), ascending by key.
    pub records: Vec<(Vec<u8>, Vec<u8>)>,
    /// The sequence number after which the next commit counts. After a recovery it is not
    /// below any number ever acknowledged, as far as is known.
    pub sequence: u64,
    /// The latest [`Batch::audit_head`]; an audit log that ends before it has lost lines.
    pub audit_head: Head,
    /// Set when the records are older than what was once committed.
    pub recovery: Option<Recovery>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("records", &self.records.len())
            .field("sequence", &self.sequence)
            .field("audit_head", &self.audit_head)
            .field("recovery", &self.recovery)
            .finish()
    }
}

/// The store came up with less than was once committed.
///
/// It is reported at each load until the first commit: that commit must hold whatever the
/// ledger needs to know that it is still recovering.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recovery {
    /// What was wrong, for the operator.
    pub why: String,
    /// When the snapshot was taken that the records are from; `None` when they are from the
    /// database itself, which had gone back.
    pub snapshot_time: Option<SystemTime>,
    /// The sequence number of the last commit that the records hold.
    pub sequence: u64,
    /// The highest sequence number known to have been committed.
    pub high_water: u64,
    /// Where the broken database was moved.
    pub moved_to: Option<PathBuf>,
}

/// How a store is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StoreStats {
    /// The sequence number of the last commit.
    pub sequence: u64,
    /// Commits since the store was opened.
    pub commits: u64,
    /// Records written or removed since the store was opened.
    pub changes: u64,
    /// Bytes of the database on disk.
    pub disk_bytes: u64,
    /// When the newest snapshot was taken.
    pub snapshot_time: Option<SystemTime>,
    /// The sequence number that the newest snapshot reaches.
    pub snapshot_sequence: u64,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was tried: `opening`, `syncing`.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has the store.
    #[error("another process uses the store {}", path.display())]
    InUse {
        /// The store's directory.
        path: PathBuf,
    },
    /// The database engine failed otherwise.
    #[error("{operation} in the store {}: {detail}", path.display())]
    Engine {
        /// What was tried.
        operation: &'static str,
        /// The store's directory.
        path: PathBuf,
        /// What the engine said.
        detail: String,
    },
    /// The store was written under another master key.
    #[error(
        "the store {} was written under the master key {found}, this broker has {ours}",
        path.display()
    )]
    WrongMasterKey {
        /// The store's directory.
        path: PathBuf,
        /// The id of the key it was written under.
        found: KeyId,
        /// The id of the key in hand.
        ours: KeyId,
    },
    /// A record's MAC is wrong: somebody else wrote it, or it was moved.
    #[error("the record {key} was changed outside the broker: its MAC is wrong")]
    Tampered {
        /// The record's key, escaped.
        key: String,
    },
    /// A record of a format that this broker can't read.
    #[error("the record {key} has format {version}, which this broker does not read")]
    Format {
        /// The record's key, escaped.
        key: String,
        /// Its format.
        version: u8,
    },
    /// A store was here and neither its database nor a snapshot can be read.
    #[error(
        "the store {} existed and can't be read, and no snapshot serves: {why}; \
         it is not started empty",
        path.display()
    )]
    Lost {
        /// The store's directory.
        path: PathBuf,
        /// What is wrong with each.
        why: String,
    },
    /// A record's key or value is too long, or the key is empty.
    #[error("the record {key} has {length} bytes, at most {limit} go")]
    TooLong {
        /// The record's key, escaped.
        key: String,
        /// The length of what is too long.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// An earlier commit failed, so what is durable is not known.
    #[error("the store failed before and takes no commits: {why}")]
    Poisoned {
        /// The earlier failure.
        why: String,
    },
}

/// A record's key as it may stand in a message: printable ASCII, the rest escaped, cut.
pub(crate) fn shown_key(key: &[u8]) -> String {
    let cut = &key[..key.len().min(48)];
    let dots = if cut.len() < key.len() { "..." } else { "" };
    format!("{}{dots}", cut.escape_ascii())
}

/// Refuses records that no store takes.
pub(crate) fn check_lengths(batch: &Batch) -> Result<(), StoreError> {
    let keys = batch.puts.iter().map(|(key, _)| key).chain(&batch.deletes);
    let bad_key = keys.filter(|key| key.is_empty() || key.len() > MAX_KEY);
    let bad_key = bad_key.map(|key| (key, key.len(), MAX_KEY)).next();
    let bad_value = batch.puts.iter().find(|(_, value)| value.len() > MAX_VALUE);
    let bad_value = bad_value.map(|(key, value)| (key, value.len(), MAX_VALUE));
    match bad_key.or(bad_value) {
        None => Ok(()),
        Some((key, length, limit)) => {
            Err(StoreError::TooLong { key: shown_key(key), length, limit })
        }
    }
}
