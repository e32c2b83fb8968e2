//! Asks a KDC for its clock, so that the broker's own is held against one even while no ticket is
//! fetched, and so that a clock that was set right is believed again.
//!
//! A task of its own: a KDC that does not answer must not hold up those who judge silences.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{kdc::Kdc, ledger::book::Book};

/// How often a KDC is asked while the clock is in doubt.
const IN_DOUBT: Duration = Duration::from_secs(10);
/// How often else.
const ELSE: Duration = Duration::from_secs(300);

/// The task that asks.
pub struct ClockProbe {
    /// The ledger, which knows whether the clock is in doubt.
    pub book: Book,
    /// Whom it asks.
    pub kdc: Arc<dyn Kdc>,
}

impl ClockProbe {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        if stop.run_until_cancelled(self.kdc.probe_clock()).await.is_none() {
            return;
        }
        let mut asked = self.book.now().boot;
        while stop.run_until_cancelled(tokio::time::sleep(IN_DOUBT)).await.is_some() {
            let in_doubt = self.book.read(|ledger| ledger.clock_fault().is_some());
            let now = self.book.now().boot;
            if in_doubt || now.since(asked) >= ELSE {
                asked = now;
                if stop.run_until_cancelled(self.kdc.probe_clock()).await.is_none() {
                    return;
                }
            }
        }
    }
}
