//! Names whose keys the broker does not set, whatever it is asked.

use krb_proto::{Principal, Realm};

/// Primaries that the realm itself or other software trusts. `K/M` is refused by its `K`.
const RESERVED: [&str; 11] = [
    "krbtgt",
    "kadmin",
    "kiprop",
    "K",
    "M",
    "changepw",
    "WELLKNOWN",
    "host",
    "ldap",
    "cifs",
    "RestrictedKrbHost",
];

/// Why a principal is not the broker's to make or change; `None` when it may be.
///
/// A reserved primary is refused in any case of letters, and allowed only as it is written in
/// `allowed`. The broker's own principal, any other `*/admin` and other realms never are allowed.
pub(super) fn reserved(
    principal: &Principal,
    realm: &Realm,
    admin: &Principal,
    allowed: &[String],
) -> Option<&'static str> {
    let primary = principal.primary();
    let is_reserved = RESERVED.iter().any(|name| primary.eq_ignore_ascii_case(name));
    let is_admin = principal.components().get(1).is_some_and(|i| i.eq_ignore_ascii_case("admin"));
    if principal.realm() != realm {
        Some("it is of another realm")
    } else if principal == admin || is_admin {
        Some("it is an administrator")
    } else if is_reserved && !allowed.iter().any(|name| name == primary) {
        Some("its first component is reserved and not allowed by name")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, allowed: &[&str]) -> bool {
        let allowed: Vec<_> = allowed.iter().map(|&name| name.to_owned()).collect();
        let admin = "krb-broker/admin@R".parse().unwrap();
        reserved(&name.parse().unwrap(), &"R".parse().unwrap(), &admin, &allowed).is_some()
    }

    #[test]
    fn the_reserved_names_are_refused_in_any_case() {
        for name in [
            "krbtgt/R@R",
            "KRBTGT/EVIL@R",
            "kadmin/admin@R",
            "kiprop/h@R",
            "K/M@R",
            "k/m@R",
            "M@R",
            "changepw/kerberos@R",
            "wellknown/ANONYMOUS@R",
            "host/h@R",
            "Host/h@R",
            "ldap/h@R",
            "cifs/h@R",
            "restrictedkrbhost/h@R",
            "krb-broker/admin@R",
            "alice/admin@R",
            "HTTP/h@OTHER",
        ] {
            assert!(refused(name, &[]), "{name}");
        }
        assert!(!refused("HTTP/h@R", &[]));
        assert!(!refused("tsfoo@R", &[]));
    }

    #[test]
    fn a_reserved_name_is_allowed_only_as_it_is_written_and_an_administrator_never() {
        assert!(!refused("host/h@R", &["host"]));
        assert!(refused("HOST/h@R", &["host"]));
        assert!(refused("alice/admin@R", &["alice"]));
    }
}
