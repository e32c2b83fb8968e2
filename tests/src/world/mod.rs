//! A small world of real parts: a realm, a broker, nodes with agents and drivers, and pods.
//!
//! Each [`World`] has its own realm on its own loopback address, its own broker process, and
//! nodes that are mount namespaces with their own `/run` and kubelet's directory. Nothing of
//! it is shared, so that worlds run side by side; everything dies with it.
//!
//! There is no API server here: [`pods`] stamps uid, node and phase as one would, and
//! [`node`] calls the driver as kubelet does.

pub mod api;
pub mod broker;
pub mod container;
mod entitle;
pub mod network;
pub mod node;
pub mod pki;
pub mod pods;
pub mod programs;
mod refusal;
pub mod see;
pub mod swarm;

use std::{
    fmt, fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use self::{
    api::Api,
    broker::{Broker, Settings},
    network::Network,
    node::Node,
    pki::Pki,
    pods::{Pod, Pods},
};
use crate::realm::{self, Realm};

/// A role account of the world and what it may have.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its login, and the name of its namespace.
    pub login: &'static str,
    /// Its uid; its gid is one more.
    pub uid: u32,
    /// More lines of its entitlement file.
    pub more: &'static str,
}

/// The account that most stories use: web and file services, which may act as clients, so
/// that a test can see whether a key still opens anything.
pub const TSFOO: Account =
    Account { login: "tsfoo", uid: 61_234, more: "services: [HTTP, nfs]\nclient: true\n" };

impl Account {
    /// Whether the broker makes its keys: no administrator does.
    pub fn is_managed(&self) -> bool {
        self.more.contains("role_account: managed")
    }
}

/// Everything that a story needs.
pub struct World {
    // dropped in this order: agents before the broker, the broker before the realm
    /// The nodes, by their order.
    pub nodes: Vec<Node>,
    /// The broker.
    pub broker: Broker,
    /// The realm.
    pub realm: Realm,
    /// The objects that the broker sees as pods.
    pub pods: Pods,
    /// The certificates.
    pub pki: Pki,
    /// What joins the nodes to the broker, where that is not simply the machine.
    network: Option<Arc<Network>>,
    memory: tempfile::TempDir,
    dir: tempfile::TempDir,
}

impl World {
    /// A world with these nodes, attached, and the account [`TSFOO`].
    pub fn with_nodes(names: &[&str]) -> Result<Self, WorldError> {
        Self::build(names, &[TSFOO], realm::Options::default(), Settings::default())
    }

    /// A world of these parts.
    pub fn build(
        names: &[&str],
        accounts: &[Account],
        options: realm::Options,
        settings: Settings,
    ) -> Result<Self, WorldError> {
        Self::assemble(names, accounts, options, settings, None)
    }

    /// The same, with a network of the nodes' own: their cables can be pulled, and a node can
    /// be frozen whole.
    pub fn networked(
        names: &[&str],
        accounts: &[Account],
        options: realm::Options,
        mut settings: Settings,
    ) -> Result<Self, WorldError> {
        need_root()?;
        let network = Network::new()?;
        settings.listen = Some(network.listen()?);
        Self::assemble(names, accounts, options, settings, Some(Arc::new(network)))
    }

    fn assemble(
        names: &[&str],
        accounts: &[Account],
        options: realm::Options,
        settings: Settings,
        network: Option<Arc<Network>>,
    ) -> Result<Self, WorldError> {
        need_root()?;
        let realm = Realm::with_options(options).map_err(|e| WorldError::new("the realm", e))?;
        let dir = private_dir("world-", None)?;
        // The master key lies where the store does not.
        let memory = private_dir("krb-world-", Some(Path::new("/dev/shm")))?;
        let pki = Pki::new(dir.path())?;
        let pods = Pods::new(dir.path())?;
        for place in ["entitlements", "accounts", "nodes"] {
            make_dir(&dir.path().join(place))?;
        }
        for account in accounts {
            write_account(dir.path(), &realm, account)?;
            pods.namespace(account.login, &format!("ns-{}-1", account.login))?;
        }
        let broker = Broker::start(dir.path(), memory.path(), &realm, &pki, settings)?;
        let mut world = Self { nodes: Vec::new(), broker, realm, pods, pki, network, memory, dir };
        for name in names {
            world.add_node(name)?;
        }
        Ok(world)
    }

    /// Adds a node with a running agent.
    pub fn add_node(&mut self, name: &str) -> Result<(), WorldError> {
        let nodes = self.dir.path().join("nodes");
        let mut node = Node::make(&nodes, name, &self.pki, self.network.clone())?;
        node.start_agent(&self.broker.address())?;
        self.nodes.push(node);
        Ok(())
    }

