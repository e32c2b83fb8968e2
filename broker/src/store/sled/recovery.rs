//! Opening the database, or what is left of it.
//!
//! A database that is missing, can't be read, or is older than both the high-water mark and
//! the snapshot is moved aside, and a new one is filled from the newest snapshot that opens.
//! The store's own record goes in last, so a fill that is cut short is begun again. Without
//! a snapshot the database is left where it is and the store does not start. A wrong master
//! key or a wrong MAC is no corruption: the store does not start either, and moves nothing.

use super::{
    super::{
        Mark, Recovery, StoreError,
        directory::{Directory, HighWater},
        envelope::Envelopes,
        seal::MasterKey,
        snapshot::{self, Contents, Unreadable},
    },
    engine::{Engine, Trouble},
    meta::{self, Meta},
};
use crate::clock::Clock;

/// How many records a fill writes at once.
const CHUNK: usize = 2_000;

/// What opening a database takes.
pub(super) struct Opener<'a> {
    pub directory: &'a Directory,
    pub master: &'a MasterKey,
    pub envelopes: &'a Envelopes,
    pub clock: &'a dyn Clock,
    pub cache_bytes: u64,
}

/// A database that is fit for use.
pub(super) struct Opened {
    pub engine: Engine,
    /// How far it has come; its sequence is where the next commit goes on.
    pub mark: Mark,
    pub recovery: Option<Recovery>,
}

