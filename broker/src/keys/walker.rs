//! Takes the steps of the walks. What they do at the KDC is in `at_kdc`.
//!
//! A principal's steps are taken one at a time. Each is stored before it is done, and can be
//! repeated; what fails is tried again for ever, with back-off, and says meanwhile what it
//! waits for. A first key is made while its pod waits; a replacement goes on in the
//! background.

mod at_kdc;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use krb_proto::{Kvno, LeaseId, Principal};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ManagedPrincipal, NumbersUsedUp,
    due::Kind,
    propagation::Setting,
    standing::Off,
    walk::{ASK_AGAIN, Burnt, Step, Waiting, WalkRules, WalkTimes},
};
use crate::{
    audit::{self, Actor, Event, Record},
    clock::Entropy,
    kdc::{Kdc, KdcError, KeyAdmin, gate::Class},
    krb5::key::{Enctype, Keyset},
    ledger::{
        Ledger,
        book::{Book, Lines},
    },
    material::Pusher,
    session::StreamId,
    store::committer::CommitError,
};

/// The pauses after a step that failed: the first, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The pauses between two looks at a KDC that lags.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Takes the steps of the walks. Clones share them.
#[derive(Clone)]
pub struct Walker(Arc<Inner>);

struct Inner {
    book: Book,
    admin: Arc<dyn KeyAdmin>,
    kdc: Arc<dyn Kdc>,
    pusher: Pusher,
    entropy: Arc<dyn Entropy>,
    enctypes: Vec<Enctype>,
    rules: WalkRules,
    realm_checked: Arc<AtomicBool>,
    walks: Mutex<HashMap<Principal, Arc<Walk>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A principal's walk: who is at it, and what is remembered of it.
#[derive(Default)]
struct Walk {
    /// Whether a task walks it.
    running: AtomicBool,
    /// Held while a step is taken.
    turn: tokio::sync::Mutex<Turn>,
    wake: Notify,
}

#[derive(Default)]
struct Turn {
    /// The keyset that this process made, and whether the KDC had the principal then. One
    /// that was read from the store may have been set before a crash.
    made: Option<(Kvno, bool)>,
    /// The kvno that this process set at the KDC, when, and what each KDC said since.
    set: Option<Setting>,
    /// How this process switched the principal off, and what each KDC said since.
    off: Option<(Off, Setting)>,
    /// Who was pushed these kvnos, on which stream, and when. Once others are to be held, an
    /// acknowledgement of these counts no more, and all who lack them are pushed anew.
    pushed: (BTreeSet<Kvno>, HashMap<(LeaseId, StreamId), SystemTime>),
}

/// What came of a step.
enum Took {
    /// It was taken.
    Step,
    /// There is none now.
    Rest,
    /// There is none before this much time has passed.
    Nothing(Duration),
}

/// Why a step could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// The KDC or kadmin.
    #[error("replacing the key of {principal}")]
    Kdc {
        /// Whose key.
        principal: Principal,
        /// Why not.
        source: KdcError,
    },
    /// The store or the audit log.
    #[error("recording a step of {principal}")]
    Store {
        /// Whose key.
        principal: Principal,
        /// Why not.
        source: CommitError,
    },
    /// The store lost commits: no key is made or replaced until an operator says so.
    #[error("{principal} waits for the end of the recovery")]
    Recovery {
        /// Whose key.
        principal: Principal,
    },
    /// No number is left.
    #[error("a new key of {principal}")]
    Numbers {
        /// Whose key.
        principal: Principal,
        /// Why not.
        source: NumbersUsedUp,
    },
}

