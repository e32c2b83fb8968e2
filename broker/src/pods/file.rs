//! Pods from a directory of objects, as `kubectl get -o yaml` prints them.
//!
//! Pods, Services, Namespaces and Nodes in `*.yaml`, `*.yml` and `*.json`, one or several a
//! file. Every look compares the directory with what was read; looks that wait for one
//! another share the next comparison, never an earlier one. What can't be read gives no
//! authority, and takes none back: its pods are missing, not gone.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use krb_proto::{Namespace, PodRef, PodUid};

use super::{
    Place, PodSource, PodsUnavailable, Sighting,
    absence::Memory,
    directory::Directory,
    objects::PodObject,
    world::{Known, World},
};
use crate::clock::{Clock, Now};

/// How long a pod must be away, or finished, to be gone for sure.
pub const GONE_AFTER: Duration = Duration::from_secs(60);

/// A directory of objects as the source of pods.
#[derive(Clone)]
pub struct FilePods(Arc<Inner>);

struct Inner {
    cluster: Arc<str>,
    clock: Arc<dyn Clock>,
    gone_after: Duration,
    /// How many comparisons have begun: one that began after a look satisfies it.
    begun: AtomicU64,
    view: Mutex<View>,
}

/// What the last comparison found.
struct View {
    directory: Directory,
    world: World,
    memory: Memory,
    number: u64,
    usable: bool,
}

impl FilePods {
    /// The objects in `directory`, which are those of `cluster`. Nothing is read yet.
    pub fn new(directory: &Path, cluster: Arc<str>, clock: Arc<dyn Clock>) -> Self {
        Self::with_gone_after(directory, cluster, clock, GONE_AFTER)
    }

    /// The same with another time after which an absent pod is gone.
    pub fn with_gone_after(
        directory: &Path,
        cluster: Arc<str>,
        clock: Arc<dyn Clock>,
        gone_after: Duration,
    ) -> Self {
        let view = View {
            directory: Directory::new(directory),
            world: World::default(),
            memory: Memory::default(),
            number: 0,
            usable: false,
        };
        let begun = AtomicU64::new(0);
        Self(Arc::new(Inner { cluster, clock, gone_after, begun, view: Mutex::new(view) }))
    }

    /// Runs `look` on a view that is confirmed after this call began.
    async fn confirmed<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Inner, &mut View, Now) -> T + Send + 'static,
    ) -> Result<T, PodsUnavailable> {
        let inner = self.0.clone();
        let before = inner.begun.load(Ordering::SeqCst);
        let looking = tokio::task::spawn_blocking(move || {
            // A panic while the view was held leaves it as it was or not usable.
            let mut view = inner.view.lock().unwrap_or_else(PoisonError::into_inner);
            let now = inner.clock.now();
            if !view.usable || view.number <= before {
                inner.compare(&mut view, now)?;
            }
            Ok(look(&inner, &mut view, now))
        });
        looking.await.unwrap_or_else(|error| Err(PodsUnavailable::new(error)))
    }
}

impl Inner {
    /// Compares the directory with the view.
    fn compare(&self, view: &mut View, now: Now) -> Result<(), PodsUnavailable> {
        view.number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let fresh = !view.usable;
        view.usable = false;
        let changed =
            view.directory.refresh(&self.cluster, now.wall).map_err(PodsUnavailable::new)?;
        if changed || fresh {
            view.world = World::of(view.directory.objects());
            let directory = &view.directory;
            view.memory.update(&view.world, now.boot, |uid| directory.may_hide(uid));
        }
        view.usable = true;
        Ok(())
    }

    fn sight(&self, view: &mut View, uid: &PodUid, now: Now) -> Sighting {
        match view.world.known(uid) {
            Some(Known::Unusable(what)) => Sighting::Unstamped { what },
            Some(Known::Pod(pod)) => {
                let finished = finished_since(view, &pod, now).is_some();
                match view.world.describe(&pod, finished) {
                    Ok(pod) => Sighting::Here(Box::new(pod)),
                    Err(what) => Sighting::Unstamped { what },
                }
            }
            None if view.directory.may_hide(uid) => {
                view.memory.may_be_there(uid);
                Sighting::Missing
            }
            None if view.memory.is_replaced(uid, &view.world) => Sighting::Gone,
            None => match view.memory.away_for(uid, now.boot) {
                Some(away) if away >= self.gone_after => Sighting::Gone,
                _ => Sighting::Missing,
            },
        }
    }

    /// Whether the pod is absent, or finished, for long enough to be sure.
    fn is_gone(&self, view: &mut View, uid: &PodUid, now: Now) -> bool {
        if let Some(Known::Pod(pod)) = view.world.known(uid) {
            let since = finished_since(view, &pod, now);
            return since.is_some_and(|since| now.boot.since(since) >= self.gone_after);
        }
        self.sight(view, uid, now) == Sighting::Gone
    }
}

fn finished_since(view: &mut View, pod: &PodObject, now: Now) -> Option<crate::clock::Boottime> {
    let past_deletion = pod.deletion.is_some_and(|at| at <= now.wall);
    view.memory.finished_since(&pod.pod.uid, pod.ended || past_deletion, now.boot)
}

#[async_trait]
impl PodSource for FilePods {
    async fn look(&self, uid: &PodUid, _: Option<&Place>) -> Result<Sighting, PodsUnavailable> {
        let uid = uid.clone();
        self.confirmed(move |inner, view, now| inner.sight(view, &uid, now)).await
    }

    async fn gone(&self, pods: &[PodRef]) -> Result<Vec<PodUid>, PodsUnavailable> {
        let mut uids: Vec<PodUid> = pods.iter().map(|pod| pod.uid.clone()).collect();
        self.confirmed(move |inner, view, now| {
            uids.retain(|uid| inner.is_gone(view, uid, now));
            uids
        })
        .await
    }

    async fn namespace_uid(
        &self,
        namespace: &Namespace,
    ) -> Result<Option<String>, PodsUnavailable> {
        let namespace = namespace.clone();
        self.confirmed(move |_, view, _| view.world.namespace_uid(&namespace).cloned()).await
    }
}
