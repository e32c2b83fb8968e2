use std::{collections::BTreeMap, time::UNIX_EPOCH};

use krb_proto::{Generation, NodeName};
use proptest::prelude::*;

use super::*;
use crate::{
    clock::SeededEntropy,
    kdc::Attributes,
    keys::standing::SwitchedOff,
    krb5::key::{Enctype, Keyset},
    lease::Exposure,
};

const MAX_LIFE: Duration = Duration::from_secs(100);

fn principal() -> ManagedPrincipal {
    ManagedPrincipal::new(
        "HTTP/web.tsfoo.svc.cluster.local@EXAMPLE.COM".parse().unwrap(),
        "tsfoo".parse().unwrap(),
        false,
        Attributes::service(MAX_LIFE, false),
        UNIX_EPOCH,
    )
}

/// A principal, its holders on numbered nodes, and what each of them has: small enough to be
/// taken through any order of events.
struct World {
    principal: ManagedPrincipal,
    now: SystemTime,
    generations: BTreeMap<u8, u64>,
    /// Of each node's lease: the generation it was issued on, and the acknowledged keytab.
    holders: BTreeMap<u8, (u64, Option<BTreeSet<Kvno>>)>,
    /// Every (kvno, node) that a key was really given to.
    outside: BTreeSet<(Kvno, u8, u64)>,
    made: Vec<Kvno>,
    at_kdc: Option<Kvno>,
    times: WalkTimes,
    scheduled_at: Option<SystemTime>,
    clock_fault: bool,
}

fn node(n: u8) -> NodeName {
    format!("node-{n}").parse().unwrap()
}

impl World {
    fn new() -> Self {
        Self {
            principal: principal(),
            now: UNIX_EPOCH + Duration::from_secs(1_000_000),
            generations: BTreeMap::new(),
            holders: BTreeMap::new(),
            outside: BTreeSet::new(),
            made: Vec::new(),
            at_kdc: None,
            times: WalkTimes::default(),
            scheduled_at: None,
            clock_fault: false,
        }
    }

    fn generation(&self, n: u8) -> u64 {
        *self.generations.get(&n).unwrap_or(&1)
    }

    fn step(&self) -> Step {
        let generations = self.generations.clone();
        let fenced = move |(name, generation): &Recipient| {
            let n: u8 = name.as_str().trim_start_matches("node-").parse().unwrap();
            *generation < Generation(*generations.get(&n).unwrap_or(&1))
        };
        let view = WalkView {
            fenced: &fenced,
            holders: self
                .holders
                .iter()
                .map(|(n, (_, has))| HolderView {
                    lease: LeaseId::from_random([*n; 16]),
                    has: has.clone(),
                })
                .collect(),
            now: self.now,
            clock_fault: self.clock_fault,
            scheduled_at: self.scheduled_at,
            times: self.times,
        };
        self.principal.next_step(&view)
    }

    /// Gives the node what is delivered now, as a push or an issue does.
    fn give(&mut self, n: u8) {
        let generation = self.generation(n);
        for kvno in self.principal.delivered_kvnos() {
            let held = self.principal.keysets.get_mut(&kvno).unwrap();
            held.delivered_to.insert((node(n), Generation(generation)));
            self.outside.insert((kvno, n, generation));
        }
    }

    fn take_step(&mut self) -> Step {
        let step = self.step();
        match step.clone() {
            Step::Rest => {}
            Step::Wait { until, .. } => self.now = self.now.max(until),
            Step::Make => {
                let kvno = self.principal.next_kvno().unwrap();
                let entropy = SeededEntropy::new(u64::from(kvno.0));
                let keyset = Keyset::random(kvno, &[Enctype::Aes256Sha1], &entropy, self.now);
                self.principal.add(keyset, self.now).unwrap();
                self.made.push(kvno);
            }
            Step::Set(kvno) => {
                self.at_kdc = Some(kvno);
                self.principal.became_current(kvno, self.now);
            }
            Step::SwitchOff(how) => self.principal.went_off(how, self.now),
            recorded => {
                assert!(self.principal.take(&recorded, self.now), "{recorded:?}");
                if let Step::Distribute(_) = recorded {
                    let nodes: Vec<u8> = self.holders.keys().copied().collect();
                    nodes.into_iter().for_each(|n| self.give(n));
                }
            }
        }
        step
    }

