use super::*;
use crate::{clock::TestClock, kdc::contract};

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
}

#[tokio::test]
async fn the_fake_keeps_the_contract_of_a_kdc() {
    let realm = realm();
    contract::every_kdc_uses_what_was_activated(&realm, &realm, &name("HTTP/a@R")).await;
    let account = AccountKeys { client: name("tsfoo@R"), keysets: vec![contract::keys(3)] };
    realm.add_account(&account.client, account.keysets[0].clone());
    contract::an_account_gets_its_ticket(&realm, &account).await;
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
