//! The client of the KDCs on a real realm: the contract that the fake passes too, and what only
//! real KDCs do: being away, lagging, being asked and counting it.

use std::{sync::Arc, time::Duration};

use krb_broker::{
    clock::{Clock, Now, SystemClock, SystemEntropy},
    kdc::{
        AccountKeys, Finding, Kdc as _, KdcError, KeyAdmin as _,
        client::RealmClient,
        contract::{self, SERVICE, keys},
        gate::Class,
    },
    krb5::key::{Enctype, Keyset},
};
use krb_proto::{Kvno, Principal};
use krb_tests::{
    adapters::{account_keys, client_settings, mit_admin, realm_client, wide_gate},
    realm::{Options, Realm},
};

const HOUR: Duration = Duration::from_secs(3_600);

fn name(name: &str) -> Principal {
    format!("{name}@TEST.EXAMPLE.COM").parse().expect("a principal")
}

fn account(realm: &Realm, login: &str) -> AccountKeys {
    let keytab = realm.add_role_account(login).expect("an account");
    account_keys(name(login), &keytab)
}

fn two_kdcs() -> Realm {
    Realm::with_options(Options { kdcs: 2, ..Options::default() }).expect("a realm")
}

#[tokio::test]
async fn mit_keeps_the_contract_of_a_kdc() {
    let realm = Realm::start().unwrap();
    let gate = wide_gate();
    let (admin, kdc) = (mit_admin(&realm, &gate).unwrap(), realm_client(&realm, &gate));
    contract::every_kdc_uses_what_was_activated(&admin, &kdc, &name("HTTP/a.example.com")).await;
    contract::an_account_gets_its_ticket(&kdc, &account(&realm, "tsfoo")).await;
}

#[tokio::test]
async fn mit_keeps_the_contract_of_what_is_checked_and_observed() {
    let realm = Realm::start().unwrap();
    let gate = wide_gate();
    let (admin, kdc) = (mit_admin(&realm, &gate).unwrap(), realm_client(&realm, &gate));
    contract::a_clock_is_read_from_a_decrypted_reply(&kdc, 0).await;
    let service = name("HTTP/b.example.com");
    contract::every_kdc_is_checked_against_the_held_key(&admin, &kdc, &service).await;
    let managed = name("tsmanaged");
    contract::a_role_account_is_observed_by_its_newest_key(&admin, &kdc, &managed).await;
}

/// The machine's clock, so many seconds behind.
struct Behind(u64);

impl Clock for Behind {
    fn now(&self) -> Now {
        let now = SystemClock.now();
        Now { wall: now.wall - Duration::from_secs(self.0), ..now }
    }
}

#[tokio::test]
async fn a_clock_that_is_too_far_off_for_kerberos_is_measured_all_the_same() {
    let realm = Realm::start().unwrap();
    let (clock, entropy) = (Arc::new(Behind(1_000)), Arc::new(SystemEntropy));
    let kdc = RealmClient::new(client_settings(&realm), wide_gate(), clock, entropy);
    contract::a_clock_is_read_from_a_decrypted_reply(&kdc, 1_000).await;
}

#[tokio::test]
async fn an_account_with_stronger_keys_than_the_realm_itself_gets_one_ticket_after_the_other() {
    let realm = Realm::start().unwrap(); // its krbtgt has keys of SHA-1 enctypes only
    let gate = wide_gate();
    let (admin, kdc) = (mit_admin(&realm, &gate).unwrap(), realm_client(&realm, &gate));
    let made_at = SystemClock.now().wall;
    let keyset = Keyset::random(Kvno(2), &Enctype::ALL, &SystemEntropy, made_at);
    let account = AccountKeys { client: name("tsmanaged"), keysets: vec![keyset.clone()] };
    admin.create(&account.client, &contract::ROLE_ACCOUNT).await.unwrap();
    admin.activate(&account.client, &keyset, &contract::ROLE_ACCOUNT).await.unwrap();
    for _ in 0..3 {
        kdc.tgt(&account, HOUR).await.unwrap();
    }
    assert_eq!(kdc.observe_account(&account).await[0].kvno, Ok(Some(Kvno(2))));
}

