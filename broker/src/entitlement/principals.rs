//! Which principals a keytab may have: services on host names.
//!
//! A service is granted on a host name when the account lists it, when it is the account's
//! own login, or when it is realm-wide and the host name is `<login>.` before one of the
//! pod's own. A principal that is asked for and not granted denies the whole ask.

use std::collections::{BTreeMap, BTreeSet};

use krb_proto::{Principal, Realm, reason::Reason};

use super::{
    Denial, GrantedPrincipal,
    account::RoleAccount,
    ask::{Ask, ServiceAsk},
    hostnames::Origin,
    rules::Rules,
    service::{HostName, ServiceName},
};

/// The principals of the ask, ascending, no two alike.
pub(crate) fn granted(
    rules: &Rules,
    account: &RoleAccount,
    hosts: &BTreeMap<HostName, Origin>,
    ask: &Ask,
) -> Result<Vec<GrantedPrincipal>, Denial> {
    for host in &ask.logical_hosts {
        may_be_logical(account, hosts, host)?;
    }
    if ask.user_prefixed {
        has_prefixed_names(account, hosts)?;
    }
    let mut principals = BTreeSet::new();
    for service in &ask.services {
        for (service, host, origin) in meant(rules, account, hosts, ask, service)? {
            may_have(rules, account, service, origin)?;
            principals.insert(principal(rules, account, service, host, origin)?);
        }
    }
    if principals.len() > rules.max_principals {
        return Err(Denial::new(
            Reason::LimitReached,
            format!(
                "the volume asks for {} principals, and a volume has at most {}",
                principals.len(),
                rules.max_principals
            ),
        ));
    }
    Ok(principals.into_iter().collect())
}

/// A login such as `ts_foo` can't stand in a host name: nothing is left out silently.
fn has_prefixed_names(
    account: &RoleAccount,
    hosts: &BTreeMap<HostName, Origin>,
) -> Result<(), Denial> {
    let login = account.login.as_str().to_ascii_lowercase();
    let is_name = |host: &HostName| format!("{login}.{host}").parse::<HostName>().is_ok();
    let mut bare = hosts.iter().filter(|(_, origin)| !origin.is_prefixed());
    match bare.find(|(host, _)| !is_name(host)) {
        None => Ok(()),
        Some((host, _)) => Err(Denial::new(
            Reason::HostNotEntitled,
            format!("{login}.{host} is not a host name: leave userprefixedhostname out"),
        )),
    }
}

/// Whether the host that `externalclusters` names is a logical host of the account.
pub(crate) fn may_be_logical(
    account: &RoleAccount,
    hosts: &BTreeMap<HostName, Origin>,
    host: &HostName,
) -> Result<(), Denial> {
    if matches!(hosts.get(host), Some(Origin::Logical { .. })) {
        return Ok(());
    }
    Err(host_not_entitled(account, host))
}

pub(crate) fn host_not_entitled(account: &RoleAccount, host: &HostName) -> Denial {
    let login = &account.login;
    Denial::with_rule(
        Reason::HostNotEntitled,
        format!("{login} may not have the host name {host} in this pod"),
        format!("{host} is neither a host name of the pod nor in logical_hosts of {login}"),
    )
}

/// The realm of the ask is the one there is.
pub(crate) fn is_our_realm(rules: &Rules, realm: Option<&Realm>) -> Result<(), Denial> {
    match realm {
        Some(realm) if *realm != rules.realm => Err(Denial::new(
            Reason::NotSupported,
            format!(
                "services of the realm {realm} are not supported: the realm is {}",
                rules.realm
            ),
        )),
        _ => Ok(()),
    }
}

