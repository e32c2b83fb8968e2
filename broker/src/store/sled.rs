//! The store on disk, for one broker: sled 0.34 with one tree of primary records.
//!
//! Each commit is one batch with the store's own record in it, flushed and synced before it
//! is acknowledged. Records are read at [`LeaseStore::load`] alone; the ledger keeps them in
//! memory, so the engine's cache is small. A snapshot is copied out while commits go on:
//! what is committed meanwhile is kept aside and written after the copy, so that the whole
//! is the store at one sequence number.
//!
//! What is read is what was written under this master key, or an error: `recovery` says
//! what becomes of a database that can't be read. After a failed commit the store takes no
//! more: what is on disk is not known until it is opened again.

mod engine;
mod meta;
mod recovery;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use self::{
    engine::{Engine, Trouble},
    meta::Meta,
    recovery::{Opened, Opener},
};
use super::{
    Batch, LeaseStore, Loaded, Mark, Recovery, StoreError, StoreStats, check_lengths,
    directory::{Directory, HighWater},
    envelope::Envelopes,
    seal::MasterKey,
    snapshot,
};
use crate::clock::{Clock, Entropy};

/// Where a store is, and what it may use.
#[derive(Clone, Debug)]
pub struct SledConfig {
    /// Its directory; made, mode 0700, where it is not there.
    pub directory: PathBuf,
    /// The engine's cache, in bytes.
    pub cache_bytes: u64,
    /// How far it had come, as a second place knows; zeros where there is none. A store that
    /// comes up with less is in recovery.
    pub known: Mark,
}

impl SledConfig {
    /// A store in this directory with a cache of 64 MB.
    pub fn new(directory: &Path) -> Self {
        let (cache_bytes, known) = (64_000_000, Mark::default());
        Self { directory: directory.to_owned(), cache_bytes, known }
    }
}

