//! The volumes of this node's pods: small tmpfs's that the driver has mounted.
//!
//! - Material is written to a tmpfs that is a mount of its own, never to a disk.
//! - Every operation opens the volume, works, and closes it: an open descriptor would make
//!   the driver's umount fail.
//! - A path is walked from kubelet's root without following any link, and never leaves it.
//! - Files are replaced by rename inside their directory; the directories keep their inode,
//!   so that a pod that has one mounted as a subPath sees the new file.
//! - Operations on one volume exclude each other.
//!
//! Everything here blocks; call it where that is allowed.

mod clear;
pub mod layout;
mod open;
mod write;

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use krb_proto::LeaseId;
use rustix::{fd::OwnedFd, io::Errno};

use crate::{
    material::{Contents, Issued, Owner},
    place::{Kubelet, Place},
};

/// Why a volume could not be read or written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum VolumeError {
    /// The directory is absent, or no mount of its own.
    #[error("the volume is not mounted")]
    NotMounted,
    /// It is a mount of something else, or one of its directories is not the driver's.
    #[error("the volume is not as the driver makes it: {0}")]
    Foreign(&'static str),
    /// Size or inode cap; the file that was there before is untouched.
    #[error("the volume is too small for {0}")]
    Full(String),
    /// Anything else that the kernel refused.
    #[error("{doing} {path}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// On which path, relative to the volume or kubelet's root.
        path: String,
        /// The kernel's reason.
        source: Errno,
    },
}

impl VolumeError {
    fn system(doing: &'static str, path: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        move |source| Self::System { doing, path: path.into(), source }
    }
}

/// Locks enough that volumes seldom wait for each other.
const LOCKS: usize = 64;

/// The volumes below kubelet's root.
#[derive(Debug)]
pub struct Volumes {
    kubelet: Kubelet,
    locks: [Mutex<()>; LOCKS],
}

/// A volume that the driver has made and not mounted yet, by its descriptor. It is gone when
/// the driver and whoever else holds it let it go.
#[derive(Debug)]
pub struct Detached(pub OwnedFd);

/// The right to change one volume; given back on drop.
#[derive(Debug)]
pub struct Volume<'a> {
    volumes: &'a Volumes,
    place: &'a Place,
    _lock: MutexGuard<'a, ()>,
}

impl Volumes {
    /// The volumes of kubelet's driver directories.
    pub fn new(kubelet: Kubelet) -> Self {
        Self { kubelet, locks: std::array::from_fn(|_| Mutex::new(())) }
    }

    /// Where the volumes are.
    pub fn kubelet(&self) -> &Kubelet {
        &self.kubelet
    }

    /// Waits until nobody else works on the volume. What must agree with its files is
    /// decided while this is held.
    pub fn lock<'a>(&'a self, place: &'a Place) -> Volume<'a> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(place);
        let lock = &self.locks[usize::try_from(hash % LOCKS as u64).unwrap_or(0)];
        // The lock guards no data; a panic elsewhere leaves at worst a temporary file.
        Volume { volumes: self, place, _lock: lock.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// The volumes of this driver that are mounted now, in no order.
    ///
    /// # Errors
    /// Kubelet's directory of pods can't be read.
    pub fn mounted(&self) -> std::io::Result<Vec<Place>> {
        let pods = self.kubelet.root().join("pods");
        let mut found = Vec::new();
        for pod in names(pods)? {
            let Ok(uid) = pod.parse() else { continue };
            let parent = self.kubelet.root().join(self.kubelet.parent(&uid));
            for volume in names(parent).unwrap_or_default() {
                let Ok(place) = Place::new(&pod, &volume) else { continue };
                if open::volume(&self.kubelet, &place).is_ok() {
                    found.push(place);
                }
            }
        }
        Ok(found)
    }
}

impl Volume<'_> {
    /// Whether the volume is mounted as the driver mounts it.
    pub fn is_mounted(&self) -> bool {
        self.open().is_ok()
    }

    /// Writes everything that an Issue granted and takes away what it did not: on the volume
    /// that is mounted, or on one that will be.
    ///
    /// # Errors
    /// Why it could not; what was written until then stays.
    pub fn fill(&self, issued: &Issued, detached: Option<&Detached>) -> Result<(), VolumeError> {
        let volume = match detached {
            Some(Detached(made)) => open::detached(&self.volumes.kubelet, self.place, made)?,
            None => self.open()?,
        };
        write::own_replay_cache(&volume, issued.owner.uid, issued.owner.gid)?;
        write_all(&volume, &layout::of_issue(issued))
    }

    /// Replaces the material with what was pushed and takes away what is no longer granted.
    /// Service tickets that libkrb5 appended to a ccache go with the ccache.
    ///
    /// # Errors
    /// Why it could not; a file that could not be replaced is the old one.
    pub fn replace(
        &self,
        lease: LeaseId,
        owner: &Owner,
        contents: &Contents,
    ) -> Result<(), VolumeError> {
        write_all(&self.open()?, &layout::of_contents(lease, owner, contents))
    }

    /// Unlinks every file in the four directories, the pod's own in `rcache` too.
    ///
    /// # Errors
    /// Why something of ours could not be unlinked; the rest is gone all the same.
    pub fn empty(&self) -> Result<(), VolumeError> {
        let volume = self.open()?;
        let none = BTreeSet::new();
        let ours = ["tickets", "keytabs", "conf"];
        let results = ours.map(|directory| clear::sweep(&volume, directory, &none));
        // What a pod has made of its replay cache must not keep the wipe from ending well.
        if let Err(error) = clear::sweep(&volume, "rcache", &none) {
            tracing::warn!(place = %self.place, %error, "the pod's replay cache was not emptied");
        }
        results.into_iter().collect()
    }

    fn open(&self) -> Result<OwnedFd, VolumeError> {
        open::volume(&self.volumes.kubelet, self.place)
    }
}

fn write_all(volume: &OwnedFd, files: &[layout::File<'_>]) -> Result<(), VolumeError> {
    write::link_default(volume)?;
    for file in files {
        write::replace(volume, file)?;
    }
    let kept = layout::kept(files);
    clear::sweep(volume, "tickets", &kept)?;
    clear::sweep(volume, "keytabs", &kept)
}

fn names(directory: PathBuf) -> std::io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}
