//! The database engine, fenced: what it reports or dies of comes out as [`Trouble`].
//!
//! sled's `flush` waits for `sync_file_range`, which survives a killed process and not a
//! power cut; so a write here ends with `fdatasync` on a second descriptor of its file. A
//! page that is too long for the file goes into a file of its own below `blobs`, which sled
//! does not sync at all; new ones are synced here first.
//! sled asserts where a damaged file surprises it; a panic on our thread is caught and
//! counts as corruption.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::super::{
    StoreError,
    directory::{io_error, sync_directory},
    lock,
};

/// What is wrong with a database.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It is not as it was written: the snapshot has to serve.
    Corrupt(String),
    /// Anything else, a full disk for one: nothing is wrong with what is there.
    Failed(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// An open database. Clones share it.
#[derive(Clone)]
pub(super) struct Engine {
    db: ::sled::Db,
    file: Arc<File>,
    /// The blobs that are durable.
    blobs: Arc<Mutex<BTreeSet<OsString>>>,
    path: PathBuf,
}

impl Engine {
    /// Opens or makes the database at `path`, with a cache of so many bytes.
    pub fn open(path: &Path, cache_bytes: u64) -> Result<Self, Trouble> {
        let config = ::sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes)
            .mode(::sled::Mode::HighThroughput)
            .flush_every_ms(None);
        let db = open_free(path, &config)?;
        let file_path = path.join("db");
        let file = File::open(&file_path).map_err(io_error("opening", &file_path))?;
        sync_directory(path)?;
        if let Some(parent) = path.parent() {
            sync_directory(parent)?;
        }
        let blobs = Arc::new(Mutex::new(BTreeSet::new()));
        Ok(Self { db, file: file.into(), blobs, path: path.to_owned() })
    }

    /// Applies the batch; it is durable, whole, when this returns.
    pub fn write(&self, batch: ::sled::Batch) -> Result<(), Trouble> {
        fenced("writing", &self.path, || {
            self.db.apply_batch(batch)?;
            self.db.flush()
        })?;
        self.sync_blobs()?;
        Ok(self.file.sync_data().map_err(io_error("syncing", &self.path))?)
    }

    /// Makes the blobs durable that were not here at the last write.
    fn sync_blobs(&self) -> Result<(), StoreError> {
        let directory = self.path.join("blobs");
        let io = io_error("syncing the blobs in", &directory);
        let mut synced = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = fs::read_dir(&directory).map_err(&io)?;
        let present: Result<BTreeSet<_>, _> =
            entries.map(|entry| entry.map(|entry| entry.file_name())).collect();
        let present = present.map_err(&io)?;
        for name in present.difference(&synced) {
            match File::open(directory.join(name)).and_then(|blob| blob.sync_all()) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {} // replaced already
                done => done.map_err(&io)?,
            }
        }
        if !present.is_subset(&synced) {
            sync_directory(&directory)?;
        }
        *synced = present;
        Ok(())
    }

    /// The value under `key`.
    pub fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Trouble> {
        let value = fenced("reading", &self.path, || self.db.get(key))?;
        Ok(value.map(|value| value.to_vec()))
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> Result<bool, Trouble> {
        fenced("reading", &self.path, || self.db.iter().next().transpose())
            .map(|first| first.is_none())
    }

    /// Shows every record whose key begins with `prefix`, ascending, until `show` fails.
    pub fn each(
        &self,
        prefix: &[u8],
        mut show: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), Trouble> {
        let mut records = self.db.scan_prefix(prefix);
        while let Some((key, value)) = fenced("reading", &self.path, || records.next().transpose())?
        {
            show(&key, &value)?;
        }
        Ok(())
    }

    /// The database itself, to do to it what the store never would.
    #[cfg(test)]
    pub fn raw(&self) -> &::sled::Db {
        &self.db
    }

    /// The blobs that are durable.
    #[cfg(test)]
    pub fn synced_blobs(&self) -> BTreeSet<OsString> {
        self.blobs.lock().unwrap().clone()
    }

    /// Bytes on disk; 0 when they can't be counted.
    pub fn disk_bytes(&self) -> u64 {
        fenced("measuring", &self.path, || self.db.size_on_disk()).unwrap_or(0)
    }
}

/// Opens the database once its last user in this process is quite gone, which is a moment
/// after it was dropped; other processes are kept out by the directory's lock.
fn open_free(path: &Path, config: &::sled::Config) -> Result<::sled::Db, Trouble> {
    let mut tries = 1;
    loop {
        match fenced("opening", path, || config.open()) {
            Err(Trouble::Failed(StoreError::InUse { .. })) if tries < lock::TRIES => tries += 1,
            outcome => return outcome,
        }
        lock::pause();
    }
}

/// Runs an operation of the engine.
fn fenced<T>(
    operation: &'static str,
    path: &Path,
    run: impl FnOnce() -> ::sled::Result<T>,
) -> Result<T, Trouble> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(outcome) => outcome.map_err(|error| trouble(operation, path, error)),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("");
            Err(Trouble::Corrupt(format!("{operation}: the engine panicked: {said}")))
        }
    }
}

fn trouble(operation: &'static str, path: &Path, error: ::sled::Error) -> Trouble {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    let path = path.to_owned();
    match error {
        ::sled::Error::Io(source) if source.to_string().contains("could not acquire lock") => {
            StoreError::InUse { path }.into()
        }
        ::sled::Error::Io(source)
            if !matches!(source.kind(), InvalidData | InvalidInput | UnexpectedEof) =>
        {
            StoreError::Io { operation, path, source }.into()
        }
        ::sled::Error::Unsupported(detail) => StoreError::Engine { operation, path, detail }.into(),
        error => Trouble::Corrupt(format!("{operation}: {error}")),
    }
}
