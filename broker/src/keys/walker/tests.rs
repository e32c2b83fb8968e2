use krb_proto::Generation;

use super::*;
use crate::{
    audit::memory::MemoryAudit,
    clock::{SeededEntropy, TestClock},
    entitlement::{Grant, GrantedPrincipal, Limits},
    kdc::{Attributes, fake::FakeRealm},
    krb5::key::Keyset,
    lease::{Holder, LeaseState},
    ledger::Ledger,
    session::{Cause, attach::Hello, hub::Hub},
    store::{
        committer::{Committer, Pace},
        memory::MemoryStore,
        seal::{MasterKey, Sealer},
    },
    tickets::{AccountKeytabs, TicketTimes, Tickets},
};

struct World {
    book: Book,
    walker: Walker,
    realm: Arc<FakeRealm>,
    audit: MemoryAudit,
    checked: Arc<AtomicBool>,
    service: Principal,
}

fn world() -> World {
    let clock = Arc::new(TestClock::default());
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
    let realm = Arc::new(FakeRealm::new("EXAMPLE.COM".parse().unwrap(), clock.clone()));
    let audit = MemoryAudit::default();
    let (committer, _thread) = Committer::start(
        Arc::new(MemoryStore::default()),
        Arc::new(audit.clone()),
        clock.clone(),
        Pace::default(),
    )
    .unwrap();
    let sealer = Sealer::new(&MasterKey::random(&*entropy), entropy.clone());
    let book = Book::new(Ledger::new("test".into()), committer, sealer, clock.clone());
    let times = TicketTimes { life: Duration::from_secs(60), retry_after: Duration::from_secs(1) };
    let keytabs = AccountKeytabs::new(std::path::Path::new("/nonexistent"));
    let tickets = Tickets::new(realm.clone(), Arc::new(keytabs), times, clock, entropy.clone());
    let name = "EXAMPLE.COM".parse().unwrap();
    let pusher = Pusher::new(book.clone(), Arc::new(Hub::default()), Arc::new(tickets), name);
    let checked = Arc::new(AtomicBool::new(true));
    let parts = Parts {
        book: book.clone(),
        admin: realm.clone(),
        kdc: realm.clone(),
        pusher,
        entropy,
        enctypes: vec![Enctype::Aes256Sha1],
        rules: WalkRules::default(),
        realm_checked: checked.clone(),
    };
    let walker = Walker::new(parts, TaskTracker::new(), CancellationToken::new());
    let service = "HTTP/web.tsfoo.svc.cluster.local@EXAMPLE.COM".parse().unwrap();
    World { book, walker, realm, audit, checked, service }
}

impl World {
    /// A node attaches, and a pod on it is granted the service.
    fn admit(&self) -> LeaseId {
        let node: krb_proto::NodeName = "node-a".parse().unwrap();
        let hello = Hello {
            boot_id: "b".into(),
            instance: "i".into(),
            generation: None,
            key: None,
            node_uid: None,
        };
        let grant = Grant {
            account: "tsfoo".parse().unwrap(),
            uid: 1,
            gid: 1,
            keytab_gid: None,
            principals: vec![GrantedPrincipal {
                principal: self.service.clone(),
                client: false,
                shared: false,
                of_pod: false,
            }],
            tickets: Vec::new(),
            limits: Limits { leases: 9, principals: 9, new_principals_per_hour: 9, weight: 1 },
        };
        let pod = krb_proto::PodRef {
            cluster: "test".into(),
            namespace: "tsfoo".parse().unwrap(),
            name: "web-0".parse().unwrap(),
            uid: "uid-0".parse().unwrap(),
        };
        let holder = Holder { node: node.clone(), pod, volume: "v".parse().unwrap() };
        let id = LeaseId::from_random([1; 16]);
        self.book.note(|ledger, now| {
            ledger.attach(&node, &hello, StreamId(1), now);
            ledger.admit(id, holder, Generation(1), &grant, now.wall).unwrap();
            ledger.take_up(&grant, Duration::from_secs(60), now.wall);
        });
        id
    }

    fn events(&self) -> Vec<Event> {
        self.audit.events()
    }
}

