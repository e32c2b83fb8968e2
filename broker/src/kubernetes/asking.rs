//! Direct questions to the API server, for what no watch has confirmed of late.
//!
//! Every answer is read from the store of the cluster itself (no `resourceVersion` is named), and
//! comes within a few seconds or not at all. Who asks the same as somebody else at that moment
//! shares the answer; so many questions are under way at most, the others wait their turn.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use krb_proto::{Namespace, NodeName};
use kube::{
    Client,
    core::{
        Request,
        params::{GetParams, ListParams},
    },
};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::{
    clock::{Boottime, Clock},
    pods::{Place, PodsUnavailable},
};

/// How long an answer may take, its turn included.
const LIMIT: Duration = Duration::from_secs(4);
/// How many questions are under way at once.
const AT_ONCE: usize = 32;
/// How many objects a page of a list has.
const PAGE: u32 = 500;

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("asking for {what}: {told}{detail}")]
pub struct AskError {
    what: String,
    told: &'static str,
    detail: String,
}

impl From<AskError> for PodsUnavailable {
    fn from(error: AskError) -> Self {
        Self { detail: error.to_string(), told: error.told }
    }
}

/// What a question came to: when it was asked, and the object or objects.
#[derive(Clone, Debug)]
pub struct Answer<V> {
    /// What it says holds for this instant or later.
    pub as_of: Boottime,
    /// The answer.
    pub value: V,
}

/// Asks the API server.
pub struct Asking {
    client: Client,
    clock: Arc<dyn Clock>,
    room: Semaphore,
    pods: Shared<Place, Option<Arc<Value>>>,
    services: Shared<Namespace, Arc<Vec<Value>>>,
    namespaces: Shared<Namespace, Option<Arc<Value>>>,
    nodes: Shared<NodeName, Option<Arc<Value>>>,
}

impl Asking {
    /// Asks by this client. Nothing is asked yet.
    pub fn new(client: Client, clock: Arc<dyn Clock>) -> Self {
        Self {
            client,
            clock,
            room: Semaphore::new(AT_ONCE),
            pods: Shared::default(),
            services: Shared::default(),
            namespaces: Shared::default(),
            nodes: Shared::default(),
        }
    }

    /// The pod that has this name now.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn pod(&self, place: &Place) -> Result<Option<Arc<Value>>, AskError> {
        let (namespace, name) = place;
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let ask = || self.one(&path, name.as_str(), "a pod");
        let answer = self.pods.ask(&*self.clock, place, Duration::ZERO, ask).await;
        self.pods.forget(place); // whole objects, and whoever asks later asks anew
        answer.map(|answer| answer.value)
    }

    /// The Services of a namespace, as of no longer ago than `within`.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn services(
        &self,
        namespace: &Namespace,
        within: Duration,
    ) -> Result<Arc<Vec<Value>>, AskError> {
        let path = format!("/api/v1/namespaces/{namespace}/services");
        let ask = || self.all(&path, "the Services of a namespace");
        let answer = self.services.ask(&*self.clock, namespace, within, ask).await;
        answer.map(|answer| answer.value)
    }

    /// The namespace that has this name, as of no longer ago than `within`.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn namespace(
        &self,
        name: &Namespace,
        within: Duration,
    ) -> Result<Option<Arc<Value>>, AskError> {
        let ask = || self.one("/api/v1/namespaces", name.as_str(), "a namespace");
        let answer = self.namespaces.ask(&*self.clock, name, within, ask).await;
        answer.map(|answer| answer.value)
    }

    /// The node that has this name, as of no longer ago than `within`.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn node(
        &self,
        name: &NodeName,
        within: Duration,
    ) -> Result<Answer<Option<Arc<Value>>>, AskError> {
        let ask = || self.one("/api/v1/nodes", name.as_str(), "a node");
        self.nodes.ask(&*self.clock, name, within, ask).await
    }

    /// What was last answered of a node, without asking.
    pub fn last_of_node(&self, name: &NodeName) -> Option<Answer<Option<Arc<Value>>>> {
        self.nodes.last(name)
    }

    async fn one(
        &self,
        path: &str,
        name: &str,
        what: &str,
    ) -> Result<Option<Arc<Value>>, AskError> {
        let request = Request::new(path).get(name, &GetParams::default());
        let found = self.bounded(what, || async move {
            self.client.request(request.map_err(kube::Error::BuildRequest)?).await
        });
        match found.await {
            Ok(object) => Ok(Some(Arc::new(object))),
            Err(Failed::Absent(absent)) if absent == name => Ok(None),
            Err(failed) => Err(failed.described(what)),
        }
    }

    async fn all(&self, path: &str, what: &str) -> Result<Arc<Vec<Value>>, AskError> {
        let request = Request::new(path);
        let listed = self.bounded(what, || async move {
            let mut all = Vec::new();
            let mut page = ListParams::default().limit(PAGE);
            loop {
                let request = request.list(&page).map_err(kube::Error::BuildRequest)?;
                let mut said: Value = self.client.request(request).await?;
                if let Value::Array(items) = said["items"].take() {
                    all.extend(items);
                }
                match said["metadata"]["continue"].as_str() {
                    Some(next) if !next.is_empty() => {
                        page = ListParams::default().limit(PAGE).continue_token(next);
                    }
                    _ => return Ok(all),
                }
            }
        });
        listed.await.map(Arc::new).map_err(|failed| failed.described(what))
    }

    /// Asks in its turn and within its time.
    async fn bounded<T, F: Future<Output = Result<T, kube::Error>>>(
        &self,
        what: &str,
        ask: impl FnOnce() -> F,
    ) -> Result<T, Failed> {
        let turn = async {
            let _turn = self.room.acquire().await; // never closed
            ask().await
        };
        match tokio::time::timeout(LIMIT, turn).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Failed::of(error)),
            Err(_) => {
                tracing::debug!(what, "the API server gave no answer in time");
                Err(Failed::Late)
            }
        }
    }
}

