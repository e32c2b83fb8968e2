//! What the broker keeps of a cluster: its pods, Services, namespaces and nodes.
//!
//! Each kind is told by a list and a watch of its own ([`super::watching`]); this module says what
//! is kept of an object and answers questions. It does no I/O. An object that can't be read gives
//! no authority: it is as if it were absent, and whoever needs it asks the API server directly.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use krb_proto::{Namespace, NodeName, PodUid};
use serde_json::Value;

use super::{
    kept::{KeptNode, KeptPod, Pairs, Pools, selector},
    mirror::Mirror,
};
use crate::{
    clock::Now,
    pods::{objects, spec},
};

/// One kind of objects, and what is kept of them.
pub trait Kind: Debug + Send + 'static {
    /// Where the API server has them, of all namespaces.
    const PATH: &'static str;
    /// What an object is known by.
    type Key: Ord + Clone + Debug + Send + 'static;
    /// What is kept of it.
    type Kept: Debug + Send + 'static;

    /// What an object is known by, and what is kept of it: nothing of one that matters to nobody.
    ///
    /// # Errors
    /// What can't be read of it.
    fn read(&mut self, object: &Value, now: Now)
    -> Result<(Self::Key, Option<Self::Kept>), String>;

    /// What is kept, knowing what was kept of it before.
    fn after(&self, kept: Self::Kept, _before: &Self::Kept, _now: Now) -> Self::Kept {
        kept
    }
}

/// What a list and a watch of one kind are told to.
pub trait Told: Send + Sync {
    /// Where the API server has the objects.
    fn path(&self) -> &'static str;
    /// A list begins.
    fn begin_list(&self);
    /// The list, which began at this instant, is complete.
    fn end_list(&self, began: Now);
    /// The watch is connected.
    fn connected(&self);
    /// The watch delivered something.
    fn heard(&self, now: Now);
    /// The watch ended.
    fn lost(&self);
    /// The object is there.
    fn put(&self, object: &Value, now: Now);
    /// The object was deleted; this is how it was last.
    fn remove(&self, object: &Value, now: Now);
}

/// All objects of one kind.
#[derive(Debug)]
pub struct Followed<K: Kind>(Mutex<Inner<K>>);

#[derive(Debug)]
struct Inner<K: Kind> {
    kind: K,
    mirror: Mirror<K::Key, K::Kept>,
}

impl<K: Kind> Followed<K> {
    /// None yet.
    pub fn new(kind: K) -> Self {
        Self(Mutex::new(Inner { kind, mirror: Mirror::default() }))
    }

    /// Looks at them.
    pub fn look<T>(&self, at: impl FnOnce(&Mirror<K::Key, K::Kept>) -> T) -> T {
        at(&self.inner().mirror)
    }

    /// What would be kept of this object. The mirror does not change.
    ///
    /// # Errors
    /// What can't be read of it.
    pub fn read(&self, object: &Value, now: Now) -> Result<(K::Key, Option<K::Kept>), String> {
        let Inner { kind, mirror } = &mut *self.inner();
        let (key, kept) = kind.read(object, now)?;
        let before = mirror.get(&key);
        let kept = kept.map(|kept| match before {
            Some(before) => kind.after(kept, before, now),
            None => kept,
        });
        Ok((key, kept))
    }

    fn inner(&self) -> MutexGuard<'_, Inner<K>> {
        // A panic in here leaves a whole mirror: each change is one insertion or removal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Kind> Told for Followed<K> {
    fn path(&self) -> &'static str {
        K::PATH
    }

    fn begin_list(&self) {
        self.inner().mirror.begin_list();
    }

    fn end_list(&self, began: Now) {
        self.inner().mirror.end_list(began.boot);
    }

    fn connected(&self) {
        self.inner().mirror.connected();
    }

    fn heard(&self, now: Now) {
        self.inner().mirror.heard(now.boot);
    }

    fn lost(&self) {
        self.inner().mirror.lost();
    }

    fn put(&self, object: &Value, now: Now) {
        match self.read(object, now) {
            Ok((key, Some(kept))) => self.inner().mirror.put(key, kept),
            Ok((key, None)) => self.inner().mirror.remove(&key),
            Err(why) => tracing::debug!(path = K::PATH, why, "an object can't be read"),
        }
    }

    fn remove(&self, object: &Value, now: Now) {
        if let Ok((key, _)) = self.read(object, now) {
            self.inner().mirror.remove(&key);
        }
    }
}

