//! The nodes' own network: a pulled cable is a silence, not an error, and nothing of it is left.

use krb_proto::v1::LeaseState;
use krb_tests::{
    realm::Options,
    world::{TSFOO, World, broker::Settings, see::lease_in, wait_for},
};

type Story = Result<(), Box<dyn std::error::Error>>;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_cable_is_pulled_is_silent_and_after_it_is_joined_it_is_served_again() -> Story
{
    let mut settings = Settings::default();
    settings.sessions = settings.sessions.replace("1500ms", "60s");
    let world = World::networked(&["node-a", "node-b"], &[TSFOO], Options::default(), settings)?;
    world.pods.service("tsfoo", "web")?;
    let pods = [world.pod("web-0", "node-a")?, world.pod("web-1", "node-b")?];
    for (node, pod) in world.nodes.iter().zip(&pods) {
        let answer = node.mount(pod)?;
        assert!(answer.is_success(), "{answer:?} {}", node.log());
    }
    let operator = world.operator().await?;
    let [cut, well] = &world.nodes[..] else { panic!("two nodes") };

    let silences = |node: &str| {
        let lines = world.broker.audited("session.silent");
        lines.iter().filter(|line| line["node"] == node).count()
    };
    cut.cable()?.pull()?;
    wait_for("the silence", || (silences("node-a") == 1).then_some(()))?;
    lease_in(&operator, &pods[0].uid, LeaseState::Active).await?;
    cut.cable()?.join()?;
    let more = world.pod("web-2", "node-a")?;
    wait_for("the node to be served", || cut.mount(&more).ok()?.is_success().then_some(()))?;

    well.freeze()?;
    wait_for("another silence", || (silences("node-b") == 1).then_some(()))?;
    well.thaw()?;
    let more = world.pod("web-3", "node-b")?;
    wait_for("the node to be served", || well.mount(&more).ok()?.is_success().then_some(()))?;
    assert_eq!(silences("node-a"), 1, "the other node was not touched");
    Ok(())
}

#[test]
fn a_network_leaves_nothing_behind() -> Story {
    let interfaces = || -> Result<Vec<_>, std::io::Error> {
        std::fs::read_dir("/sys/class/net")?.map(|entry| Ok(entry?.file_name())).collect()
    };
    let network = krb_tests::world::network::Network::new()?;
    let address = network.listen()?.ip().to_string();
    let [_, a, b, _] = address.split('.').collect::<Vec<_>>()[..] else { panic!("{address}") };
    let ours = std::ffi::OsString::from(format!("krb-{a}-{b}"));
    assert!(interfaces()?.contains(&ours));
    drop(network);
    wait_for("it to go", || (!interfaces().ok()?.contains(&ours)).then_some(()))?;
    Ok(())
}
