//! What is kept of an object: as little as a decision needs, its texts shared.
//!
//! A large cluster has 150,000 pods; a pod's object has ten kilobytes and what is kept of it less
//! than one. What repeats from pod to pod (namespaces, nodes, labels, names of containers, options
//! of volumes) is kept once. A pod that is finished keeps only where it was.

use std::{
    collections::{BTreeMap, HashSet},
    hash::Hash,
    sync::Arc,
    time::SystemTime,
};

use krb_proto::{Namespace, NodeName, PodRef, PodUid, VolumeName, pod::PodName};

use crate::{
    clock::{Boottime, Now},
    entitlement::account::NODE_LABEL_PREFIX,
    pods::{
        CredentialVolume, Place, Pod, RunAsGroup, RunAsUser,
        objects::{NodeObject, PodObject},
    },
};

/// The most texts that a pool remembers. What is used at that moment stays where it is used;
/// texts that come later are no longer shared with those.
const POOL: usize = 65_536;

/// Texts of one kind, each once.
#[derive(Debug)]
struct Pool<T>(HashSet<T>);

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: Clone + Eq + Hash> Pool<T> {
    fn one(&mut self, text: T) -> T {
        if let Some(known) = self.0.get(&text) {
            return known.clone();
        }
        if self.0.len() >= POOL {
            self.0.clear();
        }
        self.0.insert(text.clone());
        text
    }
}

/// The texts that are shared among pods.
#[derive(Debug, Default)]
pub struct Pools {
    namespaces: Pool<Namespace>,
    nodes: Pool<NodeName>,
    texts: Pool<Arc<str>>,
}

impl Pools {
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.0.get(text) {
            return known.clone();
        }
        self.texts.one(text.into())
    }

    fn pairs(&mut self, pairs: &BTreeMap<String, String>) -> Pairs {
        pairs.iter().map(|(key, value)| (self.text(key), self.text(value))).collect()
    }
}

/// Labels or options, ascending by key.
pub type Pairs = Box<[(Arc<str>, Arc<str>)]>;

/// What is kept of a pod.
#[derive(Clone, Debug)]
pub struct KeptPod {
    uid: PodUid,
    namespace: Namespace,
    name: PodName,
    node: Option<NodeName>,
    deletion: Option<SystemTime>,
    /// When its object was first seen with the phase Succeeded or Failed, or past its deletion.
    finished: Option<Boottime>,
    not_eligible: Option<&'static str>,
    /// None once it is finished.
    spec: Option<Box<KeptSpec>>,
}

#[derive(Clone, Debug)]
struct KeptSpec {
    unstamped: Option<&'static str>,
    users: Box<[(Arc<str>, Option<u32>)]>,
    groups: Box<[(Arc<str>, u32)]>,
    supplemental_groups: Box<[u32]>,
    fs_group: Option<u32>,
    volumes: Box<[KeptVolume]>,
    labels: Pairs,
}

#[derive(Clone, Debug)]
struct KeptVolume {
    name: VolumeName,
    driver: Arc<str>,
    /// Only those of our driver have any.
    options: Pairs,
}

impl KeptPod {
    /// What is kept of this object, seen at `now`. `driver` is the one whose volumes' options
    /// matter.
    pub fn of(object: PodObject, driver: &str, pools: &mut Pools, now: Now) -> Self {
        let PodRef { namespace, name, uid, .. } = object.pod.clone();
        let mut kept = Self {
            uid,
            namespace: pools.namespaces.one(namespace),
            name,
            node: object.node.clone().map(|node| pools.nodes.one(node)),
            deletion: object.deletion,
            finished: object.ended.then_some(now.boot),
            not_eligible: object.not_eligible,
            spec: None,
        };
        if kept.finished_since(now).is_none() {
            kept.spec = Some(Box::new(KeptSpec::of(&object, driver, pools)));
        }
        kept
    }

    /// The same, knowing what was known before: a pod once seen finished stays finished.
    pub fn after(mut self, before: &Self, now: Now) -> Self {
        if before.uid == self.uid
            && let Some(since) = before.finished_since(now)
        {
            self.finished = Some(since);
            self.spec = None;
        }
        self
    }

    /// Its uid.
    pub fn uid(&self) -> &PodUid {
        &self.uid
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        (self.namespace.clone(), self.name.clone())
    }

    /// The namespace it is in.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The node it is bound to.
    pub fn node(&self) -> Option<&NodeName> {
        self.node.as_ref()
    }

    /// Since when it is known to be finished, if it is: its phase says so, or its deletion with
    /// its grace is past.
    pub fn finished_since(&self, now: Now) -> Option<Boottime> {
        self.finished.or_else(|| {
            let past = now.wall.duration_since(self.deletion?).ok()?;
            Some(Boottime(now.boot.0.saturating_sub(past)))
        })
    }

