//! How far the store and the audit log have come, kept in a second place.
//!
//! A store that is put back from a backup, with its own mark and its log beside it, agrees
//! with itself. The mark file lies elsewhere, best on another volume, and tells: a store
//! or a log that comes up with less than it says has lost something.
//!
//! It is written at most every few seconds, not in each commit, so it may lag by as much;
//! it is never ahead. Each writing is a new file renamed into place. Format: magic
//! `KRBMARK1` (8 bytes), id of the master key (8), the mark (32), HMAC-SHA-256 of these
//! (32).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use krb_proto::Secret;
use ring::hmac;

use super::{
    Mark, StoreError,
    directory::io_error,
    seal::{KeyId, MasterKey},
};

const MAGIC: &[u8; 8] = b"KRBMARK1";
const SAID: usize = 8 + 8 + Mark::LEN;

/// The file.
pub struct MarkFile {
    path: PathBuf,
    key: Secret,
    id: KeyId,
    written: Option<Mark>,
}

impl MarkFile {
    /// The mark file at `path`, which may not be there yet.
    pub fn new(path: &Path, master: &MasterKey) -> Self {
        let key = master.derive("krb-broker mark file 1", b"");
        Self { path: path.to_owned(), key, id: master.id(), written: None }
    }

    /// What it says; `None` when it is not there, or can't be relied on.
    ///
    /// # Errors
    /// When it can't be read from the disk, or was written under another master key.
    pub fn read(&self) -> Result<Option<Mark>, StoreError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("reading", &self.path)(error)),
        };
        let damaged = || {
            tracing::error!(path = %self.path.display(), "THE MARK FILE WAS DAMAGED OR CHANGED");
            Ok(None)
        };
        let Some((said, mac)) = bytes.split_at_checked(SAID) else { return damaged() };
        let (head, mark) = said.split_at(16);
        if !head.starts_with(MAGIC) {
            return damaged();
        }
        let mut found = KeyId([0; 8]);
        found.0.copy_from_slice(&head[8..]);
        if found != self.id {
            let path = self.path.clone();
            return Err(StoreError::WrongMasterKey { path, found, ours: self.id });
        }
        match mark.first_chunk() {
            Some(mark) if hmac::verify(&self.mac_key(), said, mac).is_ok() => {
                Ok(Some(Mark::from_bytes(mark)))
            }
            _ => damaged(),
        }
    }

    /// Writes the mark durably, unless it is what was written last.
    ///
    /// # Errors
    /// When it can't be written; what it said before stays.
    pub fn write(&mut self, mark: Mark) -> Result<(), StoreError> {
        if self.written == Some(mark) {
            return Ok(());
        }
        let said = [&MAGIC[..], &self.id.0, &mark.to_bytes()].concat();
        let mac = hmac::sign(&self.mac_key(), &said);
        let bytes = [&said, mac.as_ref()].concat();
        self.replace(&bytes).map_err(io_error("writing", &self.path))?;
        self.written = Some(mark);
        Ok(())
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = self.path.with_file_name(name);
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            _ => File::open(".")?.sync_all(),
        }
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

    fn master(seed: u64) -> MasterKey {
        MasterKey::random(&SeededEntropy::new(seed))
    }

    fn mark(sequence: u64) -> Mark {
        Mark { sequence, audit_head: Head { seq: 3, mac: Mac([4; 16]) } }
    }

    #[test]
    fn it_says_what_was_written_last() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("mark");
        let mut file = MarkFile::new(&path, &master(1));
        assert_eq!(file.read().unwrap(), None);
        for sequence in [1, 2, u64::MAX] {
            file.write(mark(sequence)).unwrap();
            let read = MarkFile::new(&path, &master(1)).read().unwrap();
            assert_eq!(read, Some(mark(sequence)));
        }
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_changed_one_says_nothing_and_another_key_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("mark");
        MarkFile::new(&path, &master(1)).write(mark(7)).unwrap();
        let error = MarkFile::new(&path, &master(2)).read().unwrap_err();
        assert!(matches!(error, StoreError::WrongMasterKey { .. }), "{error}");
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).filter(|at| !(8..16).contains(at)) {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, changed).unwrap();
            assert_eq!(MarkFile::new(&path, &master(1)).read().unwrap(), None, "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(MarkFile::new(&path, &master(1)).read().unwrap(), None, "cut at {at}");
        }
    }
}
