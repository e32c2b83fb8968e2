//! The audit log as files that are only ever appended to, mode 0600 when we make them.
//!
//! `seq` and the chain go on where the log ends, or after what the store knows was written,
//! so that no two lines of one broker have the same number. The first line of each file
//! names the end of the file before. A last line torn by a crash is closed with a newline,
//! stays where it is, and a line after it says so; its `seq` is not used again. A file that
//! has grown to its size is rotated, one that was moved away is followed by a new one of
//! the same name.
//!
//! An append that fails leaves nothing to be relied on: the next one begins a new file,
//! above every number that was tried, and goes on from the last line that is known to be
//! durable. Nothing that ever counted is rewritten here; what is removed are whole oldest
//! files, by the retention, after a line has said so.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::{
    Actor, AuditError, AuditLog, Event, Record,
    chain::{ChainKey, Head},
    files::{self, Outlived, Retention},
    tail::Tail,
};
use crate::store::{lock, seal::MasterKey};

/// Where a log is, and how it is rotated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file that is written.
    pub path: PathBuf,
    /// A file that has this many bytes is rotated before the next lines.
    pub max_bytes: u64,
    /// How long rotated files are kept.
    pub keep: Retention,
}

impl Settings {
    /// A log in this file, rotated at 64 MiB, kept for ever.
    pub fn new(path: &Path) -> Self {
        let (path, keep) = (path.to_owned(), Retention::default());
        Self { path, max_bytes: 64 * 1024 * 1024, keep }
    }
}

/// The log of one broker.
#[derive(Debug)]
pub struct FileAudit {
    settings: Settings,
    key: ChainKey,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The file that is written; none before it is made.
    file: Option<File>,
    /// Its bytes up to the end of the last durable line.
    length: u64,
    /// The number of its first durable line.
    first: Option<u64>,
    /// The last durable line.
    head: Head,
    /// A number that was never tried, and all above it.
    next: u64,
    /// Whether the last append failed.
    failed: bool,
    /// Whether the file ends within a line.
    torn: bool,
    /// What has to be said first.
    pending: Vec<Record>,
}

/// Lines that are to be written, and what they make true once they are durable.
struct Draft {
    text: String,
    first: u64,
    head: Head,
    outlived: Outlived,
}

