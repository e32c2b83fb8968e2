//! `/run/krb-broker/driver.log`: what kubelet shows to nobody, such as a failed unmount.
//!
//! One line a failure: seconds since 1970, what was tried for which pod and volume, and why it
//! failed; never the options, which may hold what their owner keeps to himself. It takes no
//! more than about twice [`MAX_LOG`], and is done without where it can't be written.

use std::{fmt::Display, fs::File, io::Write};

use rustix::{
    fs::{Mode, OFlags, fstat, openat, renameat},
    io::Result,
};

use crate::{clock, run_dir};

/// At how many bytes the log is put aside as `driver.log.1`.
const MAX_LOG: i64 = 1024 * 1024;

const NAME: &str = "driver.log";

/// Writes one line, whatever the texts hold.
pub fn note(tried: &str, trouble: &dyn Display) {
    let mut line = format!("{} {tried}: {trouble}", clock::unix_seconds())
        .replace(char::is_control, "\u{fffd}");
    line.push('\n');
    let _ = append(&line);
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