#[tokio::test]
async fn a_first_key_is_recorded_before_it_is_set_and_asked_for_at_once_is_made_once() {
    let world = world();
    world.admit();
    let asking = (0..8).map(|_| {
        let (walker, service) = (world.walker.clone(), world.service.clone());
        tokio::spawn(async move { walker.ensure(&service).await })
    });
    for asked in asking.collect::<Vec<_>>() {
        asked.await.unwrap().unwrap();
    }
    use Event::{KeyActivating, KeyCreated, KeyCurrent, KeyMade};
    assert_eq!(world.events(), [KeyMade, KeyActivating, KeyCreated, KeyCurrent]);
    let held = world
        .book
        .read(|ledger| ledger.principal(&world.service).unwrap().current().unwrap().keyset.clone());
    assert_eq!(world.realm.keyset(&world.service), Some(held));
}

#[tokio::test]
async fn keys_that_the_store_knows_nothing_of_are_left_alone() {
    let world = world();
    world.admit();
    let attributes = Attributes::service(Duration::from_secs(60), false);
    let made_at = world.book.now().wall;
    let other = Keyset::random(Kvno(2), &[Enctype::Aes256Sha1], &SeededEntropy::new(9), made_at);
    world.realm.create(&world.service, &attributes).await.unwrap();
    world.realm.activate(&world.service, &other, &attributes).await.unwrap();

    let error = world.walker.ensure(&world.service).await.unwrap_err();
    let WalkError::Kdc { source, .. } = error else { panic!("{error:?}") };
    assert!(matches!(source, KdcError::NotRecorded { .. }), "{source:?}");
    assert_eq!(world.realm.keyset(&world.service), Some(other), "nothing was set");
}

#[tokio::test]
async fn no_key_is_set_before_the_realm_was_checked_nor_made_in_recovery() {
    let world = world();
    world.admit();
    world.checked.store(false, Ordering::SeqCst);
    let error = world.walker.ensure(&world.service).await.unwrap_err();
    assert!(matches!(&error, WalkError::Kdc { source, .. } if source.is_transient()), "{error:?}");
    assert_eq!(world.realm.keyset(&world.service), None);

    world.checked.store(true, Ordering::SeqCst);
    world.book.note(|ledger, _| ledger.set_recovery(Some("the store went back".to_owned())));
    let error = world.walker.ensure(&world.service).await.unwrap_err();
    assert!(matches!(error, WalkError::Recovery { .. }), "{error:?}");
    world.book.note(|ledger, _| ledger.set_recovery(None));
    world.walker.ensure(&world.service).await.unwrap();
}

