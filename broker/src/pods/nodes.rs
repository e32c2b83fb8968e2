//! Node objects from a directory, as witnesses of whether nodes work.
//!
//! One Node in each `<name>.json`, `.yaml` or `.yml`, as `kubectl get -o yaml` prints it, written
//! by rename and written anew at least once a minute by whatever keeps the directory up to date.
//! An object counts while its file, or the last heartbeat in it, is younger than a minute. A node
//! without a file is gone; but where no object is fresh nobody keeps the directory, and then an
//! absence says nothing either.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use krb_proto::NodeName;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Boottime, Clock, Now},
    session::witness::{FRESH_FOR, Witness, Witnesses},
    yaml,
};

/// The longest file that is read, in bytes.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// The most files of the directory.
const MAX_FILES: usize = 20_000;

/// A directory of Node objects. Clones share what was read.
#[derive(Clone)]
pub struct FileNodes(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    clock: Arc<dyn Clock>,
    view: Mutex<Option<View>>,
}

/// What the directory said when it was last read.
struct View {
    read_at: Boottime,
    nodes: HashMap<NodeName, Seen>,
}

/// What one file said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Seen {
    /// Whether the condition Ready was True; `None`: the file can't be read.
    ready: Option<bool>,
    /// When the file was written.
    written_at: SystemTime,
    /// The node's last heartbeat, where the object has one.
    heartbeat: Option<SystemTime>,
}

impl Seen {
    fn unreadable(written_at: SystemTime) -> Self {
        Self { ready: None, written_at, heartbeat: None }
    }

    /// Whether it counts at `now`. A time that is to come counts no longer than one that is past.
    fn is_fresh(&self, now: SystemTime) -> bool {
        let near = |at: SystemTime| match now.duration_since(at) {
            Ok(age) => age <= FRESH_FOR,
            Err(ahead) => ahead.duration() <= FRESH_FOR,
        };
        near(self.written_at) || self.heartbeat.is_some_and(near)
    }
}

impl FileNodes {
    /// The objects in `directory`. Nothing is read yet.
    pub fn new(directory: &Path, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner { directory: directory.to_owned(), clock, view: Mutex::new(None) }))
    }

    /// Reads the directory anew, every so often, until `stop`.
    pub async fn keep_fresh(self, every: Duration, stop: CancellationToken) {
        loop {
            let nodes = self.clone();
            // A reading that fails leaves the last one, which grows old.
            let read = tokio::task::spawn_blocking(move || nodes.read()).await;
            if let Ok(Err(error)) = read {
                tracing::warn!(%error, "the directory of Node objects can't be read");
            }
            if stop.run_until_cancelled(tokio::time::sleep(every)).await.is_none() {
                return;
            }
        }
    }

    /// Reads the directory now. Blocks.
    ///
    /// # Errors
    /// When it can't be listed.
    pub fn read(&self) -> io::Result<()> {
        let read_at = self.0.clock.now().boot;
        let mut nodes = HashMap::new();
        for entry in fs::read_dir(&self.0.directory)? {
            let path = entry?.path();
            if let Some(node) = named(&path) {
                nodes.insert(node.clone(), seen(&path, &node));
            }
            if nodes.len() > MAX_FILES {
                return Err(io::Error::other(format!("more than {MAX_FILES} files")));
            }
        }
        *self.view() = Some(View { read_at, nodes });
        Ok(())
    }

    fn view(&self) -> MutexGuard<'_, Option<View>> {
        self.0.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Witnesses for FileNodes {
    fn of(&self, node: &NodeName, now: Now) -> Witness {
        let view = self.view();
        let Some(view) = view.as_ref().filter(|v| now.boot.since(v.read_at) < FRESH_FOR) else {
            return Witness::Unknown;
        };
        let Some(seen) = view.nodes.get(node) else {
            let kept = view.nodes.values().any(|seen| seen.is_fresh(now.wall));
            return if kept { Witness::NodeGone } else { Witness::Unknown };
        };
        match seen.ready.filter(|_| seen.is_fresh(now.wall)) {
            Some(true) => Witness::NodeReady,
            Some(false) => Witness::NodeNotReady,
            None => Witness::Unknown,
        }
    }
}

/// The node that a file is named after.
fn named(path: &Path) -> Option<NodeName> {
    let name = path.file_name()?.to_str()?;
    let stem = [".json", ".yaml", ".yml"].iter().find_map(|end| name.strip_suffix(end))?;
    stem.parse().ok()
}

