//! What every store promises. The memory store and the real one pass the same stories.
//!
//! A story gets a maker of disks; a disk is a function that opens the store on it, so a
//! second call is a reopening.

use std::{collections::BTreeMap, sync::Arc};

use super::{Batch, LeaseStore, MAX_KEY, MAX_VALUE, StoreError};
use crate::audit::{Head, Mac};

/// Runs every story, each on a new disk.
pub fn keeps_its_promises<S, Open>(new_disk: impl Fn() -> Open)
where
    S: LeaseStore + 'static,
    Open: Fn() -> S,
{
    a_new_store_is_empty(new_disk());
    what_was_committed_is_loaded_in_order(new_disk());
    the_last_write_wins_and_deletes_win_over_puts(new_disk());
    values_may_be_any_bytes(new_disk());
    an_empty_batch_counts(new_disk());
    sequences_rise_over_reopening(new_disk());
    a_big_batch_is_kept_whole(new_disk());
    too_long_records_are_refused_and_change_nothing(new_disk());
    commits_of_many_threads_are_all_kept(new_disk());
    a_snapshot_changes_nothing(new_disk());
    many_small_commits_end_as_a_map_would(new_disk());
}

fn put(key: &[u8], value: &[u8]) -> (Vec<u8>, Vec<u8>) {
    (key.to_vec(), value.to_vec())
}

fn head(seq: u64) -> Head {
    Head { seq, mac: Mac([seq as u8; 16]) }
}

fn puts(puts: Vec<(Vec<u8>, Vec<u8>)>) -> Batch {
    Batch { puts, ..Batch::default() }
}

fn a_new_store_is_empty<S: LeaseStore>(open: impl Fn() -> S) {
    let loaded = open().load().expect("load");
    assert_eq!((loaded.records.len(), loaded.sequence), (0, 0));
    assert_eq!((loaded.audit_head, loaded.recovery), (Head::default(), None));
    assert_eq!(open().load().expect("load again").recovery, None);
}

fn what_was_committed_is_loaded_in_order<S: LeaseStore>(open: impl Fn() -> S) {
    let store = open();
    store.commit(&puts(vec![put(b"c", b"3"), put(b"a", b"1")])).expect("commit");
    store.commit(&puts(vec![put(b"b", b"2")])).expect("commit");
    let expected = vec![put(b"a", b"1"), put(b"b", b"2"), put(b"c", b"3")];
    assert_eq!(store.load().expect("load").records, expected);
    drop(store);
    assert_eq!(open().load().expect("load").records, expected);
}

fn the_last_write_wins_and_deletes_win_over_puts<S: LeaseStore>(open: impl Fn() -> S) {
    let store = open();
    store.commit(&puts(vec![put(b"a", b"1"), put(b"a", b"2"), put(b"b", b"1")])).expect("commit");
    store
        .commit(&Batch {
            puts: vec![put(b"c", b"1")],
            deletes: vec![b"b".to_vec(), b"c".to_vec(), b"never there".to_vec()],
            audit_head: Head::default(),
        })
        .expect("commit");
    drop(store);
    assert_eq!(open().load().expect("load").records, vec![put(b"a", b"2")]);
}

fn values_may_be_any_bytes<S: LeaseStore>(open: impl Fn() -> S) {
    let all: Vec<u8> = (0..=255).collect();
    let records =
        vec![put(b"\0", b""), put(b"\0\0", b"\0"), put(b"meta", b"x"), put(&all, &all), {
            put(&[0xff; MAX_KEY], &vec![0xa5; MAX_VALUE])
        }];
    let mut expected = records.clone();
    expected.sort();
    let store = open();
    store.commit(&puts(records)).expect("commit");
    drop(store);
    assert_eq!(open().load().expect("load").records, expected);
}

fn an_empty_batch_counts<S: LeaseStore>(open: impl Fn() -> S) {
    let store = open();
    let first = store.commit(&Batch::default()).expect("commit");
    let second = store.commit(&Batch { audit_head: head(7), ..Batch::default() }).expect("commit");
    let third = store.commit(&Batch { audit_head: head(3), ..Batch::default() }).expect("commit");
    assert!(first < second && second < third);
    drop(store);
    let loaded = open().load().expect("load");
    assert_eq!((loaded.records.len(), loaded.sequence, loaded.audit_head), (0, third, head(7)));
}

