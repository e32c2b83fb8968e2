//! A volume that is mounted nowhere yet: nobody sees it but who holds its descriptor.
//!
//! Kubelet takes whatever is mounted on a volume's directory for a finished volume. One that is
//! made here is filled first and put in its place afterwards, in one step; a driver that dies
//! before that leaves nothing behind, since the kernel takes the volume away with the last
//! descriptor of it. It needs the mount calls of Linux 5.2.

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::{Errno, Result},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen,
    },
};

use crate::{failure::Failure, tmpfs};

/// A tmpfs with the volume's directories in it.
#[derive(Debug)]
pub struct Detached(OwnedFd);

impl Detached {
    /// Makes one; none where the kernel does not know how, or will not let this process.
    ///
    /// # Errors
    /// [`Failure::Swap`]; else [`Failure::System`].
    pub fn make() -> std::result::Result<Option<Self>, Failure> {
        if kernel_counts_as_old() {
            return Ok(None);
        }
        let volume = match tmpfs::never_swapped(mount) {
            Err(Failure::System { errno: Errno::NOSYS | Errno::PERM, .. }) => return Ok(None),
            made => made?,
        };
        tmpfs::make_directories(volume.as_fd())?;
        Ok(Some(Self(volume)))
    }
}

impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether a test has set `KRB_FLEXVOLUME_OLD_KERNEL`. Only a debug build looks.
#[cfg(debug_assertions)]
fn kernel_counts_as_old() -> bool {
    std::env::var_os("KRB_FLEXVOLUME_OLD_KERNEL").is_some()
}

#[cfg(not(debug_assertions))]
fn kernel_counts_as_old() -> bool {
    false
}

fn mount(noswap: bool) -> Result<OwnedFd> {
    let new = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&new, "source", tmpfs::SOURCE)?;
    for (name, value) in tmpfs::LIMITS {
        fsconfig_set_string(&new, name, value)?;
    }
    if noswap {
        fsconfig_set_flag(&new, "noswap")?;
    }
    fsconfig_create(&new)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&new, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
