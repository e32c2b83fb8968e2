use std::{fs, os::unix::fs::PermissionsExt as _};

use krb_proto::{Generation, Kvno, LeaseId};

use super::*;
use crate::{
    audit::{Event, memory::MemoryAudit},
    clock::{SeededEntropy, TestClock},
    entitlement::{AccountMode, Sharing},
    kdc::{Attributes, KeyAdmin, contract, fake::FakeRealm},
    keys::walk::Step,
    krb5::{
        key::{Enctype, Keyset},
        keytab::{self, KeytabEntry},
    },
    ledger::{Ledger, book::Book},
    store::{
        committer::{Committer, Pace},
        memory::MemoryStore,
        seal::{MasterKey, Sealer},
    },
};

mod accounts;

const LIFE: Duration = Duration::from_secs(1_000);

struct World {
    tickets: Arc<Tickets>,
    realm: Arc<FakeRealm>,
    clock: Arc<TestClock>,
    account: SharedTicket,
    book: Book,
    audit: MemoryAudit,
    dir: tempfile::TempDir,
}

fn world() -> World {
    let clock = Arc::new(TestClock::default());
    let realm = Arc::new(FakeRealm::new("EXAMPLE.COM".parse().unwrap(), clock.clone()));
    let client: Principal = "tsfoo@EXAMPLE.COM".parse().unwrap();
    let entropy = Arc::new(SeededEntropy::new(1));
    let keyset = Keyset::random(Kvno(2), &[Enctype::Aes256Sha1], &*entropy, clock.now().wall);
    realm.add_account(&client, keyset.clone());
    let dir = tempfile::tempdir().unwrap();
    let file = keytab::write(&KeytabEntry::of_keyset(&client, &keyset)).unwrap();
    let path = dir.path().join("tsfoo.keytab");
    fs::write(&path, file.expose()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let times = TicketTimes { life: LIFE, retry_after: Duration::from_secs(10) };
    let (book, audit) = book(clock.clone());
    let keys = AccountKeyring::new(AccountKeytabs::new(dir.path()), book.clone());
    let tickets = Tickets::new(realm.clone(), Arc::new(keys), times, clock.clone(), entropy);
    let account = shared("tsfoo", AccountMode::Keytab, Share::All);
    World { tickets: Arc::new(tickets), realm, clock, account, book, audit, dir }
}

fn book(clock: Arc<TestClock>) -> (Book, MemoryAudit) {
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(2));
    let audit = MemoryAudit::default();
    let store = Arc::new(MemoryStore::default());
    let (committer, _thread) =
        Committer::start(store, Arc::new(audit.clone()), clock.clone(), Pace::default()).unwrap();
    let sealer = Sealer::new(&MasterKey::random(&*entropy), entropy);
    (Book::new(Ledger::new("test".into()), committer, sealer, clock), audit)
}

fn shared(login: &str, mode: AccountMode, share: Share) -> SharedTicket {
    let sharing = match share {
        Share::All => Sharing::Principal,
        Share::Node(_) => Sharing::Node,
        Share::Lease(_) => Sharing::Pod,
    };
    let client = format!("{login}@EXAMPLE.COM").parse().unwrap();
    SharedTicket {
        account: GrantedTicket { login: login.parse().unwrap(), client, mode, sharing },
        share,
    }
}

impl World {
    async fn ticket(&self, ticket: &SharedTicket) -> Result<Arc<Credential>, TicketError> {
        self.tickets.ticket(ticket, Class::PodStart).await
    }
}

#[tokio::test]
async fn the_same_question_asked_at_once_is_asked_once() {
    let world = world();
    world.realm.set_delay(Duration::from_millis(20));
    let asking = (0..50).map(|_| {
        let (tickets, account) = (world.tickets.clone(), world.account.clone());
        tokio::spawn(
            async move { tickets.ticket(&account, Class::PodStart).await.unwrap().endtime },
        )
    });
    for asked in asking.collect::<Vec<_>>() {
        asked.await.unwrap();
    }
    assert_eq!(world.realm.tickets(), 1);
}

#[tokio::test]
async fn a_ticket_that_is_handed_out_has_at_least_half_its_life() {
    let world = world();
    for _ in 0..40 {
        let ticket = world.ticket(&world.account).await.unwrap();
        let left = ticket.endtime.duration_since(world.clock.now().wall).unwrap();
        assert!(left >= LIFE / 2, "{left:?}");
        world.clock.advance(Duration::from_secs(61));
    }
    // 40 minutes of asking, and a ticket for every 400 to 500 seconds
    assert!((5..=7).contains(&world.realm.tickets()), "{}", world.realm.tickets());
}

#[tokio::test]
async fn a_ticket_with_half_its_life_is_good_enough_while_no_kdc_answers_and_less_is_not() {
    let world = world();
    world.ticket(&world.account).await.unwrap();
    world.realm.set_kdcs_down(true);
    world.clock.advance(LIFE / 2);
    assert!(world.ticket(&world.account).await.is_ok());
    world.clock.advance(Duration::from_secs(1));
    let error = world.ticket(&world.account).await.unwrap_err();
    assert!(matches!(error, TicketError::Kdc { .. }), "{error:?}");
    assert!(world.tickets.kept(&world.account).is_some(), "pods that have it keep it");
}

#[tokio::test]
async fn a_keytab_that_others_can_read_is_not_used() {
    let world = world();
    let path = world.dir.path().join("tsfoo.keytab");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = world.ticket(&world.account).await.unwrap_err();
    let TicketError::Keys { source, .. } = error else { panic!("{error:?}") };
    assert!(source.to_string().contains("644"), "{source}");
}

