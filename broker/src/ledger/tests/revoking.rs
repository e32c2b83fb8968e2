//! What is taken away, and what must not be.

use super::*;
use crate::{
    keys::{due::Kind, walk::WalkRules},
    ledger::{revoking::Hit, sessions::NotServed},
    session::Cause,
};

/// Two holders of the same principal on two nodes.
fn two_holders() -> (World, LeaseId, LeaseId) {
    let mut world = World::new();
    let grant = grant("tsfoo", &[1], false);
    for n in [1, 2] {
        world.attach(n, None);
    }
    let one = world.issue(1, 1, &grant).unwrap();
    let two = world.issue(2, 2, &grant).unwrap();
    (world, one, two)
}

fn due(world: &World) -> Option<Kind> {
    world.ledger.due(&principal(1), world.wall(), &WalkRules::default())
}

#[test]
fn a_lease_of_a_generation_that_has_passed_is_never_used_again() {
    let (mut world, one, _) = two_holders();
    let passed = world.generation(1);
    let cause = Cause::Evicted { by: "operator:olga".to_owned() };
    world.ledger.lose(&node(1), &cause, world.wall()).unwrap();
    assert_eq!(world.ledger.check_issue(&node(1), passed), Err(NotServed::Fenced));
    // a lease of it that got in all the same
    let (holder, grant, now) = (world.holder(1, 9), grant("tsfoo", &[1], false), world.wall());
    let late = LeaseId::from_random([99; 16]);
    world.ledger.admit(late, holder.clone(), passed, &grant, now).unwrap();
    world.attach(1, None);
    let next = LeaseId::from_random([98; 16]);
    let admitted = world.ledger.admit(next, holder, world.generation(1), &grant, now).unwrap();
    assert_eq!((admitted.lease, admitted.superseded), (next, Some(late)));
    assert_eq!(world.state(&one), LeaseState::Revoking);
}

#[test]
fn an_emergency_replaces_the_key_that_is_on_its_way_too() {
    let (mut world, _, two) = two_holders();
    let (name, now) = (principal(1), world.wall());
    world.ledger.ask_rekey(&name, Kind::Scheduled);
    let keyset = Keyset::random(Kvno(3), &[Enctype::Aes256Sha1], &SeededEntropy::new(3), now);
    world.ledger.add_keyset(&name, keyset, now).unwrap();
    world.ledger.take_step(&name, &Step::Distribute(Kvno(3)), now);
    world.ledger.deliver(&two).unwrap();

    world.ledger.ask_rekey(&name, Kind::Emergency);
    assert!(matches!(
        world.ledger.next_step(&name, now, &WalkRules::default()),
        Step::Burn { kvno: Kvno(3), .. }
    ));
}

#[test]
fn a_compromised_key_that_retires_already_leaves_at_once_and_nothing_else_is_owed() {
    let (mut world, one, two) = two_holders();
    world.ledger.release(&one, "its pod is gone", world.wall());
    world.rotate(&principal(1));
    world.ledger.deliver(&two).unwrap();
    let now = world.wall();
    let given = world.ledger.given_to(&principal(1), &node(1)).unwrap();
    assert_eq!(given, Kvno(2), "the node had the old one only");

    world.ledger.burn_through(&principal(1), given);
    world.ledger.be_abrupt(&principal(1), given, now);
    world.ledger.go_ahead(&principal(1));
    let managed = world.ledger.principal(&principal(1)).unwrap();
    assert_eq!(managed.delivered_kvnos(), [Kvno(3)]);
    assert!(managed.debt.is_none(), "a later replacement breaks nothing: {:?}", managed.debt);
    assert_eq!(due(&world), None);
}

#[test]
fn a_revocation_of_one_lease_is_done_when_its_numbers_are_replaced_though_its_node_lives_on() {
    let (mut world, one, two) = two_holders();
    let Hit { leases, revoked, principals } = world.ledger.revoke(&[one], "said so", world.wall());
    assert_eq!((leases, revoked, principals.len()), (vec![one], vec![], 1));
    assert_eq!(due(&world), Some(Kind::Revocation));
    world.rotate(&principal(1));
    assert_eq!(world.ledger.finish_revoking(&principal(1)), [one]);
    assert_eq!((world.state(&two), due(&world)), (LeaseState::Active, None));
}

#[test]
fn after_a_recovery_every_key_is_replaced_above_what_may_have_been_used() {
    let (mut world, _, _) = two_holders();
    world.ledger.replace_every_key();
    assert_eq!(due(&world), Some(Kind::Revocation));
    assert!(world.ledger.principal(&principal(1)).unwrap().next_kvno().unwrap() > Kvno(10));
}

#[test]
fn a_clock_that_jumps_between_two_changes_is_in_doubt_at_the_second() {
    let (mut world, _, _) = two_holders();
    world.ledger.see_clock(world.clock.now());
    world.clock.advance(Duration::from_secs(3600));
    world.ledger.see_clock(world.clock.now());
    assert_eq!(world.ledger.clock_fault(), None, "time that passes is no jump");
    let mut jumped = world.clock.now();
    jumped.wall -= Duration::from_secs(3600);
    world.ledger.see_clock(jumped);
    assert!(world.ledger.clock_fault().is_some());
}
