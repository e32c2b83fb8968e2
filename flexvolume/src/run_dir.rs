//! `/run/krb-broker`: root's alone, shared with the agent, gone at a reboot.

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{CWD, Mode, OFlags, fstat, mkdirat, openat},
    io::{Errno, Result},
};

const PATH: &str = "/run/krb-broker";

/// Opens the directory, and makes it where it is not there yet.
///
/// # Errors
/// Those of the system; `PERM` when others than root may write to it.
pub fn open() -> Result<OwnedFd> {
    open_or_make(CWD, PATH)
}

/// Opens a directory below it, and makes it where it is not there yet.
///
/// # Errors
/// As [`open`].
pub fn open_below(name: &str) -> Result<OwnedFd> {
    open_or_make(open()?, name)
}

fn open_or_make(at: impl AsFd, name: &str) -> Result<OwnedFd> {
    let at = at.as_fd();
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match openat(at, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            match mkdirat(at, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            openat(at, name, flags, Mode::empty())?
        }
        opened => opened?,
    };
    let stat = fstat(&directory)?;
    let others_may_write = Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH);
    if stat.st_uid != 0 || others_may_write { Err(Errno::PERM) } else { Ok(directory) }
}
