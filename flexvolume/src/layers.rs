//! The volume's directory and the file systems mounted on it.
//!
//! Every step is done through a descriptor of the directory itself, never through its path:
//! below kubelet's root no link is followed. That a directory is a mount point is told by its
//! device, as kubelet does it; `/proc/self/mountinfo` takes milliseconds on a busy node.
//! Plain mount(2) serves all kernels since 4.18, so the newer calls are not used.
//!
//! What is mounted here comes off with `MNT_DETACH`: a container or an agent that still has a
//! file open can't keep the volume.

use std::fs;

use krb_proto::driver::DIRECTORIES;
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, CWD, Mode, OFlags, fchmod, fstat, fstatfs, mkdirat, openat, statat},
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

use crate::{empty, failure::Failure, target::Target};

/// What every tmpfs may hold: a few tickets, a keytab and a replay cache, not a node's memory.
const LIMITS: &str = "size=1m,nr_inodes=128,mode=0755";

/// `TMPFS_MAGIC` of statfs(2).
const TMPFS: i64 = 0x0102_1994;

/// More layers than any race leaves; what comes after is a defect or an attack.
const MOST_LAYERS: usize = 64;

/// A directory to look at and hold on to, not to read. A link is refused.
const HELD: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A volume's directory, which exists.
#[derive(Debug)]
pub struct Layers {
    /// The directory that holds it: `<root>/pods/<uid>/volumes/<vendor~driver>`.
    parent: OwnedFd,
    name: String,
}

impl Layers {
    /// Finds the volume's directory.
    ///
    /// # Errors
    /// [`Failure::NoDirectory`] and [`Failure::Link`], else [`Failure::System`].
    pub fn find(target: &Target) -> Result<Self, Failure> {
        let refused = |errno| match errno {
            Errno::NOENT => Failure::NoDirectory,
            Errno::NOTDIR | Errno::LOOP => Failure::Link,
            errno => Failure::system("opening the volume's directory")(errno),
        };
        let followed = HELD.difference(OFlags::NOFOLLOW); // the root's place is the operator's
        let mut parent = openat(CWD, target.root(), followed, Mode::empty()).map_err(refused)?;
        for name in target.above() {
            parent = openat(&parent, name, HELD, Mode::empty()).map_err(refused)?;
        }
        let layers = Self { parent, name: target.volume.to_string() };
        layers.top().map_err(refused)?;
        Ok(layers)
    }

    /// Whether a tmpfs is on top.
    ///
    /// # Errors
    /// [`Failure::System`].
    pub fn is_tmpfs(&self) -> Result<bool, Failure> {
        let look = || Ok(self.is_mounted()? && is_tmpfs(self.top()?.as_fd())?);
        look().map_err(Failure::system("looking at the volume's directory"))
    }

    /// Mounts the volume's tmpfs, which never goes to swap.
    ///
    /// # Errors
    /// [`Failure::Swap`] when it might; else [`Failure::System`].
    pub fn mount_tmpfs(&self) -> Result<(), Failure> {
        let failed = Failure::system("mounting the volume");
        match self.mount_with(&format!("{LIMITS},noswap")) {
            Err(Errno::INVAL) if swap_is_on() => Err(Failure::Swap),
            Err(Errno::INVAL) => self.mount_with(LIMITS).map_err(failed),
            mounted => mounted.map_err(failed),
        }
    }

    /// Makes the volume's directories, those that are not there yet.
    ///
    /// # Errors
    /// [`Failure::System`].
    pub fn make_directories(&self) -> Result<(), Failure> {
        let make = || {
            let volume = self.top()?;
            DIRECTORIES.iter().try_for_each(|name| make_directory(volume.as_fd(), name))
        };
        make().map_err(Failure::system("making the volume's directories"))
    }

    /// Removes the files of the tmpfs on top, if there is one.
    ///
    /// # Errors
    /// [`Failure::System`] for the first file that stays; the others are removed.
    pub fn empty(&self) -> Result<(), Failure> {
        if self.is_tmpfs()? {
            self.top()
                .and_then(|volume| empty::volume(volume.as_fd()))
                .map_err(Failure::system("removing the volume's files"))?;
        }
        Ok(())
    }

    /// Takes everything off, layer by layer, each emptied first.
    ///
    /// # Errors
    /// [`Failure::System`] when a layer stays. A file that stays does not hinder.
    pub fn take_off(&self) -> Result<(), Failure> {
        let failed = Failure::system("unmounting the volume");
        for _ in 0..MOST_LAYERS {
            match self.is_mounted() {
                Ok(true) => {}
                Ok(false) | Err(Errno::NOENT) => return Ok(()),
                Err(errno) => return Err(failed(errno)),
            }
            let _ = self.empty(); // it goes with the last user of the mount
            let detach = |volume: OwnedFd| unmount(magic(volume.as_fd()), UnmountFlags::DETACH);
            self.top().and_then(detach).map_err(&failed)?;
        }
        Err(failed(Errno::BUSY))
    }

    /// The root of the topmost file system on the directory, or the directory itself.
    fn top(&self) -> rustix::io::Result<OwnedFd> {
        openat(&self.parent, &*self.name, HELD, Mode::empty())
    }

    fn is_mounted(&self) -> rustix::io::Result<bool> {
        let here = statat(&self.parent, &*self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(here.st_dev != fstat(&self.parent)?.st_dev)
    }

    fn mount_with(&self, options: &str) -> rustix::io::Result<()> {
        let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("krb-broker", magic(self.top()?.as_fd()), "tmpfs", flags, options.as_c_str())
    }
}

/// A path that leads to what a descriptor holds, and nowhere else.
fn magic(held: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", held.as_raw_fd())
}

fn is_tmpfs(held: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    Ok(i128::from(fstatfs(held)?.f_type) == i128::from(TMPFS))
}

/// Makes one of the volume's directories, root's, 0755 whatever the umask.
fn make_directory(volume: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
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
