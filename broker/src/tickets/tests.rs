use std::{fs, os::unix::fs::PermissionsExt as _};

use krb_proto::Kvno;

use super::*;
use crate::{
    clock::{SeededEntropy, TestClock},
    kdc::fake::FakeRealm,
    krb5::{
        key::{Enctype, Keyset},
        keytab::{self, KeytabEntry},
    },
};

const LIFE: Duration = Duration::from_secs(1_000);

struct World {
    tickets: Arc<Tickets>,
    realm: Arc<FakeRealm>,
    clock: Arc<TestClock>,
    account: GrantedTicket,
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
    let keytabs = AccountKeytabs::new(dir.path());
    let tickets = Tickets::new(realm.clone(), keytabs, times, clock.clone(), entropy);
    let account = GrantedTicket { login: "tsfoo".parse().unwrap(), client };
    World { tickets: Arc::new(tickets), realm, clock, account, dir }
}

#[tokio::test]
async fn the_same_question_asked_at_once_is_asked_once() {
    let world = world();
    world.realm.set_delay(Duration::from_millis(20));
    let asking = (0..50).map(|_| {
        let (tickets, account) = (world.tickets.clone(), world.account.clone());
        tokio::spawn(async move { tickets.ticket(&account).await.unwrap().endtime })
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
        let ticket = world.tickets.ticket(&world.account).await.unwrap();
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
    world.tickets.ticket(&world.account).await.unwrap();
    world.realm.set_kdcs_down(true);
    world.clock.advance(LIFE / 2);
    assert!(world.tickets.ticket(&world.account).await.is_ok());
    world.clock.advance(Duration::from_secs(1));
    let error = world.tickets.ticket(&world.account).await.unwrap_err();
    assert!(matches!(error, TicketError::Kdc { .. }), "{error:?}");
    assert!(world.tickets.kept(&world.account.login).is_some(), "pods that have it keep it");
}

#[tokio::test]
async fn a_keytab_that_others_can_read_is_not_used() {
    let world = world();
    let path = world.dir.path().join("tsfoo.keytab");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = world.tickets.ticket(&world.account).await.unwrap_err();
    let TicketError::Keys { source, .. } = error else { panic!("{error:?}") };
    assert!(source.to_string().contains("640"), "{source}");
}
