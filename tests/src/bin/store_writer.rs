//! Writes rounds to a store until it is killed, and says on standard output which of them
//! were acknowledged: one number a line. For the test that kills it.
//!
//! `store_writer DIRECTORY`: the store is in `DIRECTORY/store`, its audit log in
//! `DIRECTORY/audit.log`, its master key in `DIRECTORY/master.key`.

use std::{
    collections::VecDeque, env, error::Error, io::Write, path::Path, sync::Arc, time::Duration,
};

use krb_broker::{
    audit::{
        Actor, Event, Record,
        file::{FileAudit, Settings},
    },
    clock::{Clock, SystemClock, SystemEntropy},
    store::{
        LeaseStore,
        committer::{Ack, Committer, Pace, Round},
        seal::{MasterKey, MasterKeyFile, Volume},
        sled::{SledConfig, SledStore},
    },
};

/// Rounds that wait at once.
const IN_FLIGHT: usize = 32;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::args().nth(1).ok_or("usage: store_writer DIRECTORY")?;
    let (committer, first) = start(Path::new(&directory))?;
    let mut waiting: VecDeque<(u64, Ack)> = VecDeque::new();
    for number in first.. {
        waiting.push_back((number, committer.submit(round(number))));
        if waiting.len() == IN_FLIGHT
            && let Some((number, ack)) = waiting.pop_front()
        {
            ack.await?;
            let line = format!("{number}\n"); // one write, so that no line is torn
            std::io::stdout().write_all(line.as_bytes())?;
        }
    }
    Ok(())
}

/// Opens everything; the number of the first round is the store's next.
fn start(directory: &Path) -> Result<(Committer, u64), Box<dyn Error>> {
    let (store, path) = (directory.join("store"), directory.join("master.key"));
    let file = MasterKeyFile { path: &path, store: &store, volume: Volume::MayBeShared };
    let master = MasterKey::from_file(file)?;
    let clock = Arc::new(SystemClock);
    let config = SledConfig::new(&store);
    let store = SledStore::open(config, &master, clock.clone(), Arc::new(SystemEntropy))?;
    let loaded = store.load()?;
    let next = loaded.records.last().map_or(1, |(key, _)| {
        key.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)) + 1
    });
    let now = clock.now().wall;
    let log = Settings::new(&directory.join("audit.log"));
    let audit = FileAudit::open(log, &master, loaded.audit_head, now)?;
    let pace = Pace { snapshot_every: Duration::from_millis(20), ..Pace::default() };
    let (committer, _) = Committer::start(Arc::new(store), Arc::new(audit), clock, pace)?;
    Ok((committer, next))
}

fn round(number: u64) -> Round {
    let value = number.to_le_bytes().repeat(40);
    let line = Record::new(Event::LeaseGranted, Actor::Broker).detail(&number.to_string());
    Round {
        puts: vec![(number.to_be_bytes().to_vec(), value)],
        deletes: Vec::new(),
        audit: vec![line],
        ..Round::default()
    }
}
