//! One cluster at a time on a machine: its namespaces have fixed names and addresses.
//!
//! The lock's file holds the directory of the cluster that is up. Whoever takes the lock and finds
//! a directory in it knows that the run before died, and what to take down. It lies in `/run`, where
//! the namespaces lie too: both are gone after a reboot, and only root can write there.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

use super::{ClusterError, wait};

const FILE: &str = "/run/krb-broker-test-cluster";
/// How long to wait for another run.
const PATIENCE: Duration = Duration::from_secs(1800);

/// The right to have a cluster up, given back when dropped or when this process dies.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// Takes it, waiting for whoever has it.
    pub(super) fn take() -> Result<Self, ClusterError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(FILE)
            .map_err(|error| ClusterError::new(format!("opening {FILE} (as root?)"), error))?;
        wait::until("the end of another run with a cluster", PATIENCE, || {
            Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).ok())
        })?;
        Ok(Self { file })
    }

    /// The directory of a run that died, if it has not been taken down.
    pub(super) fn left_behind(&mut self) -> Option<PathBuf> {
        let mut text = String::new();
        self.file.read_to_string(&mut text).ok()?;
        Some(PathBuf::from(text.trim())).filter(|dir| dir.join("k8s_bin").is_file())
    }

    /// Notes the directory of the cluster that is about to come up.
    pub(super) fn note(&mut self, dir: &Path) -> Result<(), ClusterError> {
        let failed = |error| ClusterError::new(format!("writing {FILE}"), error);
        self.forget();
        self.file.write_all(dir.as_os_str().as_bytes()).map_err(failed)
    }

    /// Notes that nothing is up.
    pub(super) fn forget(&mut self) {
        // a note that stays makes the next run sweep in vain, no more
        let _ = self.file.set_len(0);
        let _ = self.file.rewind();
    }
}
