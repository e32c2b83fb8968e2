//! A role account and what it may have, as one document of a file says it.
//!
//! A document is checked field by field, so that one reading finds everything that is wrong
//! with it. What concerns several documents is checked in [`load`](super::load).

use std::collections::{BTreeMap, BTreeSet};

use krb_proto::Namespace;
use serde_json::Value;

use super::{
    AccountMode, Limits, Login, Sharing,
    fields::Fields,
    problems::Problems,
    service::{self, HostName, ServiceName},
};

/// The labels that a node can't give itself (the NodeRestriction admission plugin).
pub const NODE_LABEL_PREFIX: &str = "node-restriction.kubernetes.io/";

/// What an account has where its document says nothing.
pub const DEFAULT_LIMITS: Limits =
    Limits { leases: 5_000, principals: 500, new_principals_per_hour: 100, weight: 1 };

/// A role account and what it may have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RoleAccount {
    /// Its login, which no other account has in any case.
    pub login: Login,
    /// Its uid, neither 0 nor -1, which no other account has.
    pub uid: u32,
    /// Its group, neither 0 nor -1.
    pub gid: u32,
    /// People who may log in as it. Never gives a pod anything.
    pub can_be_logged_into_by: BTreeSet<Login>,
    /// Accounts whose groups its pods' files may be of. Gives a pod no credential.
    pub member_of: BTreeSet<Login>,
    /// Namespaces whose pods run as it, which no other account has.
    pub namespaces: BTreeSet<Namespace>,
    /// Services it may have on every host name of its pods.
    pub services: BTreeSet<ServiceName>,
    /// Reserved services that it may have all the same.
    pub reserved_services: BTreeSet<ServiceName>,
    /// Whether each pod's own name is a host name.
    pub pod_instances: bool,
    /// Logical hosts that are its alone.
    pub logical_hosts: BTreeSet<HostName>,
    /// Logical hosts that others may list as shared too.
    pub shared_logical_hosts: BTreeSet<HostName>,
    /// Accounts whose pods may also have this account's ticket.
    pub tickets_for: BTreeSet<Login>,
    /// Who makes its own keys.
    pub mode: AccountMode,
    /// Which pods have the same ticket of it.
    pub sharing: Sharing,
    /// Whether its service principals may act as clients.
    pub client: bool,
    /// Labels that a node must have.
    pub node_labels: BTreeMap<String, String>,
    /// How much it may have.
    pub limits: Limits,
}

impl RoleAccount {
    /// Reads one document. `None` when something is wrong, which is then in `problems`.
    pub fn read(document: Value, place: &str, problems: &mut Problems) -> Option<Self> {
        let before = problems.lines().len();
        let mut fields = Fields::of(document, place, problems)?;
        fields.constant("entity_type", "unix_role_account");
        let login = fields.required::<Login>("unix_login");
        let uid = fields.required_number("unix_uid");
        let gid = fields.required_number("unix_gid");
        let can_be_logged_into_by = fields.names("can_be_logged_into_by");
        let member_of = fields.names("member_of");
        let namespaces = fields.names("namespaces");
        let services = fields.names("services");
        let reserved_services = fields.names("reserved_services");
        let instances: BTreeSet<String> = fields.names("instances");
        let node_labels = fields.labels("node_labels");
        let sharing = fields.optional("sharing").unwrap_or(default_sharing(&node_labels));
        let account = Self {
            login: login.unwrap_or_else(no_login),
            uid: uid.unwrap_or_default(),
            gid: gid.unwrap_or_default(),
            can_be_logged_into_by,
            member_of,
            namespaces,
            services,
            reserved_services,
            pod_instances: instances.contains("pod"),
            logical_hosts: fields.names("logical_hosts"),
            shared_logical_hosts: fields.names("shared_logical_hosts"),
            tickets_for: fields.names("tickets_for"),
            mode: fields.optional("role_account").unwrap_or_default(),
            sharing,
            client: fields.flag("client"),
            node_labels,
            limits: read_limits(fields.nested("limits")),
        };
        fields.finish();
        check_instances(&instances, place, problems);
        account.check(place, problems);
        (problems.lines().len() == before).then_some(account)
    }

    fn check(&self, place: &str, problems: &mut Problems) {
        if service::is_reserved(self.login.as_str()) {
            problems.add(place, "unix_login", "is the name of a reserved service");
        }
        for (field, id) in [("unix_uid", self.uid), ("unix_gid", self.gid)] {
            if id == u32::MAX {
                problems.add(place, field, "4294967295 means nobody; it is no account's");
            }
        }
        for namespace in self.namespaces.iter().filter(|n| n.as_str() == "svc") {
            problems.add(
                place,
                "namespaces",
                format_args!("{namespace} can't be told from the \"svc\" of host names"),
            );
        }
        for service in self.services.iter().filter(|service| service.is_reserved()) {
            problems.add(
                place,
                "services",
                format_args!("{service} is reserved; see reserved_services"),
            );
        }
        for service in self.reserved_services.iter().filter(|service| !service.is_grantable()) {
            let message = format_args!("{service} is not one of {}", service::GRANTABLE.join(", "));
            problems.add(place, "reserved_services", message);
        }
        for host in self.logical_hosts.intersection(&self.shared_logical_hosts) {
            problems.add(
                place,
                "shared_logical_hosts",
                format_args!("{host} is in logical_hosts too"),
            );
        }
        for label in self.node_labels.keys().filter(|label| !is_restricted_label(label)) {
            let message = format_args!(
                "{label:?} is not under {NODE_LABEL_PREFIX}: a node could set it itself"
            );
            problems.add(place, "node_labels", message);
        }
    }
}

/// Stands in for a login that could not be read, in an account that is then not returned.
fn no_login() -> Login {
    Login("".into())
}

/// An account that is kept to some nodes has a ticket for each.
fn default_sharing(node_labels: &BTreeMap<String, String>) -> Sharing {
    if node_labels.is_empty() { Sharing::Principal } else { Sharing::Node }
}

fn is_restricted_label(label: &str) -> bool {
    label.strip_prefix(NODE_LABEL_PREFIX).is_some_and(|name| !name.is_empty())
}

fn check_instances(instances: &BTreeSet<String>, place: &str, problems: &mut Problems) {
    for instance in instances.iter().filter(|i| !matches!(i.as_str(), "service" | "pod")) {
        let shown = krb_proto::text::shown(instance);
        problems.add(place, "instances", format_args!("{shown:?} is neither service nor pod"));
    }
    if !instances.is_empty() && !instances.contains("service") {
        problems.add(place, "instances", "lacks service: names of Services can't be switched off");
    }
}

fn read_limits(fields: Option<Fields<'_>>) -> Limits {
    let Some(mut fields) = fields else { return DEFAULT_LIMITS };
    let limits = Limits {
        leases: fields.number("leases").unwrap_or(DEFAULT_LIMITS.leases),
        principals: fields.number("principals").unwrap_or(DEFAULT_LIMITS.principals),
        new_principals_per_hour: fields
            .number("new_principals_per_hour")
            .unwrap_or(DEFAULT_LIMITS.new_principals_per_hour),
        weight: fields.number("weight").unwrap_or(DEFAULT_LIMITS.weight),
    };
    fields.finish();
    limits
}
