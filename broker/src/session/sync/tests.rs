use std::sync::atomic::AtomicBool;

use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    audit::memory::MemoryAudit,
    clock::{Entropy, SeededEntropy, TestClock},
    entitlement::{Grant, Limits},
    kdc::fake::FakeRealm,
    keys::{walk::WalkRules, walker::Parts},
    krb5::key::Enctype,
    lease::Holder,
    ledger::Ledger,
    session::{
        Cause,
        pace::{self, Rate},
    },
    store::{
        committer::{Committer, Pace},
        memory::MemoryStore,
        seal::{MasterKey, Sealer},
    },
    tickets::{AccountKeytabs, TicketTimes, Tickets},
};

const MINUTE: Duration = Duration::from_secs(60);

struct World {
    syncing: Syncing,
    clock: Arc<TestClock>,
    audit: MemoryAudit,
}

fn node() -> NodeName {
    "node-a".parse().unwrap()
}

fn lease(n: u16) -> LeaseId {
    let mut bits = [0; 16];
    bits[..2].copy_from_slice(&n.to_be_bytes());
    LeaseId::from_random(bits)
}

fn world(attaches: Rate) -> World {
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
    let keytabs = Arc::new(AccountKeytabs::new(std::path::Path::new("/nonexistent")));
    let tickets = Tickets::new(realm.clone(), keytabs, times, clock.clone(), entropy.clone());
    let (hub, name) = (Arc::new(Hub::default()), "EXAMPLE.COM".parse().unwrap());
    let pusher = Pusher::new(book.clone(), hub.clone(), Arc::new(tickets), name);
    let parts = Parts {
        book: book.clone(),
        admin: realm.clone(),
        kdc: realm,
        pusher: pusher.clone(),
        entropy,
        enctypes: vec![Enctype::Aes256Sha1],
        rules: WalkRules::default(),
        realm_checked: Arc::new(AtomicBool::new(true)),
    };
    let walker = Walker::new(parts, TaskTracker::new(), CancellationToken::new());
    let (times, attaches) = (Times::default(), Arc::new(NodePace::new(attaches)));
    let acknowledgements =
        Arc::new(NodePace::new(Rate { burst: 2, every: Duration::from_secs(3_600) }));
    let syncing = Syncing { book, hub, pusher, walker, times, attaches, acknowledgements };
    World { syncing, clock, audit }
}

/// No node is held up by it.
const ANY: Rate = Rate { burst: 1_000, every: Duration::from_millis(1) };

fn hello(generation: Option<u64>, inventory: Vec<v1::InventoryItem>) -> v1::Hello {
    let (boot_id, instance) = ("boot".to_owned(), "one".to_owned());
    v1::Hello { boot_id, instance, generation, inventory }
}

fn item(lease: LeaseId, digest: &[u8]) -> v1::InventoryItem {
    let (lease_id, keytab_digest) = (lease.to_string(), digest.to_vec());
    v1::InventoryItem { lease_id, keytab_digest, ..v1::InventoryItem::default() }
}

impl World {
    async fn attach(&self, hello: &v1::Hello) -> Attached {
        self.syncing.attach(&node(), &Proof::default(), hello).await.unwrap()
    }

    /// Attaches, and tells what comes out of the stream behind the Welcome.
    async fn told(&self, inventory: Vec<v1::InventoryItem>) -> Vec<Told> {
        let Attached::Welcome(stream, mut told) = self.attach(&hello(None, inventory)).await else {
            panic!("not attached")
        };
        self.syncing.hub.detach(&node(), stream);
        assert!(matches!(told.recv().await.unwrap().event, Some(Told::Welcome(_))));
        let mut rest = Vec::new();
        while let Some(message) = told.recv().await {
            rest.push(message.event.unwrap());
        }
        rest
    }

    /// The node has this many leases, which name nothing.
    fn issue(&self, leases: u16) {
        let grant = Grant {
            account: "tsfoo".parse().unwrap(),
            uid: 1,
            gid: 1,
            keytab_gid: None,
            principals: Vec::new(),
            tickets: Vec::new(),
            limits: Limits { leases: 500, principals: 9, new_principals_per_hour: 9, weight: 1 },
        };
        self.syncing.book.note(|ledger, now| {
            for n in 0..leases {
                let pod = krb_proto::PodRef {
                    cluster: "test".into(),
                    namespace: "tsfoo".parse().unwrap(),
                    name: format!("web-{n}").parse().unwrap(),
                    uid: format!("uid-{n}").parse().unwrap(),
                };
                let holder = Holder { node: node(), pod, volume: "v".parse().unwrap() };
                let key = holder.key();
                ledger.admit(lease(n), holder, Generation(1), &grant, now.wall).unwrap();
                assert!(ledger.is_pending_for(&key));
                ledger.deliver(&lease(n)).unwrap();
                assert!(!ledger.is_pending_for(&key));
            }
        });
    }

    fn count(&self, event: Event) -> usize {
        self.audit.events().into_iter().filter(|e| *e == event).count()
    }
}

