//! Pods from a cluster's API server.
//!
//! A new lease needs facts that were right less than ten seconds ago. Those of the view count
//! while its watch is connected and has delivered something in that time; for all else the API
//! server is asked directly, and its answer counts. Where it does not answer there is no new
//! lease; what was granted before goes on.
//!
//! A pod is gone when it has been absent from the view, or finished, for a minute, and the API
//! server, asked for it by name, says that there is none or another one. While it does not answer,
//! nobody is gone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use krb_proto::{Namespace, NodeName, PodRef, PodUid};

use super::{
    absence::Absences,
    asking::Asking,
    kept::{Around, KeptNode, KeptPod, Pairs},
    view::View,
};
use crate::{
    clock::{Clock, Now},
    pods::{Place, PodSource, PodsUnavailable, Sighting, objects},
};

/// How long a fact counts for a new lease after it was last right.
pub const CONFIRMED_FOR: Duration = Duration::from_secs(10);

/// How many pods that seem gone are asked for at once.
const ASKED_AT_ONCE: usize = 50;

/// The API server as the source of pods. Clones share all.
#[derive(Clone)]
pub struct KubePods(Arc<Inner>);

struct Inner {
    cluster: Arc<str>,
    view: Arc<View>,
    asking: Arc<Asking>,
    clock: Arc<dyn Clock>,
    gone_after: Duration,
    absences: Mutex<Absences>,
}

impl KubePods {
    /// The pods of `cluster`: those of `view`, which others keep up to date, and whatever `asking`
    /// has to be asked for.
    pub fn new(
        cluster: Arc<str>,
        view: Arc<View>,
        asking: Arc<Asking>,
        clock: Arc<dyn Clock>,
        gone_after: Duration,
    ) -> Self {
        let absences = Mutex::default();
        Self(Arc::new(Inner { cluster, view, asking, clock, gone_after, absences }))
    }
}

impl Inner {
    /// The pod, from the view if that is confirmed, else from the API server.
    async fn pod(
        &self,
        uid: &PodUid,
        hint: Option<&Place>,
    ) -> Result<Option<Arc<KeptPod>>, PodsUnavailable> {
        let now = self.clock.now();
        let (seen, confirmed) = self
            .view
            .pods
            .look(|pods| (pods.get(uid).cloned(), pods.is_confirmed(now.boot, CONFIRMED_FOR)));
        let place = match (seen, hint) {
            (Some(seen), _) if confirmed => return Ok(Some(seen)),
            (Some(seen), _) => seen.place(),
            (None, Some(hint)) => hint.clone(),
            (None, None) => return Ok(None), // nobody can say where to look
        };
        Ok(self.ask_for(&place).await?.filter(|pod| pod.uid() == uid))
    }

    /// The pod that has this name now.
    async fn ask_for(&self, place: &Place) -> Result<Option<Arc<KeptPod>>, PodsUnavailable> {
        let Some(object) = self.asking.pod(place).await? else { return Ok(None) };
        let read = self.view.pods.read(&object, self.clock.now());
        let (_, kept) = read.map_err(PodsUnavailable::new)?;
        Ok(kept)
    }

    /// What is around the pod; `None` when its namespace is not there.
    async fn around(&self, pod: &KeptPod) -> Result<Option<Around>, PodsUnavailable> {
        let node = async {
            match pod.node() {
                Some(node) => self.node_labels(node).await,
                None => Ok(BTreeMap::new()),
            }
        };
        let namespace = self.namespace_uid(pod.namespace());
        let (namespace_uid, services, node_labels) =
            tokio::try_join!(namespace, self.services_of(pod), node)?;
        Ok(namespace_uid.map(|namespace_uid| Around { namespace_uid, services, node_labels }))
    }

    async fn namespace_uid(
        &self,
        namespace: &Namespace,
    ) -> Result<Option<String>, PodsUnavailable> {
        let now = self.clock.now();
        let confirmed = self.view.namespaces.look(|all| {
            all.is_confirmed(now.boot, CONFIRMED_FOR).then(|| all.get(namespace).cloned())
        });
        if let Some(uid) = confirmed {
            return Ok(uid);
        }
        let object = self.asking.namespace(namespace, CONFIRMED_FOR).await?;
        let read = object.map(|object| objects::namespace(&object)).transpose();
        Ok(read.map_err(PodsUnavailable::new)?.map(|(_, uid)| uid))
    }

