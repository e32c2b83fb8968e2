//! What can be said of an ask before its pod exists: at admission, and for a file.
//!
//! No Service, node or pod name is known yet, so host names and node labels are left to the
//! decision at issue. What is refused here would be refused there too.

use std::{collections::BTreeMap, sync::Arc};

use krb_proto::Namespace;

use super::{
    Denial,
    account::RoleAccount,
    ask::{Ask, ServiceAsk},
    decide::{account_of, one_user, says_who_it_is},
    groups::may_be_in,
    hostnames::{Origin, host_names},
    load::Entitlements,
    principals::{host_not_entitled, is_our_realm, may_be_logical, may_have},
    rules::Rules,
    service::HostName,
    tickets,
};
use crate::pods::spec::Template;

/// The account that pods of this namespace would run as, if nothing speaks against the ask.
///
/// # Errors
/// Every denial that is certain already.
pub(crate) fn foresee<'a>(
    entitlements: &'a Entitlements,
    rules: &Rules,
    namespace: &Namespace,
    pod: &Template,
    ask: &Ask,
) -> Result<&'a Arc<RoleAccount>, Vec<Denial>> {
    let uid = one_user(&pod.run_as_users).map_err(|denial| vec![denial])?;
    let account = account_of(entitlements, namespace, uid).map_err(|denial| vec![denial])?;
    let mut denials = Vec::new();
    let mut note = |result: Result<(), Denial>| denials.extend(result.err());
    let known = host_names(rules, account, namespace, None, &[]);
    note(may_be_in(entitlements, account, pod.groups()));
    note(says_who_it_is(ask.run_as_user_name.as_ref(), account));
    for host in &ask.logical_hosts {
        note(may_be_logical(account, &known, host));
    }
    for service in &ask.services {
        note(may_be_had(rules, account, namespace, &known, service));
    }
    note(tickets::granted(entitlements, rules, account, ask).map(drop));
    if denials.is_empty() { Ok(account) } else { Err(denials) }
}

fn may_be_had(
    rules: &Rules,
    account: &RoleAccount,
    namespace: &Namespace,
    known: &BTreeMap<HostName, Origin>,
    service: &ServiceAsk,
) -> Result<(), Denial> {
    match service {
        ServiceAsk::Bare(service) => may_have(rules, account, service, Origin::Own),
        ServiceAsk::At(service, host, realm) => {
            is_our_realm(rules, realm.as_ref())?;
            let origin =
                known.get(host).copied().or_else(|| in_cluster(rules, account, namespace, host));
            let origin = origin.ok_or_else(|| host_not_entitled(account, host))?;
            may_have(rules, account, service, origin)
        }
    }
}

/// The origin that a host of the namespace would have if the pod turns out to have it.
fn in_cluster(
    rules: &Rules,
    account: &RoleAccount,
    namespace: &Namespace,
    host: &HostName,
) -> Option<Origin> {
    let domain = &rules.cluster_domain;
    let of_service = host.is_under(&format!("{namespace}.svc.{domain}"));
    let of_pod = account.pod_instances && host.is_under(&format!("{namespace}.{domain}"));
    let login = account.login.as_str().to_ascii_lowercase();
    let prefixed = host.as_str().strip_prefix(&login).is_some_and(|rest| rest.starts_with('.'));
    let origin = if prefixed { Origin::PrefixedOwn } else { Origin::Own };
    (of_service || of_pod).then_some(origin)
}
