//! The broker as a process.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{WorldError, log_file, pki::Pki, programs::program, wait_for, write};
use crate::realm::{Realm, daemon};

/// What a story sets of the broker's configuration. The defaults make a lost node a matter
/// of a few seconds, and no busy machine loses one that lives.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[sessions]`.
    pub sessions: String,
    /// More lines of `[realm]`.
    pub realm: String,
    /// `[keys]`.
    pub keys: String,
    /// `[gate]`.
    pub gate: String,
    /// More lines of `[entitlements]`.
    pub entitlements: String,
    /// `[leases]`.
    pub leases: String,
    /// More lines of `[pods]`.
    pub pods: String,
    /// More lines of `[store]`.
    pub store: String,
    /// More lines of `[audit]`.
    pub audit: String,
    /// The directory of its audit log; the world's own unless given.
    pub audit_dir: Option<PathBuf>,
    /// Where it listens; a free loopback port unless given.
    pub listen: Option<SocketAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sessions: "heartbeat = \"200ms\"\nsilent_after = \"2s\"\nlost_after = \"1500ms\"\n\
                       lease_ttl = \"1h\"\nunclaimed_after = \"4s\"\n"
                .to_owned(),
            realm: "service_max_life = \"10m\"\nclock_skew = \"5s\"\n\
                    acknowledge_within = \"3s\"\nkdc_propagation = \"5s\"\n"
                .to_owned(),
            keys: "rekey_min_interval = \"1ms\"\n".to_owned(),
            gate: "kdc = { per_second = 200 }\nkadmin = { per_second = 200 }\n".to_owned(),
            entitlements: "reload_every = \"100ms\"\n".to_owned(),
            leases: String::new(),
            pods: "gone_after = \"1s\"\n".to_owned(),
            store: String::new(),
            audit: String::new(),
            audit_dir: None,
            listen: None,
        }
    }
}

/// A broker process and its files.
pub struct Broker {
    dir: PathBuf,
    audit_dir: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
}

impl Broker {
    /// Writes its configuration and a master key, and starts it.
    pub fn start(
        dir: &Path,
        memory: &Path,
        realm: &Realm,
        pki: &Pki,
        settings: Settings,
    ) -> Result<Self, WorldError> {
        let address = match settings.listen {
            Some(address) => address,
            None => TcpListener::bind("127.0.0.1:0")?.local_addr()?,
        };
        let audit_dir = settings.audit_dir.clone().unwrap_or_else(|| dir.to_owned());
        let mut broker = Self { dir: dir.to_owned(), audit_dir, address, child: None };
        write(&broker.config(), &config(dir, memory, address, realm, pki, &settings))?;
        broker.run(&["new-master-key", &memory.join("master.key").display().to_string()])?;
        broker.restart()?;
        Ok(broker)
    }

    /// Where its API is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces text of its configuration, which must be there; in force after its next start.
    pub fn reconfigure(&self, from: &str, to: &str) -> Result<(), WorldError> {
        let text = fs::read_to_string(self.config())?;
        if !text.contains(from) {
            return Err(WorldError::new("changing the configuration", format!("no {from:?}")));
        }
        write(&self.config(), &text.replacen(from, to, 1))
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("broker.toml")
    }

    /// Its audit log, rotated files first, as text.
    pub fn audit(&self) -> String {
        let read = |path: &PathBuf| {
            let bytes = fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        self.audit_files().iter().map(read).collect::<Vec<_>>().join("\n")
    }

    /// The files of its audit log, oldest first.
    pub fn audit_files(&self) -> Vec<PathBuf> {
        let log = self.audit_dir.join("audit.log");
        let rotated = krb_broker::audit::files::rotated(&log).unwrap_or_default();
        rotated.into_iter().map(|file| file.path).chain([log]).collect()
    }

    /// The audit lines of this event, oldest first.
    pub fn audited(&self, event: &str) -> Vec<serde_json::Value> {
        let lines = self.audit();
        let parsed = lines.lines().filter_map(|line| serde_json::from_str(line).ok());
        parsed.filter(|line: &serde_json::Value| line["event"] == event).collect()
    }

    /// What it said on its standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("broker.log")).unwrap_or_default()
    }

