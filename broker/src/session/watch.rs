//! Asks all sessions, at a steady pace, what their silence means, and sweeps up what nobody
//! ends: leases of pods that are gone, leases that no agent claims, records that were kept
//! long enough.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use krb_proto::{LeaseId, NodeName};
use tokio_util::sync::CancellationToken;

use super::{
    Rules,
    aftermath::Aftermath,
    clock_guard::{ClockGuard, Turn},
    witness::{Witness, Witnesses},
};
use crate::{
    audit::{self, Actor, Event, Outcome, Record},
    clock::Now,
    kdc::Kdc,
    ledger::{
        Ledger,
        book::{Book, Lines},
        sessions::Change,
    },
    material::Pusher,
    pods::PodSource,
    store::committer::CommitError,
};

/// How long a pod that was seen finished is remembered: longer than any object of it stays.
const REMEMBER_FINISHED: Duration = Duration::from_secs(7 * 24 * 3600);

/// The task that watches.
pub struct Watch {
    /// The ledger.
    pub book: Book,
    /// What follows a loss.
    pub aftermath: Aftermath,
    /// The way to the nodes.
    pub pusher: Pusher,
    /// Where pods are looked up.
    pub pods: Arc<dyn PodSource>,
    /// Who says whether a silent node works.
    pub witnesses: Arc<dyn Witnesses>,
    /// Whose clocks the wall clock is held against.
    pub kdc: Arc<dyn Kdc>,
    /// What decides whether a session is lost.
    pub rules: Rules,
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
        let mut guard = ClockGuard::new(last, self.clock_skew);
        while stop.run_until_cancelled(tokio::time::sleep(self.every)).await.is_some() {
            let now = self.book.now();
            if self.was_away(last, now) {
                tracing::warn!("the broker itself was away: every session gets a new grace");
                self.book.note(|ledger, now| ledger.renew_all_graces(now));
            }
            last = now;
            if self.tick(&mut guard).await.is_err_and(|error| error.is_final()) {
                return; // the broker is about to stop
            }
            if now.boot.since(swept.boot) >= self.sweep_every {
                swept = now;
                if self.sweep().await.is_err_and(|error| error.is_final()) {
                    return;
                }
            }
        }
    }

    /// A tick that comes late by more than a heartbeat says nothing of the nodes.
    fn was_away(&self, last: Now, now: Now) -> bool {
        now.boot.since(last.boot) > self.every + self.rules.times.heartbeat
    }

    /// The clock first: nothing is judged by one that is in doubt.
    async fn tick(&self, guard: &mut ClockGuard) -> Result<(), CommitError> {
        let turn = guard.look(self.book.now(), &self.kdc.clocks());
        let fault = guard.fault().map(str::to_owned);
        self.book.note(|ledger, _| ledger.set_clock_fault(fault));
        match turn {
            Some(Turn::Fault(why)) => {
                tracing::error!(why, "CLOCK: nothing is revoked, expired or issued by itself");
                let line = Record::new(Event::ClockFault, Actor::Broker).outcome(Outcome::Failed);
                self.book.audit_later(line.detail(&why)).await?;
            }
            Some(Turn::Cleared(why)) => {
                tracing::warn!(why, "the wall clock is believed again");
                let line = Record::new(Event::ClockCleared, Actor::Broker);
                self.book.audit_later(line.detail(&why)).await?;
            }
            None => {}
        }
        self.judge().await
    }

    async fn judge(&self) -> Result<(), CommitError> {
        let now = self.book.now();
        let silent_after = self.rules.times.silent_after;
        let silent = self.book.read(|ledger| ledger.silent_nodes(now, silent_after));
        let said = self.witnesses_of(silent, now);
        // A node that fell silent since then is asked of at the next tick.
        let witness = |node: &_| said.get(node).copied().unwrap_or(Witness::Unknown);
        let changes = self
            .book
            .commit_essential_if(|ledger, lines, now| {
                let changes = ledger.judge_all(now, &witness, &self.rules);
                changes.iter().for_each(|change| record(ledger, lines, change));
                (!changes.is_empty()).then_some(changes)
            })
            .await?;
        changes.iter().flatten().for_each(|change| self.act_on(change));
        Ok(())
    }

    /// What is said of the nodes that are silent. Once there is one it is also looked which of the
    /// others seem to have no Node object any more: they are about to fall silent too, and the brake must
    /// know of them before the first one is given up.
    fn witnesses_of(&self, silent: Vec<NodeName>, now: Now) -> HashMap<NodeName, Witness> {
        let mut said: HashMap<_, _> = silent
            .into_iter()
            .map(|node| {
                let witness = self.witnesses.of(&node, now);
                (node, witness)
            })
            .collect();
        if said.is_empty() {
            return said;
        }
        let sessions: Vec<_> = self.book.read(|ledger| {
            let there = ledger.sessions().filter(|session| session.is_there());
            there.map(|session| (session.node.clone(), session.node_uid.clone())).collect()
        });
        for (node, uid) in sessions {
            if self.witnesses.is_deleted(&node, uid.as_deref(), now) {
                said.entry(node).or_insert(Witness::NodeGone);
            }
        }
        said
    }

    fn act_on(&self, change: &Change) {
        match change {
            Change::Lost(loss) => self.aftermath.follow(loss),
            Change::Alert(node, alert) => tracing::warn!(%node, %alert, "ALERT"),
            Change::BrakeOn(why) => {
                tracing::error!(why, "BRAKE: automatic revocation pauses");
            }
            Change::BrakeOff => tracing::warn!("the brake is off: automatic revocation goes on"),
            Change::Silent(_) | Change::Left(_) => {}
        }
    }

    async fn sweep(&self) -> Result<(), CommitError> {
        if self.book.read(|ledger| ledger.clock_fault().is_some()) {
            return Ok(()); // what is old enough, only a clock can say
        }
        self.release_gone().await?;
        self.release_unclaimed().await?;
        self.book
            .commit_essential_if(|ledger, _, now| {
                ledger.forget_ended(self.keep_ended, self.clock_skew, now.wall);
                let before = now.wall.checked_sub(REMEMBER_FINISHED);
                ledger.forget_finished(before.unwrap_or(SystemTime::UNIX_EPOCH));
                ledger.has_touched().then_some(())
            })
            .await
            .map(drop)
    }

    /// Pods that are gone, or finished, hold nothing any more.
    async fn release_gone(&self) -> Result<(), CommitError> {
        let pods = self.book.read(Ledger::live_pod_refs);
        let gone = match self.pods.gone(&pods).await {
            Ok(gone) => gone,
            Err(error) => {
                tracing::warn!(%error, "pods can't be looked up; no lease is released for one");
                return Ok(());
            }
        };
        let (gone, turn) = self.book.note(|ledger, now| ledger.weigh_gone(gone, now));
        if let Some(turn) = turn {
            self.book.commit_essential(|ledger, lines, _| record(ledger, lines, &turn)).await?;
            self.act_on(&turn);
        }
        let leases: Vec<LeaseId> =
            self.book.read(|ledger| gone.iter().flat_map(|uid| ledger.live_of_pod(uid)).collect());
        self.release(&leases, "its pod is gone", "POD_GONE").await
    }

    async fn release_unclaimed(&self) -> Result<(), CommitError> {
        let now = self.book.now();
        let leases = self.book.read(|ledger| ledger.unclaimed(now, &self.rules.times));
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
            .commit_essential(|ledger, lines, now| {
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
            let line = of(Event::SessionLost, &loss.node).generation(loss.fenced);
            lines.push(line.detail(&loss.cause.to_string()));
            for lease in loss.leases.iter().filter_map(|id| ledger.lease(id)) {
                lines.push(audit::of_lease(Event::LeaseRevoking, Actor::Broker, lease));
            }
            for lease in loss.revoked.iter().filter_map(|id| ledger.lease(id)) {
                lines.push(audit::of_lease(Event::LeaseRevoked, Actor::Broker, lease));
            }
        }
        Change::Alert(node, alert) => {
            lines.push(of(Event::SessionAlert, node).detail(&alert.to_string()));
        }
        Change::BrakeOn(why) => {
            lines.push(Record::new(Event::BrakeOn, Actor::Broker).detail(why));
        }
        Change::BrakeOff => lines.push(Record::new(Event::BrakeOff, Actor::Broker)),
    }
}

#[cfg(test)]
mod tests;
