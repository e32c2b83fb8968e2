//! What every realm promises the broker, whatever kind it is: the fake and the real ones pass
//! the same functions. Each is given a principal that does not exist yet.

use std::time::{Duration, SystemTime};

use krb_proto::{Kvno, Principal};

use super::{AccountKeys, Attributes, Finding, Kdc, KdcError, KeyAdmin, PrincipalState};
use crate::{
    clock::{Boottime, SystemEntropy},
    krb5::key::{Enctype, Keyset},
};

const HOUR: Duration = Duration::from_secs(3_600);
/// A service of the broker's: no client.
pub const SERVICE: Attributes = Attributes::service(HOUR, false);
/// A role account of the broker's.
pub const ROLE_ACCOUNT: Attributes = Attributes::role_account(HOUR);

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
    let other = Attributes::service(HOUR / 2, true);
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
    let client = Attributes::service(HOUR, true);
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
        let disabled = realm.set_disabled(&name, true).await;
        assert!(matches!(disabled, Err(KdcError::Denied { .. })), "{name}: {disabled:?}");
        let deleted = realm.delete(&name).await;
        assert!(matches!(deleted, Err(KdcError::Denied { .. })), "{name}: {deleted:?}");
    }
}

/// A principal that exists and lacks the policy (`foreign`) is neither adopted nor changed.
pub async fn what_is_not_the_brokers_stays_as_it_is(realm: &dyn KeyAdmin, foreign: &Principal) {
    let before = realm.inspect(foreign).await.expect("inspect").expect("it exists");
    let created = realm.create(foreign, &SERVICE).await;
    assert!(matches!(created, Err(KdcError::NotManaged { .. })), "{created:?}");
    let activated = realm.activate(foreign, &keys(200), &SERVICE).await;
    assert!(matches!(activated, Err(KdcError::NotManaged { .. })), "{activated:?}");
    let disabled = realm.set_disabled(foreign, true).await;
    assert!(matches!(disabled, Err(KdcError::NotManaged { .. })), "{disabled:?}");
    let deleted = realm.delete(foreign).await;
    assert!(matches!(deleted, Err(KdcError::NotManaged { .. })), "{deleted:?}");
    let after = realm.inspect(foreign).await.expect("inspect").expect("it exists");
    assert_eq!(after, before);
}

/// A principal is disabled and enabled again, twice each; nothing else of it changes, and a new
/// key leaves it disabled.
pub async fn a_disabled_principal_stays_so_until_it_is_enabled(
    realm: &dyn KeyAdmin,
    principal: &Principal,
) {
    let unmade = realm.set_disabled(principal, true).await;
    assert!(matches!(&unmade, Err(KdcError::Unknown { principal: who }) if who == principal));
    realm.create(principal, &SERVICE).await.expect("create");
    realm.activate(principal, &keys(2), &SERVICE).await.expect("activate");
    let before = realm.inspect(principal).await.expect("inspect").expect("it exists");
    for disabled in [true, true, false, false, true] {
        realm.set_disabled(principal, disabled).await.expect("set disabled");
        let state = realm.inspect(principal).await.expect("inspect").expect("it exists");
        assert_eq!(state, PrincipalState { disabled, ..before.clone() });
    }
    realm.activate(principal, &keys(3), &SERVICE).await.expect("activate");
    let state = realm.inspect(principal).await.expect("inspect").expect("it exists");
    let expected = PrincipalState { disabled: true, kvno: Some(Kvno(3)), ..before };
    assert_eq!(state, expected);
}

/// What is deleted is gone, twice too, and can be made again; what never was can be deleted.
pub async fn what_is_deleted_is_gone_and_may_be_made_again(
    realm: &dyn KeyAdmin,
    principal: &Principal,
) {
    realm.delete(principal).await.expect("delete what is not there");
    realm.create(principal, &SERVICE).await.expect("create");
    realm.activate(principal, &keys(7), &SERVICE).await.expect("activate");
    for _ in 0..2 {
        realm.delete(principal).await.expect("delete");
        assert_eq!(realm.inspect(principal).await.expect("inspect"), None);
    }
    realm.create(principal, &SERVICE).await.expect("create again");
    realm.activate(principal, &keys(8), &SERVICE).await.expect("activate");
    let state = realm.inspect(principal).await.expect("inspect").expect("it exists");
    assert_eq!(state.kvno, Some(Kvno(8)));
}

