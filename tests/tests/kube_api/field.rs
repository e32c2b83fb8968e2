//! A broker's view of a real API server, and what the stories do to the cluster.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use krb_broker::{
    clock::{Boottime, Clock, Now, SystemClock},
    kubernetes::{
        asking::Asking,
        client::{Settings, connect},
        source::KubePods,
        view::View,
        watching::Watching,
        witness::KubeNodes,
    },
    pods::{Place, Pod, PodSource, PodsUnavailable, Sighting},
};
use krb_proto::{NodeName, PodRef, PodUid};
use krb_tests::{cluster::wait, kube_api::KubeApi};
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::codegen::http;

/// How long a pod must be away in these stories.
pub const GONE_AFTER: Duration = Duration::from_secs(1);
/// The driver whose volumes the broker serves.
pub const DRIVER: &str = "krb-broker/credentials";

/// The machine's clocks, and how far a story has put them forward.
#[derive(Default)]
pub struct Ahead(AtomicU64);

impl Ahead {
    /// Lets so much time pass.
    pub fn pass(&self, span: Duration) {
        self.0.fetch_add(span.as_secs(), Ordering::SeqCst);
    }
}

impl Clock for Ahead {
    fn now(&self) -> Now {
        let now = SystemClock.now();
        let ahead = Duration::from_secs(self.0.load(Ordering::SeqCst));
        Now { boot: Boottime(now.boot.0 + ahead), wall: now.wall + ahead }
    }
}

/// An API server, and the broker's adapters beside it.
pub struct Field {
    pub api: KubeApi,
    pub view: Arc<View>,
    pub pods: KubePods,
    pub nodes: KubeNodes,
    pub clock: Arc<Ahead>,
    pub client: Client,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Plain calls of the API server.
#[derive(Clone)]
pub struct Client(pub krb_broker::kubernetes::client::Client);

impl Client {
    /// As the cluster's administrator.
    pub async fn of(api: &KubeApi) -> Self {
        Self::with(api.kubeconfig()).await
    }

    pub async fn with(kubeconfig: std::path::PathBuf) -> Self {
        let settings = Settings { kubeconfig: Some(kubeconfig) };
        Self(connect(&settings).await.expect("a client"))
    }

    /// One call; its answer.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let request = http::Request::builder().method(method).uri(path);
        let request = match method {
            "PATCH" => request.header("Content-Type", "application/merge-patch+json"),
            _ => request.header("Content-Type", "application/json"),
        };
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = request.body(body).expect("a request");
        let answer = self.0.request::<Value>(request).await;
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Makes a pod of the namespace `default`; its uid.
    pub async fn make_pod(&self, name: &str) -> PodUid {
        let made = self.call("POST", "/api/v1/namespaces/default/pods", Some(pod(name))).await;
        made["metadata"]["uid"].as_str().expect("a uid").parse().expect("a uid")
    }

    /// Deletes it as by force.
    pub async fn delete_pod(&self, name: &str) {
        let path = format!("/api/v1/namespaces/default/pods/{name}?gracePeriodSeconds=0");
        self.call("DELETE", &path, None).await;
    }

    /// Sets its phase, as a kubelet does.
    pub async fn set_phase(&self, name: &str, phase: &str) {
        let path = format!("/api/v1/namespaces/default/pods/{name}/status");
        self.call("PATCH", &path, Some(json!({"status": {"phase": phase}}))).await;
    }

    /// Makes a Service that selects these labels.
    pub async fn make_service(&self, name: &str, selector: Value) {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": selector, "ports": [{"port": 80}]},
        });
        self.call("POST", "/api/v1/namespaces/default/services", Some(service)).await;
    }

    /// Makes a node.
    pub async fn make_node(&self, name: &str) {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"node-restriction.kubernetes.io/zone": "secure", "other": "x"}},
        });
        self.call("POST", "/api/v1/nodes", Some(node)).await;
        self.set_ready(name, "True").await;
    }

    /// Sets its condition Ready.
    pub async fn set_ready(&self, name: &str, status: &str) {
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        self.call("PATCH", &format!("/api/v1/nodes/{name}/status"), Some(status)).await;
    }
}

