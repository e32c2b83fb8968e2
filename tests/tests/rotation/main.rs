//! Keys that change while clients and servers shake hands all the time, by the C library: nobody
//! who still serves loses a handshake.

mod losses;
mod rotations;

use krb_tests::{
    handshakes::Handshakes,
    realm::Options,
    world::{TSFOO, World, WorldError, broker::Settings, pods::Pod},
};

type Story = Result<(), Box<dyn std::error::Error>>;

/// What the holders offer.
const SERVICE: &str = "HTTP@web.tsfoo.svc.cluster.local";
const PRINCIPAL: &str = "HTTP/web.tsfoo.svc.cluster.local@TEST.EXAMPLE.COM";

/// A world of these nodes, whose cables can be pulled. Tickets for a service live 2 s, so that
/// each is used for its whole life within a story. A node is lost after 3 s, however many are.
fn world(nodes: &[&str]) -> Result<World, WorldError> {
    let settings = Settings {
        sessions: "heartbeat = \"200ms\"\nsilent_after = \"1500ms\"\nlost_after = \"1500ms\"\n\
                   lease_ttl = \"1h\"\nunclaimed_after = \"10s\"\n\
                   [sessions.brake]\nsessions = 100\npods = 100\n"
            .to_owned(),
        realm: "service_max_life = \"2s\"\nclock_skew = \"3s\"\n\
                acknowledge_within = \"2s\"\nkdc_propagation = \"3s\"\n"
            .to_owned(),
        ..Settings::default()
    };
    let world = World::networked(nodes, &[TSFOO], Options::default(), settings)?;
    world.pods.service("tsfoo", "web")?;
    Ok(world)
}

/// A mounted pod of this node.
fn holder(world: &World, name: &str, node: &str) -> Result<Pod, WorldError> {
    let pod = world.pod(name, node)?;
    let node = world.nodes.iter().find(|known| known.name() == node);
    let node = node.ok_or_else(|| WorldError::new("mounting", "no such node"))?;
    let answer = node.mount(&pod)?;
    if answer.is_success() {
        return Ok(pod);
    }
    Err(WorldError::new(format!("mounting {name}"), format!("{answer:?}\n{}", world.broker.log())))
}

/// Handshakes with these holders from now on.
fn shaking(world: &World, pods: &[&Pod]) -> Result<Handshakes, WorldError> {
    Handshakes::start(world, SERVICE, TSFOO.login, pods)
}

/// The number of the key that a mounted keytab has last.
fn newest(world: &World, pod: &Pod) -> u32 {
    let place = pod.object["spec"]["nodeName"].as_str().unwrap_or_default();
    let node = world.nodes.iter().find(|node| node.name() == place);
    let file = node.and_then(|node| node.read(pod, "keytabs/tsfoo")).unwrap_or_default();
    let entries = krb_broker::krb5::keytab::read(&file).unwrap_or_default().entries;
    entries.iter().map(|entry| entry.kvno.0).max().unwrap_or_default()
}
