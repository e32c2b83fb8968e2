//! The ledger with its committer: what changes is made durable in the order of the changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Ledger, feed::Feed};
use crate::{
    audit::Record,
    clock::{Clock, Now},
    store::{
        committer::{Ack, CommitError, Committer, Round},
        seal::Sealer,
    },
};

/// The one ledger of the broker. Clones are the same book.
#[derive(Clone)]
pub struct Book(Arc<Inner>);

struct Inner {
    ledger: Mutex<Ledger>,
    committer: Committer,
    sealer: Sealer,
    clock: Arc<dyn Clock>,
    feed: Arc<Feed>,
}

/// Audit lines of a change.
pub type Lines = Vec<Record>;

impl Book {
    /// A book of this ledger.
    pub fn new(
        ledger: Ledger,
        committer: Committer,
        sealer: Sealer,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let feed = Arc::default();
        Self(Arc::new(Inner { ledger: Mutex::new(ledger), committer, sealer, clock, feed }))
    }

    /// This instant.
    pub fn now(&self) -> Now {
        self.0.clock.now()
    }

    /// Looks something up.
    pub fn read<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.lock())
    }

    /// Changes something, and hands the change over to the committer under the same lock.
    /// It is durable when the acknowledgement says so; nothing may leave the broker before.
    pub fn write<T>(&self, change: impl FnOnce(&mut Ledger, &mut Lines, Now) -> T) -> (T, Ack) {
        let mut ledger = self.lock();
        let mut lines = Lines::new();
        let outcome = change(&mut ledger, &mut lines, self.0.clock.now());
        (outcome, self.submit(&mut ledger, lines))
    }

    /// Changes something and waits until it is durable.
    ///
    /// # Errors
    /// When the store or the audit log can't be written; the broker is about to stop then.
    pub async fn commit<T>(
        &self,
        change: impl FnOnce(&mut Ledger, &mut Lines, Now) -> T,
    ) -> Result<T, CommitError> {
        let (outcome, durable) = self.write(change);
        durable.await?;
        Ok(outcome)
    }

    /// Changes something, if there is anything to change, and waits until it is durable.
    ///
    /// # Errors
    /// As for [`Self::commit`].
    pub async fn commit_if<T>(
        &self,
        change: impl FnOnce(&mut Ledger, &mut Lines, Now) -> Option<T>,
    ) -> Result<Option<T>, CommitError> {
        let submitted = {
            let mut ledger = self.lock();
            let mut lines = Lines::new();
            change(&mut ledger, &mut lines, self.0.clock.now())
                .map(|outcome| (outcome, self.submit(&mut ledger, lines)))
        };
        match submitted {
            Some((outcome, durable)) => durable.await.map(|()| Some(outcome)),
            None => Ok(None),
        }
    }

    fn submit(&self, ledger: &mut Ledger, lines: Lines) -> Ack {
        let changed = ledger.changed_leases();
        let mut round = ledger.take_round(&self.0.sealer);
        round.audit = lines;
        let durable = self.0.committer.submit(round);
        if !changed.is_empty() {
            // an empty round behind it is durable when it is
            self.0.feed.number(changed, self.0.committer.submit(Round::default()));
        }
        durable
    }

    /// The changes of leases.
    pub fn feed(&self) -> &Arc<Feed> {
        &self.0.feed
    }

    /// Changes what is not stored, or need not be stored soon: acknowledgements, heartbeats,
    /// what a walk waits for.
    pub fn note<T>(&self, change: impl FnOnce(&mut Ledger, Now) -> T) -> T {
        change(&mut self.lock(), self.0.clock.now())
    }

    /// Writes an audit line that goes with no change.
    ///
    /// # Errors
    /// When the audit log can't be written.
    pub async fn audit(&self, line: Record) -> Result<(), CommitError> {
        self.commit(|_, lines, _| lines.push(line)).await
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // A panic under the lock leaves at worst a change that was not handed over; the next
        // change hands it over, since what was touched is kept.
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