#[tokio::test]
async fn a_stale_replica_and_a_key_of_somebody_elses_are_told_apart() {
    let realm = two_kdcs();
    let gate = wide_gate();
    let (admin, kdc) = (mit_admin(&realm, &gate).unwrap(), realm_client(&realm, &gate));
    let (service, managed) = (name("HTTP/web.example.com"), name("tsmanaged"));
    let (old, new) = (keys(2), keys(3));
    for (principal, attributes) in [(&service, SERVICE), (&managed, contract::ROLE_ACCOUNT)] {
        admin.create(principal, &attributes).await.unwrap();
        admin.activate(principal, &old, &attributes).await.unwrap();
    }
    realm.propagate().unwrap();
    admin.activate(&service, &new, &SERVICE).await.unwrap();
    admin.activate(&managed, &new, &contract::ROLE_ACCOUNT).await.unwrap();
    let findings = || async {
        let checked = kdc.check(&service, &new).await;
        checked.into_iter().map(|checked| checked.finding).collect::<Vec<_>>()
    };
    let account = AccountKeys { client: managed, keysets: vec![old, new.clone()] };
    let observed = || async {
        let observed = kdc.observe_account(&account).await;
        observed.into_iter().map(|seen| seen.kvno.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(findings().await, [Finding::Same, Finding::Older(Kvno(2))]);
    assert_eq!(observed().await, [Some(Kvno(3)), Some(Kvno(2))]);
    realm.kadmin_local(&["cpw", "-randkey", "HTTP/web.example.com"]).unwrap();
    assert_eq!(findings().await, [Finding::Foreign(Kvno(4)), Finding::Older(Kvno(2))]);
    realm.propagate().unwrap();
    assert_eq!(findings().await, [Finding::Foreign(Kvno(4)), Finding::Foreign(Kvno(4))]);
    assert_eq!(observed().await, [Some(Kvno(3)), Some(Kvno(3))]);
}

#[tokio::test]
async fn a_request_counts_at_the_gate_as_what_it_is_for() {
    let realm = Realm::start().unwrap();
    let gate = wide_gate();
    let kdc = realm_client(&realm, &gate).for_class(Class::Revocation);
    let admin = mit_admin(&realm, &gate).unwrap().for_class(Class::Revocation);
    admin.create(&name("HTTP/web.example.com"), &SERVICE).await.unwrap();
    kdc.observe(&name("HTTP/web.example.com")).await;
    kdc.probe_clock().await;
    let [at_kdc, at_kadmin] = gate.counts().map(|lane| lane.passed);
    assert!(at_kdc[0] > 0 && at_kadmin[0] > 0, "{at_kdc:?} {at_kadmin:?}");
    assert_eq!(at_kdc[1..], [0, 0, 0, 1], "reading the clock is housekeeping, whoever asks");
    assert_eq!(at_kadmin[1..], [0; 4]);
}

#[tokio::test]
async fn the_second_ticket_of_an_account_takes_one_request_and_each_passes_the_gate() {
    let realm = Realm::start().unwrap();
    let gate = wide_gate();
    let kdc = realm_client(&realm, &gate);
    let tsfoo = account(&realm, "tsfoo");
    let asked = |realm: &Realm| realm.kdc_requests().as_requests;
    kdc.tgt(&tsfoo, HOUR).await.unwrap();
    assert_eq!(asked(&realm), 2, "the first asks which key");
    kdc.tgt(&tsfoo, HOUR).await.unwrap();
    assert_eq!(asked(&realm), 3);
    assert_eq!(gate.counts()[0].passed_in_all(), 3);
    let clocks = kdc.clocks();
    assert!(clocks.len() == 1 && clocks[0].offset.0.abs() <= 1, "{clocks:?}");
}

#[tokio::test]
async fn a_disabled_account_is_refused_and_named_so() {
    let realm = Realm::start().unwrap();
    let kdc = realm_client(&realm, &wide_gate());
    let tsfoo = account(&realm, "tsfoo");
    realm.kadmin_local(&["modprinc", "-allow_tix", "tsfoo"]).unwrap();
    let refused = kdc.tgt(&tsfoo, HOUR).await;
    assert!(matches!(&refused, Err(KdcError::Refused { .. })), "{refused:?}");
}

#[tokio::test]
async fn each_kdc_is_asked_on_its_own_and_a_stale_one_shows() {
    let realm = two_kdcs();
    let gate = wide_gate();
    let (admin, kdc) = (mit_admin(&realm, &gate).unwrap(), realm_client(&realm, &gate));
    let service = name("HTTP/web.example.com");
    let seen = || async {
        let observed = kdc.observe(&service).await;
        observed.into_iter().map(|seen| seen.kvno.unwrap()).collect::<Vec<_>>()
    };
    admin.create(&service, &SERVICE).await.unwrap();
    admin.activate(&service, &keys(2), &SERVICE).await.unwrap();
    assert_eq!(seen().await, [Some(Kvno(2)), None]);
    realm.propagate().unwrap();
    admin.activate(&service, &keys(3), &SERVICE).await.unwrap();
    assert_eq!(seen().await, [Some(Kvno(3)), Some(Kvno(2))]);
    realm.propagate().unwrap();
    assert_eq!(seen().await, [Some(Kvno(3)), Some(Kvno(3))]);
    let tickets = [0, 1].map(|kdc| realm.kdc_requests_at(kdc).tgs_requests);
    assert_eq!(tickets, [3, 3]);
}

#[tokio::test]
async fn while_the_first_kdc_is_away_the_second_answers_and_then_the_first_again() {
    let mut realm = two_kdcs();
    let kdc = realm_client(&realm, &wide_gate());
    let tsfoo = account(&realm, "tsfoo");
    realm.propagate().unwrap();
    realm.stop_kdc();
    kdc.tgt(&tsfoo, HOUR).await.unwrap();
    let health = kdc.health();
    assert_eq!((health[0].reachable, health[1].reachable), (false, true), "{health:?}");
    let observed = kdc.observe(&name("HTTP/web.example.com")).await;
    assert!(observed[0].kvno.is_err());
    assert_eq!(observed[1].kvno, Ok(None));
    realm.start_kdc().unwrap();
    // the pause after two failures is one second
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    kdc.tgt(&tsfoo, HOUR).await.unwrap();
    assert!(kdc.health()[0].reachable);
}

#[tokio::test]
async fn a_kdc_that_hangs_is_left_alone_after_two_failures() {
    let realm = two_kdcs();
    let kdc = realm_client(&realm, &wide_gate());
    let tsfoo = account(&realm, "tsfoo");
    realm.propagate().unwrap();
    realm.pause_kdc();
    for _ in 0..2 {
        kdc.tgt(&tsfoo, HOUR).await.unwrap();
    }
    let quick = tokio::time::timeout(Duration::from_millis(300), kdc.tgt(&tsfoo, HOUR)).await;
    quick.expect("the first is not waited for any more").unwrap();
}

#[tokio::test]
async fn a_key_that_only_a_stale_replica_refuses_is_asked_once_at_the_primary() {
    let realm = two_kdcs();
    let tsfoo = account(&realm, "tsfoo");
    realm.propagate().unwrap();
    let path = realm.dir().join("new.keytab");
    realm.ktadd("tsfoo", &path).unwrap(); // at the primary only
    let renewed = account_keys(tsfoo.client.clone(), &path);
    let gate = wide_gate();
    let kdc = realm_client(&realm, &gate);
    // the primary fails twice and is left alone, so the replica is asked first
    realm.pause_kdc();
    for _ in 0..2 {
        let refused = kdc.tgt(&renewed, HOUR).await;
        assert!(matches!(refused, Err(KdcError::KeyRejected { .. })), "{refused:?}");
    }
    realm.resume_kdc();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    kdc.tgt(&renewed, HOUR).await.unwrap();
    let nobody = kdc.tgt(&tsfoo, HOUR).await;
    assert!(matches!(nobody, Err(KdcError::KeyRejected { .. })), "{nobody:?}");
}

#[tokio::test]
async fn no_kdc_at_all_is_a_passing_state() {
    let mut realm = Realm::start().unwrap();
    let kdc = realm_client(&realm, &wide_gate());
    let tsfoo = account(&realm, "tsfoo");
    realm.stop_kdc();
    let away = kdc.tgt(&tsfoo, HOUR).await.unwrap_err();
    assert!(matches!(away, KdcError::Unavailable { .. }) && away.is_transient(), "{away:?}");
}

#[tokio::test]
async fn an_observer_whose_ticket_the_kdc_no_longer_takes_gets_a_new_one() {
    let mut realm = Realm::start().unwrap();
    let kdc = realm_client(&realm, &wide_gate());
    let service = name("HTTP/nobody.example.com");
    assert_eq!(kdc.observe(&service).await[0].kvno, Ok(None));
    realm.kadmin_local(&["cpw", "-randkey", "krbtgt/TEST.EXAMPLE.COM"]).unwrap();
    realm.stop_kdc();
    realm.start_kdc().unwrap();
    assert_eq!(kdc.observe(&service).await[0].kvno, Ok(None));
}