/// The host names that a service is asked for on.
fn meant<'a>(
    rules: &Rules,
    account: &RoleAccount,
    hosts: &'a BTreeMap<HostName, Origin>,
    ask: &'a Ask,
    service: &'a ServiceAsk,
) -> Result<Vec<(&'a ServiceName, &'a HostName, Origin)>, Denial> {
    match service {
        ServiceAsk::At(service, host, realm) => {
            is_our_realm(rules, realm.as_ref())?;
            let origin = hosts.get(host).ok_or_else(|| host_not_entitled(account, host))?;
            Ok(vec![(service, host, *origin)])
        }
        ServiceAsk::Bare(service) => {
            let all: Vec<_> = hosts
                .iter()
                .filter(|(host, origin)| is_meant(account, ask, host, **origin))
                .map(|(host, origin)| (service, host, *origin))
                .collect();
            if all.is_empty() { Err(no_host_name()) } else { Ok(all) }
        }
    }
}

fn is_meant(account: &RoleAccount, ask: &Ask, host: &HostName, origin: Origin) -> bool {
    match origin {
        Origin::Own => true,
        Origin::Logical { .. } => ask.logical_hosts.contains(host),
        Origin::PrefixedOwn => ask.user_prefixed,
        Origin::PrefixedLogical => {
            let login = account.login.as_str().to_ascii_lowercase();
            let of = |logical: &HostName| *host.as_str() == format!("{login}.{logical}");
            ask.user_prefixed && ask.logical_hosts.iter().any(of)
        }
    }
}

fn no_host_name() -> Denial {
    Denial::with_rule(
        Reason::NoHostName,
        "no Service selects the pod, so it has no host name for its services",
        "no Service of the namespace selects the pod, instances lacks pod, and no logical host is asked for",
    )
}

/// Whether the account may have `service` on a host of this origin.
pub(crate) fn may_have(
    rules: &Rules,
    account: &RoleAccount,
    service: &ServiceName,
    origin: Origin,
) -> Result<(), Denial> {
    let login = &account.login;
    let by_name = account.reserved_services.contains(service);
    if service.is_reserved() && !(by_name && service.is_grantable()) {
        return Err(Denial::with_rule(
            Reason::ServiceReserved,
            format!("the service {service} is reserved"),
            format!("{service} is reserved and not in reserved_services of {login}"),
        ));
    }
    let listed = by_name || account.services.contains(service);
    let own = service.as_str() == login.as_str();
    let realm_wide = rules.realm_wide_services.contains(service);
    if !(listed || own || realm_wide && origin == Origin::PrefixedOwn) {
        return Err(not_entitled(account, service, realm_wide));
    }
    if rules.acl_services.as_ref().is_some_and(|lines| !lines.contains(service)) {
        return Err(Denial::with_rule(
            Reason::ServiceNotInAcl,
            format!("the service {service} is not yet set up for this realm"),
            format!("{service} of {login} has no line in the broker's kadmin ACL"),
        ));
    }
    Ok(())
}

fn not_entitled(account: &RoleAccount, service: &ServiceName, realm_wide: bool) -> Denial {
    let login = &account.login;
    let hint = if realm_wide {
        format!(": without it ask for {service}/{login}.<host> alone")
    } else {
        String::new()
    };
    Denial::with_rule(
        Reason::ServiceNotEntitled,
        format!("{login} may not have the service {service}{hint}"),
        format!("{service} is not in services of {login}, and is not realm-wide on this host name"),
    )
}

fn principal(
    rules: &Rules,
    account: &RoleAccount,
    service: &ServiceName,
    host: &HostName,
    origin: Origin,
) -> Result<GrantedPrincipal, Denial> {
    let principal = Principal::new(&[service.as_str(), host.as_str()], &rules.realm)
        .map_err(|why| Denial::malformed(format!("services: {service}/{host} {why}")))?;
    let shared = origin == (Origin::Logical { shared: true });
    let own = matches!(origin, Origin::Own | Origin::PrefixedOwn);
    let of_pod = own && !host.is_under(&format!("svc.{}", rules.cluster_domain.as_str()));
    Ok(GrantedPrincipal { principal, client: account.client, shared, of_pod })
}
