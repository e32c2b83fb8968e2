//! Goes the walks. How a step is taken and recorded is in `steps`, what it does at the KDC in
//! `at_kdc`, how holders are asked in `asking`.
//!
//! A principal's steps are taken one at a time. Each is stored before it is done, and can be
//! repeated; what fails is tried again for ever, with back-off, and says meanwhile what it
//! waits for. A first key is made while its pod waits; a replacement goes on in the
//! background.

mod asking;
mod at_kdc;
mod steps;

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
    NumbersUsedUp,
    due::Kind,
    propagation::Setting,
    standing::Off,
    walk::{Step, WalkRules, WalkTimes},
};
use crate::{
    audit::{self, Actor, Event, Record},
    clock::Entropy,
    kdc::{Kdc, KdcError, KeyAdmin, gate::Class},
    krb5::key::Enctype,
    ledger::book::Book,
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
    /// It has no key in use: it was switched off meanwhile.
    #[error("{principal} has no key in use")]
    NotReady {
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
                Took::Rest => return Err(WalkError::NotReady { principal: principal.clone() }),
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

#[cfg(test)]
mod tests;
