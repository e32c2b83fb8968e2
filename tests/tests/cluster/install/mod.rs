//! What an operator installs, from `deploy/kustomize` as it is in this tree: the broker, the
//! webhook, and the agent with its driver on every node.
//!
//! The site's own part ([`site`]) is written as the documents tell an operator to: configuration in
//! ConfigMaps, the realm's secrets in a directory of the broker's node, claims for its volumes. To
//! install again over what is there is an upgrade; nothing that is kept is made anew.

mod site;

use std::{
    error::Error,
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use krb_tests::{
    cluster::{Cluster, ClusterError, wait},
    world::pki,
};
use serde_json::{Value, json};
pub use site::{IN_FLIGHT, KADMIN_PER_SECOND, KDC_PER_SECOND};

use crate::{images::Images, operator::Operator, outside::Outside, programs, story::Told};

/// The namespace of it all.
pub const NAMESPACE: &str = "krb-broker";
/// The node that the broker runs on.
pub const BROKER_NODE: &str = "n1";
/// The user that the broker runs as.
const BROKER_USER: u32 = 10_750;
/// Where the broker's node has the realm's secrets.
const REALM_DIR: &str = "/etc/krb-broker/realm";
/// The parts, and the ConfigMap with the configuration of each.
const PARTS: [(&str, &str); 3] = [
    ("deployment/krb-broker", "krb-broker-config"),
    ("deployment/krb-broker-admission", "krb-admission-config"),
    ("daemonset/krb-node-agent", "krb-node-agent-config"),
];
/// How long a part may take to run.
const READY: Duration = Duration::from_secs(150);

/// What was installed, and how an operator reaches it.
pub struct Installed {
    /// The broker's API.
    pub operator: Operator,
    volumes: PathBuf,
    entitlements: PathBuf,
}

impl Installed {
    /// Installs all, or upgrades what is there, and waits until it runs.
    pub fn on(
        cluster: &Cluster,
        outside: &Outside,
        images: &Images,
    ) -> Result<Self, Box<dyn Error>> {
        let volumes = cluster.dir().join("volumes");
        let kubectl = cluster.kubectl();
        let label = "node-restriction.kubernetes.io/krb-broker=true";
        kubectl.run(&["label", "node", BROKER_NODE, label, "--overwrite"])?;
        hand_over_secrets(cluster, outside)?;
        make_volumes(cluster, &volumes)?;
        let kustomization = site::write(cluster.dir(), outside, images)?;
        let applied = kubectl.run(&["apply", "-k", &kustomization.display().to_string()])?;
        kubectl.apply(&tls_secret(outside)?)?;
        for (part, config) in PARTS {
            // an operator restarts what reads its configuration only at its start
            if applied.contains(&format!("configmap/{config} configured")) {
                kubectl.run(&["-n", NAMESPACE, "rollout", "restart", part])?;
            }
        }
        for (part, _) in PARTS {
            rolled_out(cluster, part)?;
        }
        let operator = Operator::new(address(cluster)?, pki::BROKER, &outside.pki);
        Ok(Self { operator, volumes, entitlements: outside.dir.join("entitlements") })
    }

    /// Puts the volume into a manifest, as an owner does with `krb-broker inject`.
    pub fn inject(&self, manifest: &str) -> Result<String, Box<dyn Error>> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), manifest)?;
        let entitlements = self.entitlements.display().to_string();
        let file = file.path().display().to_string();
        programs::run_ours("krb-broker", &["inject", "--entitlements", &entitlements, &file])
    }

    /// The broker's audit log as it is now.
    pub fn audit(&self) -> String {
        fs::read_to_string(self.volumes.join("audit/audit.log")).unwrap_or_default()
    }
}

/// Puts into a directory of the broker's node what no Secret holds: the administrator's keytab,
/// those of role accounts, and the master key, which is made once.
fn hand_over_secrets(cluster: &Cluster, outside: &Outside) -> Told {
    let node = cluster.node(BROKER_NODE);
    let admin = outside.realm.admin_keytab();
    let accounts = outside.dir.join("accounts");
    let made = cluster.dir().join("outside/master.key");
    if !made.exists() {
        programs::run_ours("krb-broker", &["new-master-key", &made.display().to_string()])?;
    }
    node.exec(&format!(
        "set -e; mkdir -p -m 0755 /etc/krb-broker; mkdir -p {REALM_DIR}/accounts; \
         cp {} {REALM_DIR}/admin.keytab; cp {}/*.keytab {REALM_DIR}/accounts; \
         cp {} {REALM_DIR}/master.key; chown -R {BROKER_USER}:{BROKER_USER} {REALM_DIR}; \
         chmod -R u=rX,go= {REALM_DIR}; chmod 0700 {REALM_DIR} {REALM_DIR}/accounts",
        admin.display(),
        accounts.display(),
        made.display(),
    ))?;
    Ok(())
}

