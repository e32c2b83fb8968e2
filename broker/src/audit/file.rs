//! The audit log as a file that is only ever appended to, mode 0600 when we make it.
//!
//! `seq` goes on where the file ends, or after what the store knows was written, so that
//! no two lines of one broker have the same one. A last line torn by a crash is closed with
//! a newline, stays where it is, and a line after it says so; its `seq` is not used again.
//! A file that was moved away is followed by a new one of the same name. Nothing is ever
//! rewritten or removed here.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use serde::Deserialize;

use super::{Actor, AuditError, AuditLog, Event, Record};
use crate::store::lock;

/// How far from its end a log is searched for its last line, in bytes.
const TAIL: u64 = 1024 * 1024;

/// The log of one broker.
#[derive(Debug)]
pub struct FileAudit {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    head: u64,
    broken: bool,
}

impl FileAudit {
    /// Opens or makes the log. `known` is the last `seq` that the store knows was durable
    /// ([`crate::store::Loaded::audit_head`]); a log that ends before it gets a line that
    /// says so.
    ///
    /// # Errors
    /// When it can't be opened or written, another process writes it, or its end holds
    /// nothing of ours.
    pub fn open(path: &Path, known: u64, now: SystemTime) -> Result<Self, AuditError> {
        let file = open_locked(path)?;
        let tail = Tail::read(path, &file)?;
        let torn = tail.torn;
        let head = (tail.last + u64::from(torn)).max(known);
        let state = State { file, head, broken: false };
        let log = Self { path: path.to_owned(), state: Mutex::new(state) };
        if torn {
            tracing::warn!(path = %path.display(), "the audit log's last line was torn; closed it");
            log.write(&mut log.state(), b"\n")?;
            let detail = format!("the line after seq {} was torn by a crash", tail.last);
            log.append(&[repaired(Event::RecoveryAuditTorn, &detail)], now)?;
        }
        if tail.last > 0 && tail.last < known {
            let detail = format!("the log ended at seq {}, the store knows of {known}", tail.last);
            tracing::error!(path = %path.display(), detail, "the audit log has lost lines");
            log.append(&[repaired(Event::RecoveryAuditShort, &detail)], now)?;
        }
        Ok(log)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // what a panic may have left behind is what `broken` says
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends the bytes in one write where the system takes them so, and syncs.
    fn write(&self, state: &mut State, bytes: &[u8]) -> Result<(), AuditError> {
        let io = |operation| move |source| self.io(operation, source);
        if state.broken {
            return Err(AuditError::Poisoned { path: self.path.clone() });
        }
        state.broken = true; // until it has worked
        if self.was_moved(&state.file).map_err(io("looking at"))? {
            state.file = open_locked(&self.path)?;
        }
        state.file.write_all(bytes).map_err(io("writing"))?;
        state.file.sync_data().map_err(io("syncing"))?;
        state.broken = false;
        Ok(())
    }

    /// Whether the path leads to another file now, or to none.
    fn was_moved(&self, file: &File) -> io::Result<bool> {
        let ours = file.metadata()?;
        match self.path.metadata() {
            Ok(there) => Ok((there.dev(), there.ino()) != (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn io(&self, operation: &'static str, source: io::Error) -> AuditError {
        AuditError::Io { operation, path: self.path.clone(), source }
    }
}

impl AuditLog for FileAudit {
    fn append(&self, records: &[Record], now: SystemTime) -> Result<u64, AuditError> {
        let mut state = self.state();
        let first = state.head + 1;
        let lines: String =
            (first..).zip(records).map(|(seq, record)| record.line(seq, now)).collect();
        self.write(&mut state, lines.as_bytes())?;
        state.head += records.len() as u64;
        Ok(state.head)
    }

    fn head(&self) -> u64 {
        self.state().head
    }
}

fn repaired(event: Event, detail: &str) -> Record {
    Record::new(event, Actor::Broker).detail(detail)
}

/// Opens the file for appending, alone, and makes its name durable.
fn open_locked(path: &Path) -> Result<File, AuditError> {
    let io = |operation| {
        let path = path.to_owned();
        move |source| AuditError::Io { operation, path, source }
    };
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    let file = options.open(path).map_err(io("opening"))?;
    if !lock::take(&file).map_err(io("locking"))? {
        return Err(AuditError::InUse { path: path.to_owned() });
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(io("naming"))?;
    Ok(file)
}

/// How a log ends.
struct Tail {
    /// The `seq` of the last line that can be read; 0 in an empty log.
    last: u64,
    /// Whether something without a newline follows it.
    torn: bool,
}

#[derive(Deserialize)]
struct Numbered {
    v: u8,
    seq: u64,
}

impl Tail {
    fn read(path: &Path, file: &File) -> Result<Self, AuditError> {
        let io = |source| AuditError::Io { operation: "reading", path: path.to_owned(), source };
        let length = file.metadata().map_err(io)?.len();
        let mut tail = vec![0; usize::try_from(length.min(TAIL)).unwrap_or(0)];
        let from = length.saturating_sub(TAIL);
        file.read_exact_at(&mut tail, from).map_err(io)?;
        let torn = tail.last().is_some_and(|byte| *byte != b'\n');
        // after the last newline is nothing, or the torn line; a first line that the tail cuts
        // is not read either
        let whole = tail.rsplit(|byte| *byte == b'\n').skip(1);
        let numbered = |line| serde_json::from_slice::<Numbered>(line).ok();
        let last = whole.filter_map(numbered).find(|line| line.v == 1).map(|line| line.seq);
        match last {
            Some(last) => Ok(Self { last, torn }),
            // the very first line may be the torn one
            None if length < TAIL && !tail.contains(&b'\n') => Ok(Self { last: 0, torn }),
            None => Err(AuditError::Foreign { path: path.to_owned(), bytes: length.min(TAIL) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct World(tempfile::TempDir);

    impl World {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("audit.log")
        }

        fn open(&self, known: u64) -> Result<FileAudit, AuditError> {
            FileAudit::open(&self.path(), known, SystemTime::UNIX_EPOCH)
        }

        fn lines(&self) -> Vec<(u64, String)> {
            let text = fs::read_to_string(self.path()).unwrap();
            let read = |line: &str| {
                let value: serde_json::Value = serde_json::from_str(line).ok()?;
                Some((value["seq"].as_u64()?, value["event"].as_str()?.to_owned()))
            };
            text.lines().filter_map(read).collect()
        }
    }

    fn two() -> [Record; 2] {
        [Event::LeaseGranted, Event::LeaseReleased].map(|e| Record::new(e, Actor::Broker))
    }

    #[test]
    fn numbers_go_on_after_a_restart_and_the_file_is_ours_alone() {
        let world = World::new();
        let log = world.open(0).unwrap();
        assert_eq!(log.append(&two(), SystemTime::UNIX_EPOCH).unwrap(), 2);
        assert_eq!(fs::metadata(world.path()).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(world.open(0).unwrap_err(), AuditError::InUse { .. }));
        drop(log);
        let log = world.open(2).unwrap();
        assert_eq!(log.head(), 2);
        assert_eq!(log.append(&two(), SystemTime::UNIX_EPOCH).unwrap(), 4);
        let seqs: Vec<_> = world.lines().iter().map(|(seq, _)| *seq).collect();
        assert_eq!(seqs, [1, 2, 3, 4]);
    }

    #[test]
    fn a_torn_last_line_is_closed_noted_and_its_number_not_used_again() {
        let world = World::new();
        world.open(0).unwrap().append(&two(), SystemTime::UNIX_EPOCH).unwrap();
        let whole = fs::read(world.path()).unwrap();
        let first_line = whole.iter().position(|b| *b == b'\n').unwrap();
        for cut in first_line + 2..whole.len() {
            fs::write(world.path(), &whole[..cut]).unwrap();
            let log = world.open(1).unwrap();
            log.append(&two(), SystemTime::UNIX_EPOCH).unwrap();
            let torn_was_whole = serde_json::from_slice::<Numbered>(&whole[first_line + 1..cut]);
            let mut expected = vec![1, 3, 4, 5];
            if torn_was_whole.is_ok() {
                expected.insert(1, 2); // it lacked only its newline
            }
            let lines = world.lines();
            assert_eq!(lines.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), expected, "{cut}");
            assert!(lines.iter().any(|(seq, e)| *seq == 3 && e == "recovery.audit_torn"));
        }
    }

    #[test]
    fn a_first_line_that_is_torn_or_zeros_after_a_power_cut_are_closed_too() {
        for end in [&b"{\"v\":1,\"se"[..], &[0; 100]] {
            let world = World::new();
            fs::write(world.path(), end).unwrap();
            let log = world.open(0).unwrap();
            assert_eq!(log.append(&two(), SystemTime::UNIX_EPOCH).unwrap(), 4);
            assert_eq!(world.lines()[0], (2, "recovery.audit_torn".to_owned()));
        }
    }

    #[test]
    fn a_log_that_ends_before_what_the_store_knows_says_so() {
        let world = World::new();
        world.open(0).unwrap().append(&two(), SystemTime::UNIX_EPOCH).unwrap();
        let log = world.open(9).unwrap();
        assert_eq!(log.head(), 10);
        assert_eq!(world.lines()[2], (10, "recovery.audit_short".to_owned()));
    }

    #[test]
    fn a_log_that_was_moved_away_is_followed_by_a_new_one() {
        let world = World::new();
        let log = world.open(0).unwrap();
        log.append(&two(), SystemTime::UNIX_EPOCH).unwrap();
        fs::rename(world.path(), world.0.path().join("audit.log.1")).unwrap();
        log.append(&two(), SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(world.lines()[0].0, 3);
        drop(log);
        fs::remove_file(world.path()).unwrap();
        assert_eq!(world.open(4).unwrap().head(), 4, "the store remembers");
    }

    #[test]
    fn some_other_file_is_not_written_to() {
        let world = World::new();
        let contents = "root:x:0:0\nnobody:x:1:1\n";
        fs::write(world.path(), contents).unwrap();
        assert!(matches!(world.open(0).unwrap_err(), AuditError::Foreign { .. }));
        assert_eq!(fs::read_to_string(world.path()).unwrap(), contents);
    }

    #[test]
    fn a_log_on_a_full_disk_takes_no_more_lines() {
        let log = FileAudit {
            path: "/dev/full".into(),
            state: Mutex::new(State {
                file: OpenOptions::new().append(true).open("/dev/full").unwrap(),
                head: 0,
                broken: false,
            }),
        };
        let error = log.append(&two(), SystemTime::UNIX_EPOCH).unwrap_err();
        assert!(matches!(error, AuditError::Io { operation: "writing", .. }), "{error}");
        let error = log.append(&two(), SystemTime::UNIX_EPOCH).unwrap_err();
        assert!(matches!(error, AuditError::Poisoned { .. }), "{error}");
        assert_eq!(log.head(), 0);
    }
}
