//! The file as it is written.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    pub cluster: String,
    pub listen: String,
    pub run_dir: PathBuf,
    #[serde(default)]
    pub allow_swap: bool,
    pub tls: Tls,
    pub realm: Realm,
    #[serde(default)]
    pub keys: super::keys::Raw,
    #[serde(default)]
    pub gate: Gate,
    pub entitlements: Entitlements,
    pub pods: Pods,
    pub kubernetes: Option<Kubernetes>,
    pub node_tokens: Option<NodeTokens>,
    pub store: Store,
    pub audit: Audit,
    #[serde(default)]
    pub sessions: Sessions,
    #[serde(default)]
    pub leases: Leases,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub node_ca: Option<PathBuf>,
    pub operator_ca: PathBuf,
    pub viewer_ca: Option<PathBuf>,
    /// Namespaces that a viewer, by its common name, is bound to.
    #[serde(default)]
    pub viewer_namespaces: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Realm {
    pub name: String,
    pub kdcs: Vec<String>,
    pub kadmin: String,
    pub admin_principal: Option<String>,
    pub admin_keytab: PathBuf,
    pub library: Option<PathBuf>,
    pub kadmin_threads: Option<usize>,
    pub policy: Option<String>,
    #[serde(default)]
    pub allowed_reserved: Vec<String>,
    pub accounts: PathBuf,
    pub enctypes: Option<Vec<String>>,
    pub service_max_life: Option<String>,
    pub ticket_life: Option<String>,
    pub look_at_accounts_every: Option<String>,
    pub clock_skew: Option<String>,
    pub kdc_propagation: Option<String>,
    pub acknowledge_within: Option<String>,
    #[serde(default)]
    pub allow_wide_rights: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    #[serde(default)]
    pub kdc: Lane,
    #[serde(default)]
    pub kadmin: Lane,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lane {
    pub per_second: Option<u32>,
    pub in_flight: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entitlements {
    pub dir: PathBuf,
    pub reload_every: Option<String>,
    pub cluster_domain: Option<String>,
    pub driver: Option<String>,
    pub annotation_prefix: Option<String>,
    #[serde(default)]
    pub realm_wide_services: Vec<String>,
    pub acl_services: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pods {
    pub source: String,
    pub dir: Option<PathBuf>,
    pub gone_after: Option<String>,
    pub nodes_dir: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeTokens {
    pub audience: Option<String>,
    pub service_account: Option<String>,
    pub cache: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    pub dir: PathBuf,
    pub master_key: PathBuf,
    #[serde(default)]
    pub allow_same_volume: bool,
    pub cache_mib: Option<u64>,
    pub snapshot_every: Option<String>,
    pub mark_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    pub file: PathBuf,
    pub max_size_mib: Option<u64>,
    pub keep_files: Option<usize>,
    pub keep_days: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    pub heartbeat: Option<String>,
    pub silent_after: Option<String>,
    pub lost_after: Option<String>,
    pub lease_ttl: Option<String>,
    pub unclaimed_after: Option<String>,
    #[serde(default)]
    pub agent_fault_is_loss: bool,
    #[serde(default)]
    pub brake: Brake,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Brake {
    pub share: Option<String>,
    pub sessions: Option<u32>,
    pub pods: Option<u32>,
    pub window: Option<String>,
    pub passes_per_hour: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leases {
    pub issue_within: Option<String>,
    pub keep_ended: Option<String>,
}