/// Volumes for the claims of the broker: directories outside the nodes' own disks.
fn make_volumes(cluster: &Cluster, dir: &Path) -> Told {
    for (name, size) in [("store", "10Gi"), ("audit", "50Gi")] {
        let path = dir.join(name);
        fs::create_dir_all(&path)?;
        std::os::unix::fs::chown(&path, Some(BROKER_USER), Some(BROKER_USER))?;
        let volume = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": format!("krb-broker-{name}")},
            "spec": {
                "capacity": {"storage": size},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": path.display().to_string()},
                "claimRef": {"namespace": NAMESPACE, "name": format!("krb-broker-{name}")},
            },
        });
        cluster.kubectl().apply(&volume.to_string())?;
    }
    Ok(())
}

/// The broker's certificate and its key.
fn tls_secret(outside: &Outside) -> Result<String, Box<dyn Error>> {
    let files = outside.pki.files("broker");
    let data = json!({
        "tls.crt": fs::read_to_string(files.certificate)?,
        "tls.key": fs::read_to_string(files.key)?,
    });
    let metadata = json!({"name": "krb-broker-tls", "namespace": NAMESPACE});
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": metadata, "stringData": data,
    });
    Ok(secret.to_string())
}

/// Waits until all pods of a part are the newest ones, and ready.
pub fn rolled_out(cluster: &Cluster, part: &str) -> Told {
    let limit = format!("--timeout={}s", READY.as_secs());
    let kubectl = cluster.kubectl().patient(READY + Duration::from_secs(10));
    let Err(error) = kubectl.run(&["-n", NAMESPACE, "rollout", "status", part, &limit]) else {
        return Ok(());
    };
    let name = part.split('/').next_back().unwrap_or(part);
    let label = format!("app={name}");
    let described = cluster.kubectl().run(&["-n", NAMESPACE, "describe", "pods", "-l", &label]);
    Err(format!("{error}\n{}\n{}", described.unwrap_or_default(), log(cluster, name)).into())
}

/// The broker's Service.
fn address(cluster: &Cluster) -> Result<SocketAddr, Box<dyn Error>> {
    let service = cluster.kubectl().get(NAMESPACE, "service", "krb-broker")?;
    let service = service.ok_or("no Service krb-broker")?;
    let ip: IpAddr = service["spec"]["clusterIP"].as_str().unwrap_or_default().parse()?;
    let port = service["spec"]["ports"][0]["port"].as_u64().unwrap_or_default();
    Ok(SocketAddr::new(ip, u16::try_from(port)?))
}

/// Waits until the agent of the node runs; the name of its pod.
pub fn agent_pod(cluster: &Cluster, node: &str) -> Result<String, Box<dyn Error>> {
    pod_of(cluster, "krb-node-agent", &format!("status.phase=Running,spec.nodeName={node}"))
}

/// Waits until a pod of a part runs that these fields select; its name.
pub fn pod_of(cluster: &Cluster, part: &str, fields: &str) -> Result<String, Box<dyn Error>> {
    let (kubectl, label) = (cluster.kubectl(), format!("app={part}"));
    let pod = wait::until(&format!("a pod of {part}"), READY, || {
        let pods = kubectl.list(NAMESPACE, "pods", &["-l", &label, "--field-selector", fields])?;
        let lives = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        Ok(pods
            .iter()
            .find(lives)
            .and_then(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)))
    })?;
    kubectl.wait_ready(NAMESPACE, &pod)?;
    Ok(pod)
}

/// What the pods of a part said last, the run before included where it ended.
pub fn log(cluster: &Cluster, part: &str) -> String {
    let said = |more: &[&str]| -> Result<String, ClusterError> {
        let label = format!("app={part}");
        let logs =
            ["-n", NAMESPACE, "logs", "--tail=40", "--prefix", "--all-containers", "-l", &label];
        cluster.kubectl().run(&[&logs[..], more].concat())
    };
    let before = said(&["--previous"]).unwrap_or_default();
    before + &said(&[]).unwrap_or_else(|error| error.to_string())
}
