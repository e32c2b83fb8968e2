//! The committer: makes the rounds of all who wait durable together.
//!
//! The ledger changes its memory, then submits the round while it still holds its lock, so
//! rounds are committed in the order in which they were decided. One thread takes all that
//! has queued, writes their audit lines with one sync, then their records with one commit,
//! and wakes everybody. Rounds of audit lines alone touch no store.
//!
//! What always holds: the records of a round are durable before its [`Ack`] says so, and
//! its audit lines before its records. While the log can't be written that is so for no
//! round: normal ones are then refused, essential ones are recorded and their lines wait in
//! the `scribe`. Why nothing is lost by that is told in `docs/decisions/0010`. When a commit
//! of the store fails, memory is ahead of it and nobody knows by how much; the committer
//! then fails for good, and [`Committer::failed`] tells whoever must stop the broker. It
//! never tries again.

mod scribe;

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

pub use self::scribe::AuditTrouble;
use self::scribe::{AuditHealth, Scribe};
use super::{Batch, LeaseStore, Mark, check_lengths, mark_file::MarkFile};
use crate::{
    audit::{self, AuditLog, Head, Record},
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
    /// What becomes of it while the audit log can't be written.
    pub kind: Kind,
}

/// Whether a round may wait for the audit log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Kind {
    /// It lets something leave the broker, or changes who may have what: it is refused
    /// while the log can't be written.
    #[default]
    Normal,
    /// It only takes away, or keeps a node in sight: it is recorded all the same, and its
    /// lines are written when the log works again.
    Essential,
}

/// How the committer goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The most rounds that share a flush.
    pub rounds: usize,
    /// How often a snapshot is taken, where something has changed.
    pub snapshot_every: Duration,
    /// How often the mark file is written, where something has changed.
    pub mark_every: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let (snapshot_every, mark_every) = (Duration::from_secs(600), Duration::from_secs(3));
        Self { rounds: 1_000, snapshot_every, mark_every }
    }
}

/// Why a round is not durable, as far as is known.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CommitError {
    /// The audit log can't be written now, and this is no round to go without it.
    #[error("the audit log can't be written: {why}")]
    Audit {
        /// What it said last.
        why: Arc<str>,
    },
    /// The store failed, in this round or before it.
    #[error("the round is not durable: {why}")]
    Failed {
        /// The first failure.
        why: Arc<str>,
    },
    /// The committer has been closed.
    #[error("the committer is closed")]
    Closed,
}

impl CommitError {
    /// Whether no round will ever be durable again: the broker is about to stop.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Audit { .. })
    }
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
    health: Arc<AuditHealth>,
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
        Self::start_with_mark(store, audit, clock, pace, None)
    }

    /// The same, with a second place that is told how far the store and the log have come.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start_with_mark(
        store: Arc<dyn LeaseStore>,
        audit: Arc<dyn AuditLog>,
        clock: Arc<dyn Clock>,
        pace: Pace,
        mark_file: Option<MarkFile>,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (queue, rounds) = mpsc::channel();
        let failure = Arc::new(Failure::default());
        let (stop, stopped) = mpsc::channel();
        let snapshots = {
            let aside = Aside { store: store.clone(), audit: audit.clone(), mark_file };
            thread::Builder::new()
                .name("store-snapshot".to_owned())
                .spawn(move || aside.run(&stopped, pace))?
        };
        let health = Arc::new(AuditHealth::default());
        let scribe = Scribe::new(audit, clock, health.clone());
        let worker = Worker { store, scribe, failure: failure.clone(), stored: Head::default() };
        let thread = thread::Builder::new().name("store-commit".to_owned()).spawn(move || {
            let closed = worker.run(&rounds, pace.rounds.max(1));
            let last = if closed { Stop::AfterOneMore } else { Stop::AtOnce };
            let _ = stop.send(last); // fails when that thread is gone: nothing to stop then
            let _ = snapshots.join(); // a panic there was printed there, and costs a snapshot
        })?;
        Ok((Self { queue, failure, health }, thread))
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

    /// Whether the audit log can be written. While it can't, normal rounds fail.
    ///
    /// # Errors
    /// Why it can't.
    pub fn audit_works(&self) -> Result<(), CommitError> {
        if self.health.works() {
            return Ok(());
        }
        let why = self.health.trouble().map_or_else(|| "".into(), |trouble| trouble.why);
        Err(CommitError::Audit { why })
    }

    /// What is wrong with the audit log, while something is.
    pub fn audit_trouble(&self) -> Option<AuditTrouble> {
        self.health.trouble()
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
struct Unwinding(Arc<Failure>);

impl Drop for Unwinding {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.set("the committer's thread panicked");
        }
    }
}

struct Worker {
    store: Arc<dyn LeaseStore>,
    scribe: Scribe,
    failure: Arc<Failure>,
    /// The audit head that the store has.
    stored: Head,
}

type Waiter = oneshot::Sender<Result<(), CommitError>>;

/// Rounds that are committed together, and who waits for them.
#[derive(Default)]
struct Taken {
    rounds: Vec<Round>,
    waiters: Vec<(Kind, Waiter)>,
    /// Whether no more will come.
    closed: bool,
}

