//! What the cluster's nodes and pods talk to: a realm of real daemons, and the broker.

use std::{
    error::Error,
    fs::{self, File, OpenOptions},
    io::Write as _,
    net::{SocketAddr, TcpStream},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use krb_tests::{
    cluster::{Cluster, ClusterError, server_net, wait},
    realm::{self, Realm},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    certificates::{self, BROKER_NAME, Files},
    programs,
};

/// The role account of the stories, and the namespace that it has.
pub const ACCOUNT: &str = "tsfoo";

/// What the account of the stories may have.
const ENTITLEMENT: &str = "
entity_type: unix_role_account
unix_login: tsfoo
unix_uid: 1234
unix_gid: 1111
namespaces: [tsfoo]
services: [HTTP]
";
/// How long the broker may take to serve.
const START: Duration = Duration::from_secs(30);

/// A realm, a broker, and an operator. Dropping it ends them.
#[derive(Debug)]
pub struct Servers {
    broker: Child,
    /// The realm; its tools show what the KDC has.
    pub realm: Realm,
    dir: PathBuf,
    broker_files: Files,
    operator: Files,
}

impl Servers {
    /// Starts them at [`server_net::ADDRESS`], where this process must live, too.
    pub fn start(cluster: &Cluster) -> Result<Self, Box<dyn Error>> {
        let address = Some(server_net::ADDRESS.into());
        let realm = Realm::with_options(realm::Options { address, ..Default::default() })?;
        let dir = realm.dir().join("broker");
        for part in ["", "accounts", "entitlements", "pods", "run"] {
            fs::create_dir(dir.join(part))?;
        }
        fs::write(dir.join("entitlements/tsfoo.yaml"), ENTITLEMENT)?;
        let keytab = realm.add_role_account(ACCOUNT)?;
        write_private(&dir.join("accounts/tsfoo.keytab"), &fs::read(keytab)?)?;
        let broker_files = certificates::broker(&dir)?;
        let operator = certificates::operator(&dir)?;
        fs::write(
            dir.join("broker.toml"),
            config(cluster, &realm, &dir, &broker_files, &operator),
        )?;
        command(&["new-master-key", &path(&dir.join("master.key"))])?;
        let broker = start_broker(&dir)?;
        Ok(Self { broker, realm, dir, broker_files, operator })
    }

    /// Where the broker listens.
    pub fn broker_address(&self) -> SocketAddr {
        listen()
    }

    /// PEM file of the CA of the broker's certificate.
    pub fn broker_ca(&self) -> &Path {
        &self.broker_files.ca
    }

    /// Puts the volume into a manifest, as `krb-broker inject` does for an owner.
    pub fn inject(&self, manifest: &str) -> Result<String, Box<dyn Error>> {
        let file = self.dir.join("manifest.yaml");
        fs::write(&file, manifest)?;
        let entitlements = path(&self.dir.join("entitlements"));
        command(&["inject", "--entitlements", &entitlements, &path(&file)])
    }

    /// Shows the broker the cluster's objects as they are now.
    pub fn show_objects(&self, cluster: &Cluster) -> Result<(), ClusterError> {
        cluster.kubectl().write_all("pods,services,namespaces", &self.dir.join("pods/objects.yaml"))
    }

    /// All leases in one of these states, as the stock gRPC client reads them.
    pub fn leases(&self, states: &[&str]) -> Result<Vec<Value>, Box<dyn Error>> {
        let states: Vec<_> = states.iter().map(|s| format!("LEASE_STATE_{s}")).collect();
        let request = serde_json::json!({ "states": states }).to_string();
        let reply = self.client(&["call", "krb.broker.v1.LeaseService/ListLeases", &request])?;
        let reply: Value = serde_json::from_str(&reply)?;
        Ok(reply["leases"].as_array().cloned().unwrap_or_default())
    }

    /// What `leases.py` prints for these arguments.
    pub fn client(&self, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
        let mut command = Command::new(programs::python());
        command.arg(programs::repository().join("tests/python/leases.py"));
        command.args(["--address", &listen().to_string(), "--server-name", BROKER_NAME]);
        command.arg("--ca").arg(&self.broker_files.ca);
        command.arg("--cert").arg(&self.operator.certificate);
        command.arg("--key").arg(&self.operator.key).args(arguments);
        printed(&mut command)
    }

    /// The end of the broker's log.
    pub fn broker_log(&self) -> String {
        end_of(&self.dir.join("broker.log"))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.broker.id()).ok().and_then(Pid::from_raw) {
            // our own child, not yet waited for
            let _ = kill_process(pid, Signal::TERM);
        }
        let ended = wait::until("the broker to end", Duration::from_secs(10), || {
            Ok(self.broker.try_wait().ok().flatten())
        });
        if ended.is_err() {
            let _ = self.broker.kill();
            let _ = self.broker.wait();
        }
    }
}

/// Writes a file that nobody else may read.
pub fn write_private(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?.write_all(bytes)
}

/// The network is the stories' own: any port is free.
fn listen() -> SocketAddr {
    (server_net::ADDRESS, 8443).into()
}

fn config(
    cluster: &Cluster,
    realm: &Realm,
    dir: &Path,
    broker: &Files,
    operator: &Files,
) -> String {
    let dir = dir.display();
    format!(
        r#"
cluster = "test"
listen = "{listen}"
run_dir = "{dir}/run"
allow_swap = true

[tls]
certificate = "{certificate}"
key = "{key}"
node_ca = "{node_ca}"
operator_ca = "{operator_ca}"

[realm]
name = "{realm}"
kdcs = ["{kdc}"]
kadmin = "{kadmin}"
admin_keytab = "{admin_keytab}"
accounts = "{dir}/accounts"

[entitlements]
dir = "{dir}/entitlements"

[pods]
source = "file"
dir = "{dir}/pods"

[store]
dir = "{dir}/store"
master_key = "{dir}/master.key"
allow_same_volume = true

[audit]
file = "{dir}/audit.log"

[sessions]
heartbeat = "1s"
silent_after = "10s"
lost_after = "10s"
"#,
        listen = listen(),
        certificate = broker.certificate.display(),
        key = broker.key.display(),
        node_ca = cluster.ca().display(),
        operator_ca = operator.ca.display(),
        realm = realm.name(),
        kdc = realm.kdc_addr(),
        kadmin = realm.kadmin_addr(),
        admin_keytab = realm.admin_keytab().display(),
    )
}

fn start_broker(dir: &Path) -> Result<Child, Box<dyn Error>> {
    let log = File::create(dir.join("broker.log"))?;
    let mut broker = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(programs::broker()?)
        .args(["serve", "--config", &path(&dir.join("broker.toml"))])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let serving = wait::until("the broker to serve", START, || {
        if let Ok(Some(status)) = broker.try_wait() {
            return Err(ClusterError::new("starting the broker", status));
        }
        Ok(TcpStream::connect_timeout(&listen(), Duration::from_secs(1)).ok())
    });
    match serving {
        Ok(_) => Ok(broker),
        Err(error) => {
            let _ = broker.kill();
            let _ = broker.wait();
            Err(format!("{error}\n{}", end_of(&dir.join("broker.log"))).into())
        }
    }
}

/// Runs a command of the broker's; what it printed.
fn command(arguments: &[&str]) -> Result<String, Box<dyn Error>> {
    printed(Command::new(programs::broker()?).args(arguments))
}

fn printed(command: &mut Command) -> Result<String, Box<dyn Error>> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{}: {said}", command.get_program().to_string_lossy()).into())
}

fn end_of(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
