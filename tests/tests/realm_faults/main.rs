//! A realm that is away, slow, or not as the broker needs it.
//!
//! Each story mounts while something is wrong, reads the reason, puts it right, and sees that
//! the same pod is then served.

mod account;
mod kadmin;
mod kdc;
mod volume;

use krb_tests::{
    realm,
    world::{Account, TSFOO, World, WorldError, broker::Settings, node::Node, pods::Pod},
};

type Story = Result<(), Box<dyn std::error::Error>>;

/// A world of node-a, whose agent tries for 2 s while the driver waits.
fn impatient(options: realm::Options, settings: Settings) -> Result<World, WorldError> {
    let account = Account { more: "services: [HTTP, nfs, ftp]\nclient: true\n", ..TSFOO };
    let mut world = World::build(&[], &[account], options, settings)?;
    world.pods.service("tsfoo", "web")?;
    let node = Node::make(&world.dir().join("nodes"), "node-a", &world.pki, None)?;
    node.set_patience(2_000)?;
    world.nodes.push(node);
    let address = world.broker.address();
    world.nodes[0].start_agent(&address)?;
    Ok(world)
}

/// A known pod of node-a that asks for this.
fn asking(world: &World, name: &str, asked: &[(&str, &str)]) -> Result<Pod, WorldError> {
    world.apply(&Pod::new(name, TSFOO.login, TSFOO.uid, "node-a").annotated(asked))
}

const KEYTAB: &[(&str, &str)] = &[("ts/services", "HTTP")];
const TICKET: &[(&str, &str)] = &[("ts/prestashtkt", "true")];

/// Mounts the pod, which fails with `reason`, in the answer and in the audit log; nothing
/// stays mounted. Returns the text.
fn fails(world: &World, pod: &Pod, reason: &str) -> Result<String, WorldError> {
    let node = &world.nodes[0];
    let wrong = |what: String| WorldError::new(format!("failing to mount {}", pod.name), what);
    let answer = node.mount(pod)?;
    if answer.is_success() || !answer.message.ends_with(&format!("({reason})")) {
        return Err(wrong(format!("{answer:?}\n{}", world.broker.log())));
    }
    if node.is_mounted(pod) {
        return Err(wrong("something is mounted".to_owned()));
    }
    let lines = world.broker.audited("lease.denied");
    let told =
        |line: &serde_json::Value| line["reason"] == reason && line["pod_uid"] == pod.uid.as_str();
    if !lines.iter().any(told) {
        return Err(wrong(format!("the audit log says {lines:?}")));
    }
    world.nothing_panicked()?;
    Ok(answer.message)
}

/// Mounts the pod, which succeeds, and takes it off again.
fn works(world: &World, pod: &Pod) -> Result<(), WorldError> {
    // As kubelet does, which tries again: a KDC that was away is left alone for a few seconds.
    let mut answer = world.nodes[0].mount(pod)?;
    for _ in 0..5 {
        if answer.is_success() {
            break;
        }
        answer = world.nodes[0].mount(pod)?;
    }
    if !answer.is_success() {
        return Err(WorldError::new(format!("mounting {}", pod.name), format!("{answer:?}")));
    }
    world.nodes[0].unmount(pod)?;
    world.nothing_panicked()
}
