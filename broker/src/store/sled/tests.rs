//! Stories of the store on disk.

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
};

use super::{super::contract, *};
use crate::{
    audit::{Head, Mac},
    clock::{SeededEntropy, SystemEntropy, TestClock},
};

/// A store's directory, and the master key it is opened with.
struct World {
    temp: Arc<tempfile::TempDir>,
    master: MasterKey,
    clock: Arc<TestClock>,
}

impl World {
    fn new() -> Self {
        let temp = Arc::new(tempfile::tempdir().unwrap());
        let master = MasterKey::random(&SeededEntropy::new(1));
        Self { temp, master, clock: Arc::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join("store").join(name)
    }

    fn try_open(&self) -> Result<SledStore, StoreError> {
        let config = SledConfig { cache_bytes: 1_000_000, ..SledConfig::new(&self.path("")) };
        SledStore::open(config, &self.master, self.clock.clone(), Arc::new(SystemEntropy))
    }

    fn open(&self) -> SledStore {
        self.try_open().unwrap()
    }

    /// A store of 300 records in three commits, with a snapshot of the first two.
    fn filled() -> Self {
        let world = Self::new();
        let store = world.open();
        for commit in 0..3_u8 {
            store.commit(&hundred(commit)).unwrap();
            if commit == 1 {
                store.snapshot().unwrap();
            }
        }
        world
    }

    /// The database without the store around it.
    fn raw(&self) -> Engine {
        Engine::open(&self.path("db"), 1_000_000).unwrap()
    }

    fn broken(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("")).unwrap().map(|entry| entry.unwrap().path());
        let is_broken = |path: &PathBuf| path.to_string_lossy().contains("/broken-");
        entries.filter(is_broken).collect()
    }
}

fn head(seq: u64) -> Head {
    Head { seq, mac: Mac([7; 16]) }
}

fn hundred(commit: u8) -> Batch {
    let record = |n: u8| (vec![b'k', commit, n], vec![commit ^ n; 200]);
    Batch { puts: (0..100).map(record).collect(), audit_head: head(commit.into()), deletes: vec![] }
}

fn put(key: &[u8]) -> Batch {
    Batch { puts: vec![(key.to_vec(), b"x".to_vec())], ..Batch::default() }
}

#[test]
fn the_store_on_disk_keeps_the_contract() {
    contract::keeps_its_promises(|| {
        let world = World::new();
        move || world.open()
    });
}

