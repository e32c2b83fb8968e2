//! What every realm promises the broker, whatever kind it is: the fake and the real ones pass
//! the same functions. Each is given a principal that does not exist yet.

use std::time::{Duration, SystemTime};

use krb_proto::{Kvno, Principal};

use super::{AccountKeys, Attributes, Kdc, KdcError, KeyAdmin};
use crate::{
    clock::SystemEntropy,
    krb5::key::{Enctype, Keyset},
};

const HOUR: Duration = Duration::from_secs(3_600);
/// A service of the broker's: no client.
pub const SERVICE: Attributes = Attributes { max_life: HOUR, client: false };

/// New keys of this number, of the two enctypes that every KDC has.
pub fn keys(kvno: u32) -> Keyset {
    let enctypes = [Enctype::Aes256Sha1, Enctype::Aes128Sha1];
    Keyset::random(Kvno(kvno), &enctypes, &SystemEntropy, SystemTime::UNIX_EPOCH)
}

/// A principal is made without a key, and made twice is made once.
pub async fn a_new_principal_has_no_key(realm: &dyn KeyAdmin, principal: &Principal) {
    assert_eq!(realm.inspect(principal).await.expect("inspect"), None);
    realm.create(principal, &SERVICE).await.expect("create");
    realm.create(principal, &SERVICE).await.expect("create again");
    let state = realm.inspect(principal).await.expect("inspect").expect("it exists");
    assert_eq!(state.kvno, None);
    assert!(state.policy.is_some());
    assert_eq!((state.max_life, state.max_renewable_life), (HOUR, Duration::ZERO));
    assert!(state.password_expired && state.allows_svr);
    assert!(!state.disabled && !state.requires_preauth);
}

/// A create of what is there with other attributes gives it these.
pub async fn a_repeated_create_brings_the_attributes(realm: &dyn KeyAdmin, principal: &Principal) {
    realm.create(principal, &SERVICE).await.expect("create");
    let other = Attributes { max_life: HOUR / 2, client: true };
    realm.create(principal, &other).await.expect("create with other attributes");
    let state = realm.inspect(principal).await.expect("inspect").expect("it exists");
    assert_eq!(state.max_life, HOUR / 2);
    assert!(!state.password_expired);
}

/// Activation sets the exact kvno, may be repeated, and leaves the principal no client.
pub async fn what_was_activated_is_found(realm: &dyn KeyAdmin, principal: &Principal) {
    realm.create(principal, &SERVICE).await.expect("create");
    for kvno in [2, 3, 7, 256, 258] {
        let keyset = keys(kvno);
        realm.activate(principal, &keyset, &SERVICE).await.expect("activate");
        realm.activate(principal, &keyset, &SERVICE).await.expect("activate again");
        let state = realm.inspect(principal).await.expect("inspect").expect("it exists");
        assert_eq!(state.kvno, Some(Kvno(kvno)));
        assert!(state.password_expired, "setting a key must not make a client of it");
    }
}

/// Where it may be a client, activation leaves it one.
pub async fn a_client_stays_a_client(realm: &dyn KeyAdmin, principal: &Principal) {
    let client = Attributes { max_life: HOUR, client: true };
    realm.create(principal, &client).await.expect("create");
    realm.activate(principal, &keys(2), &client).await.expect("activate");
    let state = realm.inspect(principal).await.expect("inspect").expect("it exists");
    assert!(!state.password_expired);
}

/// A kvno is never lowered, nor made longer than the KDC keeps, nor is the first one a foreign
/// key's.
pub async fn a_kvno_only_rises(realm: &dyn KeyAdmin, principal: &Principal) {
    realm.create(principal, &SERVICE).await.expect("create");
    realm.activate(principal, &keys(9), &SERVICE).await.expect("activate");
    let refused = realm.activate(principal, &keys(5), &SERVICE).await;
    let in_the_way =
        matches!(refused, Err(KdcError::KvnoInTheWay { found: Kvno(9), wanted: Kvno(5), .. }));
    assert!(in_the_way, "{refused:?}");
    for wrong in [0, 1, realm.abilities().max_kvno.0 + 1] {
        assert!(realm.activate(principal, &keys(wrong), &SERVICE).await.is_err(), "{wrong}");
    }
    let state = realm.inspect(principal).await.expect("inspect").expect("it exists");
    assert_eq!(state.kvno, Some(Kvno(9)));
}

