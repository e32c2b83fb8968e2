//! The decision: what of a volume's ask its pod may have.
//!
//! One pure function of the entitlements, the rules, the pod as the cluster knows it, the
//! calling node and the volume's name. It grants all that is asked for or denies all of it.
//!
//! Left to the caller, who has the state for it: the pin of the namespace's uid, to whom a
//! principal belongs already, and the account's limits, which the grant carries.

use std::sync::Arc;

use krb_proto::{Namespace, NodeName, VolumeName, reason::Reason};

use super::{
    Denial, Grant, Login,
    account::RoleAccount,
    ask::Ask,
    groups::{Groups, may_be_in},
    hostnames::host_names,
    load::Entitlements,
    principals,
    rules::Rules,
    tickets,
};
use crate::pods::{Pod, RunAsUser};

/// Decides what the pod may have in this volume.
///
/// # Errors
/// The first rule that is missing, in the order in which the rules are listed here.
pub fn decide(
    entitlements: &Entitlements,
    rules: &Rules,
    pod: &Pod,
    node: &NodeName,
    volume: &VolumeName,
) -> Result<Grant, Denial> {
    gives_authority(pod, node)?;
    let ask = ask_of(rules, pod, volume)?;
    let uid = one_user(&pod.run_as_users)?;
    let account = account_of(entitlements, &pod.pod.namespace, uid)?;
    let groups = Groups {
        run_as: &pod.run_as_groups,
        supplemental: &pod.supplemental_groups,
        fs_group: pod.fs_group,
    };
    may_be_in(entitlements, account, groups)?;
    says_who_it_is(ask.run_as_user_name.as_ref(), account)?;
    node_has_labels(account, pod)?;
    let hosts = host_names(rules, account, &pod.pod.namespace, Some(&pod.pod.name), &pod.services);
    let principals = principals::granted(rules, account, &hosts, &ask)?;
    let tickets = tickets::granted(entitlements, rules, account, &ask)?;
    for ticket in &tickets {
        if let Some(other) = entitlements.account(&ticket.login) {
            node_has_labels(other, pod)?;
        }
    }
    let shares_group = pod.fs_group == Some(account.gid);
    Ok(Grant {
        account: account.login.clone(),
        uid: account.uid,
        gid: account.gid,
        keytab_gid: shares_group.then_some(account.gid),
        principals,
        tickets,
        limits: account.limits,
    })
}

/// Whether the pod gives authority to its node at all.
fn gives_authority(pod: &Pod, node: &NodeName) -> Result<(), Denial> {
    if pod.node != *node {
        return Err(Denial::pod_unknown(format!(
            "pod {} ({}) is bound to node {}, not to {node}, which asks",
            pod.pod, pod.pod.uid, pod.node
        )));
    }
    if pod.finished {
        return Err(Denial::with_rule(
            Reason::PodFinished,
            "the pod has finished or is past its deletion",
            format!("pod {} ({}) has finished or is past its deletion", pod.pod, pod.pod.uid),
        ));
    }
    if let Some(why) = pod.not_eligible {
        return Err(Denial::with_rule(
            Reason::PodNotEligible,
            format!("this pod can't have credentials: {why}"),
            format!("pod {} gives no authority: {why}", pod.pod),
        ));
    }
    Ok(())
}

fn ask_of(rules: &Rules, pod: &Pod, name: &VolumeName) -> Result<Ask, Denial> {
    let mut named = pod.volumes.iter().filter(|volume| volume.name == *name);
    match (named.next(), named.next()) {
        (Some(volume), None) if volume.driver == rules.driver => Ask::from_options(&volume.options),
        (Some(volume), None) => Err(Denial::with_rule(
            Reason::VolumeUnknown,
            format!("the pod's volume {name} is not one of the driver {}", rules.driver),
            format!("volume {name} of pod {} is of driver {:?}", pod.pod, volume.driver),
        )),
        (Some(_), Some(_)) => Err(Denial::new(
            Reason::VolumeUnknown,
            format!("the pod's spec has the volume {name} twice"),
        )),
        (None, _) => Err(Denial::new(
            Reason::VolumeUnknown,
            format!("the pod's spec has no volume {name} of the driver {}", rules.driver),
        )),
    }
}

/// The uid that every container runs as.
pub(crate) fn one_user(users: &[RunAsUser]) -> Result<u32, Denial> {
    let deny = |message: String| Err(Denial::new(Reason::RunAsUser, message));
    let mut first: Option<(&str, u32)> = None;
    for user in users {
        let container = krb_proto::text::shown(&user.container);
        match (user.uid, first) {
            (None, _) => {
                return deny(format!(
                    "container {container} sets no runAsUser: set securityContext.runAsUser"
                ));
            }
            (Some(0), _) => return deny(format!("container {container} runs as root")),
            (Some(uid), Some((other, theirs))) if uid != theirs => {
                return deny(format!(
                    "containers run as different users: {other} as {theirs}, {container} as {uid}"
                ));
            }
            (Some(uid), _) => first = Some((&user.container, uid)),
        }
    }
    match first {
        Some((_, uid)) => Ok(uid),
        None => deny("the pod has no container".to_owned()),
    }
}

/// The account of the namespace, if its uid is the pod's.
pub(crate) fn account_of<'a>(
    entitlements: &'a Entitlements,
    namespace: &Namespace,
    uid: u32,
) -> Result<&'a Arc<RoleAccount>, Denial> {
    let account = entitlements.of_namespace(namespace).ok_or_else(|| {
        Denial::with_rule(
            Reason::NamespaceNotEntitled,
            format!("no role account has the namespace {namespace}"),
            format!("no entitlement lists {namespace} in namespaces"),
        )
    })?;
    if account.uid != uid {
        let login = &account.login;
        return Err(Denial::with_rule(
            Reason::AccountMismatch,
            format!(
                "pods of {namespace} run as {login}: set runAsUser to {}, not {uid}",
                account.uid
            ),
            format!(
                "namespace {namespace} is of {login}, uid {}; the pod runs as {uid}",
                account.uid
            ),
        ));
    }
    Ok(account)
}

/// Compares the name that admission wrote with the account's.
pub(crate) fn says_who_it_is(said: Option<&Login>, account: &RoleAccount) -> Result<(), Denial> {
    match said {
        Some(said) if *said != account.login => Err(Denial::new(
            Reason::AccountMismatch,
            format!("runasusername says {said}, and the pod runs as {}", account.login),
        )),
        _ => Ok(()),
    }
}

fn node_has_labels(account: &RoleAccount, pod: &Pod) -> Result<(), Denial> {
    for (label, value) in &account.node_labels {
        if pod.node_labels.get(label) != Some(value) {
            let login: &Login = &account.login;
            return Err(Denial::with_rule(
                Reason::NodeNotAllowed,
                format!("{login} may run only on nodes with {label}={value}: add a nodeSelector"),
                format!("node {} lacks {label}={value} of {login}'s node_labels", pod.node),
            ));
        }
    }
    Ok(())
}
