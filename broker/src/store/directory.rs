//! The store's directory: who may use it, what is in it, and how far the store had come.
//!
//! ```text
//! lock                held by the process that uses the store
//! high-water          the highest sequence number known to have been committed
//! db/                 the database
//! snapshot            the newest sealed copy, and the one before it:
//! snapshot.previous
//! broken-TIME/        a database that could not be read, moved here, never removed
//! ```
//!
//! The high-water mark is written after each commit and not synced for it: it is never
//! above what was committed, and after a power cut it may be below. Its presence says that
//! a store was here.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use krb_proto::Secret;
use ring::hmac;

use super::{Mark, StoreError, lock, seal::MasterKey};
use crate::clock::unix_seconds;

/// The directory, held by this process.
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes it, mode 0700, where it is not there, and takes its lock.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path).map_err(io_error("making", path))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(io_error("closing to others", path))?;
        let lock_path = path.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(io_error("opening", &lock_path))?;
        if lock::take(&file).map_err(io_error("locking", &lock_path))? {
            Ok(Self { path: path.to_owned(), _lock: file })
        } else {
            Err(StoreError::InUse { path: path.to_owned() })
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the database is.
    pub fn database(&self) -> PathBuf {
        self.path.join("db")
    }

    /// Whether a store was ever here.
    pub fn has_existed(&self) -> Result<bool, StoreError> {
        let entries = fs::read_dir(&self.path).map_err(io_error("reading", &self.path))?;
        for entry in entries {
            let name = entry.map_err(io_error("reading", &self.path))?.file_name();
            let name = name.to_string_lossy();
            if name == "high-water" || name.starts_with("snapshot") || name.starts_with("broken-") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves the database out of the way and says where to; `None` when there is none.
    pub fn move_aside(&self, now: SystemTime) -> Result<Option<PathBuf>, StoreError> {
        let database = self.database();
        let name = |n: u32| match n {
            0 => self.path.join(format!("broken-{}", unix_seconds(now))),
            n => self.path.join(format!("broken-{}-{n}", unix_seconds(now))),
        };
        if !database.exists() {
            return Ok(None);
        }
        let free = (0..).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0));
        fs::rename(&database, &free).map_err(io_error("moving aside", &database))?;
        self.sync()?;
        Ok(Some(free))
    }

    /// Makes the names in it durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        sync_directory(&self.path)
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io_error("syncing", path))
}

/// The error of `operation` on `path`.
pub(super) fn io_error(
    operation: &'static str,
    path: &Path,
) -> impl Fn(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::Io { operation, path: path.clone(), source }
}

/// How far the store in this directory had come by its own mark, whoever has it open now.
///
/// # Errors
/// When the mark is there and can't be opened.
pub fn known(directory: &Path, master: &MasterKey) -> Result<Mark, StoreError> {
    Ok(HighWater::open(directory, master)?.read())
}

/// The file `high-water`: magic (8 bytes), the mark (32), HMAC-SHA-256 of these (32).
pub(super) struct HighWater {
    file: Option<File>,
    path: PathBuf,
    key: Secret,
}

const MAGIC: &[u8; 8] = b"KRBHIGH2";
const MARK: usize = 8 + Mark::LEN + 32;

impl HighWater {
    /// The mark of the store in this directory; not there yet in a new one.
    pub fn open(directory: &Path, master: &MasterKey) -> Result<Self, StoreError> {
        let path = directory.join("high-water");
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io_error("opening", &path)(error)),
        };
        Ok(Self { file, path, key: master.derive("krb-broker high water 1", b"") })
    }

    /// The mark; none when there is no file, or it is torn or another's. Those are no
    /// reason not to start: the mark only ever adds a suspicion.
    pub fn read(&self) -> Mark {
        let mut bytes = [0; MARK];
        let Some(file) = &self.file else { return Mark::default() };
        if file.read_exact_at(&mut bytes, 0).is_err() {
            return Mark::default();
        }
        let (said, mac) = bytes.split_at(MARK - 32);
        if !said.starts_with(MAGIC) || hmac::verify(&self.mac_key(), said, mac).is_err() {
            tracing::warn!(path = %self.path.display(), "the high-water mark can't be read");
            return Mark::default();
        }
        said[8..].try_into().map(Mark::from_bytes).unwrap_or_default()
    }

    /// Writes the mark. The first one is made durable, since it says that a store exists.
    pub fn write(&mut self, mark: Mark) -> Result<(), StoreError> {
        let said = [&MAGIC[..], &mark.to_bytes()].concat();
        let mac = hmac::sign(&self.mac_key(), &said);
        let bytes = [&said, mac.as_ref()].concat();
        let io = io_error("writing", &self.path);
        match &self.file {
            Some(file) => file.write_all_at(&bytes, 0).map_err(io),
            None => self.create(&bytes).map_err(io),
        }
    }

    fn create(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let file = options.create_new(true).read(true).write(true).mode(0o600).open(&self.path)?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()?;
        if let Some(parent) = self.path.parent() {
            File::open(parent)?.sync_all()?;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Makes the mark durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        let synced = self.file.as_ref().map_or(Ok(()), File::sync_data);
        synced.map_err(io_error("syncing", &self.path))
    }

    fn mac_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.key.expose())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{Head, Mac},
        clock::SeededEntropy,
    };

    fn master() -> MasterKey {
        MasterKey::random(&SeededEntropy::new(1))
    }

    #[test]
    fn the_directory_is_closed_to_others_and_used_once() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/store");
        let directory = Directory::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(Directory::open(&path), Err(StoreError::InUse { .. })));
        drop(directory);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Directory::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn the_mark_is_read_back_and_a_torn_one_says_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        assert!(!directory.has_existed().unwrap());
        let mut mark = HighWater::open(directory.path(), &master()).unwrap();
        assert_eq!(mark.read(), Mark::default());
        for sequence in [1, 7, u64::MAX] {
            let written = Mark { sequence, audit_head: Head { seq: 3, mac: Mac([9; 16]) } };
            mark.write(written).unwrap();
            assert_eq!(HighWater::open(directory.path(), &master()).unwrap().read(), written);
        }
        assert!(directory.has_existed().unwrap());
        mark.file.as_ref().unwrap().write_all_at(b"\0", 12).unwrap();
        assert_eq!(mark.read(), Mark::default());
    }

    #[test]
    fn databases_are_moved_aside_under_names_of_their_own() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        assert_eq!(directory.move_aside(SystemTime::UNIX_EPOCH).unwrap(), None);
        for name in ["broken-0", "broken-0-1", "broken-0-2"] {
            fs::create_dir(directory.database()).unwrap();
            let moved = directory.move_aside(SystemTime::UNIX_EPOCH).unwrap().unwrap();
            assert!(moved.ends_with(name) && moved.is_dir(), "{}", moved.display());
        }
    }
}