fn seen(path: &Path, node: &NodeName) -> Seen {
    let metadata = fs::metadata(path).ok();
    let written_at = metadata.as_ref().and_then(|m| m.modified().ok());
    let written_at = written_at.unwrap_or(SystemTime::UNIX_EPOCH);
    if !metadata.is_some_and(|m| m.is_file() && m.len() <= MAX_FILE) {
        return Seen::unreadable(written_at);
    }
    let text = fs::read_to_string(path).ok();
    let object = text.and_then(|text| yaml::documents(&text).ok()?.pop());
    match object.as_ref().and_then(|object| ready(object, node)) {
        Some((ready, heartbeat)) => Seen { ready: Some(ready), written_at, heartbeat },
        None => Seen::unreadable(written_at),
    }
}

/// Whether this v1.Node is Ready, and its last heartbeat, if the object is one.
fn ready(object: &Value, node: &NodeName) -> Option<(bool, Option<SystemTime>)> {
    let is_node = object["apiVersion"] == "v1" && object["kind"] == "Node";
    if !is_node || object["metadata"]["name"].as_str() != Some(node.as_str()) {
        return None;
    }
    let mut conditions = object["status"]["conditions"].as_array()?.iter();
    let condition = conditions.find(|condition| condition["type"] == "Ready")?;
    let heartbeat = condition["lastHeartbeatTime"].as_str();
    let heartbeat = heartbeat.and_then(|at| at.parse::<jiff::Timestamp>().ok()).map(Into::into);
    Some((condition["status"] == "True", heartbeat))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::{SystemClock, TestClock};

    fn put(dir: &Path, name: &str, status: &str) {
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": status, "lastHeartbeatTime": "2020-01-01T00:00:00Z"},
            ]},
        });
        fs::write(dir.join(format!("{name}.json")), node.to_string()).unwrap();
    }

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    #[test]
    fn a_fresh_object_is_a_witness_and_an_absent_one_too() {
        let dir = tempfile::tempdir().unwrap();
        let nodes = FileNodes::new(dir.path(), Arc::new(SystemClock));
        let of = |name: &str| {
            nodes.read().unwrap();
            nodes.of(&node(name), SystemClock.now())
        };
        assert_eq!(of("node-a"), Witness::Unknown, "an empty directory says nothing");
        put(dir.path(), "node-a", "True");
        put(dir.path(), "node-b", "Unknown");
        put(dir.path(), "node-c", "False");
        assert_eq!(of("node-a"), Witness::NodeReady);
        assert_eq!(of("node-b"), Witness::NodeNotReady);
        assert_eq!(of("node-c"), Witness::NodeNotReady);
        assert_eq!(of("node-d"), Witness::NodeGone);
        fs::write(dir.path().join("node-d.yaml"), "kind: Node\nmetadata: {name: node-d}\n")
            .unwrap();
        assert_eq!(of("node-d"), Witness::Unknown, "it has a file that says nothing");
        fs::rename(dir.path().join("node-a.json"), dir.path().join("node-e.json")).unwrap();
        assert_eq!(of("node-e"), Witness::Unknown, "the object is another node's");
        fs::remove_file(dir.path().join("node-b.json")).unwrap();
        assert_eq!(of("node-b"), Witness::NodeGone);
    }

    #[test]
    fn what_is_older_than_a_minute_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "node-a", "True");
        let clock = Arc::new(TestClock::default());
        let file = fs::File::open(dir.path().join("node-a.json")).unwrap();
        let set = |at| file.set_modified(at).unwrap();
        let nodes = FileNodes::new(dir.path(), clock.clone());
        let (a, b) = (node("node-a"), node("node-b"));

        set(clock.now().wall);
        nodes.read().unwrap();
        clock.advance(FRESH_FOR - Duration::from_secs(1));
        assert_eq!(nodes.of(&a, clock.now()), Witness::NodeReady);
        clock.advance(Duration::from_secs(1));
        assert_eq!(nodes.of(&a, clock.now()), Witness::Unknown, "it was not read since");
        assert_eq!(nodes.of(&b, clock.now()), Witness::Unknown);
        nodes.read().unwrap();
        clock.advance(Duration::from_secs(1));
        assert_eq!(nodes.of(&a, clock.now()), Witness::Unknown, "it was read, and is old");
        assert_eq!(nodes.of(&b, clock.now()), Witness::Unknown, "nobody keeps the directory");
        set(clock.now().wall);
        nodes.read().unwrap();
        assert_eq!(nodes.of(&b, clock.now()), Witness::NodeGone);
    }
}
