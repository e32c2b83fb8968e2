//! Stories of the committer, on the memory store and log.

use std::sync::{
    Condvar, Mutex,
    atomic::{AtomicU64, Ordering},
};

use super::{
    super::{
        Loaded, StoreError, StoreStats,
        memory::{Failure as StoreFailure, MemoryStore},
    },
    *,
};
use crate::{
    audit::{Actor, Event, memory::MemoryAudit},
    clock::{SeededEntropy, TestClock},
    store::seal::MasterKey,
};

struct World {
    store: MemoryStore,
    audit: MemoryAudit,
    committer: Committer,
    thread: JoinHandle<()>,
}

impl World {
    fn new() -> Self {
        let store = MemoryStore::default();
        Self::on(Arc::new(store.clone()), store, Pace::default())
    }

    fn on(seam: Arc<dyn LeaseStore>, store: MemoryStore, pace: Pace) -> Self {
        let audit = MemoryAudit::default();
        let clock = Arc::new(TestClock::default());
        let (committer, thread) =
            Committer::start(seam, Arc::new(audit.clone()), clock, pace).unwrap();
        Self { store, audit, committer, thread }
    }

    fn close(self) -> MemoryStore {
        self.committer.close();
        self.thread.join().unwrap();
        self.store
    }
}

fn put(key: &[u8], value: &[u8]) -> Round {
    Round { puts: vec![(key.to_vec(), value.to_vec())], ..Round::default() }
}

fn line(event: Event) -> Record {
    Record::new(event, Actor::Broker)
}

/// A store whose commits wait until the gate is opened.
#[derive(Clone, Default)]
struct Gated {
    store: MemoryStore,
    open: Arc<(Mutex<bool>, Condvar)>,
}

impl Gated {
    fn open(&self) {
        *self.open.0.lock().unwrap() = true;
        self.open.1.notify_all();
    }
}

impl LeaseStore for Gated {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.store.load()
    }

    fn commit(&self, batch: &Batch) -> Result<u64, StoreError> {
        let open = self.open.0.lock().unwrap();
        drop(self.open.1.wait_while(open, |open| !*open).unwrap());
        self.store.commit(batch)
    }

    fn snapshot(&self) -> Result<(), StoreError> {
        self.store.snapshot()
    }

    fn stats(&self) -> StoreStats {
        self.store.stats()
    }
}

#[tokio::test]
async fn an_acknowledged_round_is_in_the_store_and_in_the_log() {
    let world = World::new();
    let round = Round { audit: vec![line(Event::LeaseGranted)], ..put(b"a", b"1") };
    world.committer.submit(round).await.unwrap();
    assert_eq!(world.store.read(b"a"), Some(b"1".to_vec()));
    assert_eq!(world.audit.events(), [Event::LeaseGranted]);
    let known = world.store.load().unwrap().audit_head;
    assert_eq!(known, world.audit.head(), "the store knows how far the log is");
    world.close();
}

#[tokio::test]
async fn rounds_that_queue_share_one_commit_and_one_sync_in_the_order_of_their_calls() {
    let gated = Gated::default();
    let world = World::on(Arc::new(gated.clone()), gated.store.clone(), Pace::default());
    let first = world.committer.submit(put(b"first", b"x"));
    let mut acks = Vec::new();
    for n in 0..100_u8 {
        let audit = vec![line(if n == 99 { Event::KeyBurnt } else { Event::KeyMade })];
        acks.push(world.committer.submit(Round { audit, ..put(b"a", &[n]) }));
    }
    let deletes = vec![b"first".to_vec()];
    acks.push(world.committer.submit(Round { deletes, ..Round::default() }));
    gated.open();
    first.await.unwrap();
    for ack in acks {
        ack.await.unwrap();
    }
    assert_eq!(world.store.read(b"a"), Some(vec![99]), "the last call wins");
    assert_eq!(world.store.read(b"first"), None);
    assert_eq!(world.audit.events().last(), Some(&Event::KeyBurnt));
    // the thread may have taken some of the hundred along with the first
    assert!(world.store.stats().commits <= 3, "{:?}", world.store.stats());
    assert!(world.audit.appends() <= 3, "{}", world.audit.appends());
    world.close();
}

#[tokio::test]
async fn a_round_put_again_after_its_delete_is_there() {
    let gated = Gated::default();
    let world = World::on(Arc::new(gated.clone()), gated.store.clone(), Pace::default());
    let held = world.committer.submit(put(b"x", b"1"));
    let deleted = Round { deletes: vec![b"a".to_vec()], ..put(b"a", b"1") };
    let deleted = world.committer.submit(deleted);
    let put_again = world.committer.submit(put(b"a", b"2"));
    gated.open();
    held.await.unwrap();
    deleted.await.unwrap();
    put_again.await.unwrap();
    assert_eq!(world.store.read(b"a"), Some(b"2".to_vec()));
    world.close();
}

