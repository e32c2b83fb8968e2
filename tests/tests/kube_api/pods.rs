//! What the broker knows of pods, their Services and nodes while the API server answers.

use std::time::Duration;

use krb_broker::{
    clock::Clock,
    pods::{PodSource, Sighting},
    session::witness::{Witness, Witnesses},
};
use serde_json::json;

use super::field::{Client, Field, node, pod_ref};

/// More than two pages of a list.
const MANY: usize = 1_100;

#[tokio::test(flavor = "multi_thread")]
async fn a_large_cluster_is_listed_in_pages_and_then_followed() {
    let Some(api) = krb_tests::kube_api::KubeApi::start().expect("an API server") else { return };
    let client = Client::of(&api).await;
    let names: Vec<String> = (0..MANY).map(|n| format!("pod-{n}")).collect();
    for some in names.chunks(50) {
        let made = some.iter().map(|name| client.make_pod(name));
        futures_all(made.collect()).await;
    }
    let field = Field::on(api, client).await;
    assert_eq!(field.view.pods.look(|pods| pods.len()), MANY);
    let uid = field.client.make_pod("one-more").await;
    field.until_seen(&uid, true).await;
    field.client.delete_pod("one-more").await;
    field.until_seen(&uid, false).await;
    field.stop().await;
}

