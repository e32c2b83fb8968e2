//! The task on a ledger with a committer and an audit log, under a clock that the test owns.

use std::sync::atomic::AtomicBool;

use krb_proto::{Generation, LeaseId, NodeName};
use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    audit::memory::MemoryAudit,
    clock::{Clock, Entropy, SeededEntropy, TestClock},
    entitlement::{Grant, Limits},
    kdc::fake::FakeRealm,
    keys::{
        walk::WalkRules,
        walker::{Parts, Walker},
    },
    krb5::key::Enctype,
    lease::{Holder, LeaseState},
    session::{
        StreamId, aftermath::Aftermath, attach::Hello, eviction::Eviction, hub::Hub,
        witness::NoWitnesses,
    },
    store::{
        committer::{Committer, Pace},
        memory::MemoryStore,
        seal::{MasterKey, Sealer},
    },
    tickets::{AccountKeytabs, TicketTimes, Tickets},
};

const MINUTE: Duration = Duration::from_secs(60);
const SKEW: Duration = Duration::from_secs(300);

struct World {
    watch: Watch,
    guard: ClockGuard,
    clock: Arc<TestClock>,
    audit: MemoryAudit,
    realm: Arc<FakeRealm>,
    _pods: tempfile::TempDir,
}

fn node(n: u8) -> NodeName {
    format!("node-{n}").parse().unwrap()
}

/// Leases that name nothing: what they hold is not what is tested.
fn grant() -> Grant {
    Grant {
        account: "tsfoo".parse().unwrap(),
        uid: 1,
        gid: 1,
        keytab_gid: None,
        principals: Vec::new(),
        tickets: Vec::new(),
        limits: Limits { leases: 500, principals: 9, new_principals_per_hour: 9, weight: 1 },
    }
}

/// A broker with this many attached nodes, each with one lease.
fn world(nodes: u8) -> World {
    let clock = Arc::new(TestClock::default());
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
    let realm = Arc::new(FakeRealm::new("EXAMPLE.COM".parse().unwrap(), clock.clone()));
    let audit = MemoryAudit::default();
    let store = Arc::new(MemoryStore::default());
    let (committer, _thread) =
        Committer::start(store, Arc::new(audit.clone()), clock.clone(), Pace::default()).unwrap();
    let sealer = Sealer::new(&MasterKey::random(&*entropy), entropy.clone());
    let book = Book::new(Ledger::new("test".into()), committer, sealer, clock.clone());
    let times = TicketTimes { life: MINUTE, retry_after: MINUTE };
    let keytabs = AccountKeytabs::new(std::path::Path::new("/nonexistent"));
    let tickets =
        Tickets::new(realm.clone(), Arc::new(keytabs), times, clock.clone(), entropy.clone());
    let (tickets, hub) = (Arc::new(tickets), Arc::new(Hub::default()));
    let name = "EXAMPLE.COM".parse().unwrap();
    let pusher = Pusher::new(book.clone(), hub.clone(), tickets.clone(), name);
    let parts = Parts {
        book: book.clone(),
        admin: realm.clone(),
        kdc: realm.clone(),
        pusher: pusher.clone(),
        entropy,
        enctypes: vec![Enctype::Aes256Sha1],
        rules: WalkRules::default(),
        realm_checked: Arc::new(AtomicBool::new(true)),
    };
    let walker = Walker::new(parts, TaskTracker::new(), CancellationToken::new());
    let pods = tempfile::tempdir().unwrap();
    let source = crate::pods::file::FilePods::new(pods.path(), "test".into(), clock.clone());
    let watch = Watch {
        book: book.clone(),
        aftermath: Aftermath {
            book,
            hub,
            walker,
            tickets,
            notices: Arc::new(crate::notices::NoNotices),
        },
        pusher,
        pods: Arc::new(source),
        witnesses: Arc::new(NoWitnesses),
        kdc: realm.clone(),
        rules: Rules::default(),
        every: Duration::from_secs(1),
        sweep_every: Duration::from_secs(10),
        keep_ended: MINUTE,
        clock_skew: SKEW,
    };
    let guard = ClockGuard::new(clock.now(), SKEW);
    let world = World { watch, guard, clock, audit, realm, _pods: pods };
    (1..=nodes).for_each(|n| world.attach(n));
    world
}

