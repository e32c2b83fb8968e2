//! The objects of all files together: who is where, and what selects it.
//!
//! What two objects claim is nobody's: two pods with one uid or one name give no authority,
//! and two namespaces or nodes of one name that differ have no uid and no labels.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use krb_proto::{Namespace, NodeName, PodUid, pod::PodName};

use super::{
    Pod,
    objects::{Object, PodObject, ServiceObject},
};

/// Where a pod is. Names are used again, so this names no pod.
pub type Place = (Namespace, PodName);

/// What is known of a uid that is there.
#[derive(Clone, Debug)]
pub enum Known {
    /// Its one object.
    Pod(Arc<PodObject>),
    /// It is there and gives no authority: what it lacks.
    Unusable(&'static str),
}

/// All objects, by what they are looked up by.
#[derive(Debug, Default)]
pub struct World {
    pods: HashMap<PodUid, Known>,
    places: HashMap<Place, Vec<PodUid>>,
    services: HashMap<Namespace, Vec<ServiceObject>>,
    namespaces: HashMap<Namespace, Option<String>>,
    nodes: HashMap<NodeName, Option<BTreeMap<String, String>>>,
}

impl World {
    /// The world of these objects.
    pub fn of<'a>(objects: impl Iterator<Item = &'a Object>) -> Self {
        let mut world = Self::default();
        for object in objects {
            world.add(object);
        }
        world
    }

    fn add(&mut self, object: &Object) {
        match object {
            Object::Pod(pod) => {
                let place = (pod.pod.namespace.clone(), pod.pod.name.clone());
                self.places.entry(place).or_default().push(pod.pod.uid.clone());
                self.add_pod(&pod.pod.uid, Known::Pod(pod.clone()));
            }
            Object::Unreadable(uid) => {
                self.add_pod(uid, Known::Unusable("metadata that can be read"));
            }
            Object::Service(service) => {
                let services = self.services.entry(service.namespace.clone()).or_default();
                services.push(service.clone());
            }
            Object::Namespace(name, uid) => agree(&mut self.namespaces, name, uid),
            Object::Node(name, labels) => agree(&mut self.nodes, name, labels),
        }
    }

    fn add_pod(&mut self, uid: &PodUid, known: Known) {
        self.pods
            .entry(uid.clone())
            .and_modify(|known| *known = Known::Unusable("a uid that no other object has"))
            .or_insert(known);
    }

    /// What is known of this uid; nothing when it is not there.
    pub fn known(&self, uid: &PodUid) -> Option<Known> {
        match self.pods.get(uid)? {
            Known::Pod(pod) if self.place_is_shared(pod) => {
                Some(Known::Unusable("a name that no other pod has"))
            }
            known => Some(known.clone()),
        }
    }

    fn place_is_shared(&self, pod: &PodObject) -> bool {
        let place = (pod.pod.namespace.clone(), pod.pod.name.clone());
        self.places.get(&place).is_some_and(|uids| uids.len() > 1)
    }

    /// Whether a pod is at this place.
    pub fn is_taken(&self, place: &Place) -> bool {
        self.places.contains_key(place)
    }

    /// Where each pod is.
    pub fn places(&self) -> impl Iterator<Item = (&PodUid, &Place)> {
        self.places.iter().flat_map(|(place, uids)| uids.iter().map(move |uid| (uid, place)))
    }

    /// Whether the uid is there.
    pub fn has(&self, uid: &PodUid) -> bool {
        self.pods.contains_key(uid)
    }

    /// The uid of a namespace.
    pub fn namespace_uid(&self, namespace: &Namespace) -> Option<&String> {
        self.namespaces.get(namespace)?.as_ref()
    }

    /// The pod as decisions see it.
    ///
    /// # Errors
    /// What it lacks.
    pub fn describe(&self, pod: &PodObject, finished: bool) -> Result<Pod, &'static str> {
        if let Some(what) = pod.unstamped {
            return Err(what);
        }
        let node = pod.node.clone().ok_or("spec.nodeName")?;
        let namespace_uid = self
            .namespace_uid(&pod.pod.namespace)
            .ok_or("a Namespace object that has a uid")?
            .clone();
        let node_labels = self.nodes.get(&node).cloned().flatten().unwrap_or_default();
        Ok(Pod {
            pod: pod.pod.clone(),
            namespace_uid,
            node,
            finished,
            not_eligible: pod.not_eligible,
            run_as_users: pod.run_as_users.clone(),
            run_as_groups: pod.run_as_groups.clone(),
            supplemental_groups: pod.supplemental_groups.clone(),
            fs_group: pod.fs_group,
            volumes: pod.volumes.clone(),
            services: self.services_of(pod),
            node_labels,
        })
    }

    /// The Services whose selector selects the pod, ascending.
    fn services_of(&self, pod: &PodObject) -> Vec<String> {
        let selects = |service: &&ServiceObject| {
            service.selector.iter().all(|(label, value)| pod.labels.get(label) == Some(value))
        };
        let services = self.services.get(&pod.pod.namespace).into_iter().flatten();
        let mut names: Vec<String> = services.filter(selects).map(|s| s.name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// Keeps what all objects of this name say; nothing when they differ.
fn agree<K: Clone + Eq + std::hash::Hash, V: Clone + PartialEq>(
    all: &mut HashMap<K, Option<V>>,
    name: &K,
    said: &V,
) {
    all.entry(name.clone())
        .and_modify(|kept| *kept = kept.take().filter(|kept| kept == said))
        .or_insert_with(|| Some(said.clone()));
}
