//! The volume's directory and the file systems mounted on it.
//!
//! Every step is done through a descriptor of the directory itself, never through its path:
//! below kubelet's root no link is followed. That a directory is a mount point is told by its
//! device, as kubelet does it; `/proc/self/mountinfo` takes milliseconds on a busy node.
//! Kernels before 5.2 can mount a volume only where it is to be, before it is filled
//! ([`Layers::mount_tmpfs`]); from then on a [`Detached`] one is put there.
//!
//! What is mounted here comes off with `MNT_DETACH`: a container or an agent that still has a
//! file open can't keep the volume.

use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, CWD, Mode, OFlags, fstat, openat, statat},
    io::Errno,
    mount::{MountFlags, MoveMountFlags, UnmountFlags, mount, move_mount, unmount},
};

use crate::{detached::Detached, empty, failure::Failure, target::Target, tmpfs};

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
        let look = || Ok(self.is_mounted()? && tmpfs::holds(self.top()?.as_fd())?);
        look().map_err(Failure::system("looking at the volume's directory"))
    }

    /// Mounts the volume's tmpfs, empty.
    ///
    /// # Errors
    /// [`Failure::Swap`] when it might be swapped out; else [`Failure::System`].
    pub fn mount_tmpfs(&self) -> Result<(), Failure> {
        tmpfs::never_swapped(|noswap| self.mount_once(noswap))
    }

    /// Puts a volume that is mounted nowhere on top, in one step.
    ///
    /// # Errors
    /// [`Failure::System`].
    pub fn put(&self, volume: &Detached) -> Result<(), Failure> {
        let whole = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        let here = MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        let put = |top: OwnedFd| move_mount(volume, "", top, "", whole | here);
        self.top().and_then(put).map_err(Failure::system("putting the volume in its place"))
    }

    /// Makes the volume's directories, those that are not there yet.
    ///
    /// # Errors
    /// [`Failure::System`].
    pub fn make_directories(&self) -> Result<(), Failure> {
        let volume = self.top().map_err(Failure::system("making the volume's directories"))?;
        tmpfs::make_directories(volume.as_fd())
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

    fn mount_once(&self, noswap: bool) -> rustix::io::Result<()> {
        let limits = tmpfs::LIMITS.map(|(name, value)| format!("{name}={value}")).join(",");
        let options = limits + if noswap { ",noswap" } else { "" };
        let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount(tmpfs::SOURCE, magic(self.top()?.as_fd()), "tmpfs", flags, options.as_c_str())
    }
}

/// A path that leads to what a descriptor holds, and nowhere else.
fn magic(held: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", held.as_raw_fd())
}