#[tokio::test]
async fn a_node_that_is_refused_again_and_again_has_a_line_a_minute() {
    let world = world(ANY);
    world.attach(&hello(None, Vec::new())).await;
    world.syncing.book.note(|ledger, now| ledger.lose(&node(), &Cause::Silence, now.wall));
    for generation in [1, 7].repeat(50) {
        let answer = world.attach(&hello(Some(generation), Vec::new())).await;
        assert!(matches!(answer, Attached::Fenced(Generation(2))));
    }
    assert_eq!(world.count(Event::SessionFenced), 1);

    world.syncing.book.note(|ledger, now| ledger.ban(&node(), "olga", "stolen", now.wall));
    for _ in 0..100 {
        let answer = world.attach(&hello(None, Vec::new())).await;
        assert!(matches!(answer, Attached::Banned(Generation(2))));
    }
    assert_eq!(world.count(Event::SessionRefused), 1);

    world.clock.advance(MINUTE);
    world.syncing.book.audit_merged_denials(false).await.unwrap();
    assert_eq!((world.count(Event::SessionFenced), world.count(Event::SessionRefused)), (2, 2));
    assert_eq!(world.syncing.book.merged_denials(), 99 + 99, "none is lost");
}

#[tokio::test]
async fn a_fence_is_told_while_the_audit_log_cannot_be_written() {
    let world = world(ANY);
    world.attach(&hello(None, Vec::new())).await;
    world.syncing.book.note(|ledger, now| ledger.lose(&node(), &Cause::Silence, now.wall));
    world.audit.fail();
    let answer = world.attach(&hello(Some(1), Vec::new())).await;
    assert!(matches!(answer, Attached::Fenced(Generation(2))));
}

#[tokio::test]
async fn a_node_that_attaches_too_often_is_told_when_to_come_again() {
    let world = world(pace::ATTACHES);
    for _ in 0..20 {
        assert!(matches!(world.attach(&hello(None, vec![])).await, Attached::Welcome(..)));
    }
    let mut wait = Duration::ZERO;
    for _ in 0..50 {
        let Attached::TooOften(told) = world.attach(&hello(None, Vec::new())).await else {
            panic!("served")
        };
        wait = told;
    }
    assert_eq!((world.count(Event::SessionAttached), world.count(Event::SessionRefused)), (20, 1));
    world.clock.advance(wait);
    assert!(matches!(world.attach(&hello(None, vec![])).await, Attached::Welcome(..)));
}

#[tokio::test]
async fn a_lease_that_is_named_again_and_again_is_looked_at_once() {
    let world = world(ANY);
    world.attach(&hello(None, Vec::new())).await;
    world.issue(150);
    let wrong = (0..150).map(|n| item(lease(n), b"old"));
    let right = (0..150).map(|n| item(lease(n), b""));
    let twice = wrong.clone().chain(wrong).chain(right).collect();
    let told = world.told(twice).await;
    let pushed: BTreeSet<String> = told
        .iter()
        .map(|told| match told {
            Told::Push(push) => push.lease_id.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((told.len(), pushed.len()), (150, 150), "each once, by what was named first");

    let right = (0..150).map(|n| item(lease(n), b"")).collect();
    assert_eq!(world.told(right).await, []);
}

#[tokio::test]
async fn leases_that_nobody_knows_do_not_fill_the_queue_of_a_node() {
    let world = world(ANY);
    let made_up = |count| (0..count).map(|n| item(lease(n), b"")).collect::<Vec<_>>();
    let Attached::Welcome(_, mut told) = world.attach(&hello(None, made_up(9_000))).await else {
        panic!("not attached")
    };
    let mut wipes = 0;
    while let Some(message) = told.recv().await {
        wipes += usize::from(matches!(message.event, Some(Told::Wipe(_))));
    }
    assert_eq!(wipes, MOST_WIPES, "the stream ends behind them");
    assert_eq!(world.told(made_up(2_000)).await.len(), 2_000);
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_are_heard_no_faster_than_their_pace() {
    let world = world(ANY);
    let Attached::Welcome(stream, _told) = world.attach(&hello(None, Vec::new())).await else {
        panic!("not attached")
    };
    let said = |n| {
        let (lease_id, keytab_digest) = (lease(n).to_string(), b"wrong".to_vec());
        let ack = v1::Acknowledgement {
            lease_id,
            keytab_digest,
            generation: 1,
            ..v1::Acknowledgement::default()
        };
        v1::SyncRequest { event: Some(Said::Acknowledgement(ack)) }
    };
    for n in 0..2 {
        assert!(world.syncing.hear(&node(), stream, said(n)).await);
    }
    let node = node();
    let third = world.syncing.hear(&node, stream, said(3));
    assert!(tokio::time::timeout(Duration::from_secs(1_800), third).await.is_err());
    let beat = v1::SyncRequest { event: Some(Said::Heartbeat(v1::Heartbeat::default())) };
    assert!(world.syncing.hear(&node, stream, beat).await, "what else it says is heard");
}

#[tokio::test]
async fn a_stream_ends_with_its_certificate_and_with_its_token_once_a_newer_one_can_be_had() {
    let tokens = Arc::new(crate::tokens::FakeTokens::default());
    let not_after = SystemTime::UNIX_EPOCH + MINUTE;
    let (before, after) = (not_after - MINUTE / 2, not_after + MINUTE);
    let by_certificate = Until { not_after, tokens: None };
    assert!(!by_certificate.is_over(before).await && by_certificate.is_over(after).await);

    let by_token = Until { not_after, tokens: Some(tokens.clone()) };
    assert!(!by_token.is_over(before).await && by_token.is_over(after).await);
    tokens.set_down(true);
    assert!(!by_token.is_over(after).await, "an outage cuts nobody");
    tokens.set_down(false);
    assert!(by_token.is_over(after).await);
}