    fn settle_until(&mut self, wanted: impl Fn(&Step) -> bool) {
        for _ in 0..100 {
            if wanted(&self.step()) {
                return;
            }
            self.take_step();
        }
        panic!("it does not come: {:?}", self.step());
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            match self.take_step() {
                Step::Rest => return,
                Step::Wait { what: Waiting::Removal { .. }, .. } => {
                    let nodes: Vec<u8> = self.holders.keys().copied().collect();
                    nodes.into_iter().for_each(|n| self.acknowledge(n));
                }
                _ => {}
            }
        }
        panic!("the walk does not end: {:?}", self.step());
    }

    fn acknowledge(&mut self, n: u8) {
        if !self.holders.contains_key(&n) {
            return;
        }
        self.give(n);
        let has = self.principal.delivered_kvnos().into_iter().collect();
        if let Some(holder) = self.holders.get_mut(&n) {
            holder.1 = Some(has);
        }
    }

    fn join(&mut self, n: u8) {
        if self.principal.is_ready() {
            self.give(n);
            self.holders.insert(n, (self.generation(n), None));
        }
    }

    fn lose(&mut self, n: u8) {
        self.holders.remove(&n);
        *self.generations.entry(n).or_insert(1) += 1;
    }

    fn check(&self) {
        let under_way = self.principal.keysets.values().filter(|h| h.phase.is_under_way()).count();
        let current = self.principal.keysets.values().filter(|h| h.phase == Phase::Current).count();
        assert!(under_way <= 1 && current <= 1);
        assert!(self.made.windows(2).all(|pair| pair[0] < pair[1]), "a kvno came twice");
        for (kvno, n, generation) in &self.outside {
            if let Some(held) = self.principal.keysets.get(kvno) {
                let recipient = (node(*n), Generation(*generation));
                assert!(held.delivered_to.contains(&recipient), "{kvno} is outside, unrecorded");
            }
        }
    }
}

#[test]
fn a_first_key_is_current_in_three_steps_and_then_rests() {
    let mut world = World::new();
    assert_eq!(world.take_step(), Step::Make);
    let kvno = Kvno::FIRST;
    assert_eq!(world.take_step(), Step::Activate { kvno, without: Vec::new() });
    assert!(!world.principal.is_ready(), "nothing is handed out before the KDC has it");
    assert_eq!(world.take_step(), Step::Set(kvno));
    assert_eq!(world.take_step(), Step::Rest);
    assert!(world.principal.is_ready());
}

#[test]
fn a_lost_node_s_key_is_replaced_after_the_others_have_the_new_one() {
    let mut world = World::new();
    world.settle();
    world.join(1);
    world.join(2);
    world.lose(1);
    assert!(!world.principal.is_replaced(Kvno(2)));

    assert_eq!(world.take_step(), Step::Make);
    let next = Kvno(3);
    assert_eq!(world.take_step(), Step::Distribute(next));
    let what = Waiting::Acknowledgements { kvno: next, from: vec![LeaseId::from_random([2; 16])] };
    assert!(matches!(world.step(), Step::Wait { what: w, .. } if w == what));
    world.acknowledge(2);
    assert_eq!(world.take_step(), Step::Activate { kvno: next, without: Vec::new() });
    assert!(!world.principal.is_replaced(Kvno(2)), "not before the KDCs use the new key");
    assert_eq!(world.take_step(), Step::Set(next));
    assert!(world.principal.is_replaced(Kvno(2)));
    assert_eq!(world.principal.delivered_kvnos(), [Kvno(2), next], "old tickets still work");
    assert_eq!(world.principal.exposure(Kvno(2)), Exposure::Open);

    let retired_at = world.now;
    world.settle();
    assert_eq!(world.principal.delivered_kvnos(), [next]);
    let Exposure::Until(until) = world.principal.exposure(Kvno(2)) else { panic!("still open") };
    let second = Duration::from_secs(1);
    assert!(until >= retired_at + MAX_LIFE + 2 * WalkTimes::default().clock_skew + second);
}

#[test]
fn a_holder_that_never_answers_delays_the_walk_and_is_named() {
    let mut world = World::new();
    world.settle();
    world.join(1);
    world.join(2);
    world.lose(1);
    world.take_step();
    world.take_step();
    assert!(matches!(world.take_step(), Step::Wait { .. })); // time passes
    let without = vec![LeaseId::from_random([2; 16])];
    assert_eq!(world.take_step(), Step::Activate { kvno: Kvno(3), without });
}

