//! The groups that a pod may be in: its account's, and for files those of the accounts that
//! its account is a member of.
//!
//! What the pod leaves unset is the image's choice and no matter here.

use krb_proto::{reason::Reason, text::shown};

use super::{Denial, account::RoleAccount, load::Entitlements};
use crate::pods::RunAsGroup;

/// The groups that a pod's spec sets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Groups<'a> {
    /// Those that its containers run as.
    pub run_as: &'a [RunAsGroup],
    /// Its supplementalGroups.
    pub supplemental: &'a [u32],
    /// Its fsGroup.
    pub fs_group: Option<u32>,
}

/// Whether the pods of `account` may be in all of these.
///
/// # Errors
/// `RunAsGroup`, for the first that they may not be in.
pub(crate) fn may_be_in(
    entitlements: &Entitlements,
    account: &RoleAccount,
    groups: Groups<'_>,
) -> Result<(), Denial> {
    let (login, own) = (&account.login, account.gid);
    if let Some(group) = groups.run_as.iter().find(|group| group.gid != own) {
        let (container, gid) = (shown(&group.container), group.gid);
        return Err(Denial::with_rule(
            Reason::RunAsGroup,
            format!("container {container} sets runAsGroup {gid}: {login} runs as {own}"),
            format!("runAsGroup {gid} of container {container} is not the unix_gid of {login}"),
        ));
    }
    let fs_group = groups.fs_group.iter().map(|gid| ("fsGroup", *gid));
    let supplemental = groups.supplemental.iter().map(|gid| ("supplementalGroups", *gid));
    let mut others = fs_group.chain(supplemental).filter(|(_, gid)| *gid != own);
    match others.find(|(_, gid)| !is_of_a_membership(entitlements, account, *gid)) {
        None => Ok(()),
        Some((field, gid)) => Err(Denial::with_rule(
            Reason::RunAsGroup,
            format!(
                "{field} {gid} is neither {own}, the group of {login}, nor one it is member of"
            ),
            format!("{field} {gid} is the unix_gid neither of {login} nor of one in its member_of"),
        )),
    }
}

/// Whether an account that is there and that `account` is a member of has the group.
fn is_of_a_membership(entitlements: &Entitlements, account: &RoleAccount, gid: u32) -> bool {
    account
        .member_of
        .iter()
        .filter_map(|login| entitlements.account(login))
        .any(|other| other.gid == gid)
}