/// Pods, by uid.
#[derive(Debug)]
pub struct Pods {
    cluster: Arc<str>,
    driver: String,
    pools: Pools,
}

impl Kind for Pods {
    const PATH: &'static str = "/api/v1/pods";
    type Key = PodUid;
    type Kept = Arc<KeptPod>;

    fn read(&mut self, object: &Value, now: Now) -> Result<(PodUid, Option<Arc<KeptPod>>), String> {
        let pod = spec::pod(&self.cluster, object)?;
        let kept = KeptPod::of(pod, &self.driver, &mut self.pools, now);
        Ok((kept.uid().clone(), Some(Arc::new(kept))))
    }

    fn after(&self, kept: Arc<KeptPod>, before: &Arc<KeptPod>, now: Now) -> Arc<KeptPod> {
        Arc::new(Arc::unwrap_or_clone(kept).after(before, now))
    }
}

/// Services that select pods, by namespace and name.
#[derive(Debug)]
pub struct Services;

impl Kind for Services {
    const PATH: &'static str = "/api/v1/services";
    type Key = (Namespace, String);
    type Kept = Pairs;

    fn read(&mut self, object: &Value, _: Now) -> Result<(Self::Key, Option<Pairs>), String> {
        if let Some(service) = objects::service(object)? {
            let kept = selector(&service.selector);
            return Ok(((service.namespace, service.name), Some(kept)));
        }
        // One that selects nothing: it may have selected something before.
        let meta = &object["metadata"];
        let name = meta["name"].as_str().ok_or("it has no name")?;
        let namespace = meta["namespace"].as_str().unwrap_or_default();
        let namespace = namespace.parse().map_err(|why| format!("namespace {why}"))?;
        Ok(((namespace, name.to_owned()), None))
    }
}

/// Namespaces, by name; kept is the uid.
#[derive(Debug)]
pub struct Namespaces;

impl Kind for Namespaces {
    const PATH: &'static str = "/api/v1/namespaces";
    type Key = Namespace;
    type Kept = String;

    fn read(&mut self, object: &Value, _: Now) -> Result<(Namespace, Option<String>), String> {
        objects::namespace(object).map(|(name, uid)| (name, Some(uid)))
    }
}

/// Nodes, by name.
#[derive(Debug)]
pub struct Nodes;

impl Kind for Nodes {
    const PATH: &'static str = "/api/v1/nodes";
    type Key = NodeName;
    type Kept = KeptNode;

    fn read(&mut self, object: &Value, _: Now) -> Result<(NodeName, Option<KeptNode>), String> {
        let node = objects::node(object)?;
        Ok((node.name.clone(), Some(KeptNode::of(node))))
    }
}

/// The cluster as it was last told of.
#[derive(Debug)]
pub struct View {
    /// Its pods.
    pub pods: Arc<Followed<Pods>>,
    /// Its Services.
    pub services: Arc<Followed<Services>>,
    /// Its namespaces.
    pub namespaces: Arc<Followed<Namespaces>>,
    /// Its nodes.
    pub nodes: Arc<Followed<Nodes>>,
}

impl View {
    /// Nothing yet of this cluster. Options are kept of volumes of `driver` alone, `vendor/name`.
    pub fn new(cluster: Arc<str>, driver: String) -> Self {
        let pods = Pods { cluster, driver, pools: Pools::default() };
        Self {
            pods: Arc::new(Followed::new(pods)),
            services: Arc::new(Followed::new(Services)),
            namespaces: Arc::new(Followed::new(Namespaces)),
            nodes: Arc::new(Followed::new(Nodes)),
        }
    }

    /// The four kinds, to be told of.
    pub fn kinds(&self) -> [Arc<dyn Told>; 4] {
        [self.pods.clone(), self.services.clone(), self.namespaces.clone(), self.nodes.clone()]
    }
}

#[cfg(test)]
mod tests;
