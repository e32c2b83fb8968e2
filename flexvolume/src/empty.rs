//! Removing the files of a volume.
//!
//! A container may still run and change `rcache` meanwhile, and makes of it what it likes: no
//! link is followed, no other file system entered, and depth is bounded. Directories stay; the
//! file system goes next.

use krb_proto::driver::DIRECTORIES;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat, unlinkat},
    io::{Errno, Result},
};

/// Deeper than the inodes of a volume allow.
const DEEPEST: usize = 128;

/// More files than the inodes of a volume allow: a container that makes them as fast as they
/// are removed can't hold the unmount up.
const MOST_FILES: usize = 1024;

/// Removes all files below the volume's directories.
///
/// # Errors
/// That of the first file or directory that could not be dealt with; the others are removed.
pub fn volume(root: BorrowedFd<'_>) -> Result<()> {
    let device = fstat(root)?.st_dev;
    let mut outcome = Ok(());
    for name in DIRECTORIES {
        let done = match open(root, name) {
            Err(Errno::NOENT) => Ok(()),
            opened => opened.and_then(|directory| files(directory, device, DEEPEST)),
        };
        outcome = outcome.and(done);
    }
    outcome
}

fn open(at: BorrowedFd<'_>, name: impl rustix::path::Arg) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn files(directory: OwnedFd, device: u64, depth: usize) -> Result<()> {
    if depth == 0 || fstat(&directory)?.st_dev != device {
        return Err(Errno::XDEV);
    }
    let mut outcome = Ok(());
    for entry in Dir::read_from(&directory)?.take(MOST_FILES) {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW);
        let done = match stat.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::Directory) => {
                open(directory.as_fd(), name).and_then(|below| files(below, device, depth - 1))
            }
            Ok(_) => unlinkat(&directory, name, AtFlags::empty()),
            Err(errno) => Err(errno),
        };
        // What has gone by itself is gone.
        outcome = outcome.and(if done == Err(Errno::NOENT) { Ok(()) } else { done });
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::AsFd};

    use super::*;

    #[test]
    fn neither_a_wide_nor_a_deep_directory_holds_the_driver_up() {
        let root = tempfile::tempdir().unwrap();
        let rcache = root.path().join("rcache");
        fs::create_dir(&rcache).unwrap();
        for n in 0..MOST_FILES + 10 {
            fs::write(rcache.join(n.to_string()), "").unwrap();
        }
        let held = fs::File::open(root.path()).unwrap();
        assert_eq!(volume(held.as_fd()), Ok(()));
        let left = fs::read_dir(&rcache).unwrap().count();
        assert!((1..=12).contains(&left), "{left}"); // `.` and `..` may count
        assert_eq!(volume(held.as_fd()), Ok(()));
        assert_eq!(fs::read_dir(&rcache).unwrap().count(), 0);

        fs::create_dir_all(rcache.join("d/".repeat(DEEPEST))).unwrap();
        assert_eq!(volume(held.as_fd()), Err(Errno::XDEV));
    }
}