/// The seams and settings of a walker.
pub struct Parts {
    /// The ledger.
    pub book: Book,
    /// The realm's administration.
    pub admin: Arc<dyn KeyAdmin>,
    /// Its KDCs.
    pub kdc: Arc<dyn Kdc>,
    /// The way to the nodes.
    pub pusher: Pusher,
    /// What keys are drawn from.
    pub entropy: Arc<dyn Entropy>,
    /// The enctypes of new keysets.
    pub enctypes: Vec<Enctype>,
    /// What walks go by.
    pub rules: WalkRules,
    /// Whether kadmin was found to be as it must be: no key is set before.
    pub realm_checked: Arc<AtomicBool>,
}

impl Walker {
    /// A walker whose background walks run in `tasks` until `stop`.
    pub fn new(parts: Parts, tasks: TaskTracker, stop: CancellationToken) -> Self {
        let Parts { book, admin, kdc, pusher, entropy, enctypes, rules, realm_checked } = parts;
        let walks = Mutex::default();
        Self(Arc::new(Inner {
            book,
            admin,
            kdc,
            pusher,
            entropy,
            enctypes,
            rules,
            realm_checked,
            walks,
            tasks,
            stop,
        }))
    }

    /// What its walks go by.
    pub fn rules(&self) -> &WalkRules {
        &self.0.rules
    }

    fn times(&self) -> &WalkTimes {
        &self.0.rules.times
    }

    /// Sees that the principal has a key that the KDC uses, making its first one if need be.
    ///
    /// # Errors
    /// When that can't be done now.
    pub async fn ensure(&self, principal: &Principal) -> Result<(), WalkError> {
        let ready =
            || self.0.book.read(|ledger| ledger.principal(principal).is_some_and(|p| p.is_ready()));
        if ready() {
            return Ok(());
        }
        let walk = self.walk_of(principal);
        let mut turn = walk.turn.lock().await;
        while !ready() {
            if self.0.book.read(|ledger| ledger.recovery().is_some()) {
                return Err(WalkError::Recovery { principal: principal.clone() });
            }
            match self.take_step(principal, &mut turn).await? {
                Took::Step => {}
                Took::Rest => break,
                Took::Nothing(pause) => tokio::time::sleep(pause).await,
            }
        }
        Ok(())
    }

    /// Walks the principal on in the background, or wakes the walk that does.
    pub fn kick(&self, principal: &Principal) {
        let walk = self.walk_of(principal);
        if walk.running.swap(true, Ordering::SeqCst) {
            walk.wake.notify_one();
            return;
        }
        let (walker, principal) = (self.clone(), principal.clone());
        self.0.tasks.spawn(async move {
            let stop = walker.0.stop.clone();
            stop.run_until_cancelled(walker.walk(&principal, &walk)).await;
        });
    }

    /// Walks every principal on that is not at rest: at the start, and when in doubt.
    pub fn kick_all(&self) {
        let now = self.0.book.now().wall;
        let walking = self.0.book.read(|ledger| ledger.walking(now, &self.0.rules));
        walking.iter().for_each(|principal| self.kick(principal));
    }

    async fn walk(&self, principal: &Principal, walk: &Walk) {
        let mut pause = BACK_OFF.0;
        let mut said = String::new();
        loop {
            let mut turn = walk.turn.lock().await;
            let took = self.take_step(principal, &mut turn).await;
            drop(turn);
            let wait = match took {
                Ok(Took::Step) => {
                    (pause, said) = (BACK_OFF.0, String::new());
                    continue;
                }
                Ok(Took::Rest) => {
                    self.0.book.note(|ledger, _| ledger.set_waiting(principal, None));
                    // What changes from here on kicks a new task; what changed a moment ago
                    // woke this one, and is seen now.
                    walk.running.store(false, Ordering::SeqCst);
                    if self.is_at_rest(principal) || walk.running.swap(true, Ordering::SeqCst) {
                        return;
                    }
                    continue;
                }
                Ok(Took::Nothing(wait)) => wait,
                Err(error) => {
                    self.say_failed(principal, &error, &mut said).await;
                    pause = (pause * 2).min(BACK_OFF.1);
                    pause.mul_f64(0.5 + self.chance() / 2.0)
                }
            };
            let _ = tokio::time::timeout(wait, walk.wake.notified()).await;
        }
    }