    /// The node of this name.
    pub fn node(&mut self, name: &str) -> &mut Node {
        let found = self.nodes.iter_mut().find(|node| node.name() == name);
        found.expect("the world was built with this node")
    }

    /// A pod of TSFOO that asks for HTTP and a ticket: injected, stamped, bound to `node`.
    pub fn pod(&self, name: &str, node: &str) -> Result<Pod, WorldError> {
        let annotations = [("ts/services", "HTTP"), ("ts/prestashtkt", "true")];
        let pod = Pod::new(name, TSFOO.login, TSFOO.uid, node).annotated(&annotations);
        self.apply(&pod)
    }

    /// Injects the pod's manifest with the real command and makes it known.
    pub fn apply(&self, pod: &Pod) -> Result<Pod, WorldError> {
        let injected = pod.injected(&self.dir.path().join("entitlements"), self.realm.name())?;
        self.pods.apply(&injected)?;
        Ok(injected)
    }

    /// The API, as an operator.
    pub async fn operator(&self) -> Result<Api, WorldError> {
        Api::connect(self.broker.address(), &self.pki, "operator").await
    }

    /// The world's directory, 0700.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The directory of the master key, on a tmpfs.
    pub fn memory(&self) -> &Path {
        self.memory.path()
    }
}

/// Writes an account's entitlement into `dir/entitlements`; unless the broker makes its keys,
/// makes it in the realm and puts its keytab into `dir/accounts`.
///
/// # Errors
/// When the realm refuses, or a file can't be written.
pub fn write_account(dir: &Path, realm: &Realm, account: &Account) -> Result<(), WorldError> {
    let login = account.login;
    let text = entitle::text(account);
    write(&dir.join("entitlements").join(format!("{login}.yaml")), &text)?;
    if account.is_managed() {
        return Ok(());
    }
    let keytab = realm.add_role_account(login).map_err(|e| WorldError::new("an account", e))?;
    let place = dir.join("accounts").join(format!("{login}.keytab"));
    fs::copy(&keytab, &place).map_err(|e| WorldError::new("copying a keytab", e))?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o600))
        .map_err(|e| WorldError::new("closing a keytab", e))
}

fn private_dir(prefix: &str, place: Option<&Path>) -> Result<tempfile::TempDir, WorldError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).permissions(fs::Permissions::from_mode(0o700));
    match place {
        Some(place) => builder.tempdir_in(place),
        None => builder.tempdir(),
    }
    .map_err(|e| WorldError::new("making a directory", e))
}

pub(crate) fn make_dir(path: &Path) -> Result<(), WorldError> {
    fs::create_dir_all(path).map_err(|e| WorldError::new(format!("making {}", path.display()), e))
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), WorldError> {
    // by rename, as ConfigMaps and kubectl's users with care do it
    let new = path.with_extension("new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, path))
        .map_err(|e| WorldError::new(format!("writing {}", path.display()), e))
}

fn need_root() -> Result<(), WorldError> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(WorldError::new("building a world", "needs root, for mounts and owners"))
    }
}

/// Waits until `look` gives something, looking every few milliseconds; not for ever.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, WorldError> {
    const LOOKS: u32 = 6_000;
    for _ in 0..LOOKS {
        if let Some(found) = look() {
            return Ok(found);
        }
        pause(Duration::from_millis(5));
    }
    Err(WorldError::new(format!("waiting for {what}"), "it did not come within 30 s"))
}

/// Lets the other processes run for a while.
#[expect(clippy::disallowed_methods, reason = "the other processes have no clock of ours")]
pub fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// What went wrong while a world was built or used.
#[derive(Debug)]
pub struct WorldError {
    doing: String,
    detail: String,
}

impl WorldError {
    /// What was tried, and what was said.
    pub fn new(doing: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self { doing: doing.into(), detail: detail.to_string() }
    }
}

impl fmt::Display for WorldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.detail)
    }
}

impl std::error::Error for WorldError {}

impl From<io::Error> for WorldError {
    fn from(error: io::Error) -> Self {
        Self::new("a file or process", error)
    }
}

/// The log of a program of this world.
pub(crate) fn log_file(dir: &Path, name: &str) -> Result<fs::File, WorldError> {
    let path: PathBuf = dir.join(format!("{name}.log"));
    let mut options = fs::OpenOptions::new();
    options.create(true).append(true);
    options.open(&path).map_err(|e| WorldError::new(format!("opening {}", path.display()), e))
}