fn sequences_rise_over_reopening<S: LeaseStore>(open: impl Fn() -> S) {
    let mut last = 0;
    for _ in 0..4 {
        let store = open();
        assert_eq!(store.load().expect("load").sequence, last);
        for _ in 0..3 {
            let sequence = store.commit(&puts(vec![put(b"a", b"1")])).expect("commit");
            assert!(sequence > last, "{sequence} after {last}");
            last = sequence;
        }
        assert_eq!(store.stats().sequence, last);
    }
}

fn a_big_batch_is_kept_whole<S: LeaseStore>(open: impl Fn() -> S) {
    let key = |n: u32| n.to_be_bytes().to_vec();
    let records: Vec<_> = (0..5_000).map(|n| (key(n), vec![n as u8; 300])).collect();
    let store = open();
    store.commit(&puts(records.clone())).expect("commit");
    let even = (0..5_000).step_by(2).map(key).collect();
    store.commit(&Batch { deletes: even, ..Batch::default() }).expect("commit");
    drop(store);
    let odd: Vec<_> = records.into_iter().skip(1).step_by(2).collect();
    assert!(open().load().expect("load").records == odd);
}

fn too_long_records_are_refused_and_change_nothing<S: LeaseStore>(open: impl Fn() -> S) {
    let store = open();
    for bad in [
        puts(vec![put(b"a", b"1"), put(b"", b"1")]),
        puts(vec![put(b"a", b"1"), put(&[0; MAX_KEY + 1], b"1")]),
        puts(vec![put(b"a", b"1"), put(b"b", &vec![0; MAX_VALUE + 1])]),
        Batch { puts: vec![put(b"a", b"1")], deletes: vec![Vec::new()], ..Batch::default() },
    ] {
        let error = store.commit(&bad).expect_err("too long");
        assert!(matches!(error, StoreError::TooLong { .. }), "{error}");
    }
    assert_eq!(store.load().expect("load").records, vec![]);
    store.commit(&puts(vec![put(b"a", b"2")])).expect("the store goes on");
}

fn commits_of_many_threads_are_all_kept<S: LeaseStore + 'static>(open: impl Fn() -> S) {
    let store = Arc::new(open());
    let threads: Vec<_> = (0..4_u8)
        .map(|thread| {
            let store = store.clone();
            std::thread::spawn(move || {
                let commit = |n: u8| store.commit(&puts(vec![put(&[thread, n], b"x")]));
                (0..25).map(|n| commit(n).expect("commit")).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut sequences: Vec<_> =
        threads.into_iter().flat_map(|thread| thread.join().expect("joined")).collect();
    sequences.sort_unstable();
    sequences.dedup();
    assert_eq!(sequences.len(), 100, "no two commits have one number");
    drop(store);
    assert_eq!(open().load().expect("load").records.len(), 100);
}

fn a_snapshot_changes_nothing<S: LeaseStore>(open: impl Fn() -> S) {
    let store = open();
    let first = store.commit(&puts(vec![put(b"a", b"1")])).expect("commit");
    store.snapshot().expect("snapshot");
    assert_eq!(store.stats().snapshot_sequence, first);
    assert!(store.stats().snapshot_time.is_some());
    store.commit(&puts(vec![put(b"b", b"2")])).expect("commit");
    drop(store);
    let loaded = open().load().expect("load");
    assert_eq!(loaded.records, vec![put(b"a", b"1"), put(b"b", b"2")]);
    assert_eq!(loaded.recovery, None);
}

fn many_small_commits_end_as_a_map_would<S: LeaseStore>(open: impl Fn() -> S) {
    let mut model = BTreeMap::new();
    let mut state = 42_u32;
    let mut draw = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    for _ in 0..3 {
        let store = open();
        for _ in 0..40 {
            let mut batch = Batch::default();
            for _ in 0..draw(8) {
                let (key, value) = (vec![draw(20) as u8 + 1], vec![draw(256) as u8; 20]);
                model.insert(key.clone(), value.clone());
                batch.puts.push((key, value));
            }
            for _ in 0..draw(4) {
                let key = vec![draw(20) as u8 + 1];
                model.remove(&key);
                batch.deletes.push(key);
            }
            store.commit(&batch).expect("commit");
        }
        let expected: Vec<_> = model.clone().into_iter().collect();
        assert_eq!(store.load().expect("load").records, expected);
    }
}
