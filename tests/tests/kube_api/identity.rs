//! Nodes by their agents' tokens, which a real API server made and reviews.

use std::{fs, sync::Arc, time::Duration};

use krb_broker::{
    clock::{Clock, Now, SystemClock},
    kubernetes::{
        client::{Settings, connect},
        tokens::{Agents, ReviewedTokens},
    },
    tokens::{NodeTokens, Proved, Refusal, TokenError},
};
use krb_proto::Secret;
use krb_tests::{cluster::Kubectl, kube_api::KubeApi};
use serde_json::{Value, json};

/// What the broker may do for this, and no more.
const RIGHTS: &str = r#"
{"apiVersion": "v1", "kind": "List", "items": [
{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "krb-broker"}},
{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"}},
{"apiVersion": "v1", "kind": "ServiceAccount",
 "metadata": {"name": "krb-node-agent", "namespace": "krb-broker"}},
{"apiVersion": "v1", "kind": "ServiceAccount",
 "metadata": {"name": "other", "namespace": "krb-broker"}},
{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "broker"},
 "rules": [
  {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
  {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]},
{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
 "metadata": {"name": "broker"},
 "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "broker"},
 "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "broker"}]},
{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
 "metadata": {"name": "broker", "namespace": "krb-broker"},
 "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
 "metadata": {"name": "broker", "namespace": "krb-broker"},
 "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "broker"},
 "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "broker"}]}
]}"#;

const ACCOUNT: &str = "krb-node-agent";
const AUDIENCE: &str = "krb-broker";

struct World {
    api: KubeApi,
    tokens: ReviewedTokens,
}

/// The wall clock, some time on.
struct Later(Duration);

impl Clock for Later {
    fn now(&self) -> Now {
        let now = SystemClock.now();
        Now { wall: now.wall + self.0, ..now }
    }
}

fn agents() -> Agents {
    Agents {
        audience: AUDIENCE.to_owned(),
        namespace: "krb-broker".parse().expect("a namespace"),
        service_account: ACCOUNT.to_owned(),
    }
}

async fn tokens(api: &KubeApi, clock: Arc<dyn Clock>) -> ReviewedTokens {
    let kubeconfig = api.kubeconfig_of("broker", None).expect("a kubeconfig");
    let client = connect(&Settings { kubeconfig: Some(kubeconfig) }).await.expect("a client");
    ReviewedTokens::new(client, agents(), clock)
}

impl World {
    async fn new() -> Option<Self> {
        let api = KubeApi::start().expect("an API server")?;
        api.kubectl().apply(RIGHTS).expect("rights");
        let tokens = tokens(&api, Arc::new(SystemClock)).await;
        Some(Self { api, tokens })
    }

    fn kubectl(&self) -> &Kubectl {
        self.api.kubectl()
    }

    fn pod(&self, name: &str, account: &str) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "krb-broker"},
            "spec": {
                "nodeName": "node-a", "serviceAccountName": account,
                "containers": [{"name": "agent", "image": "none"}],
            },
        });
        self.kubectl().apply(&pod.to_string()).expect("a pod");
    }

    fn uid(&self, kind: &str, name: &str) -> String {
        let found = self.kubectl().get("krb-broker", kind, name).expect("get").expect("is there");
        found["metadata"]["uid"].as_str().expect("a uid").to_owned()
    }

    /// A token as kubelet asks for it.
    fn token(&self, account: &str, audience: &str, pod: Option<&str>) -> String {
        let bound = pod.map(|name| {
            json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": self.uid("pod", name)})
        });
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": [audience], "expirationSeconds": 600, "boundObjectRef": bound},
        });
        let path = format!("/api/v1/namespaces/krb-broker/serviceaccounts/{account}/token");
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), request.to_string()).expect("written");
        let file = file.path().to_string_lossy();
        let made = self.kubectl().run(&["create", "--raw", &path, "-f", &file]).expect("a token");
        let made: Value = serde_json::from_str(&made).expect("a TokenRequest");
        made["status"]["token"].as_str().expect("a token").to_owned()
    }

    fn set_phase(&self, name: &str, phase: &str) {
        let mut pod = self.kubectl().get("krb-broker", "pod", name).expect("get").expect("a pod");
        pod["status"]["phase"] = json!(phase);
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), pod.to_string()).expect("written");
        let path = format!("/api/v1/namespaces/krb-broker/pods/{name}/status");
        let file = file.path().to_string_lossy();
        self.kubectl().run(&["replace", "--raw", &path, "-f", &file]).expect("a status");
    }

    async fn review(&self, token: &str) -> Result<Proved, TokenError> {
        self.tokens.review(&Secret::new(token.as_bytes().to_vec())).await
    }

    async fn refusal(&self, token: &str) -> Refusal {
        why(self.review(token).await)
    }
}

