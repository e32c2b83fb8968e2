//! File descriptors that the library can wait for.
//!
//! libgssrpc waits with select(2), which has no place for a descriptor of 1024 or more: the C
//! library ends the process at one. A broker with a thousand agents has no lower one left, so a
//! few are taken at start, given free while a connection is opened, and taken again.
//!
//! This can't be certain: others open descriptors meanwhile. It reserves many more than an
//! opening needs, and says no where even so no low one is free.

use std::{
    fs::File,
    os::fd::AsRawFd as _,
    sync::{Mutex, PoisonError},
};

/// How many are kept.
const KEPT: usize = 32;
/// The first that is no longer low: below select's 1024 by what an opening itself uses.
const LIMIT: i32 = 1_000;

static RESERVED: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Takes low descriptors until there are enough, or no more.
pub(super) fn reserve() {
    let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
    while reserved.len() < KEPT {
        match low() {
            Some(file) => reserved.push(file),
            None => break,
        }
    }
}

/// Frees them; whether the next descriptor will be a low one.
pub(super) fn give_way() -> bool {
    RESERVED.lock().unwrap_or_else(PoisonError::into_inner).clear();
    low().is_some()
}

/// A descriptor of nothing, where it is a low one: the kernel gives the lowest that is free.
fn low() -> Option<File> {
    File::open("/dev/null").ok().filter(|file| file.as_raw_fd() < LIMIT)
}
