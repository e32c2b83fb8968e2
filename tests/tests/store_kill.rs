//! A broker that is killed has lost nothing that it acknowledged.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use krb_broker::{
    clock::{SystemClock, SystemEntropy},
    store::{
        LeaseStore, Loaded,
        seal::{MasterKey, MasterKeyFile, Volume, new_master_key},
        sled::{SledConfig, SledStore},
    },
};

const ROUNDS: usize = 6;

/// Runs the writer, kills it after so many acknowledgements, and returns all of them.
fn write_and_kill(directory: &Path, after: usize) -> Vec<u64> {
    let mut writer = Command::new(env!("CARGO_BIN_EXE_store_writer"))
        .arg(directory)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the writer starts");
    let mut lines = BufReader::new(writer.stdout.take().expect("a pipe")).lines();
    let mut number = || {
        let line = lines.next()?.expect("the pipe is read");
        Some(line.parse::<u64>().expect("a number"))
    };
    let mut acknowledged: Vec<u64> = (0..after).map_while(|_| number()).collect();
    assert_eq!(acknowledged.len(), after, "the writer went on until it was killed");
    writer.kill().expect("SIGKILL");
    acknowledged.extend(std::iter::from_fn(number)); // what was in the pipe counts
    writer.wait().expect("the writer is reaped");
    acknowledged
}

fn load(directory: &Path) -> Loaded {
    let (store, path) = (directory.join("store"), directory.join("master.key"));
    let file = MasterKeyFile { path: &path, store: &store, volume: Volume::MayBeShared };
    let master = MasterKey::from_file(file).expect("the master key");
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
    let store = SledStore::open(SledConfig::new(&store), &master, clock, entropy);
    store.expect("the store opens").load().expect("the store is read")
}

/// The numbers in the audit log; every line but a torn last one must be whole, and `seq`
/// must rise.
fn audited(directory: &Path) -> BTreeSet<u64> {
    let text = fs::read_to_string(directory.join("audit.log")).expect("the log");
    let mut last = 0;
    let mut numbers = BTreeSet::new();
    for line in text.lines() {
        let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let seq = value["seq"].as_u64().expect("a seq");
        assert!(seq > last, "seq {seq} after {last}");
        last = seq;
        numbers.extend(value["detail"].as_str().and_then(|detail| detail.parse::<u64>().ok()));
    }
    numbers
}

#[test]
fn a_killed_broker_has_lost_nothing_that_it_acknowledged() {
    let temp = tempfile::tempdir().expect("a directory");
    let key = temp.path().join("master.key");
    fs::write(&key, new_master_key(&SystemEntropy).expose()).expect("the key is written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("its mode is set");

    let mut acknowledged = BTreeSet::new();
    let mut stored_last = BTreeSet::new();
    for round in 0..ROUNDS {
        let new = write_and_kill(temp.path(), 200 + round * 137);
        assert!(new.iter().all(|number| acknowledged.insert(*number)), "no number twice");
        let loaded = load(temp.path());
        assert_eq!(loaded.recovery, None, "a kill is no corruption");
        let stored: BTreeSet<u64> = loaded
            .records
            .iter()
            .map(|(key, value)| {
                let number = key.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
                assert_eq!(*value, number.to_le_bytes().repeat(40));
                number
            })
            .collect();
        let lost: Vec<_> = acknowledged.difference(&stored).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let audited = audited(temp.path());
        let unnamed: Vec<_> = stored.difference(&audited).collect();
        assert!(unnamed.is_empty(), "stored and not in the audit log: {unnamed:?}");
        stored_last = stored;
    }
    assert!(acknowledged.len() > 200 * ROUNDS);
    let extra = stored_last.difference(&acknowledged).count();
    assert!(extra <= 32 * ROUNDS, "more than was in flight is stored: {extra}");
}
