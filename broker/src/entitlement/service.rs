//! Names of services and hosts: the two components of a service's principal.

use std::{fmt, str::FromStr, sync::Arc};

use krb_proto::text;

/// Services that belong to the realm or to machines. A pod gets one of them only where its
/// account names it in `reserved_services`, and only if it is in [`GRANTABLE`] too.
pub const RESERVED: [&str; 10] = [
    "krbtgt",
    "kadmin",
    "kiprop",
    "K",
    "changepw",
    "WELLKNOWN",
    "host",
    "ldap",
    "cifs",
    "RestrictedKrbHost",
];

/// The reserved services that an entitlement can name. The others are the realm itself:
/// whoever has their keys is the KDC, so nothing grants them.
pub const GRANTABLE: [&str; 4] = ["host", "ldap", "cifs", "RestrictedKrbHost"];

/// The first component of a service's principal, such as `HTTP`; case matters.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is reserved, in any case. `krb-broker` is: its principals are the broker's.
    pub fn is_reserved(&self) -> bool {
        is_reserved(&self.0)
    }

    /// Whether an entitlement can name it although it is reserved.
    pub fn is_grantable(&self) -> bool {
        GRANTABLE.iter().any(|name| name.eq_ignore_ascii_case(&self.0))
    }
}

/// Whether `name` is a reserved service, in any case.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
        || name.eq_ignore_ascii_case("krb-broker")
}

impl FromStr for ServiceName {
    type Err = InvalidServiceName;

    fn from_str(name: &str) -> Result<Self, InvalidServiceName> {
        let fits = name.len() <= 64 && text::is_path_part(name);
        if fits { Ok(Self(name.into())) } else { Err(InvalidServiceName) }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no service's name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is not a service: 1 to 64 of A-Z a-z 0-9 . _ -, no leading dot")]
pub struct InvalidServiceName;

/// A host's name: a DNS name in lower case with at least one dot.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HostName(Arc<str>);

impl HostName {
    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `domain` or a name below it.
    pub fn is_under(&self, domain: &str) -> bool {
        self.0.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

impl FromStr for HostName {
    type Err = InvalidHostName;

    fn from_str(name: &str) -> Result<Self, InvalidHostName> {
        let fits = name.contains('.') && text::is_dns_name(name);
        if fits { Ok(Self(name.into())) } else { Err(InvalidHostName) }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no host's name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is not a host: at least two DNS labels of a-z 0-9 -, at most 253 characters")]
pub struct InvalidHostName;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_one_component_and_reserved_in_any_case() {
        let http: ServiceName = "HTTP".parse().unwrap();
        assert!(!http.is_reserved());
        for name in ["krbtgt", "KRBTGT", "k", "Host", "wellknown", "KADMIN", "krb-Broker"] {
            assert!(name.parse::<ServiceName>().unwrap().is_reserved(), "{name}");
        }
        for bad in ["", "a/b", "a@b", "a b", "*", "a#", "\u{e9}", &"a".repeat(65)] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_host_is_a_whole_name_and_lies_under_whole_labels() {
        let host: HostName = "web.tsfoo.svc.cluster.local".parse().unwrap();
        assert!(host.is_under("cluster.local"));
        assert!(!host.is_under("uster.local"));
        for bad in ["localhost", "A.b", "a..b", ".a.b", "a.b.", "a_b.c"] {
            assert!(bad.parse::<HostName>().is_err(), "{bad:?}");
        }
    }
}
