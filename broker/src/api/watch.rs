//! `WatchLeases`: all leases, then every change, in the order in which they became durable.

use std::sync::Arc;

use krb_proto::{reason::Reason, v1};
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::{
    errors::{invalid, status},
    lease::LeaseApi,
};
use crate::ledger::{
    feed::{Feed, LeaseChange},
    query::LeaseFilter,
};

/// How many changes may wait for a watcher; the feed keeps what it lags behind by.
pub(super) const QUEUE: usize = 64;

type Told = mpsc::Sender<Result<v1::LeaseChange, Status>>;

/// One watcher.
pub(super) struct Watcher {
    pub api: LeaseApi,
    pub filter: LeaseFilter,
    /// After which change it resumes; `None`: it begins with a listing.
    pub from: Option<u64>,
    pub told: Told,
}

/// Reads a token, which counts only for this run of the broker.
pub(super) fn resume(token: &str, run: &str, feed: &Feed) -> Result<Option<u64>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let malformed = || invalid("resume_token", "is not one of this service");
    let (of_run, number) = token.split_once('.').ok_or_else(malformed)?;
    let number: u64 = number.parse().map_err(|_| malformed())?;
    if of_run != run || !feed.keeps(number) {
        return Err(lost());
    }
    Ok(Some(number))
}

fn lost() -> Status {
    let message = "what happened since is no longer kept; watch without a resume_token";
    status(Code::OutOfRange, Reason::ResumeLost, message.to_owned())
}

impl Watcher {
    /// Tells changes until the watcher goes, or falls too far behind.
    pub(super) async fn run(self) {
        let feed = self.api.book.feed().clone();
        let mut last = match self.from {
            Some(number) => number,
            None => match self.list(&feed).await {
                Some(number) => number,
                None => return,
            },
        };
        loop {
            let changes = tokio::select! {
                changes = feed.after(last) => changes,
                () = self.told.closed() => return,
            };
            match changes {
                Err(_) => {
                    let _ = self.told.send(Err(lost())).await; // it may have gone
                    return;
                }
                Ok(changes) => {
                    for change in changes {
                        last = change.number;
                        if self.filter.fits(&change.lease) && !self.tell(&change).await {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Lists what there is as of one change, once that is durable.
    async fn list(&self, feed: &Arc<Feed>) -> Option<u64> {
        let (leases, last) = self.api.book.read(|ledger| {
            let fits = ledger.leases().filter(|lease| self.filter.fits(lease));
            (fits.map(|lease| self.api.written(ledger, lease)).collect::<Vec<_>>(), feed.last())
        });
        tokio::select! {
            () = feed.until(last) => {}
            () = self.told.closed() => return None,
        }
        for lease in leases {
            let change = v1::LeaseChange { lease: Some(lease), ..v1::LeaseChange::default() };
            self.told.send(Ok(change)).await.ok()?;
        }
        let end = v1::LeaseChange {
            listed: true,
            resume_token: self.token(last),
            ..v1::LeaseChange::default()
        };
        self.told.send(Ok(end)).await.ok()?;
        Some(last)
    }

    async fn tell(&self, change: &LeaseChange) -> bool {
        let lease = if change.forgotten {
            v1::Lease { lease_id: change.lease.id.to_string(), ..v1::Lease::default() }
        } else {
            self.api.book.read(|ledger| self.api.written(ledger, &change.lease))
        };
        let told = v1::LeaseChange {
            lease: Some(lease),
            forgotten: change.forgotten,
            resume_token: self.token(change.number),
            listed: false,
        };
        self.told.send(Ok(told)).await.is_ok()
    }

    fn token(&self, number: u64) -> String {
        format!("{}.{number}", self.api.run)
    }
}
