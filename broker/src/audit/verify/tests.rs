//! Stories of the walk: whatever is done to the files shows.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::{
    audit::{Actor, AuditLog, Record, file::FileAudit, file::Settings},
    clock::SeededEntropy,
    store::seal::MasterKey,
};

fn master(seed: u64) -> MasterKey {
    MasterKey::random(&SeededEntropy::new(seed))
}

fn key() -> ChainKey {
    ChainKey::new(&master(1))
}

/// The bytes of a log of some files, oldest first, and its head.
fn written(files: usize, lines: usize) -> (Vec<Vec<u8>>, Head) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("audit.log");
    let mut texts = Vec::new();
    let settings = Settings { max_bytes: u64::MAX, ..Settings::new(&path) };
    let now = std::time::SystemTime::UNIX_EPOCH;
    let log = FileAudit::open(settings, &master(1), Head::default(), now).unwrap();
    for file in 0..files {
        let line = |n| Record::new(Event::KeyMade, Actor::Broker).detail(&format!("{file} {n}"));
        log.append(&(1..lines).map(line).collect::<Vec<_>>(), now).unwrap();
        texts.push(std::fs::read(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
    }
    (texts, log.head())
}

fn walk_all(key: ChainKey, files: &[Vec<u8>], head: Option<Head>) -> (Vec<Break>, Vec<String>) {
    let mut walk = Walk::new(key);
    if let Some(head) = head {
        walk.expect(head, "kept outside");
    }
    let (mut breaks, mut notes) = (Vec::new(), Vec::new());
    for (n, file) in files.iter().enumerate() {
        let report = walk.file(&format!("file {n}"), Cursor::new(file)).unwrap();
        breaks.extend(report.breaks);
        notes.extend(report.notes);
    }
    breaks.extend(walk.finish());
    (breaks, notes)
}

fn breaks(files: &[Vec<u8>], head: Option<Head>) -> Vec<Break> {
    walk_all(key(), files, head).0
}

fn lines(file: &[u8]) -> Vec<Vec<u8>> {
    file.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect()
}

#[test]
fn a_chain_over_files_holds_and_comes_by_its_head() {
    let (files, head) = written(3, 4);
    assert_eq!(walk_all(key(), &files, Some(head)), (vec![], vec![]));
    assert_eq!(head.seq, 12);
}

#[test]
fn no_changed_byte_goes_unnoticed() {
    let (files, _) = written(2, 3);
    for file in 0..files.len() {
        for at in 0..files[file].len() {
            for bit in [0x01, 0x20, 0x80] {
                let mut changed = files.clone();
                changed[file][at] ^= bit;
                assert!(!breaks(&changed, None).is_empty(), "file {file}, byte {at}, bit {bit:#x}");
            }
        }
    }
}

#[test]
fn no_file_that_is_cut_goes_unnoticed_once_its_head_is_known() {
    let (files, head) = written(2, 3);
    for file in 0..files.len() {
        for length in 0..files[file].len() {
            let mut cut = files.clone();
            cut[file].truncate(length);
            assert!(!breaks(&cut, Some(head)).is_empty(), "file {file}, {length} bytes");
        }
    }
    let cut = [lines(&files[0])[..2].concat()];
    assert_eq!(breaks(&cut, None), [], "lines taken from the end show by the head alone");
}

#[test]
fn an_edited_line_is_one_break_that_names_it() {
    let (files, head) = written(1, 5);
    let text = String::from_utf8(files[0].clone()).unwrap().replace("0 2", "9 2");
    let found = breaks(&[text.into_bytes()], Some(head));
    assert_eq!(found, [Break::Edited { line: 3, seq: 3 }]);
}

#[test]
fn missing_and_reordered_lines_and_files_are_named() {
    let (files, head) = written(3, 4);
    let all = lines(&files[0]);
    let without = [&all[..1], &all[2..]].concat().concat();
    let found = breaks(&[without, files[1].clone(), files[2].clone()], Some(head));
    assert_eq!(found, [Break::Missing { line: 2, after: 1, found: 3, noted: false }]);

    let mut swapped = all.clone();
    swapped.swap(1, 2);
    let found = breaks(&[swapped.concat()], None);
    assert!(found.contains(&Break::Reordered { line: 3, seq: 2, after: 3 }), "{found:?}");

    let twice = [&all[..2], &all[1..]].concat().concat();
    let found = breaks(&[twice], None);
    assert!(found.contains(&Break::Reordered { line: 3, seq: 2, after: 2 }), "{found:?}");

    let found = breaks(&[files[0].clone(), files[2].clone()], Some(head));
    assert_eq!(found, [Break::Missing { line: 1, after: 4, found: 9, noted: false }]);
    let found = breaks(&[files[1].clone(), files[0].clone()], None);
    assert!(matches!(found[0], Break::Reordered { line: 1, seq: 1, after: 8 }), "{found:?}");
    let found = breaks(&[files[0].clone(), files[0].clone()], None);
    assert!(matches!(found[0], Break::Reordered { .. }), "{found:?}");
    let headless = [lines(&files[1])[1..].concat()];
    assert_eq!(breaks(&headless, None)[0], Break::NoBeginning { line: 1 });
}

#[test]
fn later_files_alone_hold_and_say_what_they_lack() {
    let (files, head) = written(3, 4);
    let (breaks, notes) = walk_all(key(), &files[1..], Some(head));
    assert_eq!((breaks, notes.len()), (vec![], 1));
    assert!(notes[0].starts_with("begins after seq 4"), "{notes:?}");
}

#[test]
fn another_key_s_log_is_named_as_such() {
    let (files, _) = written(1, 2);
    let (breaks, _) = walk_all(ChainKey::new(&master(2)), &files, None);
    let key = master(1).id().to_string();
    assert_eq!(breaks[0], Break::Foreign { line: 1, key });
}

#[test]
fn a_head_that_is_another_line_or_was_not_reached_is_told() {
    let (files, head) = written(1, 3);
    let wrong = Head { mac: Mac([1; 16]), ..head };
    assert!(matches!(&breaks(&files, Some(wrong))[..], [Break::Replaced { .. }]));
    let ahead = Head { seq: 99, ..head };
    assert!(matches!(&breaks(&files, Some(ahead))[..], [Break::NotReached { .. }]));
}

#[test]
fn lines_longer_than_any_of_ours_are_breaks_and_no_memory() {
    let mut file = written(1, 2).0.remove(0);
    file.extend(vec![b'x'; 3 * LONGEST as usize]);
    file.push(b'\n');
    assert!(breaks(&[file], None).contains(&Break::Unreadable { line: 3 }));
}

#[derive(Clone, Debug)]
enum Tampering {
    Flip(usize, u8),
    Remove(usize),
    Swap(usize, usize),
    Repeat(usize),
    Insert(usize, Vec<u8>),
}

fn tampering() -> impl Strategy<Value = Tampering> {
    let at = any::<usize>();
    prop_oneof![
        (at, 1..=255_u8).prop_map(|(at, bits)| Tampering::Flip(at, bits)),
        at.prop_map(Tampering::Remove),
        (at, any::<usize>()).prop_map(|(a, b)| Tampering::Swap(a, b)),
        at.prop_map(Tampering::Repeat),
        (at, proptest::collection::vec(any::<u8>(), 0..60))
            .prop_map(|(at, bytes)| Tampering::Insert(at, bytes)),
    ]
}

fn tamper(file: &mut Vec<u8>, how: &Tampering) {
    let mut all = lines(file);
    let count = all.len();
    match how {
        Tampering::Flip(at, bits) => {
            let at = at % file.len();
            file[at] ^= bits;
            return;
        }
        Tampering::Remove(at) => drop(all.remove(at % count)),
        Tampering::Swap(a, b) => all.swap(a % count, b % count),
        Tampering::Repeat(at) => all.insert(at % count, all[at % count].clone()),
        Tampering::Insert(at, bytes) => all.insert(at % count, [bytes, &b"\n"[..]].concat()),
    }
    *file = all.concat();
}

proptest! {
    /// What was acknowledged and is known by its head is found whole, or the walk says so.
    #[test]
    fn no_tampering_goes_unnoticed(which in 0..3_usize, hows in proptest::collection::vec(tampering(), 1..4)) {
        let (files, head) = written(3, 4);
        let mut changed = files.clone();
        for how in &hows {
            if !changed[which].is_empty() {
                tamper(&mut changed[which], how);
            }
        }
        let found = breaks(&changed, Some(head));
        prop_assert_eq!(found.is_empty(), changed == files, "{:?}", found);
    }

    #[test]
    fn any_bytes_are_walked_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (_, head) = written(1, 2);
        let _ = breaks(&[bytes], Some(head));
    }
}