    fn is_at_rest(&self, principal: &Principal) -> bool {
        let now = self.0.book.now().wall;
        self.0.book.read(|ledger| ledger.next_step(principal, now, &self.0.rules)) == Step::Rest
    }

    /// Logs a failure, once for each different one, and shows it to operators meanwhile.
    async fn say_failed(&self, principal: &Principal, error: &WalkError, said: &mut String) {
        let text = audit::chain(error);
        self.0.book.note(|ledger, _| ledger.set_waiting(principal, Some(text.clone())));
        if *said != text {
            tracing::warn!(%principal, error = text, "a step of a key failed and is tried again");
            let line = Record::new(Event::KeyFailed, Actor::Broker).principal(principal);
            let _ = self.0.book.audit_later(line.detail(&text)).await;
            *said = text;
        }
    }

    async fn take_step(&self, principal: &Principal, turn: &mut Turn) -> Result<Took, WalkError> {
        let now = self.0.book.now().wall;
        let (step, recovery) = self.0.book.read(|ledger| {
            let recovery = ledger.recovery().map(str::to_owned);
            (ledger.next_step(principal, now, &self.0.rules), recovery)
        });
        if let (Some(why), true) = (recovery, step != Step::Rest) {
            self.waits(principal, format!("recovery: {why}"));
            return Ok(Took::Nothing(LOOK_AGAIN.1));
        }
        match step.clone() {
            Step::Rest => return Ok(Took::Rest),
            Step::Wait { until, what } => return self.wait(principal, turn, until, what).await,
            Step::Make => self.make(principal, &step, turn).await?,
            Step::Set(kvno) => return self.set(principal, kvno, turn).await,
            Step::SwitchOff(how) => return self.switch_off(principal, how, turn).await,
            _ => self.record_step(principal, &step).await?,
        }
        Ok(Took::Step)
    }

    /// Makes the next keyset, above every number that the store or the KDC ever used.
    async fn make(
        &self,
        principal: &Principal,
        step: &Step,
        turn: &mut Turn,
    ) -> Result<(), WalkError> {
        let kdc = |source| WalkError::Kdc { principal: principal.clone(), source };
        let at_kdc = self.admin(principal).inspect(principal).await.map_err(kdc)?;
        let found = at_kdc.as_ref().and_then(|state| state.kvno);
        if let Some(found) = found {
            // It is somebody else's, or ours of a store that is gone: an operator must say.
            if !self.0.book.read(|ledger| ledger.principal(principal).is_some_and(|p| p.ours)) {
                return Err(kdc(KdcError::NotRecorded { principal: principal.clone() }));
            }
            self.0.book.note(|ledger, _| ledger.seen_at_kdc(principal, found));
        }
        let next = self.0.book.read(|ledger| ledger.principal(principal).map(|p| p.next_kvno()));
        let Some(next) = next else { return Ok(()) };
        let kvno =
            next.map_err(|source| WalkError::Numbers { principal: principal.clone(), source })?;
        if kvno > super::KVNO_ALERT {
            tracing::warn!(%principal, %kvno, "readers with 8-bit key numbers take it for another");
        }
        let made_at = self.0.book.now().wall;
        let keyset = Keyset::random(kvno, &self.0.enctypes, &*self.0.entropy, made_at);
        turn.made = Some((kvno, at_kdc.is_some()));
        let rules = &self.0.rules;
        self.0
            .book
            .commit_essential_if(|ledger, lines, now| {
                let kind = ledger.due(principal, now.wall, rules);
                let still = ledger.next_step(principal, now.wall, rules).is_same(step);
                still.then(|| {
                    let line = Record::new(Event::KeyMade, Actor::Broker)
                        .principal(principal)
                        .kvnos([kvno])
                        .enctypes(self.0.enctypes.clone());
                    lines.push(line.detail(kind.map_or("first", Kind::name)));
                    // used meanwhile: the next step makes another
                    let _ = ledger.add_keyset(principal, keyset, now.wall);
                })
            })
            .await
            .map(drop)
            .map_err(|source| WalkError::Store { principal: principal.clone(), source })
    }

