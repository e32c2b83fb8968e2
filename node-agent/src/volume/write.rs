//! Putting one file in place of another.

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{self, AtFlags, Gid, Mode, OFlags, Uid},
    io::Errno,
};

use super::{VolumeError, layout, open};

/// What a file is called until it is complete; only one writer works on a volume.
const TEMPORARY: &str = ".new";

/// Writes the file beside the old one and renames it over it. Whoever has the old one open
/// goes on reading it; whoever opens the name sees the old bytes or the new, never a part.
/// Nothing happens for a file that stays as it is.
pub fn replace(volume: &OwnedFd, file: &layout::File<'_>) -> Result<(), VolumeError> {
    let Some(bytes) = &file.bytes else { return Ok(()) };
    let mut directory = open::directory(volume, file.directory)?;
    if let Some(below) = &file.below {
        match fs::mkdirat(&directory, below.as_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(refused(file)(error)),
        }
        directory = open::directory(&directory, below)?;
    }
    let written = write_beside(&directory, file, bytes)
        .and_then(|()| fs::renameat(&directory, TEMPORARY, &directory, &*file.name));
    written.map_err(|error| {
        let _gone = fs::unlinkat(&directory, TEMPORARY, AtFlags::empty());
        refused(file)(error)
    })
}

fn write_beside(directory: &OwnedFd, file: &layout::File<'_>, bytes: &[u8]) -> Result<(), Errno> {
    match fs::unlinkat(directory, TEMPORARY, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {} // what an agent that died left behind
        Err(error) => return Err(error),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let new = fs::openat(directory, TEMPORARY, flags, Mode::from_raw_mode(0o600))?;
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(&new, rest) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(count) => rest = &rest[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    let (uid, gid) = file.owner.unwrap_or((0, 0));
    fs::fchown(&new, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    fs::fchmod(&new, Mode::from_raw_mode(file.mode))
}

fn refused(file: &layout::File<'_>) -> impl FnOnce(Errno) -> VolumeError {
    let path = file.path();
    move |error| match error {
        Errno::NOSPC | Errno::DQUOT => VolumeError::Full(path),
        source => VolumeError::System { doing: "writing", path, source },
    }
}

/// Makes `tickets/@DEFAULT`, a link to the directory it is in.
pub fn link_default(volume: &OwnedFd) -> Result<(), VolumeError> {
    let tickets = open::directory(volume, "tickets")?;
    match fs::symlinkat(".", &tickets, layout::DEFAULT_LINK) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(Errno::NOSPC) => Err(VolumeError::Full("tickets/@DEFAULT".to_owned())),
        Err(source) => Err(VolumeError::system("linking", "tickets/@DEFAULT")(source)),
    }
}

/// Gives the replay cache's directory to the pod's user, who alone may enter it.
pub fn own_replay_cache(volume: impl AsFd, uid: u32, gid: u32) -> Result<(), VolumeError> {
    let rcache = open::within(volume, "rcache")?;
    fs::fchown(&rcache, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        .and_then(|()| fs::fchmod(&rcache, Mode::from_raw_mode(0o700)))
        .map_err(VolumeError::system("changing the owner of", "rcache"))
}
