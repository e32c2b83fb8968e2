//! Host names that nobody gave, and principals that are another account's.

use krb_tests::world::{Account, TSFOO, World, broker::Settings, pods::Pod};
use serde_json::json;

use super::{Story, TSBAR, changed, options, world};

#[tokio::test(flavor = "multi_thread")]
async fn only_a_selecting_service_of_the_own_namespace_gives_a_host_name() -> Story {
    let world = World::with_nodes(&["node-a"])?;
    world.pods.namespace("tsother", "ns-tsother-1")?;
    world.pods.service("tsother", "web")?;
    for (name, spec) in [
        (
            "external",
            json!({"type": "ExternalName", "externalName": "a.b", "selector": {"app": "web"}}),
        ),
        ("no-selector", json!({"ports": [{"port": 80}]})),
        ("empty-selector", json!({"selector": {}})),
        ("others", json!({"selector": {"app": "web", "tier": "back"}})),
    ] {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "tsfoo", "uid": name}, "spec": spec,
        });
        world.pods.put(name, &object)?;
    }
    let pod = world.pod("nameless", "node-a")?;
    world.refused(&pod, "node-a", "NO_HOST_NAME").await?;
    let host = "HTTP/external.tsfoo.svc.cluster.local";
    let by_name = changed(&world, "by-name", |pod| options(pod)["services"] = host.into())?;
    world.refused(&by_name, "node-a", "HOST_NOT_ENTITLED").await?;
    world.pods.service("tsfoo", "web")?;
    let answer = world.nodes[0].mount(&pod)?;
    assert!(answer.is_success(), "with a Service the same pod is served: {answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_stays_with_the_account_that_had_it_first() -> Story {
    let grid = "services: [HTTP]\nlogical_hosts: [grid.example.com]\n";
    let none = "services: [HTTP]\n";
    let (with, without) = (Account { more: grid, ..TSFOO }, Account { more: none, ..TSFOO });
    let accounts = [with, Account { more: none, ..TSBAR }];
    let mut world = World::build(&["node-a"], &accounts, Default::default(), Settings::default())?;
    let asked = [("ts/services", "HTTP"), ("ts/externalclusters", "grid.example.com")];
    let first = Pod::new("first", TSFOO.login, TSFOO.uid, "node-a").annotated(&asked);
    let first = world.apply(&first)?;
    assert!(world.nodes[0].mount(&first)?.is_success());
    assert!(world.nodes[0].unmount(&first)?.is_success());

    world.entitle(&[without, Account { more: grid, ..TSBAR }])?;
    let second = Pod::new("second", TSBAR.login, TSBAR.uid, "node-a").annotated(&asked);
    let second = world.apply(&second)?;
    let text = world.refused(&second, "node-a", "PRINCIPAL_TAKEN").await?;
    assert!(!text.contains("tsfoo"), "names no other tenant: {text}");
    world.refused(&first, "node-a", "HOST_NOT_ENTITLED").await?;
    world.broker.stop()?;
    world.broker.restart()?;
    world.refused(&second, "node-a", "PRINCIPAL_TAKEN").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lacks_the_accounts_labels_gets_nothing() -> Story {
    let world = world()?;
    let label = "node-restriction.kubernetes.io/zone";
    let more = "services: [HTTP]\nnode_labels: {node-restriction.kubernetes.io/zone: secure}\n";
    world.entitle(&[Account { more, ..TSFOO }, TSBAR])?;
    let pod = world.pod("labelled", "node-a")?;
    world.refused(&pod, "node-a", "NODE_NOT_ALLOWED").await?;
    let node = |zone: &str| {
        json!({"apiVersion": "v1", "kind": "Node",
               "metadata": {"name": "node-a", "uid": "n", "labels": {label: zone}}})
    };
    world.pods.put("node-a", &node("open"))?;
    world.refused(&pod, "node-a", "NODE_NOT_ALLOWED").await?;
    world.pods.put("node-a", &node("secure"))?;
    world.serves_on("good", "node-a").await?;
    Ok(())
}