/// Keys are set on no principal that does not exist.
pub async fn nothing_is_activated_unmade(realm: &dyn KeyAdmin, principal: &Principal) {
    let refused = realm.activate(principal, &keys(2), &SERVICE).await;
    assert!(matches!(&refused, Err(KdcError::Unknown { principal: who }) if who == principal));
    assert_eq!(realm.inspect(principal).await.expect("inspect"), None);
}

/// The realm's own names are refused, whether they exist or not.
pub async fn reserved_names_are_refused(realm: &dyn KeyAdmin, principal: &Principal) {
    let of_the_realm = principal.realm();
    for name in [["krbtgt", "EVIL"], ["KRBTGT", "EVIL"], ["kadmin", "evil"], ["host", "web"]] {
        let name = Principal::new(&name, of_the_realm).expect("a name");
        let created = realm.create(&name, &SERVICE).await;
        assert!(matches!(created, Err(KdcError::Denied { .. })), "{name}: {created:?}");
        let activated = realm.activate(&name, &keys(2), &SERVICE).await;
        assert!(matches!(activated, Err(KdcError::Denied { .. })), "{name}: {activated:?}");
    }
}

/// A principal that exists and lacks the policy (`foreign`) is neither adopted nor changed.
pub async fn what_is_not_the_brokers_stays_as_it_is(realm: &dyn KeyAdmin, foreign: &Principal) {
    let before = realm.inspect(foreign).await.expect("inspect").expect("it exists");
    let created = realm.create(foreign, &SERVICE).await;
    assert!(matches!(created, Err(KdcError::NotManaged { .. })), "{created:?}");
    let activated = realm.activate(foreign, &keys(200), &SERVICE).await;
    assert!(matches!(activated, Err(KdcError::NotManaged { .. })), "{activated:?}");
    let after = realm.inspect(foreign).await.expect("inspect").expect("it exists");
    assert_eq!(after, before);
}

/// Each KDC issues tickets with the key that was activated; of an absent service it knows none.
pub async fn every_kdc_uses_what_was_activated(
    admin: &dyn KeyAdmin,
    kdc: &dyn Kdc,
    principal: &Principal,
) {
    for seen in kdc.observe(principal).await {
        assert_eq!(seen.kvno, Ok(None), "{} knew it before", seen.kdc);
    }
    admin.create(principal, &SERVICE).await.expect("create");
    for kvno in [2, 3, 300] {
        admin.activate(principal, &keys(kvno), &SERVICE).await.expect("activate");
        let observed = kdc.observe(principal).await;
        assert!(!observed.is_empty());
        for seen in observed {
            assert_eq!(seen.kvno, Ok(Some(Kvno(kvno))), "at {}", seen.kdc);
        }
    }
}

/// An account gets a ticket of its own, as long as asked; not with another key, nor unknown.
pub async fn an_account_gets_its_ticket(kdc: &dyn Kdc, account: &AccountKeys) {
    let ticket = kdc.tgt(account, HOUR).await.expect("a ticket");
    assert_eq!(ticket.client, account.client);
    assert_eq!(ticket.server, Principal::krbtgt(account.client.realm()));
    let life = ticket.endtime.duration_since(ticket.starttime).expect("it ends after it starts");
    assert!(life <= HOUR && life > HOUR / 2, "{life:?}");
    assert_eq!(ticket.renew_till, None);

    let kvno = account.keysets.iter().map(|keyset| keyset.kvno.0).max().expect("it has keys");
    let stale = AccountKeys { client: account.client.clone(), keysets: vec![keys(kvno)] };
    let refused = kdc.tgt(&stale, HOUR).await;
    assert!(matches!(refused, Err(KdcError::KeyRejected { .. })), "{refused:?}");

    let nobody = Principal::new(&["nobody-of-that-name"], account.client.realm()).expect("a name");
    let stranger = AccountKeys { client: nobody, keysets: account.keysets.clone() };
    let refused = kdc.tgt(&stranger, HOUR).await;
    assert!(matches!(refused, Err(KdcError::Unknown { .. })), "{refused:?}");
}
