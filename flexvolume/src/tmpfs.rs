//! The volume's file system: how large it may grow, that it never goes to swap, and its
//! directories. Where it is mounted is [`crate::layers`]'s business.

use std::fs;

use krb_proto::driver::DIRECTORIES;
use rustix::{
    fd::BorrowedFd,
    fs::{Mode, OFlags, fchmod, fstatfs, mkdirat, openat},
    io::{Errno, Result},
};

use crate::failure::Failure;

/// What the mount is called where mounts are listed.
pub const SOURCE: &str = "krb-broker";

/// What every tmpfs may hold: a few tickets, a keytab and a replay cache, not a node's memory.
pub const LIMITS: [(&str, &str); 3] = [("size", "1m"), ("nr_inodes", "128"), ("mode", "0755")];

/// `TMPFS_MAGIC` of statfs(2).
const MAGIC: i64 = 0x0102_1994;

/// Has `make` make a tmpfs that is told `noswap` (its argument); and one that is not, where
/// the kernel does not know the word and the node has no swap.
///
/// # Errors
/// [`Failure::Swap`] when it might be written to a disk; else [`Failure::System`].
pub fn never_swapped<T>(make: impl Fn(bool) -> Result<T>) -> std::result::Result<T, Failure> {
    let failed = Failure::system("mounting the volume");
    match make(true) {
        Err(Errno::INVAL) if swap_is_on() => Err(Failure::Swap),
        Err(Errno::INVAL) => make(false).map_err(failed),
        made => made.map_err(failed),
    }
}

/// Whether a directory is in a tmpfs.
///
/// # Errors
/// Those of the system.
pub fn holds(directory: BorrowedFd<'_>) -> Result<bool> {
    Ok(i128::from(fstatfs(directory)?.f_type) == i128::from(MAGIC))
}

/// Makes the volume's directories, those that are not there yet.
///
/// # Errors
/// [`Failure::System`].
pub fn make_directories(volume: BorrowedFd<'_>) -> std::result::Result<(), Failure> {
    let made = DIRECTORIES.iter().try_for_each(|name| make_directory(volume, name));
    made.map_err(Failure::system("making the volume's directories"))
}

/// Makes one of the volume's directories, root's, 0755 whatever the umask.
fn make_directory(volume: BorrowedFd<'_>, name: &str) -> Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    let open = || {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(volume, name, flags, Mode::empty())
    };
    match mkdirat(volume, name, mode) {
        Ok(()) => fchmod(open()?, mode),
        Err(Errno::EXIST) => open().map(drop), // the agent may have given it away since
        Err(errno) => Err(errno),
    }
}

/// Whether the node swaps, or does not say.
fn swap_is_on() -> bool {
    fs::read_to_string("/proc/swaps").map_or(true, |list| names_swap(&list))
}

/// Whether the text of `/proc/swaps` has a line below its head.
fn names_swap(list: &str) -> bool {
    list.lines().count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_on_when_the_kernel_lists_any() {
        let head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(!names_swap(head));
        assert!(names_swap(&format!("{head}/dev/zram0 partition\t4194300\t0\t100\n")));
    }
}