impl Worker {
    /// Commits until it is closed (true) or has failed (false).
    fn run(mut self, queue: &mpsc::Receiver<Message>, most: usize) -> bool {
        loop {
            let Taken { rounds, waiters, closed } = take(queue, most, self.scribe.patience());
            if rounds.is_empty() && !closed {
                self.scribe.mend();
                continue; // the patience was at its end
            }
            let guard = Unwinding(self.failure.clone()); // speaks before the waiters are dropped
            let outcome = self.commit(rounds).and_then(|logged| {
                if closed {
                    self.end()?;
                }
                Ok(logged)
            });
            let outcome = outcome.map_err(|why| {
                tracing::error!(%why, "a commit failed; the broker must stop");
                self.failure.set(&why)
            });
            drop(guard);
            let failed = outcome.is_err();
            for (kind, waiter) in waiters {
                let _ = waiter.send(self.answer(kind, &outcome)); // it may have stopped waiting
            }
            if failed || closed {
                return closed && !failed;
            }
        }
    }

    fn answer(&self, kind: Kind, outcome: &Result<bool, CommitError>) -> Result<(), CommitError> {
        match outcome {
            Err(failed) => Err(failed.clone()),
            Ok(false) if kind == Kind::Normal => Err(CommitError::Audit { why: self.scribe.why() }),
            Ok(_) => Ok(()),
        }
    }

    /// Makes the rounds durable, audit lines first. Says whether the lines are; where they
    /// are not, the records are all the same: the store knows more holders than there are.
    fn commit(&mut self, rounds: Vec<Round>) -> Result<bool, String> {
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
        let logged = self.scribe.write(lines);
        if !batch.puts.is_empty() || !batch.deletes.is_empty() {
            self.store_batch(batch)?;
        }
        Ok(logged)
    }

    /// The last lines of a log that ends in good order are known to the store too.
    fn end(&mut self) -> Result<(), String> {
        self.scribe.close();
        if self.scribe.head() == self.stored { Ok(()) } else { self.store_batch(Batch::default()) }
    }

    fn store_batch(&mut self, batch: Batch) -> Result<(), String> {
        let batch = Batch { audit_head: self.scribe.head(), ..batch };
        self.store.commit(&batch).map_err(|error| audit::chain(&error))?;
        self.stored = batch.audit_head;
        Ok(())
    }
}

/// Waits for a round, then takes what else has queued, up to `most`. With `patience` it
/// comes back empty-handed in the end, since the audit log is to be tried again.
fn take(queue: &mpsc::Receiver<Message>, most: usize, patience: Option<Duration>) -> Taken {
    let mut taken = Taken::default();
    let first = match patience {
        None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some(patience) => queue.recv_timeout(patience),
    };
    let mut next = match first {
        Ok(message) => message,
        Err(RecvTimeoutError::Timeout) => return taken,
        Err(RecvTimeoutError::Disconnected) => Message::Close,
    };
    loop {
        match next {
            Message::Close => {
                taken.closed = true;
                return taken;
            }
            Message::Round(round, waiter) => {
                taken.waiters.push((round.kind, waiter));
                taken.rounds.push(*round);
            }
        }
        if taken.rounds.len() >= most {
            return taken;
        }
        match queue.try_recv() {
            Ok(message) => next = message,
            Err(_) => return taken, // a closed queue is noticed next time
        }
    }
}

/// How the snapshots end.
enum Stop {
    AfterOneMore,
    AtOnce,
}

/// What is done beside the commits: snapshots, and the mark in the second place.
struct Aside {
    store: Arc<dyn LeaseStore>,
    audit: Arc<dyn AuditLog>,
    mark_file: Option<MarkFile>,
}

impl Aside {
    /// Does it now and then, where something has changed since the last time.
    fn run(mut self, stopped: &mpsc::Receiver<Stop>, pace: Pace) {
        let tick = match self.mark_file {
            Some(_) => pace.mark_every.min(pace.snapshot_every),
            None => pace.snapshot_every,
        };
        let mut waited = Duration::ZERO;
        loop {
            let stop = match stopped.recv_timeout(tick) {
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Stop::AtOnce),
                Ok(stop) => Some(stop),
            };
            if matches!(stop, Some(Stop::AtOnce)) {
                return;
            }
            self.mark();
            waited += tick;
            if stop.is_some() || waited >= pace.snapshot_every {
                waited = Duration::ZERO;
                self.snapshot();
            }
            if stop.is_some() {
                return;
            }
        }
    }

    fn snapshot(&self) {
        let stats = self.store.stats();
        let changed = stats.sequence > stats.snapshot_sequence;
        if changed && let Err(error) = self.store.snapshot() {
            tracing::error!(error = audit::chain(&error), "no snapshot could be taken");
        }
    }

    fn mark(&mut self) {
        let Some(file) = &mut self.mark_file else { return };
        // both are durable, and may be more by now: a mark is never ahead
        let mark = Mark { sequence: self.store.stats().sequence, audit_head: self.audit.head() };
        if let Err(error) = file.write(mark) {
            tracing::error!(error = audit::chain(&error), "the mark file can't be written");
        }
    }
}

#[cfg(test)]
mod tests;
