//! The committer: makes the rounds of all who wait durable together.
//!
//! The ledger changes its memory, then submits the round while it still holds its lock, so
//! rounds are committed in the order in which they were decided. One thread takes all that
//! has queued, writes their audit lines with one sync, then their records with one commit,
//! and wakes everybody. Rounds of audit lines alone touch no store.
//!
//! What always holds: a round's audit lines are durable before its records, and both
//! before its [`Ack`] says so. When a commit fails, memory is ahead of the store and nobody
//! knows by how much; the committer then fails for good, and [`Committer::failed`] tells
//! whoever must stop the broker. It never tries again.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        mpsc::{self, RecvTimeoutError},
    },
    task::{Context, Poll},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Batch, LeaseStore, check_lengths};
use crate::{
    audit::{self, AuditLog, Record},
    clock::Clock,
};

/// One decision's changes, and the lines that say why.
#[derive(Debug, Default)]
pub struct Round {
    /// Records to write, as (key, value).
    pub puts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Keys of records to remove. A key that is also put is removed.
    pub deletes: Vec<Vec<u8>>,
    /// Audit lines, in order.
    pub audit: Vec<Record>,
}

/// How the committer goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The most rounds that share a flush.
    pub rounds: usize,
    /// How often a snapshot is taken, where something has changed.
    pub snapshot_every: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { rounds: 1_000, snapshot_every: Duration::from_secs(600) }
    }
}

/// Why a round is not durable, as far as is known.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CommitError {
    /// The store or the audit log failed, in this round or before it.
    #[error("the round is not durable: {why}")]
    Failed {
        /// The first failure.
        why: Arc<str>,
    },
    /// The committer has been closed.
    #[error("the committer is closed")]
    Closed,
}

/// Says when a round is durable. Dropping it changes nothing.
#[derive(Debug)]
#[must_use = "nothing may leave the broker before its round is durable"]
pub struct Ack {
    outcome: oneshot::Receiver<Result<(), CommitError>>,
    failure: Arc<Failure>,
}

impl Future for Ack {
    type Output = Result<(), CommitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = Pin::new(&mut self.outcome).poll(context);
        // a sender dropped without a word is one whose thread has ended
        outcome.map(|told| told.unwrap_or_else(|_| Err(self.failure.error())))
    }
}

/// Takes rounds. Clones share one thread.
#[derive(Clone, Debug)]
pub struct Committer {
    queue: mpsc::Sender<Message>,
    failure: Arc<Failure>,
}

#[derive(Debug)]
enum Message {
    Round(Box<Round>, oneshot::Sender<Result<(), CommitError>>),
    Close,
}

/// The first failure, and the word that there was one.
#[derive(Debug, Default)]
struct Failure {
    why: OnceLock<Arc<str>>,
    told: CancellationToken,
}

impl Failure {
    fn set(&self, why: &str) -> CommitError {
        let why = self.why.get_or_init(|| why.into()).clone();
        self.told.cancel();
        CommitError::Failed { why }
    }

    fn error(&self) -> CommitError {
        match self.why.get() {
            Some(why) => CommitError::Failed { why: why.clone() },
            None => CommitError::Closed,
        }
    }
}

impl Committer {
    /// Starts the committer's threads. The handle ends after [`Self::close`], once all
    /// rounds before it are durable and a last snapshot is taken.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        store: Arc<dyn LeaseStore>,
        audit: Arc<dyn AuditLog>,
        clock: Arc<dyn Clock>,
        pace: Pace,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (queue, rounds) = mpsc::channel();
        let failure = Arc::new(Failure::default());
        let (stop, stopped) = mpsc::channel();
        let snapshots = {
            let store = store.clone();
            let every = pace.snapshot_every;
            thread::Builder::new()
                .name("store-snapshot".to_owned())
                .spawn(move || take_snapshots(&*store, &stopped, every))?
        };
        let worker = Worker { store, audit, clock, failure: failure.clone() };
        let thread = thread::Builder::new().name("store-commit".to_owned()).spawn(move || {
            let closed = worker.run(&rounds, pace.rounds.max(1));
            let last = if closed { Stop::AfterOneMore } else { Stop::AtOnce };
            let _ = stop.send(last); // fails when that thread is gone: nothing to stop then
            let _ = snapshots.join(); // a panic there was printed there, and costs a snapshot
        })?;
        Ok((Self { queue, failure }, thread))
    }

    /// Queues a round behind all that were submitted before. Neither blocks nor waits.
    pub fn submit(&self, round: Round) -> Ack {
        let (told, outcome) = oneshot::channel();
        if self.failure.why.get().is_some() {
            let _ = told.send(Err(self.failure.error())); // the receiver is right here
        } else {
            // Where the thread has ended, the sender is dropped with the message and the
            // acknowledgement says why.
            let _ = self.queue.send(Message::Round(Box::new(round), told));
        }
        Ack { outcome, failure: self.failure.clone() }
    }

    /// Is cancelled once the committer has failed for good: the broker must stop, loudly.
    pub fn failed(&self) -> CancellationToken {
        self.failure.told.clone()
    }

    /// Why it failed, once it has.
    pub fn why(&self) -> Option<Arc<str>> {
        self.failure.why.get().cloned()
    }

    /// Takes no rounds after those already submitted, and ends the threads.
    pub fn close(&self) {
        let _ = self.queue.send(Message::Close); // fails when the thread has ended already
    }
}