    /// The KDCs use the key: leases that waited for it are revoked in the same round.
    async fn record_current(&self, principal: &Principal, kvno: Kvno) -> Result<(), WalkError> {
        let line = Record::new(Event::KeyCurrent, Actor::Broker);
        self.record(principal, line, kvno, |ledger, lines, now| {
            let retired = ledger.became_current(principal, kvno, now);
            if !retired.is_empty() {
                let line = Record::new(Event::KeyRetiring, Actor::Broker);
                lines.push(line.principal(principal).kvnos(retired));
            }
            finish_revoking(ledger, lines, principal);
        })
        .await
    }

    /// Waits, after pushing to the holders that the wait is for.
    async fn wait(
        &self,
        principal: &Principal,
        turn: &mut Turn,
        until: SystemTime,
        what: Waiting,
    ) -> Result<Took, WalkError> {
        let text = what.to_string();
        self.waits(principal, text);
        if !what.asks() {
            return Ok(Took::Nothing(self.until(until)));
        }
        let now = self.0.book.now().wall;
        let lately = |at: &SystemTime| now.duration_since(*at).is_ok_and(|age| age < ASK_AGAIN);
        let (kvnos, pushed) = &mut turn.pushed;
        let owed: Vec<LeaseId> = self.0.book.read(|ledger| {
            let wanted = ledger.principal(principal).map(ManagedPrincipal::delivered_kvnos);
            let wanted: BTreeSet<Kvno> = wanted.unwrap_or_default().into_iter().collect();
            if *kvnos != wanted {
                (*kvnos, *pushed) = (wanted, HashMap::new());
            }
            pushed.retain(|_, at| lately(at));
            let stream = |id: &LeaseId| ledger.session(&ledger.lease(id)?.holder.node)?.stream;
            let is_new = |id: &LeaseId| {
                stream(id).is_some_and(|stream| !pushed.contains_key(&(*id, stream)))
            };
            let lacking = ledger.holders(principal).into_iter();
            let lacking = lacking.filter(|holder| holder.has.as_ref() != Some(kvnos));
            lacking.map(|holder| holder.lease).filter(is_new).collect()
        });
        if !owed.is_empty() {
            let sent = self.push(principal, &owed).await?;
            turn.pushed.1.extend(sent.into_iter().map(|to| (to, now)));
        }
        Ok(Took::Nothing(self.until(until)))
    }

    fn until(&self, until: SystemTime) -> Duration {
        until.duration_since(self.0.book.now().wall).unwrap_or_default().max(LOOK_AGAIN.0)
    }

    /// What the principal's requests count as at the gate.
    fn class(&self, principal: &Principal) -> Class {
        let now = self.0.book.now().wall;
        self.0.book.read(|ledger| {
            let first = ledger.principal(principal).is_some_and(|p| p.current().is_none());
            match ledger.due(principal, now, &self.0.rules) {
                _ if first => Class::PodStart,
                Some(Kind::Revocation | Kind::Emergency) => Class::Revocation,
                _ => Class::Rotation,
            }
        })
    }

    fn admin(&self, principal: &Principal) -> Arc<dyn KeyAdmin> {
        self.0.admin.for_class(self.class(principal))
    }

    async fn push_all(&self, principal: &Principal) -> Result<(), WalkError> {
        let holders = self.0.book.read(|ledger| ledger.active_with(principal));
        self.push(principal, &holders).await.map(drop)
    }

    async fn push(
        &self,
        principal: &Principal,
        leases: &[LeaseId],
    ) -> Result<Vec<(LeaseId, StreamId)>, WalkError> {
        let store = |source| WalkError::Store { principal: principal.clone(), source };
        self.0.pusher.push(leases).await.map_err(store)
    }

