//! What the broker does when the API server is away, hangs, forgets, or is another one.

use std::time::Duration;

use krb_broker::{
    clock::Clock,
    pods::{PodSource, Sighting},
    session::witness::{Witness, Witnesses},
};

use super::field::{Field, node, pod_ref};

#[tokio::test(flavor = "multi_thread")]
async fn while_the_api_server_is_away_nothing_new_is_granted_and_nobody_is_gone() {
    let Some(mut field) = Field::start().await else { return };
    let uid = field.client.make_pod("web-0").await;
    field.until_seen(&uid, true).await;
    field.api.stop();
    field.until("the loss to be noticed", || !field.is_followed()).await;
    let refused = field.look(&uid, Some("web-0")).await.expect_err("nobody confirms it");
    assert_eq!(refused.told, "the broker can't look the pod up: the API server can't be reached");
    field.clock.pass(Duration::from_secs(3600));
    field.pods.gone(&[pod_ref("web-0", &uid)]).await.expect_err("nobody can say");
    assert_eq!(field.nodes.of(&node("node-a"), field.clock.now()), Witness::Unknown);

    field.api.start_again().expect("it starts again");
    field.until("the view to be followed", || field.is_followed()).await;
    assert!(matches!(field.look(&uid, None).await, Ok(Sighting::Here(_))));
    let more = field.client.make_pod("web-1").await;
    field.until_seen(&more, true).await;
    assert!(field.gone(&[pod_ref("web-0", &uid)]).await.is_empty());
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_hangs_is_waited_for_a_few_seconds() {
    let Some(field) = Field::start().await else { return };
    let uid = field.client.make_pod("web-0").await;
    field.until_seen(&uid, true).await;
    field.api.freeze(true);
    field.clock.pass(Duration::from_secs(11));
    let looks = (0..3).map(|_| field.look(&uid, None)).collect::<Vec<_>>();
    for look in looks {
        let refused = tokio::time::timeout(Duration::from_secs(8), look).await;
        let refused = refused.expect("in time").expect_err("nobody answers");
        assert_eq!(
            refused.told,
            "the broker can't look the pod up: the API server does not answer"
        );
    }
    field.api.freeze(false);
    field.here(&uid, None).await;
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_whose_place_is_forgotten_is_followed_by_a_new_list() {
    let Some(mut field) = Field::start().await else { return };
    let uid = field.client.make_pod("web-0").await;
    field.until_seen(&uid, true).await;
    // The store goes on without any word to the watches of pods, and then forgets all but the end.
    for n in 0..20 {
        field.client.make_service(&format!("s-{n}"), serde_json::json!({"a": "b"})).await;
    }
    field.api.stop();
    field.until("the loss to be noticed", || !field.is_followed()).await;
    // Deleted while nobody watched: only a new list can tell.
    field.api.erase("/registry/pods/default/web-0").expect("deletion");
    field.api.compact().expect("compaction");
    field.api.start_again().expect("it starts again");
    field.until("the view to be followed", || field.is_followed()).await;
    let more = field.client.make_pod("web-1").await;
    field.until_seen(&more, true).await;
    field.until_seen(&uid, false).await;
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_with_an_empty_store_makes_all_gone_at_once() {
    let Some(mut field) = Field::start().await else { return };
    let mut pods = Vec::new();
    for n in 0..5 {
        let name = format!("web-{n}");
        let uid = field.client.make_pod(&name).await;
        field.until_seen(&uid, true).await;
        pods.push(pod_ref(&name, &uid));
    }
    assert!(field.gone(&pods).await.is_empty());
    field.api.start_empty().expect("it starts with nothing");
    field
        .until("the loss to be noticed", || {
            field.is_followed() && field.view.pods.look(|pods| pods.is_empty())
        })
        .await;
    let mut all: Vec<_> = pods.iter().map(|pod| pod.uid.clone()).collect();
    all.sort();
    assert_eq!(field.gone(&pods).await, all, "whoever weighs it sees all of it");
    let missing = field.look(&pods[0].uid, Some("web-0")).await.expect("an answer");
    assert_eq!(missing, Sighting::Gone);
    let witness = || field.nodes.of(&node("node-a"), field.clock.now());
    field.until("the node to be gone", || witness() == Witness::NodeGone).await;

    // It goes on from there: a lower revision than the broker had seen is no obstacle.
    let uid = field.client.make_pod("web-0").await;
    field.until_seen(&uid, true).await;
    field.here(&uid, None).await;
    field.stop().await;
}