    /// Runs one of its commands to its end; what it printed, or what it complained of.
    pub fn run(&self, args: &[&str]) -> Result<String, WorldError> {
        let output = Command::new(program("krb-broker")?).args(args).output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(WorldError::new(format!("krb-broker {}", args.join(" ")), said.trim()))
    }

    /// Starts it and waits until it answers.
    pub fn restart(&mut self) -> Result<(), WorldError> {
        self.launch()?;
        let address = self.address;
        let said = wait_for("the broker to listen", || {
            if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
                return Some(Ok(()));
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            ended.map(Err)
        })?;
        said.map_err(|status| WorldError::new(format!("the broker ended: {status}"), self.log()))
    }

    /// Starts it, whether it then runs or refuses to.
    pub fn launch(&mut self) -> Result<(), WorldError> {
        let mut command = Command::new(program("krb-broker")?);
        command.arg("serve").arg("--config").arg(self.config()).env_clear();
        command.env("PATH", "/usr/bin:/bin").stdin(Stdio::null()).stdout(Stdio::null());
        let mut command = daemon::with_death_signal(&command);
        command.stderr(log_file(&self.dir, "broker")?);
        self.child = Some(daemon::spawn(command).map_err(|e| WorldError::new("the broker", e))?);
        Ok(())
    }

    /// Waits until it ends by itself; what it said last.
    pub fn ended(&mut self) -> Result<String, WorldError> {
        let child = &mut self.child;
        wait_for("the broker to end", || {
            child.as_mut().and_then(|child| child.try_wait().ok().flatten())
        })?;
        self.child = None;
        Ok(self.log())
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits until it has ended in good order.
    pub fn stop(&mut self) -> Result<(), WorldError> {
        self.signal(Signal::TERM);
        self.ended().map(drop)
    }

    /// Stops it in its tracks, or lets it go on.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child
            && let Some(pid) = Pid::from_raw(child.id().cast_signed())
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn config(
    dir: &Path,
    memory: &Path,
    address: SocketAddr,
    realm: &Realm,
    pki: &Pki,
    settings: &Settings,
) -> String {
    let at = |path: PathBuf| format!("{:?}", path.display().to_string());
    let broker = pki.files("broker");
    let kdcs: Vec<String> = realm.kdc_addrs().iter().map(|a| format!("\"{a}\"")).collect();
    format!(
        "cluster = \"test\"\nlisten = \"{address}\"\nrun_dir = {run}\n\
         [tls]\ncertificate = {cert}\nkey = {key}\nnode_ca = {node}\noperator_ca = {operator}\n\
         viewer_ca = {viewer}\nviewer_namespaces = {{ victor = [\"tsbar\"] }}\n\
         [realm]\nname = \"{name}\"\nkdcs = [{kdcs}]\nkadmin = \"{kadmin}\"\n\
         admin_keytab = {keytab}\naccounts = {accounts}\n{more_realm}\
         [keys]\n{keys}[gate]\n{gate}\
         [entitlements]\ndir = {entitlements}\n{more_entitlements}\
         [pods]\nsource = \"file\"\ndir = {pods}\n{more_pods}\
         [store]\ndir = {store}\nmaster_key = {master}\n{more_store}\
         [audit]\nfile = {audit}\n{more_audit}[sessions]\n{sessions}[leases]\n{leases}",
        run = at(dir.join("run")),
        cert = at(broker.certificate),
        key = at(broker.key),
        node = at(pki.ca("node")),
        operator = at(pki.ca("operator")),
        viewer = at(pki.ca("viewer")),
        name = realm.name(),
        kdcs = kdcs.join(", "),
        kadmin = realm.kadmin_addr(),
        keytab = at(realm.admin_keytab()),
        accounts = at(dir.join("accounts")),
        more_realm = settings.realm,
        keys = settings.keys,
        gate = settings.gate,
        entitlements = at(dir.join("entitlements")),
        more_entitlements = settings.entitlements,
        pods = at(dir.join("pods")),
        more_pods = settings.pods,
        store = at(dir.join("store")),
        master = at(memory.join("master.key")),
        more_store = settings.store,
        audit = at(settings.audit_dir.as_deref().unwrap_or(dir).join("audit.log")),
        more_audit = settings.audit,
        sessions = settings.sessions,
        leases = settings.leases,
    )
}