#[test]
fn its_directory_is_ours_and_a_second_opener_is_told() {
    let world = World::new();
    let store = world.open();
    let mode = fs::metadata(world.path("")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let error = world.try_open().err().unwrap();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    drop(store);
    world.open();
}

#[test]
fn another_master_key_opens_nothing_and_moves_nothing() {
    let mut world = World::filled();
    let ours = std::mem::replace(&mut world.master, MasterKey::random(&SeededEntropy::new(2)));
    let error = world.try_open().err().unwrap();
    let StoreError::WrongMasterKey { found, ours: in_hand, .. } = error else { panic!("{error}") };
    assert_eq!((found, in_hand), (ours.id(), world.master.id()));
    fs::remove_dir_all(world.path("db")).unwrap();
    let error = world.try_open().err().unwrap();
    assert!(matches!(error, StoreError::WrongMasterKey { .. }), "the snapshot too: {error}");
    assert!(world.broken().is_empty());
}

#[test]
fn a_record_written_by_somebody_else_is_an_error_that_names_it() {
    let world = World::filled();
    let engine = world.raw();
    let db = engine.raw();
    let mut value = db.get(b"rk\x02\x07").unwrap().unwrap().to_vec();
    let last = value.len() - 1;
    value[last] ^= 1;
    db.insert(b"rk\x02\x07", value).unwrap();
    drop(engine);
    let error = world.open().load().unwrap_err();
    assert!(matches!(&error, StoreError::Tampered { key } if key == "k\\x02\\x07"), "{error}");
    let error = world.open().snapshot().unwrap_err();
    assert!(matches!(error, StoreError::Tampered { .. }), "nor is it copied: {error}");
    assert!(world.broken().is_empty());
}

#[test]
fn a_missing_database_is_replaced_from_the_snapshot_and_says_so_until_a_commit() {
    let world = World::filled();
    fs::remove_dir_all(world.path("db")).unwrap();
    for _ in 0..2 {
        let loaded = world.open().load().unwrap();
        let recovery = loaded.recovery.unwrap();
        assert_eq!(loaded.records.len(), 200, "the third commit came after the snapshot");
        assert_eq!((recovery.sequence, recovery.high_water), (2, 3));
        assert_eq!(recovery.snapshot_time, Some(world.clock.now().wall));
        assert_eq!(loaded.sequence, 3, "no number is used twice");
        assert_eq!(loaded.audit_head, head(2));
    }
    assert_eq!(world.open().commit(&put(b"a")).unwrap(), 4);
    assert_eq!(world.open().load().unwrap().recovery, None);
}

#[test]
fn a_start_from_the_snapshot_is_remembered_when_the_mark_was_lost_too() {
    let world = World::filled();
    fs::remove_dir_all(world.path("db")).unwrap();
    fs::remove_file(world.path("high-water")).unwrap();
    for _ in 0..2 {
        let recovery = world.open().load().unwrap().recovery.unwrap();
        assert_eq!((recovery.sequence, recovery.high_water), (2, 2));
    }
}

#[test]
fn a_store_that_existed_is_never_started_empty() {
    let world = World::new();
    world.open().commit(&put(b"a")).unwrap();
    fs::remove_dir_all(world.path("db")).unwrap();
    for _ in 0..2 {
        let error = world.try_open().err().unwrap();
        assert!(matches!(error, StoreError::Lost { .. }), "{error}");
    }
    // with the mark gone as well, a database that holds nothing of its own is none of ours
    let world = World::filled();
    for gone in ["high-water", "snapshot"] {
        fs::remove_file(world.path(gone)).unwrap();
    }
    let engine = world.raw();
    engine.raw().remove(b"m").unwrap();
    drop(engine);
    let error = world.try_open().err().unwrap();
    assert!(matches!(error, StoreError::Lost { .. }), "{error}");
    assert!(world.broken().is_empty() && world.path("db").exists(), "it is left in place");
}

#[test]
fn a_fill_from_the_snapshot_that_was_cut_short_is_begun_again() {
    let world = World::filled();
    fs::remove_dir_all(world.path("db")).unwrap();
    let half = world.raw();
    half.raw().insert(b"rhalf", b"filled").unwrap();
    half.raw().flush().unwrap();
    drop(half);
    let loaded = world.open().load().unwrap();
    let recovery = loaded.recovery.unwrap();
    assert_eq!((loaded.records.len(), recovery.sequence), (200, 2));
    assert_eq!(recovery.moved_to.as_ref(), world.broken().first(), "moved, not removed");
}

#[test]
fn a_broken_snapshot_gives_way_to_the_one_before() {
    let world = World::filled();
    let store = world.open();
    store.snapshot().unwrap();
    drop(store);
    fs::remove_dir_all(world.path("db")).unwrap();
    let snapshot = fs::OpenOptions::new().write(true).open(world.path("snapshot")).unwrap();
    snapshot.write_all_at(b"XXXX", 100).unwrap();
    let recovery = world.open().load().unwrap().recovery.unwrap();
    assert_eq!((recovery.sequence, recovery.high_water), (2, 3));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let there = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &there);
        } else {
            fs::copy(entry.path(), there).unwrap();
        }
    }
}