#[tokio::test]
async fn a_round_of_audit_lines_alone_touches_no_store() {
    let world = World::new();
    let round = Round { audit: vec![line(Event::LeaseDenied)], ..Round::default() };
    world.committer.submit(round).await.unwrap();
    assert_eq!(world.audit.events(), [Event::LeaseDenied]);
    assert_eq!(world.store.stats().commits, 0);
    world.close();
}

#[tokio::test]
async fn after_a_failed_commit_nothing_is_acknowledged_any_more() {
    let world = World::new();
    world.store.fail(Some(StoreFailure::AfterTheWrite));
    let failed = world.committer.failed();
    assert!(!failed.is_cancelled());
    let error = world.committer.submit(put(b"a", b"1")).await.unwrap_err();
    assert!(matches!(&error, CommitError::Failed { why } if why.contains("told to fail")));
    failed.cancelled().await;

    world.store.fail(None); // a disk that comes back changes nothing
    assert_eq!(world.committer.submit(put(b"b", b"1")).await, Err(error));
    assert!(world.committer.why().is_some());
    assert_eq!(world.close().read(b"b"), None);
}

/// A store whose first commit fails, once the gate is opened; later ones would not.
#[derive(Default)]
struct FailsOnce {
    gated: Gated,
    commits: AtomicU64,
}

impl LeaseStore for FailsOnce {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.gated.load()
    }

    fn commit(&self, batch: &Batch) -> Result<u64, StoreError> {
        if self.commits.fetch_add(1, Ordering::Relaxed) > 0 {
            return self.gated.commit(batch);
        }
        self.gated.commit(&Batch::default())?;
        Err(StoreError::Poisoned { why: "the first".to_owned() })
    }

    fn snapshot(&self) -> Result<(), StoreError> {
        self.gated.snapshot()
    }

    fn stats(&self) -> StoreStats {
        self.gated.stats()
    }
}

#[tokio::test]
async fn rounds_that_wait_behind_a_failed_one_are_never_committed() {
    let fails = FailsOnce::default();
    let gated = fails.gated.clone();
    let pace = Pace { rounds: 1, ..Pace::default() };
    let world = World::on(Arc::new(fails), gated.store.clone(), pace);
    let first = world.committer.submit(put(b"a", b"1"));
    let behind = world.committer.submit(put(b"b", b"1"));
    gated.open();
    let error = first.await.unwrap_err();
    assert_eq!(behind.await, Err(error));
    let store = world.close();
    assert_eq!((store.read(b"a"), store.read(b"b")), (None, None));
}

#[tokio::test]
async fn what_the_log_does_not_name_is_not_granted_though_the_store_knows_of_it() {
    let world = World::new();
    world.audit.fail();
    let round = Round { audit: vec![line(Event::LeaseGranted)], ..put(b"a", b"1") };
    let error = world.committer.submit(round).await.unwrap_err();
    assert!(matches!(error, CommitError::Audit { .. }) && !error.is_final(), "{error}");
    assert!(!world.committer.failed().is_cancelled(), "the broker goes on");
    let unlogged = world.committer.submit(put(b"b", b"1")).await.unwrap_err();
    assert!(matches!(unlogged, CommitError::Audit { .. }), "nor what would need no line");
    // memory has both: were they not stored, a later round could rely on what is nowhere
    let store = world.close();
    assert_eq!((store.read(b"a"), store.read(b"b")), (Some(b"1".to_vec()), Some(b"1".to_vec())));
}

#[tokio::test]
async fn revocation_goes_on_without_the_log_and_is_told_of_when_it_works_again() {
    let world = World::new();
    world.audit.fail();
    assert!(world.committer.audit_works().is_ok(), "nobody has tried");
    let revoke = |key: &[u8]| Round {
        audit: vec![line(Event::LeaseRevoking)],
        kind: Kind::Essential,
        ..put(key, b"revoking")
    };
    for key in [b"a", b"b"] {
        world.committer.submit(revoke(key)).await.unwrap();
        assert!(world.store.read(key).is_some(), "the store has it");
    }
    assert!(world.committer.audit_works().is_err() && world.audit.events().is_empty());
    assert_eq!(world.committer.audit_trouble().unwrap().kept, 2);
    world.audit.mend();
    while world.committer.audit_works().is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await; // by its own timer
    }
    let revoking = Event::LeaseRevoking;
    assert_eq!(world.audit.events(), [Event::AuditGap, revoking, revoking]);
    let round = Round { audit: vec![line(Event::LeaseGranted)], ..put(b"c", b"1") };
    world.committer.submit(round).await.unwrap();
    world.close();
}

