//! A directory of object files, read again where a file has changed.
//!
//! Every file is looked at each time; one that is as it was (device, inode, length, mtime,
//! ctime) is not read again, unless it changed so lately that another change could hide in
//! the same tick of the file system's clock.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use krb_proto::PodUid;

use super::objects::{self, Object};
use crate::yaml;

/// The longest file that is read, in bytes.
pub const MAX_FILE: u64 = 64 * 1024 * 1024;

/// The most files of the directory.
pub const MAX_FILES: usize = 100_000;

/// The most objects of all files.
pub const MAX_OBJECTS: usize = 1_000_000;

/// How long after its last change a file is read again each time.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// The directory and what its files said when they were last read.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    files: BTreeMap<String, Kept>,
    /// How many files were read so far.
    pub reads: u64,
}

/// A file that was read.
#[derive(Debug)]
struct Kept {
    stamp: Stamp,
    settled: bool,
    /// `None`: it can't be read now.
    objects: Option<Vec<Object>>,
    /// The pods of its last readable content; `None`: it never had one.
    known: Option<HashSet<PodUid>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    file: (u64, u64),
    len: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Directory {
    /// The directory at `path`, of which nothing is read yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), files: BTreeMap::new(), reads: 0 }
    }

    /// Looks at every file now. Whether anything may have changed.
    ///
    /// # Errors
    /// When the directory can't be listed, or has too many files or objects.
    pub fn refresh(&mut self, cluster: &Arc<str>, wall: SystemTime) -> io::Result<bool> {
        let names = self.names()?;
        let before = self.files.len();
        self.files.retain(|name, _| names.contains(name));
        let mut changed = self.files.len() != before;
        for name in names {
            changed |= self.refresh_file(&name, cluster, wall);
        }
        if self.objects().count() > MAX_OBJECTS {
            return Err(io::Error::other(format!("more than {MAX_OBJECTS} objects")));
        }
        Ok(changed)
    }

    fn names(&self) -> io::Result<HashSet<String>> {
        let mut names = HashSet::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let ours = [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end));
            if ours && !name.starts_with('.') {
                names.insert(name);
            }
            if names.len() > MAX_FILES {
                return Err(io::Error::other(format!("more than {MAX_FILES} files")));
            }
        }
        Ok(names)
    }

    fn refresh_file(&mut self, name: &str, cluster: &Arc<str>, wall: SystemTime) -> bool {
        let path = self.path.join(name);
        let metadata = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.files.remove(name).is_some();
            }
            metadata => metadata,
        };
        let stamp = metadata.as_ref().ok().map(Stamp::of);
        let kept = self.files.get(name);
        if kept.is_some_and(|kept| kept.settled && Some(kept.stamp) == stamp) {
            return false;
        }
        let was_readable = kept.is_none_or(|kept| kept.objects.is_some());
        let known = self.files.remove(name).and_then(|kept| kept.known);
        self.reads += 1;
        let read = metadata.and_then(|_| read_file(&path));
        let stamp = read.as_ref().ok().map(|(_, stamp)| *stamp).or(stamp).unwrap_or_default();
        let objects = read.map_err(|error| error.to_string()).and_then(|(text, _)| {
            let documents = yaml::documents(&text).map_err(|error| error.to_string())?;
            Ok(documents.iter().flat_map(|document| objects_of(name, cluster, document)).collect())
        });
        if let (Err(why), true) = (&objects, was_readable) {
            tracing::warn!(file = name, why, "objects can't be read; their pods get nothing");
        }
        let objects: Option<Vec<Object>> = objects.ok();
        let known = objects.as_deref().map(uids).or(known);
        let settled = stamp.is_settled(wall);
        self.files.insert(name.to_owned(), Kept { stamp, settled, objects, known });
        true
    }

    /// All objects of all files that can be read.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.files.values().flat_map(|kept| kept.objects.iter().flatten())
    }

    /// Whether a file that can't be read now may have this pod: it had it, or what it has
    /// was never seen.
    pub fn may_hide(&self, uid: &PodUid) -> bool {
        self.files.values().filter(|kept| kept.objects.is_none()).any(|kept| match &kept.known {
            Some(known) => known.contains(uid),
            None => true,
        })
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            len: metadata.len(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_settled(&self, wall: SystemTime) -> bool {
        let changed = Duration::from_secs(u64::try_from(self.ctime.0).unwrap_or(0));
        let changed = UNIX_EPOCH.checked_add(changed);
        let ago = changed.and_then(|changed| wall.duration_since(changed).ok());
        ago.is_some_and(|ago| ago > SETTLED_AFTER)
    }
}

impl Default for Stamp {
    fn default() -> Self {
        Self { file: (0, 0), len: 0, mtime: (0, 0), ctime: (i64::MAX, 0) }
    }
}

/// The text and the stamp that it had before it was read.
fn read_file(path: &Path) -> io::Result<(String, Stamp)> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("is not a file"));
    }
    let file = File::open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("is longer than {MAX_FILE} bytes")));
    }
    Ok((text, stamp))
}

fn objects_of(name: &str, cluster: &Arc<str>, document: &serde_json::Value) -> Vec<Object> {
    let (objects, wrong) = objects::read(cluster, document);
    for why in wrong {
        tracing::warn!(file = name, why, "an object can't be read");
    }
    objects
}

fn uids(objects: &[Object]) -> HashSet<PodUid> {
    objects
        .iter()
        .filter_map(|object| match object {
            Object::Pod(pod) => Some(pod.pod.uid.clone()),
            Object::Unreadable(uid) => Some(uid.clone()),
            _ => None,
        })
        .collect()
}