    /// The Services that select the pod, ascending.
    async fn services_of(&self, pod: &KeptPod) -> Result<Vec<String>, PodsUnavailable> {
        let now = self.clock.now();
        let confirmed = self.view.services.look(|services| {
            let confirmed = services.is_confirmed(now.boot, CONFIRMED_FOR);
            confirmed.then(|| {
                let first = (pod.namespace().clone(), String::new());
                let own = services.from(&first).take_while(|(key, _)| key.0 == first.0);
                let selecting = own.filter(|(_, selector)| pod.is_selected_by(selector));
                selecting.map(|((_, name), _)| name.clone()).collect()
            })
        });
        if let Some(names) = confirmed {
            return Ok(names);
        }
        let listed = self.asking.services(pod.namespace(), CONFIRMED_FOR).await?;
        let services = listed.iter().filter_map(|object| objects::service(object).ok().flatten());
        let selector = |of: &BTreeMap<String, String>| -> Pairs { super::kept::selector(of) };
        let selecting = services.filter(|s| pod.is_selected_by(&selector(&s.selector)));
        let mut names: Vec<String> = selecting.map(|service| service.name).collect();
        names.sort();
        Ok(names)
    }

    /// The node's labels that it can't set itself; none where there is no such node.
    async fn node_labels(
        &self,
        node: &NodeName,
    ) -> Result<BTreeMap<String, String>, PodsUnavailable> {
        let now = self.clock.now();
        let labels = |node: Option<&KeptNode>| node.map(|n| n.labels.clone()).unwrap_or_default();
        let confirmed = self.view.nodes.look(|nodes| {
            nodes.is_confirmed(now.boot, CONFIRMED_FOR).then(|| labels(nodes.get(node)))
        });
        if let Some(labels) = confirmed {
            return Ok(labels);
        }
        let object = self.asking.node(node, CONFIRMED_FOR).await?.value;
        let read = object.map(|object| objects::node(&object)).transpose();
        Ok(labels(read.map_err(PodsUnavailable::new)?.map(KeptNode::of).as_ref()))
    }

    fn described(&self, pod: &KeptPod, around: Option<Around>, now: Now) -> Sighting {
        if let Some(what) = pod.unstamped() {
            return Sighting::Unstamped { what };
        }
        let Some(around) = around else {
            return Sighting::Unstamped { what: "a Namespace object that has a uid" };
        };
        match pod.described(&self.cluster, around, now) {
            Some(pod) => Sighting::Here(Box::new(pod)),
            None => Sighting::Unstamped { what: "spec.nodeName" },
        }
    }

    /// Whether the view has the pod, and since when it is finished there.
    fn is_absent(&self, pod: &PodRef, now: Now) -> bool {
        self.view.pods.look(|pods| match pods.get(&pod.uid) {
            None => true,
            Some(seen) => seen.finished_since(now).is_some(),
        })
    }

    /// Whether the API server says that there is no such pod any more, or that it is finished.
    async fn is_denied(&self, pod: &PodRef) -> Result<bool, PodsUnavailable> {
        let place = (pod.namespace.clone(), pod.name.clone());
        let found = self.ask_for(&place).await?.filter(|found| *found.uid() == pod.uid);
        let now = self.clock.now();
        Ok(found.is_none_or(|found| found.finished_since(now).is_some()))
    }

    fn absences(&self) -> MutexGuard<'_, Absences> {
        self.absences.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl PodSource for KubePods {
    async fn look(&self, uid: &PodUid, hint: Option<&Place>) -> Result<Sighting, PodsUnavailable> {
        let Some(pod) = self.0.pod(uid, hint).await? else {
            let gone = self.0.absences().is_gone(uid);
            return Ok(if gone { Sighting::Gone } else { Sighting::Missing });
        };
        let around = self.0.around(&pod).await?;
        Ok(self.0.described(&pod, around, self.0.clock.now()))
    }

    async fn gone(&self, pods: &[PodRef]) -> Result<Vec<PodUid>, PodsUnavailable> {
        let now = self.0.clock.now();
        if !self.0.view.pods.look(super::mirror::Mirror::is_followed) {
            self.0.absences().forget();
            return Err(PodsUnavailable::new("the watch of pods is not connected"));
        }
        let absent = |pod: &PodRef| self.0.is_absent(pod, now);
        let ask = self.0.absences().look(pods, absent, now.boot, self.0.gone_after);
        let asked = stream::iter(ask).map(|pod| async move {
            let denied = self.0.is_denied(&pod).await;
            (pod, denied)
        });
        let mut answers = asked.buffer_unordered(ASKED_AT_ONCE);
        let mut failed = None;
        while let Some((pod, denied)) = answers.next().await {
            match denied {
                Ok(gone) => self.0.absences().answered(&pod.uid, gone),
                Err(error) => failed = Some(error),
            }
        }
        // Those that could not be asked for are asked for at the next sweep; nobody goes before.
        failed.map_or_else(|| Ok(self.0.absences().gone()), Err)
    }

    async fn namespace_uid(
        &self,
        namespace: &Namespace,
    ) -> Result<Option<String>, PodsUnavailable> {
        self.0.namespace_uid(namespace).await
    }
}
