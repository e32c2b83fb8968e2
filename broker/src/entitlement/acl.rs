//! The lines of the kadmin ACL that the entitlements need, for the administrator to copy.
//!
//! One line a service and a managed account, never `*`, `*/*` or a realm's own service: whoever may set the key of
//! `krbtgt/...` is the KDC. kadmind reads the file at its start only.

use std::{collections::BTreeSet, fmt::Write};

use krb_proto::Principal;

use super::{AccountMode, load::Entitlements, rules::Rules, service::ServiceName};

/// The policy that every principal carries whose keys leave the broker.
pub const POLICY: &str = "krb-broker";

/// What each service's line allows the broker to make: keys for tickets of 4 hours.
const RESTRICTIONS: &str = "-maxlife 4h -maxrenewlife 0 -policy krb-broker";

/// Every service that an account of these can have a principal of.
pub fn services(entitlements: &Entitlements, rules: &Rules) -> BTreeSet<ServiceName> {
    let mut services: BTreeSet<ServiceName> = rules
        .realm_wide_services
        .iter()
        .filter(|service| !service.is_reserved())
        .cloned()
        .collect();
    for account in entitlements.accounts() {
        services.extend(account.services.iter().cloned());
        services.extend(account.reserved_services.iter().cloned());
        services.extend(account.login.as_str().parse().ok());
    }
    services
}

/// The text of the ACL for the broker's principal `admin`, and, as comments, the commands
/// that the realm needs once.
pub fn text(entitlements: &Entitlements, rules: &Rules, admin: &Principal) -> String {
    let realm = &rules.realm;
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{line}"); // a String takes every line
    };
    line(format_args!("# For kadm5.acl of {realm}; kadmind reads it at its start only."));
    line(format_args!("# Once, in kadmin, before the broker starts:"));
    line(format_args!("#   addpol -minlife \"3660 days\" {POLICY}"));
    line(format_args!("#   modprinc -policy {POLICY} {admin}"));
    line(format_args!("# Principals whose keys the broker makes:"));
    for service in services(entitlements, rules) {
        if service.as_str() == admin.primary() {
            line(format_args!("# left out: {service}/*@{realm} has the broker's own principal"));
        } else {
            line(format_args!("{admin} admsi {service}/*@{realm} {RESTRICTIONS}"));
        }
    }
    let accounts = entitlements.accounts();
    let (managed, handed_over): (Vec<_>, Vec<_>) =
        accounts.into_iter().partition(|account| account.mode == AccountMode::Managed);
    if !managed.is_empty() {
        line(format_args!("# Role accounts whose keys the broker makes, each by its name:"));
    }
    for account in managed {
        line(format_args!("{admin} admsi {}@{realm} {RESTRICTIONS}", account.login));
    }
    line(format_args!("# Role accounts whose keytabs were handed over: looked at, never changed:"));
    for account in handed_over {
        line(format_args!("{admin} i {}@{realm}", account.login));
    }
    text
}
