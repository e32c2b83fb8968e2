//! The host names of a pod: what its principals' instances can be.
//!
//! A name comes from the cluster (its Services, its own name) or from the entitlement (a
//! logical host), never from the pod's word. A logical host that lies in the cluster's
//! domain is no host name: it would be another pod's.

use std::collections::BTreeMap;

use krb_proto::{Namespace, pod::PodName};

use super::{account::RoleAccount, rules::Rules, service::HostName};

/// Where a host name comes from.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    /// A Service that selects the pod, or the pod itself.
    Own,
    /// `<user>.` before one of those.
    PrefixedOwn,
    /// A logical host of the account.
    Logical {
        /// Whether other accounts may have it too.
        shared: bool,
    },
    /// `<user>.` before one of those; it is never shared.
    PrefixedLogical,
}

impl Origin {
    /// Whether it is `<user>.` before a host name.
    pub fn is_prefixed(self) -> bool {
        matches!(self, Self::PrefixedOwn | Self::PrefixedLogical)
    }
}

/// Every host name that the pod could have, asked for or not. `pod` is its own name, where
/// it has one already; one with a dot gives no host name.
pub fn host_names(
    rules: &Rules,
    account: &RoleAccount,
    namespace: &Namespace,
    pod: Option<&PodName>,
    services: &[String],
) -> BTreeMap<HostName, Origin> {
    let mut names = BTreeMap::new();
    let login = account.login.as_str().to_ascii_lowercase();
    for host in own(rules, account, namespace, pod, services) {
        add_prefixed(&mut names, &login, &host, Origin::PrefixedOwn);
        names.insert(host, Origin::Own);
    }
    let shared = account.shared_logical_hosts.iter().map(|host| (host, true));
    for (host, shared) in account.logical_hosts.iter().map(|host| (host, false)).chain(shared) {
        if !host.is_under(rules.cluster_domain.as_str()) {
            add_prefixed(&mut names, &login, host, Origin::PrefixedLogical);
            names.insert(host.clone(), Origin::Logical { shared });
        }
    }
    names
}

fn own(
    rules: &Rules,
    account: &RoleAccount,
    namespace: &Namespace,
    pod: Option<&PodName>,
    services: &[String],
) -> Vec<HostName> {
    let domain = &rules.cluster_domain;
    let of_services = services
        .iter()
        .filter(|service| krb_proto::text::is_dns_label(service))
        .map(|service| format!("{service}.{namespace}.svc.{domain}"));
    let of_pod = pod
        .filter(|pod| account.pod_instances && !pod.as_str().contains('.'))
        .map(|pod| format!("{pod}.{namespace}.{domain}"));
    of_services.chain(of_pod).filter_map(|name| name.parse().ok()).collect()
}

fn add_prefixed(
    names: &mut BTreeMap<HostName, Origin>,
    login: &str,
    host: &HostName,
    origin: Origin,
) {
    if let Ok(name) = format!("{login}.{host}").parse() {
        names.entry(name).or_insert(origin);
    }
}
