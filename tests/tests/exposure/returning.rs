//! Nodes that were away: for too long, or not for long enough to be missed.

use std::os::unix::fs::MetadataExt as _;

use krb_proto::v1::{LeaseState, NodeState};
use krb_tests::{
    handshakes::Handshakes,
    world::{
        World, WorldError,
        api::Api,
        broker::Settings,
        node::Node,
        pods::Pod,
        see::{kvnos, lease_in, lease_that},
        wait_for,
    },
};

use super::{SERVICE, Story, TSFOO, holder, lease_of, node, options, settings};

/// A world with a network, whose nodes are lost after this span of silence.
fn networked(nodes: &[&str], lost_after: &str) -> Result<World, WorldError> {
    let settings = settings();
    let sessions = settings.sessions.replace("lost_after = \"1500ms\"", lost_after);
    let settings = Settings { sessions, ..settings };
    let world = World::networked(nodes, &[TSFOO], options(1), settings)?;
    world.pods.service("tsfoo", "web")?;
    Ok(world)
}

const SOON: &str = "lost_after = \"1500ms\"";
const LATE: &str = "lost_after = \"60s\"";

/// How often this was audited of the node.
fn audited(world: &World, event: &str, node: &str) -> usize {
    world.broker.audited(event).iter().filter(|line| line["node"] == node).count()
}

/// The node is given up while it is away; it comes back, is fenced, wipes, and is served anew.
async fn is_fenced_and_served_again(
    go: impl Fn(&Node) -> Result<(), WorldError>,
    come_back: impl Fn(&Node) -> Result<(), WorldError>,
) -> Story {
    let world = networked(&["node-a", "node-b"], SOON)?;
    let pods = [holder(&world, "web-0", "node-a")?, holder(&world, "web-1", "node-b")?];
    let load = Handshakes::start(&world, SERVICE, TSFOO.login, &pods.each_ref())?;
    let operator = world.operator().await?;
    let before = lease_of(&operator, &pods[0]).await?;

    load.hold("web-0")?;
    go(node(&world, "node-a")?)?;
    lease_in(&operator, &pods[0].uid, LeaseState::Revoked).await?;
    assert_eq!(audited(&world, "session.fenced", "node-a"), 0);
    come_back(node(&world, "node-a")?)?;

    let after = lease_that(&operator, &pods[0].uid, |lease| {
        lease.state() == LeaseState::Active && lease.lease_id != before.lease_id
    })
    .await?;
    assert!(kvnos(&after).last() > kvnos(&before).last(), "{after:?}");
    assert_eq!(audited(&world, "session.fenced", "node-a"), 1);
    let log = node(&world, "node-a")?.log();
    assert_eq!(log.matches("everything is wiped").count(), 1, "{log}");
    keytab_has(&world, &pods[0], kvnos(&after).last().copied().unwrap_or_default())?;

    let done = load.tally_of("web-0")?.done;
    load.resume("web-0")?;
    wait_for("its handshakes", || (load.tally_of("web-0").ok()?.done > done + 10).then_some(()))?;
    assert_eq!(load.stop().failed, [""; 0], "\n{}", world.broker.audit());
    Ok(())
}

fn keytab_has(world: &World, pod: &Pod, kvno: u32) -> Story {
    let place = node(world, pod.object["spec"]["nodeName"].as_str().unwrap_or_default())?;
    wait_for("the new key in the volume", || {
        let file = place.read(pod, "keytabs/tsfoo")?;
        let entries = krb_broker::krb5::keytab::read(&file).ok()?.entries;
        entries.iter().any(|entry| entry.kvno.0 == kvno).then_some(())
    })?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_beyond_lost_is_fenced_wipes_and_is_served_again() -> Story {
    is_fenced_and_served_again(|node| node.cable()?.pull(), |node| node.cable()?.join()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stands_still_beyond_lost_is_fenced_wipes_and_is_served_again() -> Story {
    is_fenced_and_served_again(Node::freeze, Node::thaw).await
}

/// Waits until the node is attached as before, and is served; nobody gave it up meanwhile.
async fn was_never_missed(world: &World, api: &Api, name: &str) -> Story {
    for _ in 0..3_000 {
        if api.node(name).await?.is_some_and(|node| node.state() == NodeState::Attached) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let more = world.pod("one-more", name)?;
    let node = node(world, name)?;
    wait_for("the node to be served", || node.mount(&more).ok()?.is_success().then_some(()))?;
    for event in ["session.lost", "session.fenced", "session.refused", "lease.revoking"] {
        let lines = world.broker.audited(event);
        assert!(lines.is_empty(), "{lines:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_for_less_than_lost_keeps_all_and_no_handshake_notices() -> Story {
    let world = networked(&["node-a", "node-b"], LATE)?;
    let pods = [holder(&world, "web-0", "node-a")?, holder(&world, "web-1", "node-b")?];
    let load = Handshakes::start(&world, SERVICE, TSFOO.login, &pods.each_ref())?;
    let operator = world.operator().await?;
    let before = lease_of(&operator, &pods[0]).await?;
    let keytab = node(&world, "node-a")?.target(&pods[0]).join("keytabs/tsfoo");
    let file = node(&world, "node-a")?.inside(&keytab.display().to_string());
    let inode = std::fs::metadata(&file)?.ino();

    node(&world, "node-a")?.cable()?.pull()?;
    wait_for("the silence", || (audited(&world, "session.silent", "node-a") > 0).then_some(()))?;
    let done = load.tally_of("web-0")?.done;
    wait_for("handshakes", || (load.tally_of("web-0").ok()?.done > done + 20).then_some(()))?;
    node(&world, "node-a")?.cable()?.join()?;

    was_never_missed(&world, &operator, "node-a").await?;
    let after = lease_of(&operator, &pods[0]).await?;
    assert_eq!((&after.lease_id, after.state()), (&before.lease_id, LeaseState::Active));
    assert_eq!(kvnos(&after), kvnos(&before));
    assert_eq!(std::fs::metadata(&file)?.ino(), inode, "the file was not even written anew");
    assert_eq!(load.stop().failed, [""; 0], "\n{}", world.broker.audit());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_boots_anew_within_its_silence_keeps_the_leases_whose_pods_mount_again() -> Story
{
    let mut world = networked(&["node-a"], LATE)?;
    let pods = [holder(&world, "web-0", "node-a")?, holder(&world, "web-1", "node-a")?];
    let operator = world.operator().await?;
    let before = lease_of(&operator, &pods[0]).await?;

    world.node("node-a").power_off();
    wait_for("the silence", || (audited(&world, "session.silent", "node-a") > 0).then_some(()))?;
    world.node("node-a").power_on()?;
    world.node("node-a").restart_agent()?;
    let again = node(&world, "node-a")?;
    wait_for("kubelet's mount", || again.mount(&pods[0]).ok()?.is_success().then_some(()))?;

    let after = lease_in(&operator, &pods[0].uid, LeaseState::Active).await?;
    assert_eq!((&after.lease_id, kvnos(&after)), (&before.lease_id, kvnos(&before)));
    keytab_has(&world, &pods[0], 2)?;
    lease_in(&operator, &pods[1].uid, LeaseState::Released).await?;
    assert_eq!(lease_of(&operator, &pods[0]).await?.state(), LeaseState::Active);
    was_never_missed(&world, &operator, "node-a").await
}