#[tokio::test]
async fn the_end_of_a_log_that_was_closed_in_good_order_is_known_to_the_store() {
    let world = World::new();
    let lines = Round { audit: vec![line(Event::BrokerStopped)], ..Round::default() };
    world.committer.submit(lines).await.unwrap();
    assert_eq!(world.store.load().unwrap().audit_head, Head::default(), "lines alone: no commit");
    let audit = world.audit.clone();
    assert_eq!(world.close().load().unwrap().audit_head, audit.head());
}

#[tokio::test]
async fn the_second_place_learns_how_far_store_and_log_have_come() {
    let temp = tempfile::tempdir().unwrap();
    let file = || {
        let master = MasterKey::random(&SeededEntropy::new(1));
        MarkFile::new(&temp.path().join("mark"), &master)
    };
    let (store, audit) = (MemoryStore::default(), MemoryAudit::default());
    let pace = Pace { mark_every: Duration::from_millis(2), ..Pace::default() };
    let (seam, log) = (Arc::new(store.clone()), Arc::new(audit.clone()));
    let clock = Arc::new(TestClock::default());
    let (committer, thread) =
        Committer::start_with_mark(seam, log, clock, pace, Some(file())).unwrap();
    let round = Round { audit: vec![line(Event::LeaseGranted)], ..put(b"a", b"1") };
    committer.submit(round).await.unwrap();
    let expected = Mark { sequence: 1, audit_head: audit.head() };
    while file().read().unwrap() != Some(expected) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let round = Round { audit: vec![line(Event::LeaseReleased)], ..put(b"a", b"2") };
    committer.submit(round).await.unwrap();
    committer.close();
    thread.join().unwrap();
    assert_eq!(file().read().unwrap().unwrap().sequence, 2, "and the last word at the end");
}

#[tokio::test]
async fn a_record_that_no_store_takes_fails_before_anything_is_written() {
    let world = World::new();
    let round = Round { audit: vec![line(Event::LeaseGranted)], ..put(b"", b"1") };
    let error = world.committer.submit(round).await.unwrap_err();
    assert!(matches!(&error, CommitError::Failed { why } if why.contains("bytes")), "{error}");
    assert!(world.audit.events().is_empty());
    world.close();
}

#[tokio::test]
async fn rounds_before_the_close_are_kept_and_later_ones_are_told() {
    let world = World::new();
    let acks: Vec<_> = (0..50_u8).map(|n| world.committer.submit(put(&[n], b"x"))).collect();
    let committer = world.committer.clone();
    let store = world.close();
    for ack in acks {
        ack.await.unwrap();
    }
    assert_eq!(committer.submit(put(b"late", b"x")).await, Err(CommitError::Closed));
    let stats = store.stats();
    assert_eq!(stats.snapshot_sequence, stats.sequence, "a last snapshot was taken");
    assert!(!committer.failed().is_cancelled());
}

#[tokio::test]
async fn a_snapshot_is_taken_when_something_changed_and_not_otherwise() {
    let store = MemoryStore::default();
    let pace = Pace { snapshot_every: Duration::from_millis(5), ..Pace::default() };
    let world = World::on(Arc::new(store.clone()), store, pace);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(world.store.stats().snapshot_time, None, "nothing to keep");
    world.committer.submit(put(b"a", b"1")).await.unwrap();
    while world.store.stats().snapshot_sequence != 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    world.close();
}

/// A store that panics, as an engine may.
struct Panicking;

impl LeaseStore for Panicking {
    fn load(&self) -> Result<Loaded, StoreError> {
        Ok(Loaded::default())
    }

    fn commit(&self, _: &Batch) -> Result<u64, StoreError> {
        panic!("the engine gave up")
    }

    fn snapshot(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn stats(&self) -> StoreStats {
        StoreStats::default()
    }
}

#[tokio::test]
async fn a_panic_below_is_a_failure_and_not_a_silence() {
    let world = World::on(Arc::new(Panicking), MemoryStore::default(), Pace::default());
    let error = world.committer.submit(put(b"a", b"1")).await.unwrap_err();
    assert!(matches!(&error, CommitError::Failed { why } if why.contains("panicked")), "{error}");
    world.committer.failed().cancelled().await;
    let error = world.committer.submit(put(b"a", b"1")).await.unwrap_err();
    assert!(matches!(error, CommitError::Failed { .. }));
}
