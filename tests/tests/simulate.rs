//! The simulator finds nothing where nothing is wrong, and finds what is done wrong on purpose.

use std::time::Duration;

use krb_tests::simulate::{self, Limits, Sabotage, day};

/// Within so many histories everything that is done wrong on purpose must be found.
const HISTORIES: u64 = 150;

fn limits(histories: u64, sabotage: Option<Sabotage>) -> Limits {
    Limits { violations: 1, histories, seed: 7, time: Duration::from_secs(600), sabotage }
}

/// What the simulator says of a broker that is wrong in this way.
fn found(sabotage: Sabotage) -> String {
    let report = simulate::run(limits(HISTORIES, Some(sabotage)));
    let found = report.found.first();
    let found = found.unwrap_or_else(|| panic!("{sabotage:?} was not found: {report}"));
    assert!(!found.violation.contains("not so when it was run again"), "{report}");
    found.violation.clone()
}

#[test]
fn histories_break_no_rule_and_are_the_same_again() {
    let report = simulate::run(limits(20, None));
    assert_eq!(report.violations(), 0, "{report}");
    assert!(report.counts.rotations > 0 && report.counts.crashes > 0, "{report}");
    let again = simulate::run(limits(20, None));
    assert_eq!(again.counts, report.counts);
}

#[test]
fn a_key_that_leaves_before_its_record_is_flushed_is_found() {
    let what = found(Sabotage::SkipFlush);
    assert!(what.contains("store") || what.contains("before that is on record"), "{what}");
}

#[test]
fn a_number_that_is_used_again_is_found() {
    let what = found(Sabotage::ReuseNumber);
    assert!(what.contains("two keys") || what.contains("is set after"), "{what}");
}

#[test]
fn a_fence_that_is_ignored_is_found() {
    let what = found(Sabotage::IgnoreFence);
    assert!(what.contains("after a revocation") || what.contains("fenced"), "{what}");
}

#[test]
fn a_key_that_counts_as_current_before_every_kdc_uses_it_is_found() {
    let what = found(Sabotage::NoObservation);
    assert!(what.contains("a KDC still uses") || what.contains("exposed_until"), "{what}");
}

#[test]
fn a_key_that_is_activated_before_its_holders_have_it_is_found() {
    let what = found(Sabotage::NoAcknowledgement);
    assert!(what.contains("can't open a ticket"), "{what}");
}

#[test]
fn three_hundred_nodes_lost_in_a_day_cost_nobody_an_authentication() {
    let day = day::run();
    assert_eq!(day.violation, None, "{day}");
    assert!(day.counts.most_kvnos <= day::MOST_KVNOS && day.rotations() <= day::MOST_ROTATIONS);
    assert!(day.rotations() > 1 && day.failed() == 0, "{day}");
}
