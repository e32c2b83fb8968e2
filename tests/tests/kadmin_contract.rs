//! The adapter to MIT's kadmind on a real realm: the contract that the fake passes too, and what
//! only a real one does: being restarted, away, or set up wrongly.

use krb_broker::kdc::{
    KdcError, KeyAdmin as _,
    contract::{self, SERVICE, keys},
    gate::Lane,
    mit::{MitAdmin, StartupCheck},
};
use krb_proto::{Kvno, Principal};
use krb_tests::{
    adapters::{mit_admin, wide_gate},
    realm::{ADMIN, Options, POLICY, Realm},
};

fn admin(realm: &Realm) -> MitAdmin {
    mit_admin(realm, &wide_gate()).expect("the library")
}

fn name(realm: &Realm, name: &str) -> Principal {
    format!("{name}@{}", realm.name()).parse().expect("a principal")
}

#[tokio::test]
async fn mit_keeps_the_contract_of_an_administration() {
    let realm = Realm::start().unwrap();
    let admin = admin(&realm);
    contract::a_new_principal_has_no_key(&admin, &name(&realm, "HTTP/a.example.com")).await;
    let repeated = name(&realm, "HTTP/b.example.com");
    contract::a_repeated_create_brings_the_attributes(&admin, &repeated).await;
    contract::what_was_activated_is_found(&admin, &name(&realm, "HTTP/c.example.com")).await;
    contract::a_client_stays_a_client(&admin, &name(&realm, "HTTP/d.example.com")).await;
    contract::a_kvno_only_rises(&admin, &name(&realm, "HTTP/e.example.com")).await;
    contract::nothing_is_activated_unmade(&admin, &name(&realm, "HTTP/f.example.com")).await;
    contract::reserved_names_are_refused(&admin, &name(&realm, "HTTP/g.example.com")).await;
    realm.kadmin_local(&["addprinc", "-randkey", "HTTP/h.example.com"]).unwrap();
    let foreign = name(&realm, "HTTP/h.example.com");
    contract::what_is_not_the_brokers_stays_as_it_is(&admin, &foreign).await;
}

#[tokio::test]
async fn mit_keeps_the_contract_of_disabling_deleting_and_role_accounts() {
    let realm = Realm::start().unwrap();
    let admin = admin(&realm);
    let disabled = name(&realm, "HTTP/i.example.com");
    contract::a_disabled_principal_stays_so_until_it_is_enabled(&admin, &disabled).await;
    let deleted = name(&realm, "HTTP/j.example.com");
    contract::what_is_deleted_is_gone_and_may_be_made_again(&admin, &deleted).await;
    contract::a_role_account_is_made_as_one(&admin, &name(&realm, "tsmanaged")).await;
    let seen = realm.kadmin_local(&["getprinc", "tsmanaged"]).unwrap();
    let attributes = seen.lines().find(|line| line.starts_with("Attributes:")).unwrap();
    assert!(attributes.contains("REQUIRES_PRE_AUTH"), "{seen}");
    assert!(attributes.contains("DISALLOW_SVR"), "{seen}");
}

#[tokio::test]
async fn an_account_that_the_acl_does_not_name_is_not_made() {
    let realm = Realm::start().unwrap();
    let refused = admin(&realm).create(&name(&realm, "tsother"), &contract::ROLE_ACCOUNT).await;
    assert!(matches!(refused, Err(KdcError::Denied { operation: "add", .. })), "{refused:?}");
}

#[tokio::test]
async fn kadmind_itself_refuses_what_the_acl_does_not_name() {
    let realm = Realm::start().unwrap();
    let admin = admin(&realm);
    let refused = admin.create(&name(&realm, "ftp/web.example.com"), &SERVICE).await;
    assert!(matches!(refused, Err(KdcError::Denied { operation: "add", .. })), "{refused:?}");
}

#[tokio::test]
async fn the_same_kvno_set_by_somebody_else_is_in_the_way() {
    let realm = Realm::start().unwrap();
    let admin = admin(&realm);
    let service = name(&realm, "HTTP/web.example.com");
    admin.create(&service, &SERVICE).await.unwrap();
    admin.activate(&service, &keys(2), &SERVICE).await.unwrap();
    realm.kadmin_local(&["cpw", "-randkey", "HTTP/web.example.com"]).unwrap(); // kvno 3
    let refused = admin.activate(&service, &keys(3), &SERVICE).await;
    let found = matches!(refused, Err(KdcError::KvnoInTheWay { found: Kvno(3), .. }));
    assert!(found, "{refused:?}");
    admin.activate(&service, &keys(4), &SERVICE).await.unwrap();
}

#[tokio::test]
async fn a_restarted_kadmind_is_found_again_by_every_connection() {
    let mut realm = Realm::start().unwrap();
    let admin = admin(&realm);
    let service = name(&realm, "HTTP/web.example.com");
    let both = || async { tokio::join!(admin.inspect(&service), admin.inspect(&service)) };
    let (first, second) = both().await;
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    for _ in 0..3 {
        realm.stop_kadmind();
        realm.start_kadmind().unwrap();
        let (first, second) = both().await;
        assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    }
    assert!(admin.health().reachable);
}

