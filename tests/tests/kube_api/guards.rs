//! Whether the probe sees that nodes are kept apart.

use krb_broker::kubernetes::probe::{Findings, Found, probe};
use krb_tests::kube_api::{KubeApi, Options};
use serde_json::json;

use super::field::Client;

/// What the probe finds as the administrator, and as a broker with the rights of the manual.
async fn found(options: &Options) -> Option<(Findings, Findings)> {
    let api = KubeApi::start_with(options).expect("an API server")?;
    let client = Client::of(&api).await;
    client.make_node("node-a").await;
    let rules = json!([
        {"apiGroups": [""], "resources": ["pods", "services", "namespaces", "nodes"],
         "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"],
         "verbs": ["create"]},
    ]);
    let group = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "krb-broker"}, "rules": rules,
    });
    client.call("POST", &format!("{group}/clusterroles"), Some(role)).await;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "krb-broker"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "krb-broker"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "krb-broker"}],
    });
    client.call("POST", &format!("{group}/clusterrolebindings"), Some(binding)).await;
    let broker = Client::with(api.kubeconfig_of("krb-broker", None).expect("a kubeconfig")).await;
    let at = |client: Client| async move { probe(&client.0).await.expect("an answer") };
    Some((at(client).await, at(broker).await))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_keeps_its_nodes_apart_is_seen_to() {
    let Some((admin, broker)) = found(&Options::default()).await else { return };
    assert_eq!(admin, Findings { authorizer: Found::On, restriction: Found::On });
    assert_eq!(broker.authorizer, Found::On);
    assert!(
        matches!(&broker.restriction, Found::Unknown(why) if why.contains("may not impersonate")),
        "{broker:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_without_its_guards_is_seen_to_be_without() {
    let options = Options { node_restriction: false, ..Options::default() };
    let Some((admin, _)) = found(&options).await else { return };
    assert_eq!(admin.authorizer, Found::On);
    assert_eq!(admin.restriction, Found::Off("a node may change other nodes"));

    for (mode, broken) in [
        ("RBAC", "a node gets none of the rights that it gives"),
        ("AlwaysAllow", "a node may read Secrets that no pod of it uses"),
    ] {
        let options = Options { authorization_mode: mode.to_owned(), ..Options::default() };
        let Some((admin, _)) = found(&options).await else { return };
        assert_eq!(admin.authorizer, Found::Off(broken), "{mode}");
    }
}