/// Why a request came to nothing.
enum Failed {
    /// The API server says that there is no object of this name.
    Absent(String),
    Late,
    Refused(kube::Error),
    Away(kube::Error),
}

impl Failed {
    fn of(error: kube::Error) -> Self {
        let kube::Error::Api(status) = &error else { return Self::Away(error) };
        // Whatever else stands in front of an API server may say 404, too.
        let name = status.details.as_ref().map(|details| details.name.clone());
        match name {
            Some(name) if status.code == 404 && status.reason == "NotFound" => Self::Absent(name),
            _ => Self::Refused(error),
        }
    }

    fn described(self, what: &str) -> AskError {
        let (told, error) = match self {
            Self::Absent(_) => {
                ("the broker can't look the pod up: the API server speaks of another object", None)
            }
            Self::Late => {
                ("the broker can't look the pod up: the API server does not answer", None)
            }
            Self::Refused(error) => {
                ("the broker can't look the pod up: the API server refuses to say", Some(error))
            }
            Self::Away(error) => {
                ("the broker can't look the pod up: the API server can't be reached", Some(error))
            }
        };
        let detail = error.map(|error| format!(": {}", super::client::described(&error)));
        AskError { what: what.to_owned(), told, detail: detail.unwrap_or_default() }
    }
}

/// Answers that are shared by those who ask for the same.
struct Shared<K, V>(Mutex<HashMap<K, Arc<Slot<V>>>>);

/// The last answer, and who may ask for the next.
struct Slot<V> {
    asking: tokio::sync::Mutex<()>,
    last: Mutex<Option<Last<V>>>,
}

#[derive(Clone)]
struct Last<V> {
    asked_at: Boottime,
    answered_at: Boottime,
    outcome: Result<V, AskError>,
}

/// At how many answers those that nobody waits for are forgotten.
const MANY: usize = 4_096;

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Shared<K, V> {
    /// The answer to a question that was asked less than `within` ago, or that is under way as
    /// this call begins, or to one that is asked now.
    async fn ask<F: Future<Output = Result<V, AskError>>>(
        &self,
        clock: &dyn Clock,
        key: &K,
        within: Duration,
        ask: impl FnOnce() -> F,
    ) -> Result<Answer<V>, AskError> {
        let slot = self.slot(key);
        let arrived = clock.now().boot;
        let good = |last: &Last<V>| {
            let recent = last.outcome.is_ok() && arrived.since(last.asked_at) < within;
            recent || last.answered_at > arrived
        };
        if let Some(last) = slot.last().clone().filter(good) {
            return last.answer();
        }
        let _turn = slot.asking.lock().await;
        if let Some(last) = slot.last().clone().filter(good) {
            return last.answer(); // it came while this call waited
        }
        let asked_at = clock.now().boot;
        let outcome = ask().await;
        let last = Last { asked_at, answered_at: clock.now().boot, outcome };
        *slot.last() = Some(last.clone());
        last.answer()
    }

    /// Forgets the answer, unless somebody still waits for it.
    fn forget(&self, key: &K) {
        let mut slots = self.slots();
        if slots.get(key).is_some_and(|slot| Arc::strong_count(slot) == 1) {
            slots.remove(key);
        }
    }

    /// The last answer that was one.
    fn last(&self, key: &K) -> Option<Answer<V>> {
        let slot = self.slots().get(key).cloned()?;
        let last = slot.last().clone()?;
        last.answer().ok()
    }

    fn slot(&self, key: &K) -> Arc<Slot<V>> {
        let mut slots = self.slots();
        if slots.len() >= MANY && !slots.contains_key(key) {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        let new = || Arc::new(Slot { asking: tokio::sync::Mutex::new(()), last: Mutex::new(None) });
        slots.entry(key.clone()).or_insert_with(new).clone()
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<K, Arc<Slot<V>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner) // one insertion is one change
    }
}

impl<V> Slot<V> {
    fn last(&self) -> MutexGuard<'_, Option<Last<V>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Last<V> {
    fn answer(self) -> Result<Answer<V>, AskError> {
        let as_of = self.asked_at;
        self.outcome.map(|value| Answer { as_of, value })
    }
}
