//! The fuzzer finds what it is there to find, and a short run finds nothing.

use super::*;

fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus"))
}

#[test]
fn a_short_run_from_real_replies_finds_nothing() {
    let limits = Limits { cases: 20_000, seed: 7, time: Duration::from_secs(60) };
    let report = run(directory(), limits).unwrap();
    assert!(report.is_clean(), "{report}");
    assert!(report.read > 100, "changes that are still read reach the parsers: {report}");
}

#[test]
fn the_same_seed_gives_the_same_inputs() {
    let samples = corpus::load(directory()).unwrap();
    let inputs = |seed| {
        let mut mutator = Mutator::new(seed, &samples);
        (0..100).map(|_| mutator.next_input().1).collect::<Vec<_>>()
    };
    assert_eq!(inputs(1), inputs(1));
    assert_ne!(inputs(1), inputs(2));
}

#[test]
fn both_sides_read_every_real_reply() {
    for sample in corpus::load(directory()).unwrap() {
        assert!(sample.kind.read(&sample.bytes).is_ok(), "{} is refused", sample.name);
        if sample.kind != Kind::Keytab {
            assert!(oracle::is_well_formed(&sample.bytes), "{}", sample.name);
            assert!(oracle::reads(sample.kind, &sample.bytes), "{}: picky-krb", sample.name);
        }
    }
}

#[test]
fn a_refused_reply_is_a_violation() {
    let sample =
        Sample { name: "cut".to_owned(), kind: Kind::AsRep, bytes: vec![0x6b, 3, 0x30, 1] };
    let mut report = Report::default();
    check_unchanged(&sample, &mut report);
    assert!(!report.is_clean());
    assert!(!oracle::is_well_formed(&sample.bytes) && !oracle::is_well_formed(&[5, 0, 0]));
}
