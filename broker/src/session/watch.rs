//! Asks all sessions, at a steady pace, what their silence means, and sweeps up what nobody
//! ends: leases of pods that are gone, leases that no agent claims, records that were kept
//! long enough.

use std::{sync::Arc, time::Duration};

use krb_proto::LeaseId;
use tokio_util::sync::CancellationToken;

use super::{Times, Witness, hub::Hub};
use crate::{
    audit::{self, Actor, Event, Record},
    clock::Now,
    keys::walker::Walker,
    ledger::{
        Ledger,
        book::{Book, Lines},
        sessions::{Change, Loss},
    },
    material::Pusher,
    pods::PodSource,
    store::committer::CommitError,
    tickets::Tickets,
};

/// How long a pod that was seen finished is remembered: longer than any object of it stays.
const REMEMBER_FINISHED: Duration = Duration::from_secs(7 * 24 * 3600);

/// The task that watches.
pub struct Watch {
    /// The ledger.
    pub book: Book,
    /// Which stream a node can be reached by.
    pub hub: Arc<Hub>,
    /// The way to the nodes.
    pub pusher: Pusher,
    /// Replaces keys.
    pub walker: Walker,
    /// Forgets tickets.
    pub tickets: Arc<Tickets>,
    /// Where pods are looked up.
    pub pods: Arc<dyn PodSource>,
    /// The spans of a session.
    pub times: Times,
    /// How often it asks.
    pub every: Duration,
    /// How often it sweeps.
    pub sweep_every: Duration,
    /// How long ended leases are kept.
    pub keep_ended: Duration,
    /// The tolerated difference of clocks.
    pub clock_skew: Duration,
}

impl Watch {
    /// Runs until `stop`, or until the store fails.
    pub async fn run(self, stop: CancellationToken) {
        let (mut last, mut swept) = (self.book.now(), self.book.now());
        while stop.run_until_cancelled(tokio::time::sleep(self.every)).await.is_some() {
            let now = self.book.now();
            if self.was_away(last, now) {
                tracing::warn!("the broker itself was away: every session gets a new grace");
                self.book.note(|ledger, now| ledger.renew_all_graces(now));
            }
            last = now;
            if self.judge().await.is_err() {
                return; // the broker is about to stop
            }
            if now.boot.since(swept.boot) >= self.sweep_every {
                swept = now;
                if self.sweep().await.is_err() {
                    return;
                }
            }
        }
    }

    /// A tick that comes late by more than a heartbeat says nothing of the nodes.
    fn was_away(&self, last: Now, now: Now) -> bool {
        now.boot.since(last.boot) > self.every + self.times.heartbeat
    }

    async fn judge(&self) -> Result<(), CommitError> {
        let changes = self
            .book
            .commit_if(|ledger, lines, now| {
                let changes = ledger.judge_all(now, Witness::NotApplicable, &self.times);
                changes.iter().for_each(|change| record(ledger, lines, change));
                (!changes.is_empty()).then_some(changes)
            })
            .await?;
        for change in changes.unwrap_or_default() {
            if let Change::Lost(loss) = change {
                tracing::warn!(node = %loss.node, leases = loss.leases.len(), "a node is lost");
                self.after_loss(&loss);
            }
        }
        Ok(())
    }

    fn after_loss(&self, loss: &Loss) {
        self.hub.cut(&loss.node);
        self.book.read(|ledger| {
            for lease in loss.leases.iter().filter_map(|id| ledger.lease(id)) {
                self.tickets.forget_for(lease);
            }
        });
        loss.principals.iter().for_each(|principal| self.walker.kick(principal));
    }

    async fn sweep(&self) -> Result<(), CommitError> {
        self.release_gone().await?;
        self.release_unclaimed().await?;
        self.book
            .commit_if(|ledger, _, now| {
                ledger.forget_ended(self.keep_ended, self.clock_skew, now.wall);
                let before = now.wall.checked_sub(REMEMBER_FINISHED);
                ledger.forget_finished(before.unwrap_or(std::time::UNIX_EPOCH));
                ledger.has_touched().then_some(())
            })
            .await
            .map(drop)
    }

    /// Pods that are gone, or finished, hold nothing any more.
    async fn release_gone(&self) -> Result<(), CommitError> {
        let uids: Vec<_> = self.book.read(Ledger::live_pods).into_iter().collect();
        let gone = match self.pods.gone(&uids).await {
            Ok(gone) => gone,
            Err(error) => {
                tracing::warn!(%error, "pods can't be looked up; no lease is released for one");
                return Ok(());
            }
        };
        let leases: Vec<LeaseId> =
            self.book.read(|ledger| gone.iter().flat_map(|uid| ledger.live_of_pod(uid)).collect());
        self.release(&leases, "its pod is gone", "POD_GONE").await
    }

    async fn release_unclaimed(&self) -> Result<(), CommitError> {
        let now = self.book.now();
        let leases = self.book.read(|ledger| ledger.unclaimed(now, &self.times));
        self.release(&leases, "no agent claims its volume", "UNCLAIMED").await
    }

    async fn release(
        &self,
        leases: &[LeaseId],
        why: &str,
        reason: &str,
    ) -> Result<(), CommitError> {
        if leases.is_empty() {
            return Ok(());
        }
        let released = self
            .book
            .commit(|ledger, lines, now| {
                let mut released = Vec::new();
                for id in leases {
                    if ledger.release(id, why, now.wall)
                        && let Some(lease) = ledger.lease(id)
                    {
                        lines.push(audit::of_lease(Event::LeaseReleased, Actor::Broker, lease));
                        released.push(lease.clone());
                    }
                }
                released
            })
            .await?;
        released.iter().for_each(|lease| self.pusher.wipe(lease, reason));
        Ok(())
    }
}

/// The audit lines of what a silence came to.
pub fn record(ledger: &Ledger, lines: &mut Lines, change: &Change) {
    let of = |event, node| Record::new(event, Actor::Broker).node(node);
    match change {
        Change::Silent(node) => lines.push(of(Event::SessionSilent, node)),
        Change::Left(node) => lines.push(of(Event::SessionLeft, node)),
        Change::Lost(loss) => {
            lines.push(of(Event::SessionLost, &loss.node).generation(loss.fenced));
            for lease in loss.leases.iter().filter_map(|id| ledger.lease(id)) {
                lines.push(audit::of_lease(Event::LeaseRevoking, Actor::Broker, lease));
            }
            for lease in loss.revoked.iter().filter_map(|id| ledger.lease(id)) {
                lines.push(audit::of_lease(Event::LeaseRevoked, Actor::Broker, lease));
            }
        }
    }
}