impl Opener<'_> {
    /// Opens the database, makes a new one where none has ever been, or recovers.
    /// What the second place knows, `elsewhere`, counts as what the mark here says.
    pub fn open(&self, high_water: &mut HighWater, elsewhere: Mark) -> Result<Opened, StoreError> {
        let known = high_water.read().later(elsewhere);
        let existed = self.directory.has_existed()? || elsewhere.sequence > 0;
        let opened = match self.engine_and_meta(existed) {
            Ok((engine, Some(meta))) => self.judge(engine, meta, known)?,
            Ok((engine, None)) => self.begin(engine)?,
            Err(Trouble::Failed(error)) => return Err(error),
            Err(Trouble::Corrupt(why)) => self.recover(&why, known)?,
        };
        high_water.write(opened.mark)?;
        high_water.sync()?;
        Ok(opened)
    }

    /// The database and its record; no record where it is new.
    fn engine_and_meta(&self, existed: bool) -> Result<(Engine, Option<Meta>), Trouble> {
        let path = self.directory.database();
        if existed && !path.join("db").exists() {
            return Err(Trouble::Corrupt("the database is missing".to_owned()));
        }
        let engine = Engine::open(&path, self.cache_bytes)?;
        match self.meta(&engine)? {
            None if existed || !engine.is_empty()? => {
                Err(Trouble::Corrupt("the database has no record of its own state".to_owned()))
            }
            meta => Ok((engine, meta)),
        }
    }

    fn meta(&self, engine: &Engine) -> Result<Option<Meta>, Trouble> {
        let Some(wrapped) = engine.read(meta::KEY)? else { return Ok(None) };
        let path = self.directory.path();
        let value = self.envelopes.unwrap(meta::KEY, &wrapped);
        let value = value.map_err(|not_ours| not_ours.of(b"(its own)", path, self.master.id()))?;
        Ok(Some(Meta::from_bytes(value)?))
    }

    /// A database that opens may still have gone back.
    fn judge(&self, engine: Engine, meta: Meta, known: Mark) -> Result<Opened, StoreError> {
        let Mark { sequence, audit_head } = meta.mark;
        if sequence < known.sequence {
            let why = format!(
                "the database is at commit {sequence}, {} had been committed",
                known.sequence
            );
            let newest = snapshot::newest(self.directory.path());
            let reach = snapshot::read_reach(&newest, self.master);
            if reach.is_ok_and(|reach| reach.sequence > sequence) {
                drop(engine);
                return self.recover(&why, known);
            }
            tracing::error!(why, "the store has gone back");
            let recovery = Recovery {
                why,
                snapshot_time: meta.recovered_from,
                sequence,
                high_water: known.sequence,
                moved_to: None,
            };
            let mark =
                Mark { sequence: known.sequence, audit_head: audit_head.later(known.audit_head) };
            return Ok(Opened { engine, mark, recovery: Some(recovery) });
        }
        let recovery = meta.recovered_from.map(|taken_at| Recovery {
            why: "an earlier start was from a snapshot, and nothing was committed since".into(),
            snapshot_time: Some(taken_at),
            sequence,
            high_water: sequence,
            moved_to: None,
        });
        Ok(Opened { engine, mark: meta.mark.later(known), recovery })
    }

    /// A new store: its first batch is its own record.
    fn begin(&self, engine: Engine) -> Result<Opened, StoreError> {
        self.write_meta(&engine, Meta::default())?;
        Ok(Opened { engine, mark: Mark::default(), recovery: None })
    }

    /// Starts from the newest snapshot that opens.
    pub fn recover(&self, why: &str, known: Mark) -> Result<Opened, StoreError> {
        tracing::error!(why, store = %self.directory.path().display(), "the store is broken");
        let Contents { records, reach } = self.snapshot(why)?;
        let now = self.clock.now().wall;
        let moved_to = self.directory.move_aside(now)?;
        let lost = |trouble| self.failed("filling", trouble);
        let engine = Engine::open(&self.directory.database(), self.cache_bytes).map_err(lost)?;
        let mut batch = ::sled::Batch::default();
        for (n, (key, value)) in records.into_iter().enumerate() {
            let key = [&[meta::RECORD], key.as_slice()].concat();
            let value = self.envelopes.wrap(&key, &value);
            batch.insert(key, value);
            if n % CHUNK == CHUNK - 1 {
                engine.write(std::mem::take(&mut batch)).map_err(lost)?;
            }
        }
        engine.write(batch).map_err(lost)?;
        let mark = Mark {
            sequence: reach.sequence.max(known.sequence),
            audit_head: reach.audit_head.later(known.audit_head),
        };
        let recovered_from = Some(reach.taken_at);
        let meta_mark = Mark { sequence: reach.sequence, ..mark };
        self.write_meta(&engine, Meta { mark: meta_mark, recovered_from })?;
        let recovery = Recovery {
            why: why.to_owned(),
            snapshot_time: recovered_from,
            sequence: reach.sequence,
            high_water: mark.sequence,
            moved_to,
        };
        tracing::error!(?recovery, "the store was started from its snapshot");
        Ok(Opened { engine, mark, recovery: Some(recovery) })
    }

    fn write_meta(&self, engine: &Engine, meta: Meta) -> Result<(), StoreError> {
        let mut batch = ::sled::Batch::default();
        batch.insert(meta::KEY, self.envelopes.wrap(meta::KEY, &meta.to_bytes()));
        engine.write(batch).map_err(|trouble| self.failed("writing", trouble))
    }

    /// The newest snapshot that opens.
    fn snapshot(&self, why: &str) -> Result<Contents, StoreError> {
        let path = self.directory.path();
        let mut reasons = why.to_owned();
        for file in [snapshot::newest(path), snapshot::previous(path)] {
            let what = match snapshot::read(&file, self.master) {
                Ok(contents) => return Ok(contents),
                Err(Unreadable::OtherKey(found)) => {
                    let ours = self.master.id();
                    return Err(StoreError::WrongMasterKey { path: file, found, ours });
                }
                Err(Unreadable::Missing) => "is not there".to_owned(),
                Err(Unreadable::Broken(why)) => format!("can't be read: {why}"),
            };
            reasons = format!("{reasons}; {} {what}", file.display());
        }
        Err(StoreError::Lost { path: path.to_owned(), why: reasons })
    }

    /// The error of an engine that fails on a database that is new.
    fn failed(&self, operation: &'static str, trouble: Trouble) -> StoreError {
        match trouble {
            Trouble::Failed(error) => error,
            Trouble::Corrupt(detail) => {
                StoreError::Engine { operation, path: self.directory.database(), detail }
            }
        }
    }
}