impl World {
    fn attach(&self, n: u8) {
        let hello = Hello {
            boot_id: "b".into(),
            instance: "i".into(),
            generation: None,
            key: None,
            node_uid: None,
        };
        self.watch.book.note(|ledger, now| {
            ledger.attach(&node(n), &hello, StreamId(n.into()), now);
            let pod = krb_proto::PodRef {
                cluster: "test".into(),
                namespace: "tsfoo".parse().unwrap(),
                name: format!("web-{n}").parse().unwrap(),
                uid: format!("uid-{n}").parse().unwrap(),
            };
            let holder = Holder { node: node(n), pod, volume: "v".parse().unwrap() };
            let id = LeaseId::from_random([n; 16]);
            ledger.admit(id, holder, Generation(1), &grant(), now.wall).unwrap();
            ledger.deliver(&id).unwrap();
        });
    }

    /// Lets time pass; these nodes are heard of, the others are not.
    async fn pass(&mut self, span: Duration, heard: std::ops::RangeInclusive<u8>) {
        for second in 0..span.as_secs() {
            self.clock.advance(Duration::from_secs(1));
            if second % 10 == 0 {
                for n in heard.clone() {
                    let times = self.watch.rules.times;
                    self.watch.book.note(|ledger, now| {
                        let _ = ledger.heard(&node(n), StreamId(n.into()), now, &times);
                    });
                }
            }
            self.watch.tick(&mut self.guard).await.unwrap();
        }
    }

    fn count(&self, event: Event) -> usize {
        self.audit.events().iter().filter(|known| **known == event).count()
    }

    fn lease(&self, n: u8) -> LeaseState {
        self.watch.book.read(|l| l.lease(&LeaseId::from_random([n; 16])).unwrap().state)
    }
}

#[tokio::test]
async fn a_mass_cut_revokes_nothing_and_an_eviction_meanwhile_does() {
    let mut world = world(50);
    world.pass(8 * MINUTE, 31..=50).await;
    assert_eq!(world.count(Event::BrakeOn), 1);
    assert_eq!((world.count(Event::SessionLost), world.count(Event::LeaseRevoking)), (0, 0));
    assert_eq!(world.count(Event::SessionSilent), 30);

    let actor = Actor::Operator("olga".to_owned());
    let reason = "its disk burns".to_owned();
    let eviction = Eviction { node: node(3), ban: true, ahead: false, reason, actor };
    let (now, rules) = (world.clock.now().wall, world.watch.aftermath.walker.rules());
    let planned = world.watch.book.read(|ledger| eviction.plan(ledger, now, rules)).unwrap();
    assert_eq!(world.count(Event::SessionLost), 0, "a plan does nothing");
    let hit = world.watch.aftermath.evict(&eviction).await.unwrap();
    assert_eq!((hit.nodes.as_slice(), hit.plan.leases.len()), ([node(3)].as_slice(), 1));
    assert_eq!(hit, planned);
    assert_ne!(world.lease(3), LeaseState::Active);
    let last: Vec<Event> = world.audit.events().into_iter().rev().take(5).rev().collect();
    assert_eq!(
        last[..4],
        [Event::NodeBanned, Event::NodeEvicted, Event::SessionLost, Event::LeaseRevoking]
    );

    world.pass(MINUTE, 1..=50).await;
    assert_eq!((world.count(Event::BrakeOff), world.count(Event::SessionLost)), (1, 1));
}

#[tokio::test]
async fn a_wall_clock_that_jumps_ends_nothing_until_it_is_back_or_a_kdc_agrees() {
    let mut world = world(3);
    world.clock.step_wall(3 * 24 * 3600);
    world.pass(8 * MINUTE, 2..=3).await;
    assert_eq!(world.count(Event::ClockFault), 1, "said once");
    assert_eq!(world.count(Event::SessionLost), 0, "neither by silence nor by lease_ttl");
    assert!(world.watch.book.read(|ledger| ledger.clock_fault().is_some()));

    world.realm.probe_clock().await;
    world.pass(Duration::from_secs(1), 2..=3).await;
    assert_eq!((world.count(Event::ClockCleared), world.count(Event::SessionLost)), (1, 1));
    assert_eq!(world.lease(2), LeaseState::Active);
}

#[tokio::test]
async fn pods_that_all_vanish_from_their_source_are_held() {
    let mut world = world(60);
    let gone_after = Duration::from_secs(61);
    world.watch.release_gone().await.unwrap(); // the pods are away from now on
    world.pass(gone_after, 1..=60).await;
    world.watch.release_gone().await.unwrap();
    assert_eq!((world.count(Event::BrakeOn), world.count(Event::LeaseReleased)), (1, 0));
    assert_eq!(world.watch.book.read(Ledger::held_pods), 60);
    assert_eq!(world.lease(1), LeaseState::Active);
}
