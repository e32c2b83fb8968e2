//! What an operator installs: the broker, and the agent with its driver on every node.

use std::{error::Error, fs, net::SocketAddr, path::Path, time::Duration};

use krb_tests::{
    cluster::{Cluster, NODES, server_net, wait},
    world::{
        broker::{Broker, Settings},
        node::DRIVER_DIR,
        pki,
    },
};

use crate::{images::Images, objects::Objects, operator::Operator, outside::Outside, programs};

/// What the agent's DaemonSet is made of in earnest.
const DAEMON_SET: &str = include_str!("../../../deploy/node-agent.yaml");
/// The image that it names.
const AGENT_IMAGE: &str = "krb-node-agent:0.1.0";
/// Where the agent's configuration lies on the node.
const CONFIG: &str = "/etc/krb-broker";
/// The namespace of it all.
pub const NAMESPACE: &str = "krb-broker";
/// How long the agent may take to run.
const AGENT: Duration = Duration::from_secs(90);
/// A node is lost after 20 s of silence. Longer than a busy machine pauses an agent.
const SESSIONS: &str = "heartbeat = \"1s\"\nsilent_after = \"10s\"\nlost_after = \"10s\"\n";
/// Tickets so short that stories see them replaced, at half their life.
const REALM: &str = "ticket_life = \"90s\"\nclock_skew = \"5s\"\n";
/// The most requests a second that the realm's administrator lets the broker make of the KDC.
pub const KDC_PER_SECOND: u64 = 100;
/// The same for kadmin.
pub const KADMIN_PER_SECOND: u64 = 50;
/// How many may be unanswered.
pub const IN_FLIGHT: u64 = 8;
/// The broker's port.
const PORT: u16 = 8443;

/// The broker, and how an operator reaches it.
pub struct Installed {
    pub broker: Broker,
    pub operator: Operator,
    /// What the broker sees of the cluster.
    pub objects: Objects,
    entitlements: String,
    _memory: tempfile::TempDir,
}

impl Installed {
    /// Installs all.
    pub fn on(
        cluster: &Cluster,
        outside: &Outside,
        images: &Images,
    ) -> Result<Self, Box<dyn Error>> {
        let dir = &outside.dir;
        fs::create_dir_all(dir.join("pods"))?;
        // the master key lies where the store does not
        let memory = tempfile::Builder::new().prefix("krb-cluster-").tempdir_in("/dev/shm")?;
        let objects = Objects::keep(cluster, &dir.join("pods"));
        let settings = Settings {
            listen: Some(SocketAddr::from((server_net::ADDRESS, PORT))),
            sessions: SESSIONS.to_owned(),
            realm: REALM.to_owned(),
            gate: gate(),
            ..Default::default()
        };
        let broker = Broker::start(dir, memory.path(), &outside.realm, &outside.pki, settings)?;
        let operator = Operator::new(broker.address(), pki::BROKER, &outside.pki);
        for node in NODES {
            cluster.node(node).install_driver(&programs::driver(), DRIVER_DIR)?;
            configure_agent(cluster, node, outside, broker.address())?;
        }
        cluster.kubectl().apply(&DAEMON_SET.replace(AGENT_IMAGE, &images.agent.reference()))?;
        for node in NODES {
            agent_pod(cluster, node)?;
        }
        let entitlements = dir.join("entitlements").display().to_string();
        Ok(Self { broker, operator, objects, entitlements, _memory: memory })
    }

    /// Puts the volume into a manifest, as an owner does with `krb-broker inject`.
    pub fn inject(&self, outside: &Outside, manifest: &str) -> Result<String, Box<dyn Error>> {
        let file = outside.dir.join("manifest.yaml");
        fs::write(&file, manifest)?;
        let file = file.display().to_string();
        Ok(self.broker.run(&["inject", "--entitlements", &self.entitlements, &file])?)
    }
}

fn gate() -> String {
    format!(
        "kdc = {{ per_second = {KDC_PER_SECOND}, in_flight = {IN_FLIGHT} }}\n\
         kadmin = {{ per_second = {KADMIN_PER_SECOND}, in_flight = 2 }}\n"
    )
}

/// Puts on the node what an operator would: the configuration, and the node's certificate.
fn configure_agent(
    cluster: &Cluster,
    name: &str,
    outside: &Outside,
    broker: SocketAddr,
) -> Result<(), Box<dyn Error>> {
    let node = cluster.node(name);
    let (certificate, key) = node.certificate();
    let config = format!(
        r#"
node = "{name}"
broker = "https://{broker}"
broker_name = "{broker_name}"
ca = "{CONFIG}/ca.pem"
certificate = "{CONFIG}/node.pem"
key = "{CONFIG}/node.key"
driver_directory = "{DRIVER_DIR}"
"#,
        broker_name = pki::BROKER,
    );
    let staged = cluster.dir().join("agent.toml");
    fs::write(&staged, config)?;
    node.exec(&format!("mkdir -p -m 0700 {CONFIG}"))?;
    let files: [(&Path, &str); 4] = [
        (&staged, "agent.toml"),
        (&outside.pki.ca("broker"), "ca.pem"),
        (&certificate, "node.pem"),
        (&key, "node.key"),
    ];
    for (source, name) in files {
        node.exec(&format!("install -m 0400 {} {CONFIG}/{name}", source.display()))?;
    }
    Ok(())
}

/// Waits until the agent of the node runs; the name of its pod.
pub fn agent_pod(cluster: &Cluster, node: &str) -> Result<String, Box<dyn Error>> {
    let kubectl = cluster.kubectl();
    let on_node = format!("status.phase=Running,spec.nodeName={node}");
    let labels = ["-l", "app=krb-node-agent"];
    let asked = ["-n", NAMESPACE, "get", "pods", "-o", "name", "--field-selector", &on_node];
    let asked = [&asked[..], &labels].concat();
    let pod = wait::until(&format!("the agent's pod on {node}"), AGENT, || {
        let names = kubectl.run(&asked)?;
        Ok(names.lines().next().map(|name| name.trim_start_matches("pod/").to_owned()))
    })?;
    kubectl.wait_ready(NAMESPACE, &pod)?;
    Ok(pod)
}
