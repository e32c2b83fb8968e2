//! Stories of the snapshot file.

use proptest::prelude::*;

use super::*;
use crate::{audit::Mac, clock::SeededEntropy};

fn master(seed: u64) -> MasterKey {
    MasterKey::random(&SeededEntropy::new(seed))
}

fn at(seconds: u64) -> SystemTime {
    from_unix_millis(seconds * 1_000)
}

fn mark(sequence: u64) -> Mark {
    Mark { sequence, audit_head: Head { seq: 5, mac: Mac([6; 16]) } }
}

fn write(directory: &Path, records: u32, sequence: u64) -> Reach {
    let entropy = SeededEntropy::new(sequence);
    let mut writer = Writer::begin(directory, &master(1), &entropy, at(sequence)).unwrap();
    for n in 0..records {
        writer.put(&n.to_be_bytes(), &vec![n as u8; 500]).unwrap();
    }
    writer.finish(mark(sequence)).unwrap()
}

#[test]
fn what_was_written_is_read_in_order_of_its_operations() {
    let temp = tempfile::tempdir().unwrap();
    let entropy = SeededEntropy::new(1);
    let mut writer = Writer::begin(temp.path(), &master(1), &entropy, at(9)).unwrap();
    writer.put(b"a", b"1").unwrap();
    writer.put(b"b", b"").unwrap();
    writer.put(b"a", b"2").unwrap();
    writer.delete(b"b").unwrap();
    writer.delete(b"never there").unwrap();
    let reach = writer.finish(mark(7)).unwrap();
    let Mark { sequence, audit_head } = mark(7);
    assert_eq!(reach, Reach { taken_at: at(9), sequence, audit_head });
    let contents = read(&newest(temp.path()), &master(1)).unwrap();
    assert_eq!(contents.reach, reach);
    assert_eq!(contents.records, BTreeMap::from([(b"a".to_vec(), b"2".to_vec())]));
    assert_eq!(read_reach(&newest(temp.path()), &master(1)).unwrap(), reach);
}

#[test]
fn many_frames_come_back_and_an_empty_snapshot_too() {
    let temp = tempfile::tempdir().unwrap();
    for records in [0, 2_000] {
        let reach = write(temp.path(), records, 1);
        let contents = read(&newest(temp.path()), &master(1)).unwrap();
        assert_eq!((contents.records.len(), contents.reach), (records as usize, reach));
    }
    let length = fs::metadata(newest(temp.path())).unwrap().len();
    assert!(length > 2_000 * 500, "several frames of {FRAME}");
}

#[test]
fn the_one_before_is_kept_and_a_begun_one_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    for sequence in 1..=3 {
        write(temp.path(), 1, sequence);
    }
    drop(Writer::begin(temp.path(), &master(1), &SeededEntropy::new(1), at(4)).unwrap());
    let reach = |path: PathBuf| read_reach(&path, &master(1)).unwrap().sequence;
    assert_eq!((reach(newest(temp.path())), reach(previous(temp.path()))), (3, 2));
}

#[test]
fn no_changed_or_cut_file_is_read() {
    let temp = tempfile::tempdir().unwrap();
    write(temp.path(), 3, 1);
    let path = newest(temp.path());
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x40;
        fs::write(&path, &changed).unwrap();
        assert!(read(&path, &master(1)).is_err(), "byte {at}");
    }
    for length in (0..whole.len()).step_by(7) {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(matches!(read(&path, &master(1)), Err(Unreadable::Broken(_))), "{length}");
        assert!(matches!(read_reach(&path, &master(1)), Err(Unreadable::Broken(_))), "{length}");
    }
    fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
    assert!(matches!(read(&path, &master(1)), Err(Unreadable::Broken(_))));
}

#[test]
fn frames_of_one_snapshot_cannot_stand_in_another_or_elsewhere() {
    let temp = tempfile::tempdir().unwrap();
    let path = newest(temp.path());
    write(temp.path(), 1_200, 1); // three frames, the first two alike in length
    let whole = fs::read(&path).unwrap();
    let frame = 5 + small(&whole[HEADER + 1..HEADER + 5]);
    let (first, second) = (HEADER..HEADER + frame, HEADER + frame..HEADER + 2 * frame);
    let swapped = [
        &whole[..HEADER],
        &whole[second.clone()],
        &whole[first],
        &whole[second.end..whole.len() - CHECKSUM],
    ]
    .concat();
    let checksum = digest::digest(&digest::SHA256, &swapped);
    fs::write(&path, [&swapped, checksum.as_ref()].concat()).unwrap();
    let error = read(&path, &master(1)).err().unwrap();
    assert!(matches!(&error, Unreadable::Broken(why) if why.contains("frame 0")), "{error:?}");
}

#[test]
fn another_master_key_and_an_absent_file_are_told_apart() {
    let temp = tempfile::tempdir().unwrap();
    let path = newest(temp.path());
    assert!(matches!(read(&path, &master(1)), Err(Unreadable::Missing)));
    write(temp.path(), 1, 1);
    let other = read(&path, &master(2));
    assert!(matches!(other, Err(Unreadable::OtherKey(id)) if id == master(1).id()));
}

proptest! {
    #[test]
    fn no_frame_panics(plain in proptest::collection::vec(0..6_u8, 0..60)) {
        let mut records = BTreeMap::new();
        if let Some(done) = apply(&plain, &mut records) {
            prop_assert!(done >= records.len() as u64);
        }
    }

    #[test]
    fn no_file_panics_and_none_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let temp = tempfile::tempdir().unwrap();
        let path = newest(temp.path());
        let header = [&MAGIC[..], &master(1).id().0, &[0; 24]].concat();
        for file in [bytes.clone(), [header, bytes].concat()] {
            fs::write(&path, file).unwrap();
            prop_assert!(matches!(read(&path, &master(1)), Err(Unreadable::Broken(_))));
            prop_assert!(matches!(read_reach(&path, &master(1)), Err(Unreadable::Broken(_))));
        }
    }
}
