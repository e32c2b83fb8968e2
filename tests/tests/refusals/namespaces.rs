//! Namespaces that are deleted and made anew.

use krb_proto::v1;
use krb_tests::world::{World, api};

use super::{Story, world};

async fn accept(world: &World, who: &str, namespace: &str, uid: &str) -> Result<(), String> {
    let api = api::Api::connect(world.broker.address(), &world.pki, who).await;
    let api = api.map_err(|error| error.to_string())?;
    let request = v1::AcceptNamespaceRequest { namespace: namespace.into(), uid: uid.into() };
    api.namespaces().accept_namespace(request).await.map(drop).map_err(|s| api::reason(&s))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_made_anew_waits_for_an_operator_who_has_looked_at_it() -> Story {
    let mut world = world()?;
    world.serves_on("first", "node-a").await?;
    world.pods.namespace("tsfoo", "ns-tsfoo-2")?;
    let pod = world.pod("anew", "node-a")?;
    let text = world.refused(&pod, "node-a", "NAMESPACE_CHANGED").await?;
    assert!(text.contains("AcceptNamespace"), "says who can help: {text}");
    assert!(!text.contains("ns-tsfoo"), "tells no uid: {text}");
    world.broker.stop()?;
    world.broker.restart()?;
    world.refused(&pod, "node-a", "NAMESPACE_CHANGED").await?;

    let denied = |outcome: Result<(), String>| outcome.expect_err("is refused");
    assert_eq!(
        denied(accept(&world, "operator", "tsfoo", "ns-tsfoo-1").await),
        "NAMESPACE_CHANGED"
    );
    assert_eq!(denied(accept(&world, "operator", "tsfoo", "").await), "NAMESPACE_CHANGED");
    assert_eq!(denied(accept(&world, "operator", "absent", "x").await), "NOT_FOUND");
    assert_eq!(denied(accept(&world, "operator", "a/b", "x").await), "INVALID_ARGUMENT");
    assert_eq!(denied(accept(&world, "viewer", "tsfoo", "ns-tsfoo-2").await), "ROLE_NOT_ALLOWED");
    world.refused(&pod, "node-a", "NAMESPACE_CHANGED").await?;

    accept(&world, "operator", "tsfoo", "ns-tsfoo-2").await?;
    let answer = world.nodes[0].mount(&pod)?;
    assert!(answer.is_success(), "{answer:?}");
    let lines = world.broker.audited("namespace.accepted");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["actor"], "operator:olga");
    world.nothing_panicked()?;
    Ok(())
}
