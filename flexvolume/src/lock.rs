//! One call at a time for a volume, and how an unmount tells a mount in progress to give up.
//!
//! A kubelet that was restarted may run a second driver for the same directory while the first
//! still waits for the agent. Each holds a `flock` on `/run/krb-broker/locks/<uid>.<volume>`.
//! An `unmount` does not wait for that first: it appends a byte, a mark, which the holder looks
//! for while it waits and before it succeeds. So a mount never ends well after an unmount began.
//!
//! The file lasts as long as calls do: its holder removes it, and whoever waited on the
//! removed file takes a new one.

use std::{fs::File, io::Write, time::Duration};

use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstat, openat, unlinkat},
    io::{Errno, Result},
};

use crate::{
    clock::{Deadline, Waits},
    run_dir,
    target::Target,
};

const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// The right to mount or unmount one volume, given back when dropped.
#[derive(Debug)]
pub struct Lock {
    directory: OwnedFd,
    name: String,
    file: File,
    /// How many marks there were when the lock was taken.
    marks: i64,
}

impl Lock {
    /// Takes the lock for a mount.
    ///
    /// # Errors
    /// `WOULDBLOCK` when another call holds it at the deadline; else those of the system.
    pub fn for_mount(target: &Target, deadline: &Deadline) -> Result<Self> {
        Self::take(target, deadline, |_| Ok(()))
    }

    /// Marks the volume as being unmounted, then takes the lock.
    ///
    /// # Errors
    /// As [`Lock::for_mount`]. The mark is there all the same when it is `WOULDBLOCK`.
    pub fn for_unmount(target: &Target, deadline: &Deadline) -> Result<Self> {
        Self::take(target, deadline, |mut file| {
            file.write_all(b"u").map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
        })
    }

    /// Whether an unmount has come since the lock was taken.
    pub fn is_marked(&self) -> bool {
        fstat(&self.file).map_or(true, |stat| stat.st_size != self.marks)
    }

    fn take(
        target: &Target,
        deadline: &Deadline,
        arrive: impl Fn(&File) -> Result<()>,
    ) -> Result<Self> {
        let directory = run_dir::open_below("locks")?;
        let name = format!("{}.{}", target.uid, target.volume);
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let file = File::from(openat(&directory, &*name, flags, Mode::RUSR | Mode::WUSR)?);
            arrive(&file)?;
            wait_for(&file, deadline)?;
            let stat = fstat(&file)?;
            if stat.st_nlink > 0 {
                return Ok(Self { directory, name, file, marks: stat.st_size });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is still held: nobody else removes a file that he does not hold.
        let _ = unlinkat(&self.directory, &*self.name, AtFlags::empty());
    }
}

fn wait_for(file: &File, deadline: &Deadline) -> Result<()> {
    let mut waits = Waits::between(FIRST_WAIT, LONGEST_WAIT);
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if waits.wait(deadline) => {}
            taken_or_failed => return taken_or_failed,
        }
    }
}
