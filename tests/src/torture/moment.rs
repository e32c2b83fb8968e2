//! When the broker is killed: at any time, or right after a line of the audit log, which it
//! writes in the midst of what it does.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::PathBuf,
    time::Duration,
};

use krb_broker::clock::{Clock as _, SystemClock};

use super::chance::Chance;
use crate::world::{WorldError, pause};

/// Longest wait for a line.
const LONGEST: Duration = Duration::from_millis(2_500);
/// Between two looks at the log.
const LOOK: Duration = Duration::from_millis(2);
/// The lines after which it is killed: each step of a walk, and of a lease.
const TELLING: [&str; 14] = [
    "key.made",
    "key.created",
    "key.delivered",
    "key.distributing",
    "key.activating",
    "key.observed",
    "key.current",
    "key.dropping",
    "key.pruned",
    "lease.granted",
    "lease.released",
    "lease.revoking",
    "session.attached",
    "session.lost",
];

/// What is new at the end of the audit log.
pub(super) struct Moments {
    log: PathBuf,
    seen: u64,
}

impl Moments {
    /// Of the log in this file.
    pub(super) fn new(log: PathBuf) -> Self {
        Self { log, seen: 0 }
    }

    /// Waits until the broker is to be killed.
    pub(super) fn wait(&mut self, chance: &Chance) -> Result<(), WorldError> {
        if chance.happens(30) {
            pause(chance.span(0, 1_200));
            return Ok(());
        }
        let event = format!("\"event\":\"{}\"", TELLING[chance.below(TELLING.len())]);
        self.news()?;
        let began = SystemClock.now().boot;
        while SystemClock.now().boot.since(began) < LONGEST && !self.news()?.contains(&event) {
            pause(LOOK);
        }
        // the step that it tells of is then under way
        pause(chance.span(0, 25));
        Ok(())
    }

    fn news(&mut self) -> Result<String, WorldError> {
        let mut log = File::open(&self.log)?;
        if log.metadata()?.len() < self.seen {
            self.seen = 0; // a new file of that name
        }
        log.seek(SeekFrom::Start(self.seen))?;
        let mut bytes = Vec::new();
        self.seen += log.read_to_end(&mut bytes)? as u64;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
