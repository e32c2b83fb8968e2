//! A real Kubernetes cluster on this machine, for the tests that need a kubelet.
//!
//! The control plane and its nodes live in network namespaces of their own; scripts outside this
//! repository bring them up ([`Parts`] says where they are found). One [`Cluster`] at a time: it
//! holds a lock, takes down what a killed run left behind, and takes itself down when dropped,
//! unless it is to be kept for the next run.
//!
//! `n1` has the control's own pods and never loses power; `n2` is there to be killed, cut off and
//! booted. Services' addresses work while somebody holds a [`ServiceProxy`].
//!
//! What the pods talk to (a KDC, the broker) runs in one more namespace, [`server_net`], where it
//! has the address [`server_net::ADDRESS`]. A test goes there by starting itself again.

mod command;
mod control;
mod image;
mod kubectl;
mod lock;
mod node;
mod parts;
pub mod server_net;
mod service_proxy;
pub mod wait;

use std::{
    fmt, fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use command::Run;
pub use control::Part;
pub use image::Image;
pub use kubectl::Kubectl;
use lock::Lock;
pub use node::{Mount, Node};
pub(crate) use parts::api_server;
pub use parts::{Found, Parts};
pub use service_proxy::ServiceProxy;

/// The machines: the first stays, the second may lose its power, its cable or its kubelet.
pub const NODES: [&str; 2] = ["n1", "n2"];
/// What all four programs are told, since Kubernetes 1.20 has it off.
const FEATURES: &str = "EphemeralContainers=true";
/// What kubelet is told: stories start hundreds of pods on a node.
const KUBELET_ARGS: &str = "--max-pods=250";
/// How long `up.sh` may take; a minute is usual.
const UP: Duration = Duration::from_secs(300);
/// How long an image may take to be loaded into all nodes.
const LOAD: Duration = Duration::from_secs(180);
/// The file that says that a cluster was kept: with the port of its API server on the host.
const KEPT: &str = "kept";
/// How long `down.sh` may take.
const DOWN: Duration = Duration::from_secs(120);

/// A cluster that this process brought up, or that the process that started this one did.
#[derive(Debug)]
pub struct Cluster {
    parts: Parts,
    dir: PathBuf,
    port: u16,
    /// Held by the process that brought it up, which also takes it down.
    owned: Option<Lock>,
    keep: bool,
}

impl Cluster {
    /// Brings up a control plane and the [`NODES`], or takes over the one that a run with `keep`
    /// left. Waits while another process has a cluster. With `keep` it stays when dropped.
    ///
    /// # Errors
    /// When packages can't be installed, another cluster is in the way, or a script fails: then
    /// with what the script said.
    pub fn up(parts: Parts, keep: bool) -> Result<Self, ClusterError> {
        parts.bring_packages()?;
        let mut lock = Lock::take()?;
        if let Some(dir) = lock.left_behind() {
            let port = kept_port(&dir).filter(|_| keep && server_net::exists("kc-cp"));
            if let Some(port) = port {
                return Self { parts, dir, port, owned: Some(lock), keep }.taken_over();
            }
            Self { parts: parts.clone(), dir, port: 0, owned: None, keep }.down();
        }
        server_net::remove();
        if server_net::exists("kc-cp") {
            return Err(ClusterError::new(
                "bringing up a cluster",
                "one is up that no test left behind (namespace kc-cp); take it down with its down.sh",
            ));
        }
        let dir = private_dir()?;
        lock.note(&dir)?;
        let cluster = Self { parts, dir, port: free_port()?, owned: Some(lock), keep };
        let up = cluster.script("up.sh").arg(&cluster.parts.binaries);
        let up = up.env("KC_NODES", NODES.join(" ")).env("KC_FEATURES", FEATURES);
        up.env("KC_KUBELET_ARGS", KUBELET_ARGS).limit(UP).run()?;
        server_net::create()?;
        if keep {
            let noted = fs::write(cluster.dir.join(KEPT), cluster.port.to_string());
            noted.map_err(|error| ClusterError::new("noting that the cluster is kept", error))?;
        }
        Ok(cluster)
    }

    /// A kept cluster as it was at first: its machines run, their cables are plugged in.
    fn taken_over(self) -> Result<Self, ClusterError> {
        for node in NODES.map(|name| self.node(name)) {
            if !node.is_running() {
                node.boot()?;
            }
            node.join()?;
            node.start_kubelet()?;
        }
        Ok(self)
    }

    /// The cluster whose state lies in `dir`, brought up by another process.
    pub fn of(parts: Parts, dir: PathBuf) -> Self {
        Self { parts, dir, port: 0, owned: None, keep: true }
    }

    /// Whether it is one of the scripts': its machines and its control plane can be stopped.
    pub fn is_ours(&self) -> bool {
        self.dir.join("k8s_bin").is_file()
    }

    /// Its state: certificates, logs, the nodes' disks. Short enough for socket paths.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of the scripts, which has a few small drivers too.
    pub fn scripts(&self) -> &Path {
        &self.parts.scripts
    }

    /// PEM file of the CA that signed the nodes' certificates.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("pki/ca.crt")
    }

    /// `kubectl` as the cluster's administrator. Works inside [`server_net`] only.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.dir.join("admin-in.kubeconfig"))
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Node<'_> {
        Node::new(self, name)
    }

    /// Makes `image` and loads it into every node's containerd, unless it is there; a node that
    /// boots later gets it, too.
    ///
    /// # Errors
    /// When a file of it is missing, or a node refuses it.
    pub fn load(&self, image: &Image) -> Result<(), ClusterError> {
        let archive = self.dir.join("images").join(image.file_name());
        if archive.exists() {
            return Ok(());
        }
        let half = archive.with_extension("half");
        self.script("mkimage.py").arg(&half).args(image.arguments()).run()?;
        self.script("load-image.sh").arg(&half).limit(LOAD).run()?;
        self.forget_versions(image)
            .and_then(|()| fs::rename(&half, &archive))
            .map_err(|error| ClusterError::new("keeping an image", error))
    }

    /// Removes the archives of an image's other versions: a node that boots need not load them.
    fn forget_versions(&self, image: &Image) -> std::io::Result<()> {
        for entry in fs::read_dir(self.dir.join("images"))? {
            let entry = entry?;
            if image.is_version(&entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// One of the scripts that came with the cluster, with its settings.
    fn script(&self, name: &str) -> Run {
        let run = Run::new(self.parts.scripts.join(name))
            .env("KC_DIR", &self.dir)
            .env("K8S_BIN", &self.parts.binaries)
            .env("HOST_API_PORT", self.port.to_string());
        match self.owned {
            Some(_) => run,
            None => run.env("KC_KUBECONFIG", self.dir.join("admin-in.kubeconfig")),
        }
    }

    /// Stops everything and removes all state. There is nobody left to tell of a failure but the
    /// next run, which sweeps again.
    fn down(&self) {
        server_net::remove();
        if let Err(error) = self.script("down.sh").arg("--purge").limit(DOWN).run() {
            #[expect(clippy::print_stderr, reason = "the test's own output")]
            {
                eprintln!("cluster: {error}");
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut lock) = self.owned.take().filter(|_| !self.keep) {
            self.down();
            lock.forget();
        }
    }
}

/// A fresh directory for the state, its path short: unix sockets lie in it.
fn private_dir() -> Result<PathBuf, ClusterError> {
    let dir = tempfile::Builder::new().prefix("kc").tempdir();
    let dir = dir.map_err(|error| ClusterError::new("making the cluster's directory", error))?;
    let dir = dir.keep();
    // the nodes' users pass through it
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&dir, open)
        .map_err(|error| ClusterError::new("opening the cluster's directory", error))?;
    Ok(dir)
}

/// The port of the API server of a cluster that was kept.
fn kept_port(dir: &Path) -> Option<u16> {
    fs::read_to_string(dir.join(KEPT)).ok()?.trim().parse().ok()
}

/// A port of the host's loopback for the API server.
fn free_port() -> Result<u16, ClusterError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| ClusterError::new("finding a port for the API server", error))
}

/// Why the cluster could not do what a test asked.
#[derive(Clone, Debug)]
pub struct ClusterError {
    tried: String,
    detail: String,
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.tried, self.detail)
    }
}

impl std::error::Error for ClusterError {}

impl ClusterError {
    /// What was tried, and what came of it.
    pub fn new(tried: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self { tried: tried.into(), detail: detail.to_string() }
    }
}