    /// Records a step that is nothing but a record, if it is still the one to take: a holder
    /// that came or a node that was lost since it was chosen may have made it another.
    async fn record_step(&self, principal: &Principal, step: &Step) -> Result<(), WalkError> {
        let rules = &self.0.rules;
        let taken = self
            .0
            .book
            .commit_essential_if(|ledger, lines, now| {
                let still = ledger.next_step(principal, now.wall, rules).is_same(step);
                (still && ledger.take_step(principal, step, now.wall))
                    .then(|| lines.extend(line_of(step).map(|line| line.principal(principal))))
            })
            .await
            .map_err(|source| WalkError::Store { principal: principal.clone(), source })?;
        if let (Some(()), Step::Burn { why, .. }) = (taken, step) {
            if *why == Burnt::GivenUp {
                tracing::error!(%principal, "a replacement is given up: holders do not answer");
            }
            self.push_all(principal).await?;
        }
        Ok(())
    }

    async fn record(
        &self,
        principal: &Principal,
        line: Record,
        kvno: Kvno,
        change: impl FnOnce(&mut Ledger, &mut Lines, SystemTime),
    ) -> Result<(), WalkError> {
        self.0
            .book
            .commit_essential(|ledger, lines, now| {
                lines.push(line.principal(principal).kvnos([kvno]));
                change(ledger, lines, now.wall);
            })
            .await
            .map_err(|source| WalkError::Store { principal: principal.clone(), source })
    }

    fn waits(&self, principal: &Principal, what: String) {
        self.0.book.note(|ledger, _| ledger.set_waiting(principal, Some(what)));
    }

    fn walk_of(&self, principal: &Principal) -> Arc<Walk> {
        self.lock().entry(principal.clone()).or_default().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Principal, Arc<Walk>>> {
        self.0.walks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// 0 to 1, by chance.
    fn chance(&self) -> f64 {
        let mut byte = [0];
        self.0.entropy.fill(&mut byte);
        f64::from(byte[0]) / 255.0
    }
}

/// The audit line of a step that is nothing but a record.
fn line_of(step: &Step) -> Option<Record> {
    let of = |event, kvno: &Kvno| Record::new(event, Actor::Broker).kvnos([*kvno]);
    Some(match step {
        Step::Distribute(kvno) => of(Event::KeyDistributing, kvno),
        Step::Overdue { kvno, without, .. } => {
            of(Event::KeyOverdue, kvno).detail(&missing(without))
        }
        Step::Activate { kvno, without } => {
            of(Event::KeyActivating, kvno).detail(&missing(without))
        }
        Step::Burn { kvno, why } => of(Event::KeyBurnt, kvno).detail(&why.to_string()),
        Step::Drop(kvno) => of(Event::KeyDropping, kvno),
        Step::Prune { kvno, exposed_until } => {
            of(Event::KeyPruned, kvno).exposed_until(audit::Exposure::Until(*exposed_until))
        }
        Step::Leave(how) => Record::new(Event::PrincipalLeaving, Actor::Broker).detail(how.name()),
        Step::Return => Record::new(Event::PrincipalReturning, Actor::Broker),
        _ => return None,
    })
}

fn missing(leases: &[LeaseId]) -> String {
    let names: Vec<String> = leases.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        String::new()
    } else {
        format!("not acknowledged by {}", names.join(" "))
    }
}

/// Leases that waited for this principal are Revoked now.
fn finish_revoking(ledger: &mut Ledger, lines: &mut Lines, principal: &Principal) {
    for id in ledger.finish_revoking(principal) {
        if let Some(lease) = ledger.lease(&id) {
            lines.push(audit::of_lease(Event::LeaseRevoked, Actor::Broker, lease));
        }
    }
}

#[cfg(test)]
mod tests;
