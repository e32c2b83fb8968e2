//! What the configuration says of decisions: the same for every account.

use std::{collections::BTreeSet, fmt, str::FromStr};

use krb_proto::{Realm, text};

use super::service::ServiceName;

/// The `driver` of volumes that are ours, unless configured otherwise.
pub const DRIVER: &str = "krb-broker/credentials";

/// The most principals that one volume may ask for.
pub const MAX_PRINCIPALS: usize = 64;

/// The realm, the cluster and the names that decisions go by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rules {
    /// The realm of every principal.
    pub realm: Realm,
    /// The cluster's DNS domain, such as `cluster.local`; no logical host lies in it.
    pub cluster_domain: ClusterDomain,
    /// `vendor/driver` of the volumes that are ours.
    pub driver: String,
    /// What the annotations start with: `ts` of `ts/services`.
    pub annotation_prefix: String,
    /// Services that every account may have on `<login>.<host>` of its own host names.
    pub realm_wide_services: BTreeSet<ServiceName>,
    /// Services that have a line in the broker's kadmin ACL; `None`: all that `acl` prints.
    pub acl_services: Option<BTreeSet<ServiceName>>,
    /// The most principals that one volume may have.
    pub max_principals: usize,
}

impl Rules {
    /// The rules of a realm and a cluster, all else as it is unless configured.
    pub fn new(realm: Realm, cluster_domain: ClusterDomain) -> Self {
        Self {
            realm,
            cluster_domain,
            driver: DRIVER.to_owned(),
            annotation_prefix: "ts".to_owned(),
            realm_wide_services: BTreeSet::new(),
            acl_services: None,
            max_principals: MAX_PRINCIPALS,
        }
    }

    /// The annotation of this option.
    pub fn annotation(&self, option: &str) -> String {
        format!("{}/{option}", self.annotation_prefix)
    }
}

/// A cluster's DNS domain: a DNS name in lower case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClusterDomain(String);

impl ClusterDomain {
    /// The domain as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterDomain {
    type Err = InvalidClusterDomain;

    fn from_str(domain: &str) -> Result<Self, InvalidClusterDomain> {
        let fits = text::is_dns_name(domain);
        if fits { Ok(Self(domain.to_owned())) } else { Err(InvalidClusterDomain) }
    }
}

impl Default for ClusterDomain {
    /// `cluster.local`, as kubeadm has it.
    fn default() -> Self {
        Self("cluster.local".to_owned())
    }
}

impl fmt::Display for ClusterDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no cluster's domain.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is not a DNS name: labels of a-z 0-9 -, at most 253 characters")]
pub struct InvalidClusterDomain;