#[tokio::test]
async fn a_lost_node_s_key_is_replaced_above_whatever_the_kdc_has_meanwhile() {
    let world = world();
    let lease = world.admit();
    world.walker.ensure(&world.service).await.unwrap();
    world.book.note(|ledger, _| ledger.deliver(&lease).unwrap());
    let changed = Keyset::random(
        Kvno(7),
        &[Enctype::Aes256Sha1],
        &SeededEntropy::new(9),
        world.book.now().wall,
    );
    world.realm.tamper(&world.service, changed);
    world
        .book
        .note(|ledger, now| ledger.lose(&"node-a".parse().unwrap(), &Cause::Silence, now.wall));
    world.walker.kick(&world.service);
    for _ in 0..500 {
        let state = world.book.read(|ledger| ledger.lease(&lease).unwrap().state);
        if state == LeaseState::Revoked {
            assert_eq!(world.realm.keyset(&world.service).unwrap().kvno, Kvno(8));
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not revoked: {:?}", world.events());
}

impl World {
    /// Takes the node of the lease away, so that the service's key is due for a replacement.
    fn lose_node(&self, lease: &LeaseId) {
        self.book.note(|ledger, _| ledger.deliver(lease).unwrap());
        let node = "node-a".parse().unwrap();
        self.book.note(|ledger, now| ledger.lose(&node, &Cause::Silence, now.wall));
        self.walker.kick(&self.service);
    }

    fn managed(&self) -> crate::keys::ManagedPrincipal {
        self.book.read(|ledger| ledger.principal(&self.service).unwrap().clone())
    }

    /// Waits, five seconds at most, until it is so.
    async fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        for _ in 0..500 {
            if so(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let waits = self.book.read(|ledger| ledger.waiting(&self.service).map(str::to_owned));
        panic!("{what}: not so; {waits:?}, {:?}", self.events());
    }
}

fn is_current(world: &World, kvno: u32) -> bool {
    world.managed().current().is_some_and(|held| held.keyset.kvno == Kvno(kvno))
}

#[tokio::test]
async fn a_principal_that_is_deleted_at_the_kdc_while_its_key_is_set_is_made_again() {
    let world = world();
    let lease = world.admit();
    world.walker.ensure(&world.service).await.unwrap();
    world.checked.store(false, Ordering::SeqCst); // what is made now is not set yet
    world.lose_node(&lease);
    let activating = |world: &World| {
        world.managed().under_way().is_some_and(|held| held.phase == crate::keys::Phase::Activating)
    };
    world.until("the next key is to be set", activating).await;
    world.realm.administrator_deletes(&world.service);
    world.checked.store(true, Ordering::SeqCst);
    world.walker.kick(&world.service);
    world.until("the next key is in use", |world| is_current(world, 3)).await;
    assert_eq!(world.realm.keyset(&world.service).unwrap().kvno, Kvno(3));
    assert_eq!(world.events().iter().filter(|event| **event == Event::KeyCreated).count(), 2);
}

#[tokio::test]
async fn a_principal_that_was_deleted_at_the_kdc_counts_as_disabled() {
    let world = world();
    world.admit();
    world.walker.ensure(&world.service).await.unwrap();
    world.realm.administrator_deletes(&world.service);
    world.book.note(|ledger, now| {
        ledger.switch_off(&world.service, Off::Disabled, Some("op".to_owned()), now.wall);
    });
    world.walker.kick(&world.service);
    let off = crate::keys::standing::Standing::Off(Off::Disabled);
    world.until("it is off", |world| world.managed().standing == off).await;
}

#[tokio::test]
async fn which_kdc_lags_is_recorded_until_it_has_the_key() {
    let world = world();
    let lease = world.admit();
    world.walker.ensure(&world.service).await.unwrap();
    world.realm.add_replica("kdc2");
    world.lose_node(&lease);
    let lags = |world: &World| {
        world.managed().under_way().is_some_and(|held| held.lagging.iter().eq(["kdc2"]))
    };
    world.until("kdc2 is known to lag", lags).await;
    world.realm.propagate();
    world.until("the key is in use", |world| is_current(world, 3)).await;
    assert!(world.managed().current().unwrap().lagging.is_empty());
}

#[tokio::test]
async fn a_kdc_that_can_not_be_asked_keeps_a_key_from_counting_as_used() {
    let world = world();
    let lease = world.admit();
    world.walker.ensure(&world.service).await.unwrap();
    world.realm.set_gate_full(true);
    world.lose_node(&lease);
    let waits = |world: &World| {
        let said = world.book.read(|l| l.waiting(&world.service).map(str::to_owned));
        said.is_some_and(|said| said.contains("it was not asked: the gate is full"))
    };
    world.until("it says why it waits", waits).await;
    assert!(!is_current(&world, 3));
    world.realm.set_gate_full(false);
    world.until("the key is in use", |world| is_current(world, 3)).await;
}

#[tokio::test]
async fn the_first_key_of_an_adopted_principal_waits_for_a_kdc_that_lags_and_of_a_new_one_does_not()
{
    let world = world();
    world.realm.add_replica("kdc2");
    world.admit();
    world.walker.ensure(&world.service).await.unwrap(); // kdc2 does not even know it

    let adopted = self::world();
    adopted.admit();
    let attributes = Attributes::service(Duration::from_secs(60), false);
    let made_at = adopted.book.now().wall;
    let theirs = Keyset::random(Kvno(2), &[Enctype::Aes256Sha1], &SeededEntropy::new(9), made_at);
    adopted.realm.create(&adopted.service, &attributes).await.unwrap();
    adopted.realm.activate(&adopted.service, &theirs, &attributes).await.unwrap();
    adopted.realm.add_replica("kdc2");
    adopted.book.note(|ledger, now| {
        let account = "tsfoo".parse().unwrap();
        assert!(ledger.adopt(&adopted.service, &account, false, attributes, now.wall));
    });
    let (walker, service) = (adopted.walker.clone(), adopted.service.clone());
    let asked = tokio::spawn(async move { walker.ensure(&service).await });
    let waits = |world: &World| {
        world.book.read(|l| l.waiting(&world.service) == Some("kdc2 still has kvno 2"))
    };
    adopted.until("it waits for kdc2", waits).await;
    assert!(!is_current(&adopted, 3));
    adopted.realm.propagate();
    asked.await.unwrap().unwrap();
    assert!(is_current(&adopted, 3));
}