    /// What the API server stamps and its object lacks.
    pub fn unstamped(&self) -> Option<&'static str> {
        self.spec.as_ref().and_then(|spec| spec.unstamped)
    }

    /// Whether a Service with this selector selects it. One without selects nothing.
    pub fn is_selected_by(&self, selector: &Pairs) -> bool {
        let labels = self.spec.as_ref().map_or(&[][..], |spec| &spec.labels);
        let has = |(key, value): &(Arc<str>, Arc<str>)| {
            let found = labels.binary_search_by(|(label, _)| label.cmp(key));
            found.is_ok_and(|at| labels[at].1 == *value)
        };
        !selector.is_empty() && selector.iter().all(has)
    }

    /// The pod as decisions see it. `None` when it is bound to no node.
    pub fn described(&self, cluster: &Arc<str>, around: Around, now: Now) -> Option<Pod> {
        let spec = self.spec.as_deref();
        let user = |(container, uid): &(Arc<str>, Option<u32>)| RunAsUser {
            container: container.to_string(),
            uid: *uid,
        };
        let group = |(container, gid): &(Arc<str>, u32)| RunAsGroup {
            container: container.to_string(),
            gid: *gid,
        };
        let (namespace, name) = self.place();
        Some(Pod {
            pod: PodRef { cluster: cluster.clone(), namespace, name, uid: self.uid.clone() },
            namespace_uid: around.namespace_uid,
            node: self.node.clone()?,
            finished: self.finished_since(now).is_some(),
            not_eligible: self.not_eligible,
            run_as_users: spec.iter().flat_map(|spec| spec.users.iter().map(user)).collect(),
            run_as_groups: spec.iter().flat_map(|spec| spec.groups.iter().map(group)).collect(),
            supplemental_groups: spec.map_or_else(Vec::new, |s| s.supplemental_groups.to_vec()),
            fs_group: spec.and_then(|spec| spec.fs_group),
            volumes: spec.iter().flat_map(|s| s.volumes.iter().map(KeptVolume::full)).collect(),
            services: around.services,
            node_labels: around.node_labels,
        })
    }
}

/// What is around a pod, from other objects than its own.
#[derive(Clone, Debug, Default)]
pub struct Around {
    /// The uid of its namespace.
    pub namespace_uid: String,
    /// The Services that select it, ascending.
    pub services: Vec<String>,
    /// The labels of its node that entitlements may name.
    pub node_labels: BTreeMap<String, String>,
}

impl KeptSpec {
    fn of(object: &PodObject, driver: &str, pools: &mut Pools) -> Self {
        let users = object.run_as_users.iter();
        let groups = object.run_as_groups.iter();
        let volumes = object.volumes.iter();
        Self {
            unstamped: object.unstamped,
            users: users.map(|user| (pools.text(&user.container), user.uid)).collect(),
            groups: groups.map(|group| (pools.text(&group.container), group.gid)).collect(),
            supplemental_groups: object.supplemental_groups.as_slice().into(),
            fs_group: object.fs_group,
            volumes: volumes.map(|volume| KeptVolume::of(volume, driver, pools)).collect(),
            labels: pools.pairs(&object.labels),
        }
    }
}

impl KeptVolume {
    fn of(volume: &CredentialVolume, driver: &str, pools: &mut Pools) -> Self {
        let ours = volume.driver == driver;
        Self {
            name: volume.name.clone(),
            driver: pools.text(&volume.driver),
            options: if ours { pools.pairs(&volume.options) } else { Pairs::default() },
        }
    }

    fn full(&self) -> CredentialVolume {
        let options = self.options.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        CredentialVolume {
            name: self.name.clone(),
            driver: self.driver.to_string(),
            options: options.collect(),
        }
    }
}

/// What is kept of a Node object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeptNode {
    /// The uid of the object: another one under the same name is another node.
    pub uid: String,
    /// Whether its condition Ready is True; `None` where there is no such condition.
    pub ready: Option<bool>,
    /// Its labels that it can't set itself.
    pub labels: BTreeMap<String, String>,
}

impl KeptNode {
    /// What is kept of this object.
    pub fn of(mut object: NodeObject) -> Self {
        object.labels.retain(|label, _| label.starts_with(NODE_LABEL_PREFIX));
        Self { uid: object.uid, ready: object.ready, labels: object.labels }
    }
}

/// What is kept of a Service: its selector, never empty.
pub fn selector(of: &BTreeMap<String, String>) -> Pairs {
    of.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect()
}