#[tokio::test]
async fn while_kadmind_is_away_calls_say_so_and_later_ones_succeed() {
    let mut realm = Realm::start().unwrap();
    let admin = admin(&realm);
    let service = name(&realm, "HTTP/web.example.com");
    admin.create(&service, &SERVICE).await.unwrap();
    realm.stop_kadmind();
    let away = admin.activate(&service, &keys(2), &SERVICE).await.unwrap_err();
    assert!(matches!(away, KdcError::Unavailable { .. }), "{away:?}");
    assert!(!admin.health().reachable);
    realm.start_kadmind().unwrap();
    admin.activate(&service, &keys(2), &SERVICE).await.unwrap();
    assert!(admin.health().last_success.is_some());
}

#[tokio::test]
async fn every_request_that_kadmind_sees_passed_the_gate() {
    let realm = Realm::start().unwrap();
    let gate = wide_gate();
    let admin = mit_admin(&realm, &gate).unwrap();
    let service = name(&realm, "HTTP/web.example.com");
    admin.create(&service, &SERVICE).await.unwrap();
    for kvno in 2..10 {
        admin.activate(&service, &keys(kvno), &SERVICE).await.unwrap();
    }
    let [kdc, kadmin] = gate.counts();
    assert_eq!((kdc.lane, kadmin.lane), (Lane::Kdc, Lane::Kadmin));
    let seen: u64 = realm.kadmin_requests().values().sum();
    assert!(seen >= 8 * 4, "{:?}", realm.kadmin_requests());
    assert!(kadmin.passed_in_all() >= seen, "{kadmin:?} {:?}", realm.kadmin_requests());
    assert!(kdc.passed_in_all() >= realm.kdc_requests().total(), "{kdc:?}");
    assert_eq!(kadmin.in_flight, 0);
}

#[tokio::test]
async fn a_realm_that_is_set_up_right_passes_both_checks_and_nothing_changes() {
    let realm = Realm::start().unwrap();
    let admin = admin(&realm);
    let before = realm.kadmin_local(&["getprinc", ADMIN]).unwrap();
    assert_eq!(admin.check_policy().await.unwrap(), StartupCheck::Passed);
    assert_eq!(admin.check_rights().await.unwrap(), StartupCheck::Passed);
    let after = realm.kadmin_local(&["getprinc", ADMIN]).unwrap();
    let keys = |text: &str| {
        let lines =
            text.lines().filter(|line| line.starts_with("Key:") || line.contains("modified"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(keys(&after), keys(&before));
}

#[tokio::test]
async fn a_missing_or_weak_policy_is_named() {
    let realm =
        Realm::with_options(Options { policy_minlife: None, ..Options::default() }).unwrap();
    let policy = POLICY.to_owned();
    let unreadable = StartupCheck::PolicyUnreadable { policy: policy.clone() };
    assert_eq!(admin(&realm).check_policy().await.unwrap(), unreadable);
    // carried by name only: `modprinc -policy` takes a policy that does not exist
    realm.kadmin_local(&["modprinc", "-policy", POLICY, ADMIN]).unwrap();
    let missing = StartupCheck::PolicyMissing { policy: policy.clone() };
    assert_eq!(admin(&realm).check_policy().await.unwrap(), missing);
    realm.kadmin_local(&["addpol", "-minlife", "1d", POLICY]).unwrap();
    let weak = admin(&realm).check_policy().await.unwrap();
    assert!(matches!(weak, StartupCheck::MinLifeTooShort { .. }), "{weak:?}");
}

#[tokio::test]
async fn rights_that_are_too_wide_are_found_without_being_used() {
    let mut realm = Realm::start().unwrap();
    let admin_principal = realm.admin_principal();
    let before = realm.kadmin_local(&["getprinc", ADMIN]).unwrap();
    for (rights, right) in
        [("admsi */*", "set the key of"), ("m *", "modify"), ("*", "set the key of")]
    {
        realm.write_acl(&[format!("{admin_principal} {rights}")]).unwrap();
        realm.stop_kadmind();
        realm.start_kadmind().unwrap();
        let found = admin(&realm).check_rights().await.unwrap();
        let is_found =
            matches!(&found, StartupCheck::TooWide { right: what, .. } if *what == right);
        assert!(is_found, "{rights}: {found:?}");
    }
    let after = realm.kadmin_local(&["getprinc", ADMIN]).unwrap();
    let keys = |text: &str| text.lines().filter(|line| line.starts_with("Key:")).count();
    assert_eq!(keys(&after), keys(&before));
    assert!(realm.kadmin_local(&["getprinc", "krbtgt/krb-broker-probe"]).is_err());
}