/// A pod of an account on node-a that asks for a service.
pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {
            "nodeName": "node-a", "serviceAccountName": "default",
            "securityContext": {"runAsUser": 1234},
            "containers": [{"name": "main", "image": "none"}],
            "volumes": [{"name": "creds", "flexVolume": {
                "driver": DRIVER, "options": {"ts/services": "HTTP"},
            }}],
        },
    })
}

/// Where a pod of the namespace `default` is.
pub fn place(name: &str) -> Place {
    ("default".parse().expect("a namespace"), name.parse().expect("a name"))
}

pub fn pod_ref(name: &str, uid: &PodUid) -> PodRef {
    let (namespace, name) = place(name);
    PodRef { cluster: "prod-1".into(), namespace, name, uid: uid.clone() }
}

impl Field {
    /// An API server with the node node-a, nothing else, and a view that follows it. `None` where
    /// there are no binaries.
    pub async fn start() -> Option<Self> {
        let api = KubeApi::start().expect("an API server")?;
        let client = Client::of(&api).await;
        client.make_node("node-a").await;
        Some(Self::on(api, client).await)
    }

    /// The same beside an API server that has been filled already.
    pub async fn on(api: KubeApi, client: Client) -> Self {
        let clock = Arc::new(Ahead::default());
        let view = Arc::new(View::new("prod-1".into(), DRIVER.to_owned()));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        for kind in view.kinds() {
            let watching = Watching::new(client.0.clone(), clock.clone(), kind);
            tasks.spawn(watching.run(stop.clone()));
        }
        let asking = Arc::new(Asking::new(client.0.clone(), clock.clone()));
        let nodes = KubeNodes::new(view.clone(), asking.clone(), clock.clone());
        tasks.spawn(nodes.clone().keep_fresh(stop.clone()));
        let pods = KubePods::new("prod-1".into(), view.clone(), asking, clock.clone(), GONE_AFTER);
        let field = Self { api, view, pods, nodes, clock, client, stop, tasks };
        field.until("the view to be followed", || field.is_followed()).await;
        field
    }

    pub fn is_followed(&self) -> bool {
        self.view.pods.look(|pods| pods.is_followed())
            && self.view.services.look(|services| services.is_followed())
            && self.view.namespaces.look(|namespaces| namespaces.is_followed())
            && self.view.nodes.look(|nodes| nodes.is_followed())
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let end = wait::monotonic() + Duration::from_secs(60);
        while !holds() {
            assert!(wait::monotonic() < end, "waiting for {what}\n{}", self.api.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the view has, or has no longer, the pod.
    pub async fn until_seen(&self, uid: &PodUid, there: bool) {
        let has = || self.view.pods.look(|pods| pods.get(uid).is_some()) == there;
        self.until(&format!("{uid} to be seen: {there}"), has).await;
    }

    pub async fn look(
        &self,
        uid: &PodUid,
        hint: Option<&str>,
    ) -> Result<Sighting, PodsUnavailable> {
        self.pods.look(uid, hint.map(place).as_ref()).await
    }

    /// The pod, which is there.
    pub async fn here(&self, uid: &PodUid, hint: Option<&str>) -> Pod {
        match self.look(uid, hint).await {
            Ok(Sighting::Here(pod)) => *pod,
            other => panic!("{other:?}\n{}", self.api.log()),
        }
    }

    /// Whether these pods are gone, once they have been away for long enough.
    pub async fn gone(&self, pods: &[PodRef]) -> Vec<PodUid> {
        self.pods.gone(pods).await.expect("an answer");
        self.clock.pass(GONE_AFTER);
        let mut gone = self.pods.gone(pods).await.expect("an answer");
        gone.sort();
        gone
    }

    /// Ends the tasks.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

pub fn node(name: &str) -> NodeName {
    name.parse().expect("a node's name")
}
