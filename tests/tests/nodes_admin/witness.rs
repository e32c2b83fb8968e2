//! Node objects in a directory as witnesses.

use std::{fs, path::Path, time::Duration};

use krb_proto::v1::{LeaseState, NodeState, NodeWitness};
use krb_tests::{
    realm,
    world::{TSFOO, World, broker::Settings, see::lease_in, swarm::Swarm, wait_for},
};

use super::Story;

fn put(dir: &Path, name: &str, ready: &str) -> Story {
    let node = serde_json::json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    });
    fs::write(dir.join("new"), node.to_string())?;
    Ok(fs::rename(dir.join("new"), dir.join(format!("{name}.json")))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_node_with_a_silent_agent_is_an_alert_and_a_dead_or_deleted_one_is_lost() -> Story {
    let objects = tempfile::tempdir()?;
    let mut settings = Settings::default();
    settings.pods.push_str(&format!("nodes_dir = {:?}\n", objects.path()));
    settings.sessions = settings.sessions.replace("1500ms", "4s"); // from silent to lost
    let world = World::build(&[], &[TSFOO], realm::Options::default(), settings)?;
    world.pods.service("tsfoo", "web")?;
    for number in 1..=12 {
        put(objects.path(), &format!("light-{number}"), "True")?;
    }
    let mut swarm = Swarm::attach(&world, "light", 12).await?;
    let operator = world.operator().await?;
    swarm.nodes[..3].iter_mut().for_each(|node| node.cut());
    put(objects.path(), "light-2", "Unknown")?;
    fs::remove_file(objects.path().join("light-3.json"))?;
    fs::remove_file(objects.path().join("light-4.json"))?;

    let gone = lease_in(&operator, &swarm.nodes[2].pod.uid, LeaseState::Revoked).await?;
    assert!(gone.reason.contains("node deleted"), "{gone:?}");
    let waits = operator.node("light-2").await?.expect("the node");
    assert_eq!(
        waits.state(),
        NodeState::Silent,
        "a deleted Node shortens the wait, a dead one not"
    );
    let dead = lease_in(&operator, &swarm.nodes[1].pod.uid, LeaseState::Revoked).await?;
    assert!(dead.reason.contains("silence"), "{dead:?}");
    wait_for("the alert", || world.broker.audited("session.alert").pop())?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let fault = operator.node("light-1").await?.expect("the node");
    assert_eq!((fault.state(), fault.witness()), (NodeState::Silent, NodeWitness::Ready));
    assert_eq!(fault.alerts, ["the node is Ready and its agent is silent"]);
    assert_eq!(world.broker.audited("session.alert").len(), 1);
    let beats = operator.node("light-4").await?.expect("the node");
    assert_eq!((beats.state(), beats.witness()), (NodeState::Attached, NodeWitness::Gone));

    put(objects.path(), "light-1", "False")?;
    lease_in(&operator, &swarm.nodes[0].pod.uid, LeaseState::Revoked).await?;
    Ok(())
}
