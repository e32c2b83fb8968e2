//! The field of the stories: servers, the driver on the node, the agent as its DaemonSet, and an
//! image with Kerberos tools for pods.

use std::{error::Error, fs, path::Path, time::Duration};

use krb_tests::{
    cluster::{Cluster, Image, wait},
    realm::packages,
    world::{node::DRIVER_DIR, pki},
};

use crate::{programs, servers::Servers};

/// What the agent's DaemonSet is made of in earnest.
const DAEMON_SET: &str = include_str!("../../../deploy/node-agent.yaml");
/// The image that it names.
const AGENT_IMAGE: &str = "krb-node-agent:0.1.0";
/// Where the agent's configuration lies on the node.
const CONFIG: &str = "/etc/krb-broker";
/// How long the agent may take to run.
const AGENT: Duration = Duration::from_secs(90);

/// Everything that a pod needs around it.
pub struct Field {
    pub servers: Servers,
}

impl Field {
    /// Sets it up on the cluster's node `n1`.
    pub fn prepare(cluster: &Cluster) -> Result<Self, Box<dyn Error>> {
        let servers = Servers::start(cluster)?;
        cluster.load(&tools_image()?)?;
        let agent = Image::new("krb-node-agent");
        let agent = agent.file(&programs::stripped_agent(), AGENT_PROGRAM).entry(AGENT_PROGRAM);
        cluster.load(&agent)?;
        cluster.node("n1").install_driver(&programs::driver(), DRIVER_DIR)?;
        configure_agent(cluster, &servers)?;
        cluster.kubectl().apply(&DAEMON_SET.replace(AGENT_IMAGE, &agent.reference()))?;
        agent_pod(cluster)?;
        Ok(Self { servers })
    }
}

const AGENT_PROGRAM: &str = "/usr/bin/krb-node-agent";

/// The image of the stories' pods: clients of Kerberos, as Debian has them.
fn tools_image() -> Result<Image, Box<dyn Error>> {
    let tools = ["klist", "kinit", "kvno", "kdestroy", "gss-client", "gss-server"];
    tools.iter().try_fold(Image::new("krb-tools"), |image, tool| {
        Ok(image.file(&packages::bin(tool)?, &format!("/usr/bin/{tool}")))
    })
}

/// Puts on the node what an operator would: the configuration, and the node's certificate.
fn configure_agent(cluster: &Cluster, servers: &Servers) -> Result<(), Box<dyn Error>> {
    let node = cluster.node("n1");
    let (certificate, key) = node.certificate();
    let config = format!(
        r#"
node = "n1"
broker = "https://{}"
broker_name = "{broker_name}"
ca = "{CONFIG}/ca.pem"
certificate = "{CONFIG}/node.pem"
key = "{CONFIG}/node.key"
driver_directory = "{DRIVER_DIR}"
"#,
        servers.broker.address(),
        broker_name = pki::BROKER,
    );
    let staged = cluster.dir().join("agent.toml");
    fs::write(&staged, config)?;
    node.exec(&format!("mkdir -p -m 0700 {CONFIG}"))?;
    let files: [(&Path, &str); 4] = [
        (&staged, "agent.toml"),
        (&servers.pki.ca("broker"), "ca.pem"),
        (&certificate, "node.pem"),
        (&key, "node.key"),
    ];
    for (source, name) in files {
        node.exec(&format!("install -m 0400 {} {CONFIG}/{name}", source.display()))?;
    }
    Ok(())
}

/// Waits until the agent of the node runs; the name of its pod.
pub fn agent_pod(cluster: &Cluster) -> Result<String, Box<dyn Error>> {
    let kubectl = cluster.kubectl();
    let asked = ["-n", "krb-broker", "get", "pods", "-o", "name", "--field-selector"];
    let asked = [&asked[..], &["status.phase=Running"]].concat();
    let pod = wait::until("the agent's pod", AGENT, || {
        let names = kubectl.run(&asked)?;
        Ok(names.lines().next().map(|name| name.trim_start_matches("pod/").to_owned()))
    })?;
    kubectl.wait_ready("krb-broker", &pod)?;
    Ok(pod)
}

/// What the agent said, of this run of it and the one before.
pub fn agent_log(cluster: &Cluster) -> String {
    let logs = ["-n", "krb-broker", "logs", "--tail=30", "-l", "app=krb-node-agent"];
    cluster.kubectl().run(&logs).unwrap_or_else(|error| error.to_string())
}