fn why(outcome: Result<Proved, TokenError>) -> Refusal {
    match outcome {
        Err(TokenError::Refused { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_token_proves_the_node_that_its_pod_runs_on_and_no_other_token_does() {
    let Some(world) = World::new().await else { return };
    world.pod("agent-a", ACCOUNT);
    let good = world.token(ACCOUNT, AUDIENCE, Some("agent-a"));
    let proved = world.review(&good).await.expect("a good token");
    assert_eq!(proved.node.as_str(), "node-a");
    assert_eq!(proved.node_uid, world.uid("node", "node-a"));
    assert_eq!(proved.pod.as_str(), world.uid("pod", "agent-a"));
    let left = proved.expires.duration_since(SystemClock.now().wall).expect("it is to come");
    assert!(left > Duration::from_secs(500) && left <= Duration::from_secs(601), "{left:?}");

    let other_audience = world.token(ACCOUNT, "vault", Some("agent-a"));
    assert_eq!(world.refusal(&other_audience).await, Refusal::Audience);
    let unbound = world.token(ACCOUNT, AUDIENCE, None);
    assert_eq!(world.refusal(&unbound).await, Refusal::Pod);
    world.pod("other-a", "other");
    let other_account = world.token("other", AUDIENCE, Some("other-a"));
    assert_eq!(world.refusal(&other_account).await, Refusal::ServiceAccount);

    let (signed, signature) = good.rsplit_once('.').expect("a JWT");
    let flipped = if signature.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{signed}.{flipped}{}", &signature[1..]);
    assert_eq!(world.refusal(&forged).await, Refusal::NotValid);
    let later = tokens(&world.api, Arc::new(Later(Duration::from_secs(660)))).await;
    let secret = Secret::new(good.as_bytes().to_vec());
    assert_eq!(why(later.review(&secret).await), Refusal::Expired);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_proves_nothing_once_its_pod_or_its_node_is_no_more() {
    let Some(mut world) = World::new().await else { return };
    for name in ["finished", "deleted", "anew", "stays"] {
        world.pod(name, ACCOUNT);
    }
    let token = |world: &World, name: &str| world.token(ACCOUNT, AUDIENCE, Some(name));
    let (finished, deleted) = (token(&world, "finished"), token(&world, "deleted"));
    let (anew, stays) = (token(&world, "anew"), token(&world, "stays"));
    world.set_phase("finished", "Failed");
    assert_eq!(world.refusal(&finished).await, Refusal::Pod);

    // nobody ends the containers, so the object stays past its deletion
    let delete = ["-n", "krb-broker", "delete", "pod", "deleted", "--grace-period=2"];
    let delete: Vec<&str> = delete.into_iter().chain(["--wait=false"]).collect();
    world.kubectl().run(&delete).expect("deleted");
    assert!(world.review(&deleted).await.is_ok(), "it may end in good order");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(world.refusal(&deleted).await, Refusal::Pod);

    let force = ["-n", "krb-broker", "delete", "pod", "anew", "--grace-period=0", "--force"];
    world.kubectl().run(&force).expect("deleted");
    world.pod("anew", ACCOUNT);
    assert_eq!(world.refusal(&anew).await, Refusal::NotValid, "the API server sees that itself");

    assert!(world.tokens.answers().await);
    world.api.stop();
    let away = world.review(&stays).await;
    assert!(matches!(away, Err(TokenError::Unavailable { .. })), "{away:?}");
    assert!(!world.tokens.answers().await);
    world.api.start_again().expect("it starts again");
    assert!(world.tokens.answers().await);
    let first = world.review(&stays).await.expect("a good token").node_uid;

    world.kubectl().run(&["delete", "node", "node-a"]).expect("deleted");
    assert_eq!(world.refusal(&stays).await, Refusal::Node);
    let node = r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"}}"#;
    world.kubectl().apply(node).expect("a node");
    assert_ne!(world.review(&stays).await.expect("a good token").node_uid, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_its_rights_says_that_nobody_can_say() {
    let Some(world) = World::new().await else { return };
    world.pod("agent-a", ACCOUNT);
    let good = world.token(ACCOUNT, AUDIENCE, Some("agent-a"));
    world.kubectl().run(&["delete", "clusterrolebinding", "broker"]).expect("deleted");
    let away = world.review(&good).await;
    let Err(TokenError::Unavailable { detail }) = away else { panic!("{away:?}") };
    assert!(detail.contains("tokenreviews"), "{detail}");
    assert!(!detail.contains(&good), "no log has the token");
}
