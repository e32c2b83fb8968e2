//! Many nodes at once.

use std::time::Duration;

use krb_proto::v1::{
    EvictNodeRequest, GetStatusRequest, LeaseState, NodeState, ReleaseBrakeRequest, Status,
};
use krb_tests::world::{
    World,
    api::{Api, reason},
    see::{lease_in, lease_that},
    swarm::Swarm,
    wait_for,
};

use super::Story;

/// As long as the world's settings let a node be silent before it is lost, and more.
const LONG: Duration = Duration::from_secs(6);

async fn status(api: &Api) -> Result<Status, tonic::Status> {
    Ok(api.status().get_status(GetStatusRequest {}).await?.into_inner())
}

fn evict(node: &str) -> EvictNodeRequest {
    let reason = "it burns".to_owned();
    EvictNodeRequest { node: node.to_owned(), reason, ..EvictNodeRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_percent_of_fifty_nodes_are_cut_and_the_brake_holds_it_loudly() -> Story {
    let world = World::with_nodes(&[])?;
    world.pods.service("tsfoo", "web")?;
    let mut swarm = Swarm::attach(&world, "light", 50).await?;
    let operator = world.operator().await?;
    swarm.nodes[..30].iter_mut().for_each(|node| node.cut());
    wait_for("the brake", || world.broker.audited("brake.on").pop())?;
    tokio::time::sleep(LONG).await;
    assert!(world.broker.audited("session.lost").is_empty(), "nothing is revoked");
    assert!(world.broker.audited("key.made").len() == 1, "nothing is rekeyed");
    let said = status(&operator).await?;
    let brake = said.brake.expect("the status of the brake");
    assert_eq!((brake.reason.as_str(), brake.nodes.len()), ("30 of 50 nodes vanish at once", 30));
    assert!(operator.node("light-1").await?.expect("the node").braked);
    let refused = swarm.nodes[0].issue().await.expect_err("a braked node gets nothing");
    assert_eq!(reason(&refused), "BRAKED");
    assert!(swarm.nodes[40].issue().await.is_ok(), "the others are served");

    // An operator's acts go on.
    let mut nodes = operator.node_admin();
    nodes.evict_node(evict("light-1")).await?;
    let evicted = swarm.nodes[0].pod.uid.clone();
    lease_in(&operator, &evicted, LeaseState::Revoked).await?;
    let named = ReleaseBrakeRequest { nodes: vec!["light-2".to_owned()], all: false };
    let released = nodes.release_brake(named).await?.into_inner();
    assert_eq!(released.nodes, ["light-2"]);
    let named = swarm.nodes[1].pod.uid.clone();
    lease_that(&operator, &named, |lease| lease.state() != LeaseState::Active).await?;
    assert_eq!(world.broker.audited("session.lost").len(), 2);

    // The others come back: it lets go by itself, and none of them was ever lost.
    for node in &mut swarm.nodes[2..30] {
        node.attach().await?;
    }
    wait_for("the brake to let go", || world.broker.audited("brake.off").pop())?;
    tokio::time::sleep(LONG).await;
    assert_eq!(world.broker.audited("session.lost").len(), 2);
    assert_eq!(operator.node("light-3").await?.expect("the node").state(), NodeState::Attached);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_of_nine_are_cut_and_the_one_that_is_evicted_is_fenced_at_once() -> Story {
    let world = World::with_nodes(&[])?;
    world.pods.service("tsfoo", "web")?;
    let mut swarm = Swarm::attach(&world, "light", 9).await?;
    let operator = world.operator().await?;
    swarm.nodes[..3].iter_mut().for_each(|node| node.cut());
    operator.node_admin().evict_node(evict("light-2")).await?;
    let evicted = lease_in(&operator, &swarm.nodes[1].pod.uid, LeaseState::Revoked).await?;
    assert!(evicted.reason.contains("evicted by operator:olga"), "{evicted:?}");
    let kept = lease_in(&operator, &swarm.nodes[5].pod.uid, LeaseState::Active).await?;
    assert!(kept.keytab[0].kvnos.last() > evicted.keytab[0].kvnos.last(), "{kept:?}");
    for number in [0, 2] {
        lease_in(&operator, &swarm.nodes[number].pod.uid, LeaseState::Revoked).await?;
    }
    assert!(world.broker.audited("brake.on").is_empty());
    Ok(())
}
