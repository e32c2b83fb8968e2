use super::*;
use crate::{
    clock::TestClock,
    kdc::{AccountKeys, Kdc, KeyAdmin, Observation, contract},
};

fn realm() -> FakeRealm {
    FakeRealm::new("R".parse().unwrap(), Arc::new(TestClock::default()))
}

fn name(text: &str) -> Principal {
    text.parse().unwrap()
}

#[tokio::test]
async fn the_fake_keeps_the_contract_of_an_administration() {
    let realm = realm();
    contract::a_new_principal_has_no_key(&realm, &name("HTTP/a@R")).await;
    contract::a_repeated_create_brings_the_attributes(&realm, &name("HTTP/b@R")).await;
    contract::what_was_activated_is_found(&realm, &name("HTTP/c@R")).await;
    contract::a_client_stays_a_client(&realm, &name("HTTP/d@R")).await;
    contract::a_kvno_only_rises(&realm, &name("HTTP/e@R")).await;
    contract::nothing_is_activated_unmade(&realm, &name("HTTP/f@R")).await;
    contract::reserved_names_are_refused(&realm, &name("HTTP/g@R")).await;
    realm.add_foreign(&name("HTTP/h@R"), contract::keys(4));
    contract::what_is_not_the_brokers_stays_as_it_is(&realm, &name("HTTP/h@R")).await;
    contract::a_disabled_principal_stays_so_until_it_is_enabled(&realm, &name("HTTP/i@R")).await;
    contract::what_is_deleted_is_gone_and_may_be_made_again(&realm, &name("HTTP/j@R")).await;
    contract::a_role_account_is_made_as_one(&realm, &name("tsmanaged@R")).await;
}

#[tokio::test]
async fn the_fake_keeps_the_contract_of_a_kdc() {
    let realm = realm();
    contract::every_kdc_uses_what_was_activated(&realm, &realm, &name("HTTP/a@R")).await;
    let account = AccountKeys { client: name("tsfoo@R"), keysets: vec![contract::keys(3)] };
    realm.add_account(&account.client, account.keysets[0].clone());
    contract::an_account_gets_its_ticket(&realm, &account).await;
    contract::every_kdc_is_checked_against_the_held_key(&realm, &realm, &name("HTTP/b@R")).await;
    let managed = name("tsmanaged@R");
    contract::a_role_account_is_observed_by_its_newest_key(&realm, &realm, &managed).await;
}

#[tokio::test]
async fn the_fake_tells_its_clock_like_a_kdc() {
    let realm = realm();
    realm.set_clock_offset(-90);
    contract::a_clock_is_read_from_a_decrypted_reply(&realm, -90).await;
    assert_eq!(realm.asked(Class::Housekeeping), 1);
}

#[tokio::test]
async fn a_request_counts_as_what_it_is_for() {
    let realm = realm();
    let admin = KeyAdmin::for_class(&realm, Class::Revocation);
    admin.create(&name("HTTP/a@R"), &contract::SERVICE).await.unwrap();
    Kdc::for_class(&realm, Class::Rotation).observe(&name("HTTP/a@R")).await;
    let counts = Class::ALL.map(|class| realm.asked(class));
    assert_eq!(counts, [1, 0, 0, 1, 0]);
    assert!(realm.inspect(&name("HTTP/a@R")).await.unwrap().is_some(), "it is the same realm");
}

#[tokio::test]
async fn a_replica_lags_until_it_is_propagated_to() {
    let realm = realm();
    let service = name("HTTP/a@R");
    realm.create(&service, &contract::SERVICE).await.unwrap();
    realm.activate(&service, &contract::keys(2), &contract::SERVICE).await.unwrap();
    realm.add_replica("kdc2");
    realm.activate(&service, &contract::keys(3), &contract::SERVICE).await.unwrap();
    let seen = |realm: Vec<Observation>| -> Vec<_> {
        realm.into_iter().map(|seen| seen.kvno.unwrap().unwrap().0).collect()
    };
    assert_eq!(seen(realm.observe(&service).await), [3, 2]);
    realm.propagate();
    assert_eq!(seen(realm.observe(&service).await), [3, 3]);
}

#[tokio::test]
async fn what_is_down_answers_nothing_and_comes_back() {
    let realm = realm();
    let service = name("HTTP/a@R");
    realm.set_kadmin_down(true);
    assert!(realm.create(&service, &contract::SERVICE).await.unwrap_err().is_transient());
    realm.set_kadmin_down(false);
    realm.create(&service, &contract::SERVICE).await.unwrap();
    realm.set_kdcs_down(true);
    assert!(realm.observe(&service).await[0].kvno.is_err());
}