/// Tells of a panic on the committer's thread.
struct Unwinding<'a>(&'a Failure);

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.set("the committer's thread panicked");
        }
    }
}

struct Worker {
    store: Arc<dyn LeaseStore>,
    audit: Arc<dyn AuditLog>,
    clock: Arc<dyn Clock>,
    failure: Arc<Failure>,
}

type Waiter = oneshot::Sender<Result<(), CommitError>>;

impl Worker {
    /// Commits until it is closed (true) or has failed (false).
    fn run(&self, queue: &mpsc::Receiver<Message>, most: usize) -> bool {
        loop {
            let (rounds, waiters, closed) = take(queue, most);
            let guard = Unwinding(&self.failure); // speaks before the waiters are dropped
            let outcome = self.commit(rounds).map_err(|why| {
                tracing::error!(%why, "a commit failed; the broker must stop");
                self.failure.set(&why)
            });
            drop(guard);
            let failed = outcome.is_err();
            for waiter in waiters {
                let _ = waiter.send(outcome.clone()); // it may have stopped waiting
            }
            if failed || closed {
                return closed && !failed;
            }
        }
    }

    /// Makes the rounds durable, audit lines first.
    fn commit(&self, rounds: Vec<Round>) -> Result<(), String> {
        let mut changes = BTreeMap::new();
        let mut lines = Vec::new();
        for round in rounds {
            changes.extend(round.puts.into_iter().map(|(key, value)| (key, Some(value))));
            changes.extend(round.deletes.into_iter().map(|key| (key, None)));
            lines.extend(round.audit);
        }
        let mut batch = Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.puts.push((key, value)),
                None => batch.deletes.push(key),
            }
        }
        check_lengths(&batch).map_err(|error| audit::chain(&error))?;
        if !lines.is_empty() {
            self.audit
                .append(&lines, self.clock.now().wall)
                .map_err(|error| audit::chain(&error))?;
        }
        if !batch.puts.is_empty() || !batch.deletes.is_empty() {
            batch.audit_head = self.audit.head();
            self.store.commit(&batch).map_err(|error| audit::chain(&error))?;
        }
        Ok(())
    }
}

/// Waits for a round, then takes what else has queued, up to `most`; and whether the queue
/// ends here.
fn take(queue: &mpsc::Receiver<Message>, most: usize) -> (Vec<Round>, Vec<Waiter>, bool) {
    let (mut rounds, mut waiters) = (Vec::new(), Vec::new());
    let mut next = queue.recv().unwrap_or(Message::Close);
    loop {
        match next {
            Message::Close => return (rounds, waiters, true),
            Message::Round(round, waiter) => {
                rounds.push(*round);
                waiters.push(waiter);
            }
        }
        if rounds.len() >= most {
            return (rounds, waiters, false);
        }
        match queue.try_recv() {
            Ok(message) => next = message,
            Err(_) => return (rounds, waiters, false), // a closed queue is noticed next time
        }
    }
}

/// How the snapshots end.
enum Stop {
    AfterOneMore,
    AtOnce,
}

/// Takes a snapshot now and then, where something has changed since the last.
fn take_snapshots(store: &dyn LeaseStore, stopped: &mpsc::Receiver<Stop>, every: Duration) {
    loop {
        let stop = match stopped.recv_timeout(every) {
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Stop::AtOnce),
            Ok(stop) => Some(stop),
        };
        if matches!(stop, Some(Stop::AtOnce)) {
            return;
        }
        let stats = store.stats();
        let changed = stats.sequence > stats.snapshot_sequence;
        if changed && let Err(error) = store.snapshot() {
            tracing::error!(error = audit::chain(&error), "no snapshot could be taken");
        }
        if stop.is_some() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