/// The store. It is this process's alone until it is dropped.
pub struct SledStore {
    state: Mutex<State>, // dropped before the directory's lock
    snapshots: Mutex<()>,
    directory: Directory,
    envelopes: Envelopes,
    master: MasterKey,
    config: SledConfig,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

struct State {
    engine: Engine,
    high_water: HighWater,
    mark: Mark,
    recovery: Option<Recovery>,
    poisoned: Option<String>,
    /// What is committed while a snapshot is made.
    meanwhile: Option<Vec<Batch>>,
    stats: StoreStats,
}

/// A key and its value.
type Pair = (Vec<u8>, Vec<u8>);

impl SledStore {
    /// Opens the store, makes a new one where none has ever been, or starts from the
    /// snapshot; [`LeaseStore::load`] says which.
    ///
    /// # Errors
    /// When another process has it, the master key is another, something in it was changed
    /// from outside, or neither the database nor a snapshot can be read.
    pub fn open(
        config: SledConfig,
        master: &MasterKey,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, StoreError> {
        let directory = Directory::open(&config.directory)?;
        let envelopes = Envelopes::new(master);
        let mut high_water = HighWater::open(directory.path(), master)?;
        let opener = Opener {
            directory: &directory,
            master,
            envelopes: &envelopes,
            clock: &*clock,
            cache_bytes: config.cache_bytes,
        };
        let Opened { engine, mark, recovery } = opener.open(&mut high_water, config.known)?;
        let newest = snapshot::newest(directory.path());
        let reach = snapshot::read_reach(&newest, master).ok();
        let stats = StoreStats {
            snapshot_time: reach.map(|reach| reach.taken_at),
            snapshot_sequence: reach.map_or(0, |reach| reach.sequence),
            ..StoreStats::default()
        };
        let (poisoned, meanwhile) = (None, None);
        let state = State { engine, high_water, mark, recovery, poisoned, meanwhile, stats };
        Ok(Self {
            state: Mutex::new(state),
            snapshots: Mutex::new(()),
            directory,
            envelopes,
            master: master.clone(),
            config,
            clock,
            entropy,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // the engine's panics are caught, and ours would leave `poisoned` as it was
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every record of the ledger, checked.
    fn each(
        &self,
        engine: &Engine,
        mut show: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), Trouble> {
        engine.each(&[meta::RECORD], |stored_key, wrapped| {
            let key = &stored_key[1..];
            let value = self.envelopes.unwrap(stored_key, wrapped);
            let ours = self.master.id();
            show(key, value.map_err(|not_ours| not_ours.of(key, self.directory.path(), ours))?)
        })
    }

    fn records(&self, engine: &Engine) -> Result<Vec<Pair>, Trouble> {
        let mut records = Vec::new();
        self.each(engine, |key, value| {
            records.push((key.to_vec(), value.to_vec()));
            Ok(())
        })?;
        Ok(records)
    }

    /// Puts a store started from the snapshot in the place of one that can't be read.
    fn recover(&self, state: &mut State, why: &str) -> Result<(), StoreError> {
        let opener = Opener {
            directory: &self.directory,
            master: &self.master,
            envelopes: &self.envelopes,
            clock: &*self.clock,
            cache_bytes: self.config.cache_bytes,
        };
        let Opened { engine, mark, recovery } = opener.recover(why, state.mark)?;
        state.engine = engine;
        state.mark = mark;
        state.recovery = recovery;
        Ok(())
    }

    fn engine_batch(&self, batch: &Batch, mark: Mark) -> ::sled::Batch {
        let mut changes = ::sled::Batch::default();
        let stored = |key: &[u8]| [&[meta::RECORD], key].concat();
        for (key, value) in &batch.puts {
            let key = stored(key);
            let value = self.envelopes.wrap(&key, value);
            changes.insert(key, value);
        }
        for key in &batch.deletes {
            changes.remove(stored(key));
        }
        let own = Meta { mark, recovered_from: None }.to_bytes();
        changes.insert(meta::KEY, self.envelopes.wrap(meta::KEY, &own));
        changes
    }

    /// Copies the records out, then what was committed meanwhile.
    fn copy_out(&self, mut out: snapshot::Writer) -> Result<snapshot::Reach, StoreError> {
        let engine = self.state().engine.clone();
        self.each(&engine, |key, value| out.put(key, value))
            .map_err(|trouble| self.failed("copying", trouble))?;
        let (batches, mark) = {
            let mut state = self.state();
            state.usable()?;
            (state.meanwhile.take().unwrap_or_default(), state.mark)
        };
        for batch in batches {
            batch.puts.iter().try_for_each(|(key, value)| out.put(key, value))?;
            batch.deletes.iter().try_for_each(|key| out.delete(key))?;
        }
        out.finish(mark)
    }

    fn failed(&self, operation: &'static str, trouble: Trouble) -> StoreError {
        match trouble {
            Trouble::Failed(error) => error,
            Trouble::Corrupt(detail) => {
                let path = self.directory.path().to_owned();
                StoreError::Engine { operation, path, detail }
            }
        }
    }
}

impl State {
    fn usable(&self) -> Result<(), StoreError> {
        match &self.poisoned {
            Some(why) => Err(StoreError::Poisoned { why: why.clone() }),
            None => Ok(()),
        }
    }
}

impl LeaseStore for SledStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        let mut state = self.state();
        let records = match self.records(&state.engine) {
            Ok(records) => records,
            Err(Trouble::Failed(error)) => return Err(error),
            Err(Trouble::Corrupt(why)) => {
                self.recover(&mut state, &why)?;
                self.records(&state.engine).map_err(|trouble| self.failed("reading", trouble))?
            }
        };
        Ok(Loaded {
            records,
            sequence: state.mark.sequence,
            audit_head: state.mark.audit_head,
            recovery: state.recovery.clone(),
        })
    }

    fn commit(&self, batch: &Batch) -> Result<u64, StoreError> {
        check_lengths(batch)?;
        let mut state = self.state();
        state.usable()?;
        let mark = Mark {
            sequence: state.mark.sequence + 1,
            audit_head: state.mark.audit_head.later(batch.audit_head),
        };
        let written = state
            .engine
            .write(self.engine_batch(batch, mark))
            .map_err(|trouble| self.failed("committing", trouble))
            .and_then(|()| state.high_water.write(mark));
        if let Err(error) = written {
            state.poisoned = Some(error.to_string());
            return Err(error);
        }
        if let Some(meanwhile) = &mut state.meanwhile {
            meanwhile.push(batch.clone());
        }
        state.mark = mark;
        state.recovery = None;
        state.stats.commits += 1;
        state.stats.changes += (batch.puts.len() + batch.deletes.len()) as u64;
        Ok(mark.sequence)
    }

    fn snapshot(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now().wall;
        let path = self.directory.path();
        let out = snapshot::Writer::begin(path, &self.master, &*self.entropy, now)?;
        {
            let mut state = self.state();
            state.usable()?;
            state.meanwhile = Some(Vec::new());
        }
        let copied = self.copy_out(out);
        let mut state = self.state();
        state.meanwhile = None;
        let reach = copied?;
        state.stats.snapshot_time = Some(reach.taken_at);
        state.stats.snapshot_sequence = reach.sequence;
        state.high_water.sync()
    }

    fn stats(&self) -> StoreStats {
        let (stats, engine) = {
            let state = self.state();
            (
                StoreStats { sequence: state.mark.sequence, ..state.stats.clone() },
                state.engine.clone(),
            )
        };
        StoreStats { disk_bytes: engine.disk_bytes(), ..stats }
    }
}

#[cfg(test)]
mod tests;
