//! An audit log in memory, for tests. It can be told to fail.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::SystemTime,
};

use super::{
    AuditError, AuditLog, Event, Record,
    chain::{ChainKey, Head},
};
use crate::{clock::SeededEntropy, store::seal::MasterKey};

/// The log. Clones share their lines.
#[derive(Clone, Default)]
pub struct MemoryAudit(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    records: Vec<Record>,
    text: String,
    head: Head,
    appends: u64,
    failing: bool,
}

impl MemoryAudit {
    /// Every later append fails.
    pub fn fail(&self) {
        self.lines().failing = true;
    }

    /// Appends work again.
    pub fn mend(&self) {
        self.lines().failing = false;
    }

    /// What was logged.
    pub fn records(&self) -> Vec<Record> {
        self.lines().records.clone()
    }

    /// The events that were logged, in order.
    pub fn events(&self) -> Vec<Event> {
        self.lines().records.iter().map(Record::event).collect()
    }

    /// The lines as a file would have them.
    pub fn text(&self) -> String {
        self.lines().text.clone()
    }

    /// How often the log was made durable.
    pub fn appends(&self) -> u64 {
        self.lines().appends
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().expect("no test panicked with the log")
    }
}

impl AuditLog for MemoryAudit {
    fn append(&self, records: &[Record], now: SystemTime) -> Result<Head, AuditError> {
        let key = ChainKey::new(&MasterKey::random(&SeededEntropy::new(0)));
        let mut lines = self.lines();
        if lines.failing {
            let source = io::Error::other("told to fail");
            return Err(AuditError::Io { operation: "writing", path: "memory".into(), source });
        }
        for record in records {
            let seq = lines.head.seq + 1;
            let (line, mac) = record.line(seq, now, &key, lines.head.mac);
            lines.head = Head { seq, mac };
            lines.text.push_str(&line);
            lines.records.push(record.clone());
        }
        lines.appends += 1;
        Ok(lines.head)
    }

    fn head(&self) -> Head {
        self.lines().head
    }
}
