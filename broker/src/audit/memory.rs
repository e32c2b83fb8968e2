//! An audit log in memory, for tests. It can be told to fail.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::SystemTime,
};

use super::{AuditError, AuditLog, Event, Record};

/// The log. Clones share their lines.
#[derive(Clone, Default)]
pub struct MemoryAudit(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    records: Vec<Record>,
    text: String,
    appends: u64,
    failing: bool,
}

impl MemoryAudit {
    /// Every later append fails.
    pub fn fail(&self) {
        self.lines().failing = true;
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
    fn append(&self, records: &[Record], now: SystemTime) -> Result<u64, AuditError> {
        let mut lines = self.lines();
        if lines.failing {
            let source = io::Error::other("told to fail");
            return Err(AuditError::Io { operation: "writing", path: "memory".into(), source });
        }
        for record in records {
            let seq = lines.records.len() as u64 + 1;
            lines.text.push_str(&record.line(seq, now));
            lines.records.push(record.clone());
        }
        lines.appends += 1;
        Ok(lines.records.len() as u64)
    }

    fn head(&self) -> u64 {
        self.lines().records.len() as u64
    }
}
