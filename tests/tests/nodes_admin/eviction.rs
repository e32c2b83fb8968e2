//! Evict, ban, unban.

use std::fs;

use krb_proto::v1::{EvictNodeRequest, LeaseState, NodeState, UnbanNodeRequest};
use krb_tests::world::{
    World,
    api::{Api, reason},
    pki::Subject,
    see::{keytab_opens, kvnos, lease_in, lease_that},
    swarm::{Answer, Swarm},
    wait_for,
};

use super::Story;

const SERVICE: &str = "HTTP/web.tsfoo.svc.cluster.local@TEST.EXAMPLE.COM";

fn evict(node: &str, ban: bool) -> EvictNodeRequest {
    let reason = "its disk was stolen".to_owned();
    EvictNodeRequest { node: node.to_owned(), ban, reason, ..EvictNodeRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banned_node_wipes_and_is_served_again_only_when_it_is_unbanned() -> Story {
    let mut world = World::with_nodes(&["node-a", "node-b"])?;
    world.pods.service("tsfoo", "web")?;
    let (bad, good) = (world.pod("web-0", "node-a")?, world.pod("web-1", "node-b")?);
    assert!(world.node("node-a").mount(&bad)?.is_success());
    assert!(world.node("node-b").mount(&good)?.is_success());
    let stolen = world.dir().join("stolen.keytab");
    fs::write(&stolen, world.node("node-a").read(&bad, "keytabs/tsfoo").expect("a keytab"))?;
    let operator = world.operator().await?;
    let mut nodes = operator.node_admin();
    let lease = lease_in(&operator, &bad.uid, LeaseState::Active).await?;

    let dry = EvictNodeRequest { dry_run: true, ..evict("node-a", true) };
    let planned = nodes.evict_node(dry).await?.into_inner();
    assert_eq!(planned.nodes, ["node-a"]);
    let plan = planned.plan.as_ref().expect("a plan");
    let leases: Vec<_> = plan.leases.iter().map(|hit| &hit.lease_id).collect();
    assert_eq!(leases, [&lease.lease_id]);
    let touched: Vec<_> = plan.principals.iter().map(|hit| hit.principal.as_str()).collect();
    assert_eq!((touched, plan.principals[0].sharer_lease_ids.len()), (vec![SERVICE], 1));
    assert_eq!(operator.node("node-a").await?.expect("the node").state(), NodeState::Attached);
    assert!(world.broker.audited("node.evicted").is_empty(), "a dry run does nothing");

    let done = nodes.evict_node(evict("node-a", true)).await?.into_inner();
    assert_eq!(done.nodes, planned.nodes);
    assert_eq!(done.plan.expect("a plan").leases, plan.leases);
    let revoked = lease_in(&operator, &bad.uid, LeaseState::Revoked).await?;
    assert!(revoked.reason.contains("banned by operator:olga"), "{revoked:?}");
    assert!(!keytab_opens(&world, &stolen, SERVICE)?);
    let node = world.node("node-a");
    wait_for("the agent to wipe", || node.read(&bad, "keytabs/tsfoo").is_none().then_some(()))?;
    let seen = operator.node("node-a").await?.expect("the node");
    assert_eq!((seen.state(), seen.live_leases), (NodeState::Banned, 0));
    assert_eq!(
        seen.ban.as_ref().map(|ban| (ban.by.as_str(), ban.keys.len())),
        Some(("operator:olga", 1))
    );
    wait_for("the agent to be told", || {
        let refused = world.broker.audited("session.refused");
        refused.iter().any(|line| line["reason"] == "BANNED").then_some(())
    })?;

    let kept = lease_that(&operator, &good.uid, |lease| kvnos(lease) == [2, 3]).await?;
    assert_eq!(kept.state(), LeaseState::Active, "the other holder never notices");

    nodes.unban_node(UnbanNodeRequest { node: "node-a".to_owned() }).await?;
    let again = lease_in(&operator, &bad.uid, LeaseState::Active).await?;
    assert_ne!(again.lease_id, lease.lease_id, "served again with nobody's help");
    let refused = nodes.unban_node(UnbanNodeRequest { node: "node-a".to_owned() }).await;
    assert_eq!(reason(&refused.expect_err("there is no ban")), "NOT_FOUND");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_is_by_name_and_by_key_and_needs_no_node_that_ever_attached() -> Story {
    let world = World::with_nodes(&[])?;
    world.pods.service("tsfoo", "web")?;
    let mut swarm = Swarm::attach(&world, "light", 2).await?;
    let operator = world.operator().await?;
    let mut nodes = operator.node_admin();

    nodes.evict_node(evict("light-1", true)).await?;
    let told = async {
        while swarm.nodes[0].was_fenced().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), told).await?;
    assert_eq!(swarm.nodes[0].was_fenced().as_deref(), Some("BANNED"), "on its own stream");
    let refused = swarm.nodes[0].issue().await.expect_err("it is banned");
    assert_eq!(reason(&refused), "BANNED");
    assert_eq!(swarm.node(1).attach().await?, Answer::Fenced("BANNED".to_owned()));

    // The same key under the name of a node that is served.
    let subject = Subject::node("system:node:light-2");
    world.pki.issue_with_key_of("light-light-1", "node", "disguise", &subject)?;
    let disguise = Api::connect(world.broker.address(), &world.pki, "disguise").await?;
    let request = krb_proto::v1::IssueRequest {
        pod_uid: swarm.nodes[1].pod.uid.clone(),
        volume: krb_tests::world::pods::Pod::VOLUME.to_owned(),
        generation: 1,
        ..Default::default()
    };
    let refused = disguise.nodes().issue(request).await.expect_err("its key is banned");
    assert_eq!(reason(&refused), "BANNED");
    assert!(swarm.nodes[1].issue().await.is_ok(), "the node itself is served");

    // A restart forgets no ban; a node that never attached can be banned.
    let refused = nodes.evict_node(evict("node-x", false)).await.expect_err("never attached");
    assert_eq!(reason(&refused), "NOT_FOUND");
    nodes.evict_node(evict("node-x", true)).await?;
    assert_eq!(operator.node("node-x").await?.expect("it is listed").state(), NodeState::Banned);
    let mut world = world;
    world.broker.kill();
    world.broker.restart()?;
    let operator = world.operator().await?;
    for name in ["light-1", "node-x"] {
        assert_eq!(
            operator.node(name).await?.expect("listed").state(),
            NodeState::Banned,
            "{name}"
        );
    }
    Ok(())
}