/// Waits for all of them at once.
async fn futures_all<T>(mut all: Vec<impl Future<Output = T>>) {
    let mut tasks: Vec<_> = all.drain(..).map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        tasks.retain_mut(|task| task.as_mut().poll(cx).is_pending());
        if tasks.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_here_then_finished_then_gone_and_its_namesake_is_another() {
    let Some(field) = Field::start().await else { return };
    let first = field.client.make_pod("web-0").await;
    field.until_seen(&first, true).await;
    let here = field.here(&first, None).await;
    assert_eq!(here.node, node("node-a"));
    assert_eq!(here.run_as_users[0].uid, Some(1234));
    assert_eq!(here.volumes[0].options["ts/services"], "HTTP");
    assert!(!here.finished);
    let zone = "node-restriction.kubernetes.io/zone";
    assert_eq!(here.node_labels.keys().map(String::as_str).collect::<Vec<_>>(), [zone]);
    let there = [pod_ref("web-0", &first)];
    assert!(field.gone(&there).await.is_empty());

    field.client.set_phase("web-0", "Succeeded").await;
    let finished = || {
        let now = field.clock.now();
        field
            .view
            .pods
            .look(|pods| pods.get(&first).is_some_and(|p| p.finished_since(now).is_some()))
    };
    field.until("the pod to be seen finished", finished).await;
    assert!(field.here(&first, None).await.finished);
    field.client.set_phase("web-0", "Running").await; // a node can write this
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(field.here(&first, None).await.finished, "finished is for ever");
    assert_eq!(field.gone(&there).await, std::slice::from_ref(&first));

    field.client.delete_pod("web-0").await;
    let second = field.client.make_pod("web-0").await;
    field.until_seen(&first, false).await;
    field.until_seen(&second, true).await;
    assert!(!field.here(&second, None).await.finished);
    let old = field.look(&first, Some("web-0")).await.expect("an answer");
    assert!(matches!(old, Sighting::Missing | Sighting::Gone), "{old:?}");
    let both = [pod_ref("web-0", &first), pod_ref("web-0", &second)];
    assert_eq!(field.gone(&both).await, [first]);
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_has_confirmed_for_ten_seconds_is_asked_for_directly() {
    let Some(field) = Field::start().await else { return };
    let uid = field.client.make_pod("web-0").await;
    field.until_seen(&uid, true).await;
    field.clock.pass(Duration::from_secs(11));
    let now = field.clock.now().boot;
    let confirmed = |within| field.view.pods.look(|pods| pods.is_confirmed(now, within));
    assert!(!confirmed(Duration::from_secs(10)));
    assert_eq!(field.here(&uid, None).await.namespace_uid.len(), 36);

    let stranger = "0f7c2c1a-0000-4000-8000-000000000000".parse().expect("a uid");
    assert_eq!(field.look(&stranger, None).await.expect("an answer"), Sighting::Missing);
    let lied = field.look(&stranger, Some("web-0")).await.expect("an answer");
    assert_eq!(lied, Sighting::Missing, "the hint is another pod's");
    let away = field.look(&stranger, Some("nowhere")).await.expect("an answer");
    assert_eq!(away, Sighting::Missing);
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_give_names_by_their_selectors_and_only_as_long() {
    let Some(field) = Field::start().await else { return };
    let uid = field.client.make_pod("web-0").await;
    field.client.make_service("web", json!({"app": "web"})).await;
    field.client.make_service("db", json!({"app": "db"})).await;
    let path = "/api/v1/namespaces/default/services";
    let outside = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "outside"},
        "spec": {"type": "ExternalName", "externalName": "example.com", "selector": {"app": "web"}},
    });
    field.client.call("POST", path, Some(outside)).await;
    field.until_seen(&uid, true).await;
    let services = |names: &'static [&'static str]| {
        let (field, uid) = (&field, &uid);
        async move {
            for _ in 0..100 {
                if field.here(uid, None).await.services == names {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            panic!("not {names:?}");
        }
    };
    services(&["web"]).await;
    let both = json!({"spec": {"selector": {"app": "web"}}});
    field.client.call("PATCH", &format!("{path}/db"), Some(both)).await;
    services(&["db", "web"]).await;
    let other = json!({"spec": {"selector": {"app": "web", "tier": "front"}}});
    field.client.call("PATCH", &format!("{path}/web"), Some(other)).await;
    services(&["db"]).await;
    let none = json!({"spec": {"selector": null}});
    field.client.call("PATCH", &format!("{path}/db"), Some(none)).await;
    services(&[]).await;

    field.clock.pass(Duration::from_secs(60)); // nothing is confirmed: a direct list
    let back = json!({"spec": {"selector": {"app": "web"}}});
    field.client.call("PATCH", &format!("{path}/db"), Some(back)).await;
    services(&["db"]).await;
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_a_witness_as_its_object_says() {
    let Some(field) = Field::start().await else { return };
    let of = |name: &str| field.nodes.of(&node(name), field.clock.now());
    let becomes = async |name: &str, witness| {
        field.until(&format!("{name} to be {witness:?}"), || of(name) == witness).await;
    };
    becomes("node-a", Witness::NodeReady).await;
    assert_eq!(field.nodes.node_uid(&node("node-a")).map(|uid| uid.len()), Some(36));
    field.client.set_ready("node-a", "Unknown").await;
    becomes("node-a", Witness::NodeNotReady).await;
    assert_eq!(of("node-b"), Witness::NodeGone);

    field.clock.pass(Duration::from_secs(61));
    assert_eq!(of("node-a"), Witness::Unknown, "nothing was heard for a minute");
    becomes("node-a", Witness::NodeNotReady).await; // it was asked for
    becomes("node-b", Witness::NodeGone).await;
    let before = field.nodes.node_uid(&node("node-a"));
    field.client.call("DELETE", "/api/v1/nodes/node-a", None).await;
    becomes("node-a", Witness::NodeGone).await;
    assert_eq!(field.nodes.node_uid(&node("node-a")), None);
    field.client.make_node("node-a").await;
    becomes("node-a", Witness::NodeReady).await;
    assert_ne!(field.nodes.node_uid(&node("node-a")), before, "it is another object");
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_made_anew_has_another_uid() {
    let Some(field) = Field::start().await else { return };
    let team = "team".parse().expect("a namespace");
    let made = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    let path = "/api/v1/namespaces";
    let uid = async || field.pods.namespace_uid(&team).await.expect("an answer");
    let first = field.client.call("POST", path, Some(made.clone())).await;
    field.clock.pass(Duration::from_secs(11));
    assert_eq!(uid().await.as_deref(), first["metadata"]["uid"].as_str());
    field.client.call("DELETE", &format!("{path}/team"), None).await;
    field.api.finalize("team").expect("it may go");
    field.clock.pass(Duration::from_secs(11));
    assert_eq!(uid().await, None);
    let second = field.client.call("POST", path, Some(made)).await;
    field.clock.pass(Duration::from_secs(11));
    assert_eq!(uid().await.as_deref(), second["metadata"]["uid"].as_str());
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    field.stop().await;
}