/// A role account must preauthenticate, is a client, and takes no tickets, also after a new key.
pub async fn a_role_account_is_made_as_one(realm: &dyn KeyAdmin, principal: &Principal) {
    let is_one = |state: Option<PrincipalState>| {
        let state = state.expect("it exists");
        assert!(state.requires_preauth && !state.allows_svr, "{state:?}");
        assert!(!state.password_expired && state.policy.is_some(), "{state:?}");
        assert_eq!(state.max_renewable_life, Duration::ZERO);
    };
    realm.create(principal, &ROLE_ACCOUNT).await.expect("create");
    realm.create(principal, &ROLE_ACCOUNT).await.expect("create again");
    is_one(realm.inspect(principal).await.expect("inspect"));
    for kvno in [2, 3] {
        realm.activate(principal, &keys(kvno), &ROLE_ACCOUNT).await.expect("activate");
        is_one(realm.inspect(principal).await.expect("inspect"));
    }
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

/// Each KDC's ticket opens with the key that was activated, and with no other.
pub async fn every_kdc_is_checked_against_the_held_key(
    admin: &dyn KeyAdmin,
    kdc: &dyn Kdc,
    principal: &Principal,
) {
    let found = async |keyset: &Keyset| {
        let checked = kdc.check(principal, keyset).await;
        assert!(!checked.is_empty());
        checked.into_iter().map(|checked| checked.finding).collect::<Vec<_>>()
    };
    let all = |finding: Finding| move |found: &Vec<Finding>| found.iter().all(|f| *f == finding);
    let (held, next) = (keys(4), keys(5));
    let before = found(&held).await;
    assert!(all(Finding::Unknown)(&before), "{before:?}");
    admin.create(principal, &SERVICE).await.expect("create");
    admin.activate(principal, &held, &SERVICE).await.expect("activate");
    for (keyset, finding) in [
        (&held, Finding::Same),
        (&next, Finding::Older(Kvno(4))),
        (&keys(4), Finding::Foreign(Kvno(4))),
        (&keys(3), Finding::Foreign(Kvno(4))),
    ] {
        let seen = found(keyset).await;
        assert!(all(finding.clone())(&seen), "{finding:?}: {seen:?}");
    }
    admin.set_disabled(principal, true).await.expect("disable");
    let disabled = found(&held).await;
    assert!(all(Finding::Unknown)(&disabled), "{disabled:?}");
}

/// Each KDC says whether it accepts the newest key of a role account, and of no other.
pub async fn a_role_account_is_observed_by_its_newest_key(
    admin: &dyn KeyAdmin,
    kdc: &dyn Kdc,
    client: &Principal,
) {
    let found = async |keysets: &[&Keyset]| {
        let keysets = keysets.iter().map(|&keyset| keyset.clone()).collect();
        let seen = kdc.observe_account(&AccountKeys { client: client.clone(), keysets }).await;
        assert!(!seen.is_empty());
        seen.into_iter().map(|seen| seen.kvno).collect::<Vec<_>>()
    };
    let (first, second) = (keys(2), keys(3));
    assert!(found(&[&first]).await.iter().all(|kvno| *kvno == Ok(None)), "it is not there yet");
    admin.create(client, &ROLE_ACCOUNT).await.expect("create");
    admin.activate(client, &first, &ROLE_ACCOUNT).await.expect("activate");
    assert!(found(&[&first]).await.iter().all(|kvno| *kvno == Ok(Some(Kvno(2)))));
    let lagging = found(&[&first, &second]).await;
    assert!(lagging.iter().all(|kvno| *kvno == Ok(Some(Kvno(2)))), "not set yet: {lagging:?}");
    admin.activate(client, &second, &ROLE_ACCOUNT).await.expect("activate");
    assert!(found(&[&second, &first]).await.iter().all(|kvno| *kvno == Ok(Some(Kvno(3)))));
    for seen in kdc.observe(client).await {
        assert!(seen.kvno.is_err(), "nobody gets a ticket to it: {seen:?}");
    }
    admin.set_disabled(client, true).await.expect("disable");
    assert!(found(&[&second]).await.iter().all(Result::is_err), "only kadmin can tell now");
}

/// A KDC's clock is known once a reply was decrypted, not before.
pub async fn a_clock_is_read_from_a_decrypted_reply(kdc: &dyn Kdc, ahead: i64) {
    assert_eq!(kdc.clocks(), []);
    kdc.probe_clock().await;
    let clocks = kdc.clocks();
    assert_eq!(clocks.len(), 1, "one exchange, with the first: {clocks:?}");
    assert!((clocks[0].offset.0 - ahead).abs() <= 2, "{clocks:?}");
    assert!(clocks[0].at > Boottime::default());
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
