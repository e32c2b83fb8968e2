//! `broker.toml`: read raw, checked whole, and then trusted.
//!
//! An unknown key is an error, and all problems are reported together as
//! `broker.toml: section.key: message`. `docs/configuration.md` has the full example, which
//! a test reads.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use krb_proto::{Principal, Realm};

use crate::{
    api::roles::RoleRoots,
    audit,
    entitlement::{problems::Problems, rules::Rules},
    kdc::gate::Caps,
    keys::walk::WalkTimes,
    krb5::key::Enctype,
    kubernetes,
    session::{self, Times},
};

pub mod admission;
mod check;
mod keys;
mod raw;
mod tokens;

pub use keys::KeysConfig;
pub use tokens::NodeTokensConfig;

/// What the broker runs by.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of the cluster, a field of every node and pod reference.
    pub cluster: Arc<str>,
    /// Where the API listens.
    pub listen: SocketAddr,
    /// A directory of the broker's own, 0700, for what need not survive.
    pub run_dir: PathBuf,
    /// The certificate that agents and operators check, and its key, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM, 0600.
    pub key: PathBuf,
    /// Who may call what: a CA for each role.
    pub roles: RoleRoots,
    /// The realm.
    pub realm: RealmConfig,
    /// How keys live.
    pub keys: KeysConfig,
    /// The caps in front of it.
    pub gate: GateConfig,
    /// Directory of the entitlement files.
    pub entitlements: PathBuf,
    /// How often they are read again.
    pub entitlements_every: Duration,
    /// What decisions go by.
    pub rules: Rules,
    /// Where pods, and what else is known of the cluster, are looked up.
    pub pods: PodsConfig,
    /// How long a pod's object must be absent before the pod is gone.
    pub pods_gone_after: Duration,
    /// The API server of the cluster, where anything asks it.
    pub kubernetes: Option<kubernetes::client::Settings>,
    /// Whose tokens prove nodes; none: nodes have certificates.
    pub node_tokens: Option<NodeTokensConfig>,
    /// The store.
    pub store: StoreConfig,
    /// The audit log's files.
    pub audit: audit::file::Settings,
    /// The spans of sessions.
    pub times: Times,
    /// What decides whether a session is lost, those spans included.
    pub session_rules: session::Rules,
    /// How long an issue may take.
    pub issue_within: Duration,
    /// How long ended leases can be listed.
    pub keep_ended: Duration,
    /// Run where the kernel may write memory to a disk.
    pub allow_swap: bool,
}

/// Where the cluster's objects come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PodsConfig {
    /// A directory of objects.
    File {
        /// Which.
        dir: PathBuf,
        /// Directory of the Node objects that say whether a silent node works; none: time alone
        /// does.
        nodes: Option<PathBuf>,
    },
    /// The API server of [`Config::kubernetes`].
    Kubernetes,
}

/// How to reach the realm, and what is made in it.
#[derive(Clone, Debug)]
pub struct RealmConfig {
    /// Its name.
    pub name: Realm,
    /// Its KDCs, `host:port`, in the order in which they are tried.
    pub kdcs: Vec<String>,
    /// kadmind on the primary, `host:port`.
    pub kadmin: String,
    /// The broker's principal.
    pub admin_principal: Principal,
    /// Its keytab.
    pub admin_keytab: PathBuf,
    /// libkadm5clnt_mit, where it is not found by its usual names.
    pub library: Option<PathBuf>,
    /// Threads with a connection to kadmind.
    pub kadmin_threads: usize,
    /// The policy of managed principals.
    pub policy: String,
    /// Reserved services that are allowed all the same.
    pub allowed_reserved: Vec<String>,
    /// Directory of the role accounts' keytab files.
    pub accounts: PathBuf,
    /// Enctypes of the keys that the broker makes.
    pub enctypes: Vec<Enctype>,
    /// The longest life of a service's tickets.
    pub service_max_life: Duration,
    /// The life that role accounts' tickets are asked for.
    pub ticket_life: Duration,
    /// How often role accounts whose keytabs were handed over are looked at.
    pub look_at_accounts_every: Duration,
    /// The spans of a key's walk.
    pub walk: WalkTimes,
    /// Run although the broker's rights at kadmin are too wide.
    pub allow_wide_rights: bool,
}

/// The caps of the gate.
#[derive(Clone, Copy, Debug)]
pub struct GateConfig {
    /// To the KDCs.
    pub kdc: Caps,
    /// To kadmind.
    pub kadmin: Caps,
}

/// Where and how the store lies.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Its directory.
    pub dir: PathBuf,
    /// The master key's file.
    pub master_key: PathBuf,
    /// Let the master key lie on the store's file system.
    pub allow_same_volume: bool,
    /// The cache of the database, in bytes.
    pub cache_bytes: u64,
    /// How often a snapshot is taken.
    pub snapshot_every: Duration,
    /// The second place that keeps how far the store has come.
    pub mark_file: Option<PathBuf>,
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self::read(&name, &text_of(path)?)
    }

    /// Checks a text; `name` is what problems call it.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(name: &str, text: &str) -> Result<Self, Problems> {
        check::check(name, parsed(name, text)?)
    }
}

fn text_of(path: &Path) -> Result<String, Problems> {
    std::fs::read_to_string(path).map_err(|error| {
        let mut problems = Problems::default();
        problems.add_whole(&path.display().to_string(), error);
        problems
    })
}

fn parsed<T: serde::de::DeserializeOwned>(name: &str, text: &str) -> Result<T, Problems> {
    toml::from_str(text).map_err(|error| {
        let mut problems = Problems::default();
        problems.add_whole(name, error.to_string().trim());
        problems
    })
}

#[cfg(test)]
mod tests;
