//! The ledger with its committer: what changes is made durable in the order of the changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Ledger, feed::Feed};
use crate::{
    audit::{
        Record,
        denials::{Denials, Verdict},
    },
    clock::{Clock, Now},
    store::{
        committer::{Ack, AuditTrouble, CommitError, Committer, Kind, Round},
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
    denials: Mutex<Denials>,
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
        let (ledger, denials) = (Mutex::new(ledger), Mutex::default());
        let feed = Arc::default();
        Self(Arc::new(Inner { ledger, committer, sealer, clock, feed, denials }))
    }

    /// This instant.
    pub fn now(&self) -> Now {
        self.0.clock.now()
    }

    /// Looks something up.
    pub fn read<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.lock())
    }

    /// Changes something and waits until it is durable. Whatever lets a key or a ticket
    /// leave, or changes who may have what, goes this way.
    ///
    /// # Errors
    /// When the audit log can't be written: nothing was changed then, or nothing may leave by
    /// it. When the store can't be written; the broker is about to stop then.
    pub async fn commit<T>(
        &self,
        change: impl FnOnce(&mut Ledger, &mut Lines, Now) -> T,
    ) -> Result<T, CommitError> {
        self.round(Kind::Normal, |ledger, lines, now| Some(change(ledger, lines, now)))?
            .wait()
            .await
    }

    /// Changes something, if there is anything to change, and waits until it is durable.
    ///
    /// # Errors
    /// As for [`Self::commit`].
    pub async fn commit_if<T>(
        &self,
        change: impl FnOnce(&mut Ledger, &mut Lines, Now) -> Option<T>,
    ) -> Result<Option<T>, CommitError> {
        self.round(Kind::Normal, change)?.wait_if().await
    }

    /// Changes something that must not wait for the audit log: what only takes away, such as
    /// a revocation or a lost session, or keeps a node in sight. While the log can't be
    /// written it is stored all the same, and its lines follow later.
    ///
    /// # Errors
    /// When the store can't be written; the broker is about to stop then.
    pub async fn commit_essential<T>(
        &self,
        change: impl FnOnce(&mut Ledger, &mut Lines, Now) -> T,
    ) -> Result<T, CommitError> {
        let change = |ledger: &mut Ledger, lines: &mut Lines, now| Some(change(ledger, lines, now));
        self.round(Kind::Essential, change)?.wait().await
    }

    /// The same, if there is anything to change.
    ///
    /// # Errors
    /// As for [`Self::commit_essential`].
    pub async fn commit_essential_if<T>(
        &self,
        change: impl FnOnce(&mut Ledger, &mut Lines, Now) -> Option<T>,
    ) -> Result<Option<T>, CommitError> {
        self.round(Kind::Essential, change)?.wait_if().await
    }

    /// Changes something, and hands the change over to the committer under the same lock.
    /// Where the log can't be written, a normal round is refused before anything changes.
    fn round<T>(
        &self,
        kind: Kind,
        change: impl FnOnce(&mut Ledger, &mut Lines, Now) -> Option<T>,
    ) -> Result<Submitted<T>, CommitError> {
        let mut ledger = self.lock();
        if kind == Kind::Normal {
            self.0.committer.audit_works()?;
        }
        let mut lines = Lines::new();
        let now = self.0.clock.now();
        ledger.see_clock(now);
        let changed = change(&mut ledger, &mut lines, now);
        Ok(Submitted(changed.map(|outcome| (outcome, self.submit(&mut ledger, lines, kind)))))
    }

    fn submit(&self, ledger: &mut Ledger, lines: Lines, kind: Kind) -> Ack {
        let changed = ledger.changed_leases();
        let mut round = ledger.take_round(&self.0.sealer);
        round.audit = lines;
        round.kind = kind;
        let durable = self.0.committer.submit(round);
        if !changed.is_empty() {
            // an empty round behind it is durable when it is, whether its lines are or not
            let behind = Round { kind: Kind::Essential, ..Round::default() };
            self.0.feed.number(changed, self.0.committer.submit(behind));
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
        let (mut ledger, now) = (self.lock(), self.0.clock.now());
        ledger.see_clock(now);
        change(&mut ledger, now)
    }

    /// Writes an audit line that goes with no change, and that something waits for.
    ///
    /// # Errors
    /// When the audit log can't be written.
    pub async fn audit(&self, line: Record) -> Result<(), CommitError> {
        self.commit(|_, lines, _| lines.push(line)).await
    }

    /// Writes an audit line of what has happened all the same; later, where the log can't be
    /// written now.
    ///
    /// # Errors
    /// When the broker is about to stop.
    pub async fn audit_later(&self, line: Record) -> Result<(), CommitError> {
        self.commit_essential(|_, lines, _| lines.push(line)).await
    }

    /// Tells the audit log of a denial: at once if it is the first of its kind, else by one
    /// line at the end of its minute.
    ///
    /// # Errors
    /// When the audit log can't be written.
    pub async fn audit_denial(&self, line: Record) -> Result<(), CommitError> {
        let now = self.now();
        let verdict = self.denials().take(&line, now);
        let Verdict::Write(kind) = verdict else { return Ok(()) };
        let written = self.audit(line).await;
        if written.is_err() {
            self.denials().forget(&kind);
        }
        written
    }

    /// The same, of a denial that is answered all the same: its line follows later, where the
    /// log can't be written now.
    ///
    /// # Errors
    /// When the broker is about to stop.
    pub async fn audit_denial_later(&self, line: Record) -> Result<(), CommitError> {
        let now = self.now();
        let verdict = self.denials().take(&line, now);
        match verdict {
            Verdict::Write(_) => self.audit_later(line).await,
            Verdict::Counted => Ok(()),
        }
    }

    /// Writes the lines of the denials whose minute has ended; of all, at the end.
    ///
    /// # Errors
    /// When the broker is about to stop.
    pub async fn audit_merged_denials(&self, all: bool) -> Result<(), CommitError> {
        let ended = self.denials().ended(self.now(), all);
        if ended.is_empty() {
            return Ok(());
        }
        self.commit_essential(|_, lines, _| lines.extend(ended)).await
    }

    /// Denials that got no line of their own, since the start.
    pub fn merged_denials(&self) -> u64 {
        self.denials().merged()
    }

    /// What is wrong with the audit log, while something is.
    pub fn audit_trouble(&self) -> Option<AuditTrouble> {
        self.0.committer.audit_trouble()
    }

    fn denials(&self) -> MutexGuard<'_, Denials> {
        self.0.denials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // A panic under the lock leaves at worst a change that was not handed over; the next
        // change hands it over, since what was touched is kept.
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change that was handed over, if there was one.
struct Submitted<T>(Option<(T, Ack)>);

impl<T> Submitted<T> {
    async fn wait_if(self) -> Result<Option<T>, CommitError> {
        match self.0 {
            Some((outcome, durable)) => durable.await.map(|()| Some(outcome)),
            None => Ok(None),
        }
    }

    /// Of a change that there always is.
    async fn wait(self) -> Result<T, CommitError> {
        self.wait_if().await?.ok_or(CommitError::Closed)
    }
}