#[tokio::test]
async fn each_share_has_a_ticket_of_its_own_and_what_a_lost_node_had_is_given_to_nobody() {
    let world = world();
    let node = |name: &str| Share::Node(name.parse().unwrap());
    let [a, b] = ["node-a", "node-b"].map(|name| shared("tsfoo", AccountMode::Keytab, node(name)));
    let first = world.ticket(&a).await.unwrap();
    let other = world.ticket(&b).await.unwrap();
    assert_ne!(first.ticket, other.ticket);
    assert_eq!(world.ticket(&a).await.unwrap().ticket, first.ticket);
    assert_eq!(world.realm.tickets(), 2);

    let mut lease = crate::lease::tests::lease(1);
    lease.tickets = vec![a.account.clone()];
    world.tickets.forget_for(&lease); // it is on node-a
    assert_ne!(world.ticket(&a).await.unwrap().ticket, first.ticket);
    assert_eq!(world.ticket(&b).await.unwrap().ticket, other.ticket, "the others keep theirs");
    world.tickets.forget(&a.account.client);
    assert!(world.tickets.kept(&a).is_none() && world.tickets.kept(&b).is_none());
}

#[tokio::test]
async fn only_a_ticket_that_others_have_too_is_at_hand_before_there_is_a_lease() {
    let world = world();
    let node = "node-a".parse().unwrap();
    let lease = Share::Lease(LeaseId::from_random([1; 16]));
    for (share, is_at_hand) in [(Share::All, true), (lease, false)] {
        let ticket = shared("tsfoo", AccountMode::Keytab, share);
        let accounts = [ticket.account.clone()];
        assert!(world.tickets.at_hand(&accounts, &node).is_none());
        world.ticket(&ticket).await.unwrap();
        assert_eq!(world.tickets.at_hand(&accounts, &node).is_some(), is_at_hand);
    }
}

#[tokio::test]
async fn what_is_not_in_use_is_forgotten_when_it_has_ended_and_a_lease_s_own_at_once() {
    let world = world();
    let lease = Share::Lease(LeaseId::from_random([1; 16]));
    let own = shared("tsfoo", AccountMode::Keytab, lease);
    world.ticket(&own).await.unwrap();
    world.ticket(&world.account).await.unwrap();
    world.tickets.forget_unused(|_| true);
    assert_eq!(world.tickets.slots().len(), 2);
    world.tickets.forget_unused(|_| false);
    assert_eq!(world.tickets.slots().keys().collect::<Vec<_>>(), [&world.account]);
    world.clock.advance(LIFE);
    world.tickets.forget_unused(|_| false);
    assert!(world.tickets.slots().is_empty());
}

#[tokio::test]
async fn after_a_start_the_many_tickets_of_an_account_are_due_in_time_and_not_all_at_once() {
    let world = world();
    let latest = world.clock.now().wall + LIFE; // the one that was fetched last, now
    let oldest = latest - LIFE / 2; // the end of one that was due when that was fetched
    let due: Vec<SystemTime> = (0..100)
        .map(|n| {
            let node = Share::Node(format!("node-{n}").parse().unwrap());
            let ticket = shared("tsfoo", AccountMode::Keytab, node);
            world.tickets.refresh_at(&ticket, Some(latest))
        })
        .collect();
    let (first, last) = (due.iter().min().unwrap(), due.iter().max().unwrap());
    assert!(*last + LIFE / 4 <= oldest, "{last:?} {oldest:?}");
    assert!(last.duration_since(*first).unwrap() > LIFE / 5, "{first:?} {last:?}");
    let all = world.tickets.refresh_at(&world.account, Some(latest));
    assert_eq!(all, latest - LIFE / 2);
}

#[tokio::test]
async fn a_managed_account_s_ticket_is_fetched_with_the_key_that_the_kdc_has_of_two() {
    let world = world();
    let managed = shared("tsmanaged", AccountMode::Managed, Share::All);
    let client = &managed.account.client;
    let error = world.ticket(&managed).await.unwrap_err();
    let not_made =
        matches!(&error, TicketError::Keys { source: AccountKeyError::NotMade { .. }, .. });
    assert!(not_made, "{error:?}");

    let attributes = Attributes::role_account(LIFE);
    world.realm.create(client, &attributes).await.unwrap();
    let (first, second) = (contract::keys(2), contract::keys(3));
    world.realm.activate(client, &first, &attributes).await.unwrap();
    let activating = |keyset: &Keyset| {
        world.book.note(|ledger, now| {
            let _ = ledger.add_keyset(client, keyset.clone(), now.wall);
            let step = Step::Activate { kvno: keyset.kvno, without: Vec::new() };
            assert!(ledger.take_step(client, &step, now.wall));
        });
    };
    world.book.note(|ledger, now| {
        ledger.take_up_accounts(&accounts::grant(&[&managed.account]), LIFE, now.wall);
    });
    activating(&first);
    world.book.note(|ledger, now| ledger.became_current(client, first.kvno, now.wall));
    world.ticket(&managed).await.unwrap();
    // it is being replaced: before and after the KDC has the new one
    activating(&second);
    world.tickets.forget(client);
    world.ticket(&managed).await.unwrap();
    world.realm.activate(client, &second, &attributes).await.unwrap();
    world.tickets.forget(client);
    world.ticket(&managed).await.unwrap();
    assert_eq!(world.realm.tickets(), 3);
    // a lease from before the account was managed says `keytab`, and there is no such file
    let before = shared("tsmanaged", AccountMode::Keytab, Share::All);
    world.ticket(&before).await.unwrap();
}

#[tokio::test]
async fn what_is_asked_counts_as_what_it_is_for() {
    let world = world();
    world.tickets.ticket(&world.account, Class::LateRefresh).await.unwrap();
    assert_eq!((world.realm.asked(Class::LateRefresh), world.realm.asked(Class::PodStart)), (1, 0));
}