#[test]
fn no_step_is_taken_by_a_clock_that_is_in_doubt() {
    let mut world = World::new();
    world.settle();
    world.join(1);
    world.lose(1);
    for _ in 0..3 {
        world.clock_fault = true;
        assert!(matches!(world.step(), Step::Wait { what: Waiting::Clock, .. }));
        world.clock_fault = false;
        assert!(!matches!(world.take_step(), Step::Rest | Step::Wait { .. }));
    }
    assert_eq!(world.at_kdc, Some(Kvno(3)));
}

#[test]
fn a_key_that_was_about_to_be_switched_off_counts_as_used_until_the_next_one_is() {
    let mut world = World::new();
    world.settle();
    world.join(1);
    world.holders.clear();
    let (how, since) = (Off::Disabled, world.now);
    world.principal.switched_off = Some(SwitchedOff { how, by: None, since });
    assert_eq!(world.take_step(), Step::Leave(how));
    world.principal.switched_off = None;
    assert_eq!(world.take_step(), Step::Return);

    world.now += Duration::from_secs(50); // a KDC lags
    assert_eq!(world.take_step(), Step::Make);
    assert_eq!(world.principal.exposure(Kvno(2)), Exposure::Open);
    world.take_step();
    world.now += Duration::from_secs(50);
    assert_eq!(world.take_step(), Step::Set(Kvno(3)));
    let current_at = world.now;
    world.settle();
    let Exposure::Until(until) = world.principal.exposure(Kvno(2)) else { panic!("still open") };
    assert!(until >= current_at + MAX_LIFE + WalkTimes::default().clock_skew);
}

#[test]
fn a_number_that_a_lost_node_was_given_in_the_walk_is_burnt() {
    let mut world = World::new();
    world.settle();
    world.join(1);
    world.join(2);
    world.lose(1);
    world.take_step();
    assert_eq!(world.take_step(), Step::Distribute(Kvno(3)));
    world.lose(2);
    assert_eq!(world.take_step(), Step::Burn { kvno: Kvno(3), why: Burnt::Exposed });
    assert_eq!(world.take_step(), Step::Make);
    assert_eq!(world.principal.under_way().unwrap().keyset.kvno, Kvno(4));
    world.settle();
    assert!(world.principal.is_replaced(Kvno(3)));
}

#[test]
fn a_node_that_released_everything_and_then_died_is_rekeyed_all_the_same() {
    let mut world = World::new();
    world.settle();
    world.join(1);
    world.holders.clear();
    assert_eq!(world.step(), Step::Rest);
    world.lose(1);
    assert_eq!(world.step(), Step::Make);
}

#[test]
fn a_stored_keyset_never_changes() {
    let mut world = World::new();
    world.settle();
    let again = Keyset::random(Kvno(2), &[], &SeededEntropy::new(9), world.now);
    assert!(world.principal.add(again, world.now).is_err());
    world.principal.seen_at_kdc(Kvno(41));
    assert_eq!(world.principal.next_kvno(), Ok(Kvno(42)));
    world.principal.seen_at_kdc(Kvno(60_000));
    assert!(world.principal.next_kvno().is_err());
}

proptest! {
    #[test]
    fn no_order_of_events_leaves_a_lost_node_with_a_key_in_use(
        events in proptest::collection::vec((0_u8..6, 1_u8..5), 0..120)
    ) {
        let mut world = World::new();
        for (event, n) in events {
            match event {
                0 | 1 => drop(world.take_step()),
                2 => world.join(n),
                3 => world.lose(n),
                4 => world.acknowledge(n),
                _ => drop(world.holders.remove(&n)),
            }
            world.check();
        }
        world.settle();
        world.check();
        let current = world.principal.current().unwrap();
        prop_assert_eq!(world.at_kdc, Some(current.keyset.kvno));
        for (kvno, n, generation) in &world.outside {
            if *generation < world.generation(*n) {
                prop_assert!(*kvno < current.keyset.kvno, "node-{} can still use {}", n, kvno);
            }
        }
    }
}

/// A world with a first key, two holders that have it, and a replacement in its own time.
fn scheduled() -> World {
    let mut world = World::new();
    world.settle();
    for n in [1, 2] {
        world.join(n);
        world.acknowledge(n);
    }
    world.principal.debt.ask(Kind::Scheduled);
    assert_eq!(world.take_step(), Step::Make);
    assert_eq!(world.take_step(), Step::Distribute(Kvno(3)));
    world.acknowledge(1);
    world
}

