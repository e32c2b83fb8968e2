//! The files of one log: the one that is written, and those that it was rotated to.
//!
//! `audit.log` is rotated to `audit.log.<seq of its first line, 20 digits>`, so that names
//! sort as the chain goes. A name that is taken, which only a copy or a restored file can
//! be, is not written over: the next gets `-1` and so on behind it.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// How long rotated files are kept. A file goes when any limit says so.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Retention {
    /// The most rotated files, if there is a most.
    pub files: Option<usize>,
    /// How long after its last line a file is kept, if not for ever.
    pub age: Option<Duration>,
}

/// A rotated file.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Rotated {
    /// The number of its first line.
    pub first: u64,
    /// Where it is.
    pub path: PathBuf,
}

/// The rotated files of the log at `path`, oldest first.
///
/// # Errors
/// When the directory can't be read.
pub fn rotated(path: &Path) -> io::Result<Vec<Rotated>> {
    let mut found = Vec::new();
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(found) };
    for entry in fs::read_dir(directory(path))? {
        let entry = entry?;
        let there = entry.file_name();
        let rest = there.to_str().and_then(|there| there.strip_prefix(name)?.strip_prefix('.'));
        if let Some(first) = rest.and_then(first_line) {
            found.push(Rotated { first, path: entry.path() });
        }
    }
    found.sort();
    Ok(found)
}

/// The number in `<20 digits>` or `<20 digits>-<n>`.
fn first_line(rest: &str) -> Option<u64> {
    let (digits, copy) = rest.split_once('-').map_or((rest, None), |(d, n)| (d, Some(n)));
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
    if digits.len() != 20 || copy.is_some_and(|copy| number(copy).is_none()) {
        return None;
    }
    number(digits)
}

/// A free name for the file whose first line has this number.
pub(super) fn name(path: &Path, first: u64) -> PathBuf {
    let named = |n: u32| {
        let mut name = OsString::from(path.file_name().unwrap_or_default());
        name.push(format!(".{first:020}"));
        if n > 0 {
            name.push(format!("-{n}"));
        }
        path.with_file_name(name)
    };
    (0..).map(named).find(|path| path.symlink_metadata().is_err()).unwrap_or_else(|| named(0))
}

/// The directory that the log is in.
pub(super) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Rotated files that are kept no longer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Outlived {
    /// Which, oldest first.
    pub files: Vec<Rotated>,
    /// The number of the last line in them.
    pub up_to: u64,
}

impl Retention {
    /// How many of the rotated files go, from the oldest on: one that is kept keeps all
    /// that are younger. `ages` says how long ago each had its last line, oldest first.
    pub fn outlived(&self, ages: &[Duration]) -> usize {
        let by_count = self.files.map_or(0, |most| ages.len().saturating_sub(most));
        let by_age = self.age.map_or(0, |age| ages.iter().take_while(|old| **old > age).count());
        by_count.max(by_age)
    }

    /// The rotated files of a log that has come to `head` that are kept no longer.
    ///
    /// # Errors
    /// When they can't be looked at.
    pub(super) fn outlived_of(
        &self,
        path: &Path,
        head: u64,
        now: SystemTime,
    ) -> io::Result<Outlived> {
        if *self == Self::default() {
            return Ok(Outlived::default());
        }
        let mut files = rotated(path)?;
        let mut ages = Vec::new();
        for file in &files {
            let written = file.path.metadata()?.modified()?;
            ages.push(now.duration_since(written).unwrap_or_default());
        }
        let kept = files.split_off(self.outlived(&ages));
        let up_to = kept.first().map_or(head, |kept| kept.first.saturating_sub(1));
        Ok(Outlived { files, up_to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn rotated_names_sort_as_the_chain_goes_and_no_other_file_is_taken_for_one() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("audit.log");
        for first in [100, 9, u64::MAX] {
            fs::write(name(&path, first), b"").unwrap();
        }
        let second = name(&path, 9);
        assert!(second.to_string_lossy().ends_with(".00000000000000000009-1"));
        fs::write(second, b"").unwrap();
        for other in ["audit.log", "audit.log.1", "audit.log.gz", "audit.logs.00000000000000000009"]
        {
            fs::write(temp.path().join(other), b"").unwrap();
        }
        let found: Vec<_> = rotated(&path).unwrap().iter().map(|file| file.first).collect();
        assert_eq!(found, [9, 9, 100, u64::MAX]);
    }

    #[test]
    fn only_whole_oldest_files_outlive_their_time() {
        let ages = [DAY * 9, DAY * 2, DAY * 5, DAY];
        let keep = |files, days: Option<u32>| Retention { files, age: days.map(|n| DAY * n) };
        assert_eq!(keep(None, None).outlived(&ages), 0);
        assert_eq!(keep(Some(3), None).outlived(&ages), 1);
        assert_eq!(keep(Some(9), None).outlived(&ages), 0);
        assert_eq!(keep(None, Some(4)).outlived(&ages), 1, "the third is behind one that stays");
        assert_eq!(keep(Some(1), Some(4)).outlived(&ages), 3, "any limit");
    }
}
