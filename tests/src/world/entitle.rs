//! Entitlements that change while the broker runs.

use std::{fs, path::PathBuf};

use super::{Account, World, WorldError, wait_for, write};

/// The text of an account's entitlement file.
pub(super) fn text(account: &Account) -> String {
    let Account { login, uid, more } = account;
    let gid = uid + 1;
    format!(
        "entity_type: unix_role_account\nunix_login: {login}\nunix_uid: {uid}\nunix_gid: {gid}\n\
         namespaces: [{login}]\n{more}"
    )
}

impl World {
    /// The directory of the entitlements.
    pub fn entitlements(&self) -> PathBuf {
        self.dir().join("entitlements")
    }

    /// Puts these accounts in the place of all others, and waits until they are in force. They
    /// must differ from what was in force. All of it changes at once: while a file of before
    /// is still there its account is there twice, and such entitlements are refused.
    pub fn entitle(&self, accounts: &[Account]) -> Result<(), WorldError> {
        let before = self.broker.audited("entitlements.loaded").len();
        let all: Vec<String> = accounts.iter().map(text).collect();
        let place = self.entitlements().join("all.yaml");
        write(&place, &all.join("---\n"))?;
        for entry in fs::read_dir(self.entitlements())? {
            let path = entry?.path();
            if path != place {
                fs::remove_file(path)?;
            }
        }
        wait_for("the entitlements to be in force", || {
            (self.broker.audited("entitlements.loaded").len() > before).then_some(())
        })
    }
}
