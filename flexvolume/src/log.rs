//! `/run/krb-broker/driver.log`: what kubelet shows to nobody, such as a failed unmount.
//!
//! One line a failure: seconds since 1970, what was tried for which pod and volume, why it
//! failed. No options, since a pod's may hold what its owner keeps to himself. The log never grows past two times
//! [`MAX_LOG`], and one that can't be written is done without.

use std::{fmt::Display, fs::File, io::Write};

use rustix::{
    fs::{Mode, OFlags, fstat, openat, renameat},
    io::Result,
};

use crate::{clock, run_dir};

/// At how many bytes the log is put aside as `driver.log.1`.
const MAX_LOG: i64 = 1024 * 1024;

const NAME: &str = "driver.log";

/// Writes one line.
pub fn note(tried: &str, trouble: &dyn Display) {
    let _ = append(&format!("{} {tried}: {trouble}\n", clock::unix_seconds()));
}

fn append(line: &str) -> Result<()> {
    let directory = run_dir::open()?;
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat(&directory, NAME, flags, Mode::RUSR | Mode::WUSR);
    let mut log = open()?;
    if fstat(&log)?.st_size > MAX_LOG {
        renameat(&directory, NAME, &directory, "driver.log.1")?;
        log = open()?;
    }
    let _ = File::from(log).write_all(line.as_bytes());
    Ok(())
}
