//! What the cluster's nodes and pods talk to: a realm of real daemons, and the broker.

use std::{
    error::Error,
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
};

use krb_tests::{
    cluster::{Cluster, server_net},
    realm::{self, Realm},
    world::{
        Account,
        broker::{Broker, Settings},
        pki::{self, Pki},
        write_account,
    },
};
use serde_json::Value;

use crate::{objects::Objects, programs};

/// The role account of the stories, and the namespace that it has; its gid is 1235.
const ACCOUNT: Account = Account { login: "tsfoo", uid: 1234, more: "services: [HTTP]\n" };
/// A node is lost after 20 s of silence. Longer than a busy machine pauses an agent.
const SESSIONS: &str = "heartbeat = \"1s\"\nsilent_after = \"10s\"\nlost_after = \"10s\"\n";
/// Tickets so short that stories see them replaced, at half their life.
const REALM: &str = "ticket_life = \"90s\"\nclock_skew = \"5s\"\n";
/// The broker's port. The network is the stories' own: any is free.
const PORT: u16 = 8443;

/// A realm, a broker that sees the cluster, and an operator. Dropping it ends them.
pub struct Servers {
    // dropped in this order: the broker before the realm
    /// What the broker sees of the cluster.
    pub objects: Objects,
    /// The broker.
    pub broker: Broker,
    /// The realm; its tools show what the KDC has.
    pub realm: Realm,
    /// The certificates; those of the nodes are the cluster's.
    pub pki: Pki,
    entitlements: PathBuf,
    dir: PathBuf,
    _memory: tempfile::TempDir,
}

impl Servers {
    /// Starts them at [`server_net::ADDRESS`], where this process must live, too.
    pub fn start(cluster: &Cluster) -> Result<Self, Box<dyn Error>> {
        let address = Some(server_net::ADDRESS.into());
        let realm = Realm::with_options(realm::Options { address, ..Default::default() })?;
        let dir = realm.dir().join("broker");
        for part in ["", "accounts", "entitlements", "pods"] {
            fs::create_dir(dir.join(part))?;
        }
        write_account(&dir, &realm, &ACCOUNT)?;
        let pki = Pki::new(&dir)?;
        pki.trust("node", &cluster.ca())?;
        // the master key lies where the store does not
        let memory = tempfile::Builder::new().prefix("krb-cluster-").tempdir_in("/dev/shm")?;
        let objects = Objects::keep(cluster, &dir.join("pods"));
        let settings = Settings {
            listen: Some(SocketAddr::from((server_net::ADDRESS, PORT))),
            sessions: SESSIONS.to_owned(),
            realm: REALM.to_owned(),
            ..Default::default()
        };
        let broker = Broker::start(&dir, memory.path(), &realm, &pki, settings)?;
        let entitlements = dir.join("entitlements");
        Ok(Self { objects, broker, realm, pki, entitlements, dir, _memory: memory })
    }

    /// Puts the volume into a manifest, as an owner does with `krb-broker inject`.
    pub fn inject(&self, manifest: &str) -> Result<String, Box<dyn Error>> {
        let file = self.dir.join("manifest.yaml");
        fs::write(&file, manifest)?;
        let entitlements = self.entitlements.display().to_string();
        let file = file.display().to_string();
        Ok(self.broker.run(&["inject", "--entitlements", &entitlements, &file])?)
    }

    /// The leases of all pods of this name, as the stock gRPC client reads them.
    pub fn leases_of(&self, pod: &str) -> Result<Vec<Value>, Box<dyn Error>> {
        let request = serde_json::json!({ "podName": pod }).to_string();
        let reply = self.client(&["call", "krb.broker.v1.LeaseService/ListLeases", &request])?;
        let reply: Value = serde_json::from_str(&reply)?;
        Ok(reply["leases"].as_array().cloned().unwrap_or_default())
    }

    /// The only lease of the pod of this name.
    pub fn lease_of(&self, pod: &str) -> Result<Value, Box<dyn Error>> {
        match self.leases_of(pod)?.as_slice() {
            [lease] => Ok(lease.clone()),
            leases => Err(format!("{pod} has not one lease: {leases:?}").into()),
        }
    }

    /// What `leases.py` prints for these arguments.
    pub fn client(&self, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
        let operator = self.pki.files("operator");
        let mut command = Command::new(programs::python());
        command.arg(programs::repository().join("tests/python/leases.py"));
        let address = self.broker.address().to_string();
        command.args(["--address", &address, "--server-name", pki::BROKER]);
        command.arg("--ca").arg(self.pki.ca("broker"));
        command.arg("--cert").arg(&operator.certificate);
        command.arg("--key").arg(&operator.key).args(arguments);
        let output = command.stdin(Stdio::null()).output()?;
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout)?);
        }
        Err(format!("leases.py: {}", String::from_utf8_lossy(&output.stderr)).into())
    }
}
