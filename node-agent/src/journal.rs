//! What the agent remembers over a restart: `journal.json` in its run directory.
//!
//! It holds no secret: which volumes, which leases, whose, which kvnos. It lies on a tmpfs
//! and is replaced by rename, so that it is whole or absent; it is not flushed.
//!
//! A journal that can't be read is moved aside, loudly, and the agent starts as if there
//! were none: it says Hello without a generation, and every volume that it finds mounted is
//! emptied and issued again. That loses nothing but a moment: material that no journal
//! names would be neither refreshed nor wiped.

mod format;

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::holdings::Record;

/// The journal's file.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    /// The journal in this directory.
    pub fn new(run_dir: &Path) -> Self {
        Self { path: run_dir.join("journal.json") }
    }

    /// What was remembered, if it is of this boot; after a reboot only the releases are.
    ///
    /// # Errors
    /// The file is there and can't be read or moved aside.
    pub fn read(&self, boot_id: &str) -> io::Result<Record> {
        let text = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Record::default()),
            text => text?,
        };
        match format::parse(&text) {
            Ok((of_boot, record)) if of_boot == boot_id => Ok(record),
            Ok((_, record)) => Ok(Record { releases: record.releases, ..Record::default() }),
            Err(error) => {
                let aside = self.path.with_extension("json.corrupt");
                tracing::error!(path = %self.path.display(), moved_to = %aside.display(), %error,
                    "the journal can't be read; all volumes will be emptied and issued again");
                fs::rename(&self.path, aside)?;
                Ok(Record::default())
            }
        }
    }

    /// Replaces the journal with this text, 0600.
    ///
    /// # Errors
    /// Those of the file system; the old journal stays.
    pub fn write(&self, text: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("json.new");
        let mut file = fs::OpenOptions::new();
        let mut file = file.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        io::Write::write_all(&mut file, text)?;
        drop(file);
        fs::rename(&new, &self.path)
    }

    /// The journal's text for a record.
    pub fn text(boot_id: &str, record: &Record) -> Vec<u8> {
        format::text(boot_id, record)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::{holdings::VolumeState, place::Place};

    fn record() -> Record {
        let place = Place::new("uid-1", "krb").unwrap();
        let volumes = [(place, VolumeState::Wanted { emptied: false })].into();
        Record { volumes, generation: Some(krb_proto::Generation(3)), ..Record::default() }
    }

    #[test]
    fn a_journal_is_read_as_it_was_written_and_only_root_may() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path());
        assert_eq!(journal.read("boot").unwrap(), Record::default());
        journal.write(&Journal::text("boot", &record())).unwrap();
        assert_eq!(journal.read("boot").unwrap(), record());
        let mode = fs::metadata(dir.path().join("journal.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn after_a_reboot_nothing_is_held_and_releases_are_still_told() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path());
        let lease = krb_proto::LeaseId::from_random([1; 16]);
        let mut record = record();
        record.releases.insert(lease, Place::new("uid-2", "krb").unwrap());
        journal.write(&Journal::text("boot-1", &record)).unwrap();
        let read = journal.read("boot-2").unwrap();
        assert_eq!(read, Record { releases: record.releases, ..Record::default() });
    }

    #[test]
    fn a_corrupt_journal_is_moved_aside_and_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path());
        let whole = Journal::text("boot", &record());
        journal.write(&whole[..whole.len() / 2]).unwrap();
        assert_eq!(journal.read("boot").unwrap(), Record::default());
        assert!(dir.path().join("journal.json.corrupt").exists());
        assert!(!dir.path().join("journal.json").exists());
    }
}
