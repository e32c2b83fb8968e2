//! Unlinking what does not belong in a directory of a volume.

use std::{
    collections::BTreeSet,
    ffi::{CStr, CString},
};

use rustix::{
    fd::OwnedFd,
    fs::{self, AtFlags, Dir},
    io::Errno,
};

use super::{VolumeError, open};

/// How far down a directory is searched. The agent's own files are at most one down; what a
/// pod nests deeper in its replay cache is its own and goes with the mount.
const MAX_DEPTH: usize = 8;

/// How many names of one directory are looked at, so that a pod that makes new ones
/// meanwhile can't keep the agent here.
const MAX_NAMES: usize = 16 * 1024;

/// Unlinks everything in the volume's `directory` whose path is not in `kept`. Links are
/// unlinked, never followed; the directory itself stays.
pub fn sweep(
    volume: &OwnedFd,
    directory: &str,
    kept: &BTreeSet<String>,
) -> Result<(), VolumeError> {
    match open::within(volume, directory) {
        Ok(opened) => sweep_in(&opened, directory, kept, MAX_DEPTH).map(|_| ()),
        Err(VolumeError::System { source: Errno::NOENT, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether nothing is left. The first error is told after all names have been tried.
fn sweep_in(
    directory: &OwnedFd,
    path: &str,
    kept: &BTreeSet<String>,
    depth: usize,
) -> Result<bool, VolumeError> {
    let mut empty = true;
    let mut result = Ok(());
    for name in names(directory).map_err(VolumeError::system("reading", path))? {
        let below = format!("{path}/{}", name.to_string_lossy());
        if kept.contains(&below) {
            empty = false;
            continue;
        }
        match remove(directory, &name, &below, kept, depth) {
            Ok(gone) => empty &= gone,
            Err(error) => {
                empty = false;
                result = result.and(Err(error));
            }
        }
    }
    result.map(|()| empty)
}

fn remove(
    directory: &OwnedFd,
    name: &CStr,
    path: &str,
    kept: &BTreeSet<String>,
    depth: usize,
) -> Result<bool, VolumeError> {
    match fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ISDIR) if depth > 0 => {}
        Err(source) => return Err(VolumeError::system("unlinking", path)(source)),
    }
    let empty = sweep_in(&open::within(directory, name)?, path, kept, depth - 1)?;
    if empty {
        fs::unlinkat(directory, name, AtFlags::REMOVEDIR)
            .map_err(VolumeError::system("removing", path))?;
    }
    Ok(empty)
}

/// The names in a directory.
fn names(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)?.take(MAX_NAMES) {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}
