//! A store in memory, for tests: it loses what was not committed when it is crashed, keeps
//! what was, and can be told to fail.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::SystemTime,
};

use super::{Batch, LeaseStore, Loaded, Recovery, StoreError, StoreStats, check_lengths};
use crate::audit::Head;

/// The store. Clones share one disk, as a reopened store does.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Disk>>);

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Default)]
struct Disk {
    records: Records,
    sequence: u64,
    audit_head: Head,
    recovery: Option<Recovery>,
    snapshot: Option<(Records, u64)>,
    failing: Option<Failure>,
    stats: StoreStats,
}

/// How a commit is to fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// Nothing of the batch is kept.
    BeforeTheWrite,
    /// The batch is kept, and the caller is told that it failed.
    AfterTheWrite,
}

impl MemoryStore {
    /// Every later commit fails so, until told otherwise.
    pub fn fail(&self, how: Option<Failure>) {
        self.disk().failing = how;
    }

    /// Goes back to the last snapshot, as a store whose database was lost does.
    ///
    /// # Panics
    /// When there is no snapshot: a store never starts empty.
    pub fn lose_database(&self, why: &str) {
        let mut disk = self.disk();
        let high_water = disk.sequence;
        let (records, sequence) = disk.snapshot.clone().expect("a snapshot was taken");
        disk.records = records;
        disk.recovery = Some(Recovery {
            why: why.to_owned(),
            snapshot_time: Some(SystemTime::UNIX_EPOCH),
            sequence,
            high_water,
            moved_to: None,
        });
    }

    /// The value under `key`, as a reload would find it.
    pub fn read(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.disk().records.get(key).cloned()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().expect("no test panicked with the store")
    }
}

impl LeaseStore for MemoryStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        let disk = self.disk();
        Ok(Loaded {
            records: disk.records.clone().into_iter().collect(),
            sequence: disk.sequence,
            audit_head: disk.audit_head,
            recovery: disk.recovery.clone(),
        })
    }

    fn commit(&self, batch: &Batch) -> Result<u64, StoreError> {
        check_lengths(batch)?;
        let mut disk = self.disk();
        let failed = || StoreError::Io {
            operation: "syncing",
            path: "memory".into(),
            source: io::Error::other("told to fail"),
        };
        if disk.failing == Some(Failure::BeforeTheWrite) {
            return Err(failed());
        }
        disk.records.extend(batch.puts.iter().cloned());
        for key in &batch.deletes {
            disk.records.remove(key);
        }
        disk.audit_head = disk.audit_head.later(batch.audit_head);
        disk.sequence += 1;
        disk.recovery = None;
        disk.stats.commits += 1;
        disk.stats.changes += (batch.puts.len() + batch.deletes.len()) as u64;
        if disk.failing == Some(Failure::AfterTheWrite) {
            return Err(failed());
        }
        Ok(disk.sequence)
    }

    fn snapshot(&self) -> Result<(), StoreError> {
        let mut disk = self.disk();
        disk.snapshot = Some((disk.records.clone(), disk.sequence));
        Ok(())
    }

    fn stats(&self) -> StoreStats {
        let disk = self.disk();
        let snapshot = disk.snapshot.as_ref();
        StoreStats {
            sequence: disk.sequence,
            disk_bytes: disk.records.iter().map(|(k, v)| (k.len() + v.len()) as u64).sum(),
            snapshot_time: snapshot.map(|_| SystemTime::UNIX_EPOCH),
            snapshot_sequence: snapshot.map_or(0, |(_, sequence)| *sequence),
            ..disk.stats.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::contract, *};

    #[test]
    fn the_memory_store_keeps_the_contract() {
        contract::keeps_its_promises(|| {
            let disk = MemoryStore::default();
            move || disk.clone()
        });
    }

    #[test]
    fn a_commit_that_was_told_to_fail_keeps_all_or_nothing() {
        let store = MemoryStore::default();
        let batch = Batch { puts: vec![(b"a".to_vec(), b"1".to_vec())], ..Batch::default() };
        store.fail(Some(Failure::BeforeTheWrite));
        assert!(store.commit(&batch).is_err());
        assert_eq!(store.read(b"a"), None);
        store.fail(Some(Failure::AfterTheWrite));
        assert!(store.commit(&batch).is_err());
        assert_eq!(store.read(b"a"), Some(b"1".to_vec()));
    }
}
