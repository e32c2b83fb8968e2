//! The cluster's objects as the broker sees them: a file that is written anew all the time.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use krb_tests::{
    cluster::{Cluster, Kubectl},
    world::pause,
};

/// The pause between two looks at the cluster.
const PAUSE: Duration = Duration::from_millis(500);
/// What the broker wants to see.
const KINDS: &str = "pods,services,namespaces";

/// A thread that keeps a file of all Pods, Services and Namespaces fresh until it is dropped.
pub struct Objects {
    stop: Arc<AtomicBool>,
    failure: Arc<Mutex<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Objects {
    /// Writes `dir/objects.yaml`, and keeps it fresh.
    pub fn keep(cluster: &Cluster, dir: &Path) -> Self {
        let file = dir.join("objects.yaml");
        let kubectl = cluster.kubectl();
        let stop = Arc::new(AtomicBool::new(false));
        let failure = Arc::new(Mutex::new(String::new()));
        let thread = std::thread::spawn({
            let (stop, failure) = (stop.clone(), failure.clone());
            move || write_until(&stop, &kubectl, &file, &failure)
        });
        Self { stop, failure, thread: Some(thread) }
    }

    /// Why the cluster could not be seen the last time; empty when it could.
    pub fn failure(&self) -> String {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write_until(stop: &AtomicBool, kubectl: &Kubectl, file: &Path, failure: &Mutex<String>) {
    while !stop.load(Ordering::Relaxed) {
        let said = kubectl.write_all(KINDS, file).err().map(|error| error.to_string());
        *failure.lock().unwrap_or_else(PoisonError::into_inner) = said.unwrap_or_default();
        pause(PAUSE);
    }
}
