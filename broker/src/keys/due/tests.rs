use std::time::UNIX_EPOCH;

use super::*;
use crate::{
    clock::SeededEntropy,
    kdc::Attributes,
    krb5::key::{Enctype, Keyset},
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A service whose tickets live for ten hours, with its first key in use.
fn service() -> ManagedPrincipal {
    let mut managed = ManagedPrincipal::new(
        "HTTP/web.tsfoo.svc.cluster.local@EXAMPLE.COM".parse().unwrap(),
        "tsfoo".parse().unwrap(),
        false,
        Attributes::service(10 * HOUR, false),
        UNIX_EPOCH,
    );
    replace(&mut managed, UNIX_EPOCH);
    managed
}

fn replace(managed: &mut ManagedPrincipal, now: SystemTime) -> Kvno {
    let kvno = managed.next_kvno().unwrap();
    let entropy = SeededEntropy::new(u64::from(kvno.0));
    managed.add(Keyset::random(kvno, &[Enctype::Aes256Sha1], &entropy, now), now).unwrap();
    managed.enter(kvno, Phase::Activating, now);
    managed.became_current(kvno, now);
    kvno
}

/// Keys whose tickets have ended leave the keytabs.
fn retire(managed: &mut ManagedPrincipal, now: SystemTime, times: &WalkTimes) {
    let over: Vec<Kvno> = managed
        .keysets
        .iter()
        .filter(|(_, held)| held.phase == Phase::Retiring)
        .filter(|(_, held)| held.since + managed.retirement(times) <= now)
        .map(|(kvno, _)| *kvno)
        .collect();
    over.into_iter().for_each(|kvno| managed.prune(kvno, now));
}

#[test]
fn a_day_on_which_nodes_die_all_the_time_has_no_more_than_twenty_replacements() {
    let (mut managed, times) = (service(), WalkTimes::default());
    let (mut replaced, mut most, mut longest) = (0, 0, Duration::ZERO);
    let mut owed_since = None;
    for minute in 0..24 * 60 {
        let now = UNIX_EPOCH + HOUR + minute * MINUTE;
        retire(&mut managed, now, &times);
        let owed = *owed_since.get_or_insert(now); // another node dies each minute
        if managed.begins(Kind::Revocation, now, &times) == Begins::Now {
            longest = longest.max(now.duration_since(owed).unwrap());
            replace(&mut managed, now);
            (replaced, owed_since) = (replaced + 1, None);
        }
        most = most.max(managed.keysets.len());
    }
    assert!((15..=20).contains(&replaced), "{replaced}");
    assert!(most < MAX_RETIRING + 2, "{most} keysets at a time, and one more on its way");
    assert!(longest <= 3 * HOUR, "a revocation waited for {longest:?}");
}

#[test]
fn the_first_two_replacements_wait_for_the_least_interval_only() {
    let (mut managed, times) = (service(), WalkTimes::default());
    let now = UNIX_EPOCH + HOUR;
    assert_eq!(managed.begins(Kind::Revocation, now, &times), Begins::Now);
    replace(&mut managed, now);
    let next = now + times.rekey_min_interval;
    assert_eq!(managed.begins(Kind::Scheduled, now, &times), Begins::At(next));
    assert_eq!(managed.begins(Kind::Revocation, next, &times), Begins::Now);
    assert_eq!(managed.begins(Kind::Emergency, now, &times), Begins::Now);
}

#[test]
fn an_emergency_makes_room_by_dropping_the_oldest() {
    let (mut managed, times) = (service(), WalkTimes::default());
    let now = UNIX_EPOCH + HOUR;
    (0..MAX_RETIRING).for_each(|_| {
        replace(&mut managed, now);
    });
    assert!(matches!(managed.begins(Kind::Revocation, now, &times), Begins::At(_)));
    assert_eq!(managed.begins(Kind::Emergency, now, &times), Begins::AfterDropping(Kvno(2)));
    managed.debt.ahead = true;
    assert_eq!(managed.begins(Kind::Revocation, now, &times), Begins::AfterDropping(Kvno(2)));
}

#[test]
fn what_is_owed_is_paid_by_a_higher_number_only() {
    let mut debt = Debt::default();
    debt.ask(Kind::Emergency);
    debt.ask(Kind::Scheduled);
    assert!(debt.is_abrupt(), "the more pressing wish stands");
    debt.burn_through(Kvno(7));
    debt.burn_through(Kvno(5));
    debt.is_paid_by(Kvno(7));
    let still = (debt.asked, debt.burnt_through, debt.is_abrupt());
    assert_eq!(still, (Some(Kind::Emergency), Some(Kvno(7)), true), "the thief may have 7 too");
    debt.is_paid_by(Kvno(8));
    assert!(debt.is_none());
}

#[test]
fn after_a_compromise_the_replaced_keys_leave_the_keytabs_at_once() {
    let mut managed = service();
    let now = UNIX_EPOCH + HOUR;
    replace(&mut managed, now);
    managed.debt.burn_through(Kvno(3));
    managed.debt.abrupt = true;
    let kvno = replace(&mut managed, now);
    assert_eq!(managed.delivered_kvnos(), [kvno]);
    assert!(managed.debt.is_none());
}