#[test]
fn a_database_put_back_from_a_backup_is_noticed() {
    let world = World::new();
    let store = world.open();
    store.commit(&hundred(0)).unwrap();
    drop(store);
    copy(&world.path("db"), &world.path("backup"));
    let store = world.open();
    store.commit(&hundred(1)).unwrap();
    drop(store);
    fs::remove_dir_all(world.path("db")).unwrap();
    copy(&world.path("backup"), &world.path("db"));

    let loaded = world.open().load().unwrap();
    let recovery = loaded.recovery.unwrap();
    assert_eq!((recovery.sequence, recovery.high_water, recovery.snapshot_time), (1, 2, None));
    assert_eq!((loaded.sequence, loaded.records.len()), (2, 100));
}

#[test]
fn flipped_bytes_in_the_database_never_pass_for_data() {
    let (mut recovered, mut refused, mut unharmed) = (0, 0, 0);
    let whole = World::filled();
    let expected = whole.open().load().unwrap().records;
    let bytes = fs::read(whole.path("db/db")).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    for step in 0..24_u64 {
        let world = World::filled();
        let file = fs::OpenOptions::new().write(true).open(world.path("db/db")).unwrap();
        file.write_all_at(&[0xee; 16], step * used / 24).unwrap();
        match world.try_open().and_then(|store| store.load()) {
            Err(error) => {
                assert!(!matches!(error, StoreError::InUse { .. }), "{error}");
                refused += 1;
            }
            Ok(loaded) if loaded.recovery.is_some() => {
                assert!(loaded.records.len() >= 200, "the snapshot at least");
                recovered += 1;
            }
            Ok(loaded) => {
                assert!(loaded.records == expected, "byte {}", step * used / 24);
                unharmed += 1;
            }
        }
    }
    assert!(recovered > 12, "recovered {recovered}, refused {refused}, unharmed {unharmed}");
}

#[test]
fn a_snapshot_taken_amid_commits_is_the_store_at_its_number() {
    let world = World::new();
    let store = Arc::new(world.open());
    for commit in 0..20 {
        store.commit(&hundred(commit)).unwrap();
    }
    // two records that are always committed together, first in the copy and last
    let pair = |n: u64| {
        let value = n.to_be_bytes().to_vec();
        let puts = vec![(b"a".to_vec(), value.clone()), (b"z".to_vec(), value)];
        Batch { puts, ..Batch::default() }
    };
    store.commit(&pair(0)).unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let (store, stop) = (store.clone(), stop.clone());
        let going_on = move |_: &u64| !stop.load(std::sync::atomic::Ordering::Relaxed);
        std::thread::spawn(move || {
            (1..).take_while(going_on).for_each(|n| assert!(store.commit(&pair(n)).is_ok()));
        })
    };
    let mut distinct = std::collections::BTreeSet::new();
    for _ in 0..5 {
        store.snapshot().unwrap();
        let contents = snapshot::read(&snapshot::newest(&world.path("")), &world.master).unwrap();
        let read = |key: &[u8]| contents.records[key].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        assert_eq!(read(b"a"), read(b"z"));
        assert_eq!(contents.reach.sequence, 21 + read(b"a"), "all of it up to there");
        assert_eq!(contents.records.len(), 2_002);
        distinct.insert(contents.reach.sequence);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().unwrap();
    assert!(distinct.len() > 1, "none was taken amid commits");
}

#[test]
fn the_longest_values_are_kept_in_files_that_are_synced_too() {
    let world = World::new();
    let store = world.open();
    let long = vec![7; super::super::MAX_VALUE];
    for n in 0..40_u8 {
        let puts = (0..10).map(|m| (vec![b'l', n, m], long.clone())).collect();
        store.commit(&Batch { puts, ..Batch::default() }).unwrap();
    }
    let synced = store.state().engine.synced_blobs();
    let blobs = fs::read_dir(world.path("db/blobs")).unwrap();
    let blobs: Vec<_> = blobs.map(|blob| blob.unwrap().file_name()).collect();
    assert!(!blobs.is_empty(), "the engine keeps them elsewhere now");
    assert!(blobs.iter().all(|blob| synced.contains(blob)), "{blobs:?} {synced:?}");
    drop(store);
    assert_eq!(world.open().load().unwrap().records.len(), 400);
}