impl FileAudit {
    /// Opens the log. `known` is the last line that the store knows was durable
    /// ([`crate::store::Loaded::audit_head`]); a log that ends before it, or comes by
    /// another line in its place, gets a line that says so. A log that can't be written
    /// now is opened all the same, and says so at each append.
    ///
    /// # Errors
    /// When it can't be opened or read, another process writes it, or its end holds
    /// nothing of ours.
    pub fn open(
        settings: Settings,
        master: &MasterKey,
        known: Head,
        now: SystemTime,
    ) -> Result<Self, AuditError> {
        let key = ChainKey::new(master);
        let state = State::find(&settings.path, &key, known)?;
        let log = Self { settings, key, state: Mutex::new(state) };
        let repairs = !log.state().pending.is_empty();
        if repairs && let Err(error) = log.append(&[], now) {
            tracing::error!(error = super::chain(&error), "the audit log can't be written");
        }
        Ok(log)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // what a panic may have left behind is what `failed` says
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(
        &self,
        state: &mut State,
        records: &[Record],
        now: SystemTime,
    ) -> Result<(), AuditError> {
        let was_failed = std::mem::replace(&mut state.failed, true); // until it has worked
        let outlived = self.choose_file(state, was_failed, now)?;
        let draft = self.draft(state, records, outlived, now);
        let Some(file) = &mut state.file else {
            return Err(self.io("finding", io::ErrorKind::NotFound.into()));
        };
        file.write_all(draft.text.as_bytes()).map_err(|e| self.io("writing", e))?;
        file.sync_data().map_err(|e| self.io("syncing", e))?;
        state.length += draft.text.len() as u64;
        state.first = state.first.or(Some(draft.first));
        state.head = draft.head;
        state.pending.clear();
        (state.torn, state.failed) = (false, false);
        self.remove(&draft.outlived.files);
        Ok(())
    }

    /// Sees that there is a file for the next lines: the one that is open, or a new one
    /// where that is full, was moved away, or holds what may not be durable. Says which
    /// rotated files are kept no longer.
    fn choose_file(
        &self,
        state: &mut State,
        was_failed: bool,
        now: SystemTime,
    ) -> Result<Outlived, AuditError> {
        let path = &self.settings.path;
        if let Some(file) = &state.file
            && was_moved(path, file).map_err(|e| self.io("looking at", e))?
        {
            state.leave();
        }
        let full = state.length >= self.settings.max_bytes;
        let mut outlived = Outlived::default();
        if let (Some(_), Some(first)) = (&state.file, state.first)
            && (was_failed || full)
            && !state.torn
        {
            fs::rename(path, files::name(path, first)).map_err(|e| self.io("rotating", e))?;
            sync_directory(path).map_err(|e| self.io("naming", e))?;
            state.leave();
            outlived = self.settings.keep.outlived_of(path, state.head.seq, now).unwrap_or_else(|error| {
                tracing::warn!(%error, path = %path.display(), "rotated audit logs can't be seen");
                Outlived::default()
            });
        }
        match &state.file {
            None => {
                let file = open_locked(path)?;
                if file.metadata().map_err(|e| self.io("looking at", e))?.len() > 0 {
                    return Err(AuditError::Foreign { path: path.clone(), bytes: 0 });
                }
                state.file = Some(file);
            }
            // what was added to it never counted, and nothing that we wrote before did
            Some(file) if was_failed && (state.first.is_none() || state.torn) => {
                file.set_len(state.length).map_err(|e| self.io("cutting", e))?;
            }
            Some(_) => {}
        }
        Ok(outlived)
    }

    /// The lines, numbered and chained, with what has to be said before them.
    fn draft(
        &self,
        state: &mut State,
        records: &[Record],
        outlived: Outlived,
        now: SystemTime,
    ) -> Draft {
        let mut said = state.pending.clone();
        if state.first.is_none() {
            // bytes of a torn line stand before the first line: that line explains them
            let opened = |record: Record| record.begins_after(state.head, &self.key);
            match said.first_mut().filter(|_| state.torn) {
                Some(torn) => *torn = opened(torn.clone()),
                None => said.insert(0, opened(Record::new(Event::AuditOpened, Actor::Broker))),
            }
        }
        if let Some(line) = removal(&outlived) {
            said.push(line);
        }
        let mut text = if state.torn { "\n".to_owned() } else { String::new() };
        let (first, mut head) = (state.next, state.head);
        for record in said.iter().chain(records) {
            let (line, mac) = record.line(state.next, now, &self.key, head.mac);
            head = Head { seq: state.next, mac };
            text.push_str(&line);
            state.next += 1;
        }
        Draft { text, first, head, outlived }
    }

    fn remove(&self, outlived: &[files::Rotated]) {
        for file in outlived {
            let path = file.path.display();
            match fs::remove_file(&file.path) {
                Ok(()) => tracing::info!(%path, "a rotated audit log was kept long enough"),
                Err(error) => tracing::warn!(%path, %error, "a rotated audit log stays"),
            }
        }
        if !outlived.is_empty()
            && let Err(error) = sync_directory(&self.settings.path)
        {
            tracing::warn!(%error, "the audit log's directory can't be synced");
        }
    }

    fn io(&self, operation: &'static str, source: io::Error) -> AuditError {
        AuditError::Io { operation, path: self.settings.path.clone(), source }
    }
}

impl State {
    /// The log as it was left behind, and what has to be said of it.
    fn find(path: &Path, key: &ChainKey, known: Head) -> Result<Self, AuditError> {
        let mut state = Self { head: known, next: known.seq + 1, ..Self::default() };
        let io =
            |operation| move |source| AuditError::Io { operation, path: path.to_owned(), source };
        let tail = match path.symlink_metadata() {
            Ok(_) => {
                let file = open_locked(path)?;
                let tail = Tail::read(path, &file, key, known)?;
                state.file = Some(file);
                tail
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Tail::default(),
            Err(error) => return Err(io("opening")(error)),
        };
        if tail.last.is_none() {
            state.go_on_from_rotated(path, key)?;
        }
        state.take_up(path, &tail, known);
        Ok(state)
    }

    /// The broker may have stopped between the rotation and the new file's first line.
    fn go_on_from_rotated(&mut self, path: &Path, key: &ChainKey) -> Result<(), AuditError> {
        let io = |source| AuditError::Io { operation: "reading", path: path.to_owned(), source };
        let newest = match files::rotated(path) {
            Ok(files) => files.into_iter().next_back(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io(error)),
        };
        let Some(newest) = newest else { return Ok(()) };
        let file = File::open(&newest.path).map_err(io)?;
        let tail = Tail::read(&newest.path, &file, key, self.head)?;
        if let Some(last) = tail.last.filter(|last| last.seq >= self.head.seq) {
            self.head = last;
            self.next = last.seq + 1 + tail.burnt;
        }
        if let Some(broken) = &tail.broken {
            self.say_broken(&newest.path, broken);
        }
        Ok(())
    }

    fn take_up(&mut self, path: &Path, tail: &Tail, known: Head) {
        self.length = tail.length;
        self.first = tail.first.filter(|_| tail.last.is_some());
        self.torn = tail.torn;
        let last = tail.last.unwrap_or(self.head);
        self.next = self.next.max(last.seq + 1 + tail.burnt);
        if tail.torn {
            let path = path.display();
            tracing::warn!(%path, "the audit log's last line was torn; it is closed");
            let detail = format!("the line after seq {} was torn by a crash", last.seq);
            self.pending.push(repaired(Event::RecoveryAuditTorn, &detail));
        }
        if let Some(broken) = &tail.broken {
            self.say_broken(path, broken);
        }
        if tail.last.is_some() && last.seq < known.seq {
            let detail =
                format!("the log ended at seq {}, the store knows of {}", last.seq, known.seq);
            let path = path.display();
            tracing::error!(%path, detail, "THE AUDIT LOG HAS LOST LINES");
            self.pending.push(repaired(Event::RecoveryAuditShort, &detail));
        }
        if last.seq >= known.seq {
            self.head = last;
        }
    }

    fn say_broken(&mut self, path: &Path, broken: &str) {
        let path = path.display();
        tracing::error!(%path, broken, "THE AUDIT LOG IS NOT THE ONE THAT WAS WRITTEN");
        self.pending.push(repaired(Event::RecoveryAuditForged, broken));
    }

    /// Has done with the file.
    fn leave(&mut self) {
        (self.file, self.first, self.length, self.torn) = (None, None, 0, false);
    }
}

impl AuditLog for FileAudit {
    fn append(&self, records: &[Record], now: SystemTime) -> Result<Head, AuditError> {
        let mut state = self.state();
        if records.is_empty() && state.pending.is_empty() {
            return Ok(state.head);
        }
        self.write(&mut state, records, now)?;
        Ok(state.head)
    }

    fn head(&self) -> Head {
        self.state().head
    }
}

fn repaired(event: Event, detail: &str) -> Record {
    Record::new(event, Actor::Broker).detail(detail)
}

/// What is said of the files that go, before they go.
fn removal(outlived: &Outlived) -> Option<Record> {
    let (first, last) = (outlived.files.first()?, outlived.files.last()?);
    let name = |file: &files::Rotated| {
        file.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    };
    let detail = format!(
        "{} files, {} to {}, up to seq {}",
        outlived.files.len(),
        name(first),
        name(last),
        outlived.up_to
    );
    Some(repaired(Event::AuditRemoved, &detail))
}

/// Whether the path leads to another file now, or to none.
fn was_moved(path: &Path, file: &File) -> io::Result<bool> {
    let ours = file.metadata()?;
    match path.metadata() {
        Ok(there) => Ok((there.dev(), there.ino()) != (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
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
    sync_directory(path).map_err(io("naming"))?;
    Ok(file)
}

/// Makes the names beside `path` durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(files::directory(path))?.sync_all()
}

#[cfg(test)]
mod tests;
