//! A file that one process has to itself.

use std::{fs::File, io, thread, time::Duration};

use rustix::{fs::FlockOperation, io::Errno};

/// How often, and how far apart, a lock is tried: a child that another thread is starting
/// holds all our locks until it runs its own program.
pub(crate) const TRIES: u32 = 100;

/// Locks the file until it is closed; false when another process has it.
///
/// # Errors
/// When the file system knows no locks.
pub(crate) fn take(file: &File) -> io::Result<bool> {
    for _ in 0..TRIES {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => pause(),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// Waits a little between two tries.
#[expect(clippy::disallowed_methods, reason = "start-up, on a thread that may block")]
pub(crate) fn pause() {
    thread::sleep(Duration::from_millis(10));
}