#[test]
fn a_replacement_in_its_own_time_is_given_up_after_three_deadlines_and_names_who_is_late() {
    let mut world = scheduled();
    let without = vec![LeaseId::from_random([2; 16])];
    for missed in 1..DEADLINES {
        assert!(matches!(world.take_step(), Step::Wait { .. })); // time passes
        let overdue = Step::Overdue { kvno: Kvno(3), missed, without: without.clone() };
        assert_eq!(world.take_step(), overdue);
    }
    assert!(matches!(world.take_step(), Step::Wait { .. }));
    assert_eq!(world.take_step(), Step::Burn { kvno: Kvno(3), why: Burnt::GivenUp });
    assert_eq!(world.principal.debt.asked, None, "it is not tried again by itself");
    assert_eq!(world.at_kdc, Some(Kvno(2)));
    world.settle();
    assert_eq!(world.principal.delivered_kvnos(), [Kvno(2)], "the burnt one has left the keytabs");
    assert_eq!(world.principal.next_kvno(), Ok(Kvno(4)), "and is never used again");
}

#[test]
fn a_replacement_in_its_own_time_does_not_wait_for_a_dead_node() {
    let mut world = scheduled();
    assert!(matches!(world.step(), Step::Wait { .. }));
    world.lose(2);
    // it had been given the new number: a fresh one is made
    assert_eq!(world.take_step(), Step::Burn { kvno: Kvno(3), why: Burnt::Exposed });
    assert_eq!(world.take_step(), Step::Make);
    assert_eq!(world.take_step(), Step::Distribute(Kvno(4)));
    world.acknowledge(1);
    assert_eq!(world.take_step(), Step::Activate { kvno: Kvno(4), without: Vec::new() });
}

#[test]
fn a_revocation_in_the_middle_makes_a_replacement_pressing() {
    let mut world = scheduled();
    world.principal.debt.burn_through(Kvno(2));
    let Step::Wait { until, .. } = world.take_step() else { panic!("{:?}", world.step()) };
    assert!(until <= world.principal.keysets[&Kvno(3)].since + world.times.acknowledge_within);
    let without = vec![LeaseId::from_random([2; 16])];
    assert_eq!(world.take_step(), Step::Activate { kvno: Kvno(3), without });
}

#[test]
fn a_number_that_is_burnt_on_its_way_is_never_set() {
    let mut world = scheduled();
    world.principal.debt.burn_through(Kvno(3));
    world.principal.debt.abrupt = true;
    assert_eq!(world.take_step(), Step::Burn { kvno: Kvno(3), why: Burnt::Exposed });
    assert_eq!(world.take_step(), Step::Make);
    assert_eq!(world.take_step(), Step::Distribute(Kvno(4)));
    world.acknowledge(1);
    world.acknowledge(2);
    world.take_step();
    assert_eq!(world.take_step(), Step::Set(Kvno(4)));
    assert_eq!(world.principal.delivered_kvnos(), [Kvno(4)], "a compromised key stays nowhere");
    assert!(world.principal.is_replaced(Kvno(3)) && world.principal.debt.is_none());
}

#[test]
fn what_waits_for_its_turn_says_when_it_comes_and_what_retires_goes_on() {
    let mut world = World::new();
    world.settle();
    world.principal.debt.ask(Kind::Scheduled);
    world.settle_until(|step| matches!(step, Step::Wait { .. }));
    let replaced_at = world.now;
    world.principal.debt.ask(Kind::Scheduled);
    let at = replaced_at + world.times.rekey_min_interval;
    let Step::Wait { until, what } = world.step() else { panic!("{:?}", world.step()) };
    assert_eq!((until.min(at), what.to_string().contains("its turn")), (until, true));
    world.principal.debt.ask(Kind::Emergency);
    assert_eq!(world.step(), Step::Make);
}

#[test]
fn a_principal_that_is_switched_off_comes_back_with_a_new_key_from_wherever_it_was() {
    for steps in 0..4 {
        let mut world = World::new();
        world.settle();
        world.principal.switched_off =
            Some(SwitchedOff { how: Off::Disabled, by: None, since: world.now });
        (0..steps).for_each(|_| drop(world.take_step()));
        world.principal.switched_off = None;
        world.settle();
        assert!(world.principal.is_ready());
        let expected = if steps == 0 { Kvno(2) } else { Kvno(3) };
        assert_eq!(world.at_kdc, Some(expected), "after {steps} steps");
    }
}
