//! Opening a volume and its directories, past whatever lies on the way.

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{self, Mode, OFlags, ResolveFlags},
    io::Errno,
    path::Arg,
};

use super::VolumeError;
use crate::place::{Kubelet, Place};

/// `f_type` of a tmpfs (statfs(2)).
const TMPFS: fs::FsWord = 0x0102_1994;

/// A directory to walk through, not to read.
const WALKED: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

/// Opens the volume of `place`: a tmpfs, mounted there.
pub fn volume(kubelet: &Kubelet, place: &Place) -> Result<OwnedFd, VolumeError> {
    let (parent, name) = (parent(kubelet, place)?, place.volume.as_str());
    let volume =
        beneath(&parent, name, OFlags::DIRECTORY, ResolveFlags::empty()).map_err(absent(name))?;
    check(volume, &parent, name)
}

/// Opens the volume that the driver has made for `place` and not mounted yet: a tmpfs, and not
/// the one that kubelet's directory happens to be in. Everything but the last name of its path
/// must be there.
pub fn detached(
    kubelet: &Kubelet,
    place: &Place,
    volume: &OwnedFd,
) -> Result<OwnedFd, VolumeError> {
    let (parent, name) = (parent(kubelet, place)?, place.volume.as_str());
    let volume = beneath(volume, ".", OFlags::DIRECTORY, ResolveFlags::empty())
        .map_err(VolumeError::system("opening", name))?;
    check(volume, &parent, name)
}

/// The directory that holds the volume's.
fn parent(kubelet: &Kubelet, place: &Place) -> Result<OwnedFd, VolumeError> {
    let root = fs::open(kubelet.root(), WALKED | OFlags::CLOEXEC, Mode::empty())
        .map_err(VolumeError::system("opening", kubelet.root().to_string_lossy()))?;
    let relative = kubelet.parent(&place.pod);
    let relative = relative.to_str().unwrap_or_default();
    beneath(&root, relative, WALKED, ResolveFlags::empty()).map_err(absent(relative))
}

/// That what was opened is a tmpfs and a file system of its own.
fn check(volume: OwnedFd, parent: &OwnedFd, name: &str) -> Result<OwnedFd, VolumeError> {
    let stat = |fd: &OwnedFd| fs::fstat(fd).map_err(VolumeError::system("looking at", name));
    if stat(&volume)?.st_dev == stat(parent)?.st_dev {
        return Err(VolumeError::NotMounted); // a plain directory: on a disk
    }
    let kind = fs::fstatfs(&volume).map_err(VolumeError::system("looking at", name))?.f_type;
    if kind != TMPFS {
        return Err(VolumeError::Foreign("it is no tmpfs"));
    }
    Ok(volume)
}

/// Opens one of the volume's own directories: root's, and writable by root alone.
pub fn directory(volume: impl AsFd, name: &str) -> Result<OwnedFd, VolumeError> {
    let directory = within(volume, name)?;
    let stat = fs::fstat(&directory).map_err(VolumeError::system("looking at", name))?;
    if stat.st_uid != 0 || stat.st_mode & 0o022 != 0 {
        return Err(VolumeError::Foreign("one of its directories is not root's alone"));
    }
    Ok(directory)
}

/// Opens a directory of the same file system, whoever's it is.
pub fn within(at: impl AsFd, name: impl Arg + Copy) -> Result<OwnedFd, VolumeError> {
    beneath(at, name, OFlags::DIRECTORY, ResolveFlags::NO_XDEV)
        .map_err(VolumeError::system("opening", name.to_string_lossy()))
}

fn beneath(
    at: impl AsFd,
    path: impl Arg + Copy,
    flags: OFlags,
    more: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | more;
    let flags = flags | OFlags::CLOEXEC;
    // The kernel gives up with EAGAIN when something is renamed or mounted meanwhile.
    for _ in 0..16 {
        match fs::openat2(&at, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

fn absent(path: &str) -> impl FnOnce(Errno) -> VolumeError {
    move |error| match error {
        Errno::NOENT => VolumeError::NotMounted,
        source => VolumeError::System { doing: "opening", path: path.to_owned(), source },
    }
}
