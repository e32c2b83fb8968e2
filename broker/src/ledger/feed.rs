//! Every change of a lease, in the order in which the changes became durable.
//!
//! Numbers are given out under the ledger's lock, so that they follow the order of the changes;
//! a change is shown only once it is durable, so that nobody sees what a crash could undo. The
//! last [`KEPT`] changes are kept: whoever is further behind, or comes from before a restart,
//! lists the leases anew.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{lease::Lease, store::committer::Ack};

/// How many changes are kept.
pub const KEPT: usize = 8_192;

/// A change of one lease.
#[derive(Clone, Debug)]
pub struct LeaseChange {
    /// Its place among all changes since the broker started.
    pub number: u64,
    /// The lease as it was after it; or, where it was forgotten, before.
    pub lease: Arc<Lease>,
    /// Whether the lease is no longer listed.
    pub forgotten: bool,
}

/// The changes since the broker started.
#[derive(Debug)]
pub struct Feed {
    kept: Mutex<Kept>,
    durable: watch::Sender<u64>,
    numbered: mpsc::UnboundedSender<(Ack, Vec<LeaseChange>)>,
    waiting: Mutex<Option<Waiting>>,
}

type Waiting = mpsc::UnboundedReceiver<(Ack, Vec<LeaseChange>)>;

#[derive(Debug, Default)]
struct Kept {
    numbered: u64,
    changes: VecDeque<LeaseChange>,
}

/// What somebody asks for is no longer kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("changes after number {0} are no longer kept")]
pub struct NoLongerKept(pub u64);

impl Default for Feed {
    fn default() -> Self {
        let (numbered, waiting) = mpsc::unbounded_channel();
        let durable = watch::Sender::new(0);
        Self { kept: Mutex::default(), durable, numbered, waiting: Mutex::new(Some(waiting)) }
    }
}

impl Feed {
    /// Numbers changes. Called under the ledger's lock; `durable` says when they are.
    pub(super) fn number(&self, changes: Vec<(Lease, bool)>, durable: Ack) {
        let mut kept = self.lock();
        let number = |(lease, forgotten): (Lease, bool)| {
            kept.numbered += 1;
            LeaseChange { number: kept.numbered, lease: Arc::new(lease), forgotten }
        };
        let changes = changes.into_iter().map(number).collect();
        let _ = self.numbered.send((durable, changes)); // fails when the broker is ending
    }

    /// The number of the last change that was made, durable or not. Called under the lock.
    pub fn last(&self) -> u64 {
        self.lock().numbered
    }

    /// Shows changes as they become durable, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let Some(mut waiting) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
        else {
            return; // somebody runs it already
        };
        while let Some(Some((durable, changes))) = stop.run_until_cancelled(waiting.recv()).await {
            // What failed ends the broker, or was refused; a gap would hide it.
            if durable.await.is_ok() {
                self.show(changes);
            }
        }
    }

    fn show(&self, changes: Vec<LeaseChange>) {
        let Some(last) = changes.last().map(|change| change.number) else { return };
        let mut kept = self.lock();
        kept.changes.extend(changes);
        let over = kept.changes.len().saturating_sub(KEPT);
        kept.changes.drain(..over);
        drop(kept);
        self.durable.send_replace(last);
    }

    /// Waits until the change of this number, and all before it, are durable.
    pub async fn until(&self, number: u64) {
        let mut durable = self.durable.subscribe();
        let _ = durable.wait_for(|last| *last >= number).await; // the sender lives as long as we
    }

    /// The durable changes after this number, waiting for the next where there is none.
    ///
    /// # Errors
    /// When some of them are no longer kept.
    pub async fn after(&self, number: u64) -> Result<Vec<LeaseChange>, NoLongerKept> {
        self.until(number + 1).await;
        let kept = self.lock();
        match kept.changes.front() {
            Some(first) if first.number > number + 1 => Err(NoLongerKept(number)),
            _ => Ok(kept.changes.iter().filter(|c| c.number > number).cloned().collect()),
        }
    }

    /// Whether what came after this number can still be shown.
    pub fn keeps(&self, number: u64) -> bool {
        let kept = self.lock();
        let first = kept.changes.front().map_or(kept.numbered + 1, |change| change.number);
        number <= kept.numbered && number + 1 >= first
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
