//! Where the keys of role accounts come from.
//!
//! The keys that the broker made, if it made any: then the KDC uses no others. Else the keytab
//! file that the Kerberos administrator handed over. What the entitlements say now decides
//! whether the broker begins to make keys, not whose keys are in use: leases from before a
//! change get their tickets as those from after it do.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use krb_proto::Principal;

use crate::{
    entitlement::{AccountMode, GrantedTicket},
    kdc::AccountKeys,
    keys::Phase,
    krb5::{key::Keyset, keytab},
    ledger::{Ledger, book::Book},
};

/// The most bytes of a keytab file that are read.
const MAX_FILE: u64 = 256 * 1024;

/// Tells the keys of role accounts, each time they are needed.
#[async_trait]
pub trait AccountKeySource: Send + Sync {
    /// The account's keys.
    ///
    /// # Errors
    /// When there are none that can be used.
    async fn keys(&self, account: &GrantedTicket) -> Result<AccountKeys, AccountKeyError>;
}

/// Why an account's keys can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AccountKeyError {
    /// There is no such file, or it can't be read.
    #[error("the keytab file {path} can't be read: {detail}")]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// Others can read it.
    #[error(
        "the keytab file {path} is open to others: its mode is {mode:o}, not 600 or 400 (nor 640 \
         or 440 with the broker's own group)"
    )]
    Open {
        /// Its path.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It holds no key of the account that can be used.
    #[error("the keytab file {path} has no usable key of the account")]
    NoKey {
        /// Its path.
        path: PathBuf,
    },
    /// The broker is to make the account's keys, and the KDC has none of them yet.
    #[error("the broker has not made a key of {client} yet")]
    NotMade {
        /// Whose.
        client: Principal,
    },
}

/// The keys that the broker made, and the files of accounts of which it made none.
pub struct AccountKeyring {
    keytabs: AccountKeytabs,
    book: Book,
}

impl AccountKeyring {
    /// The keys of this book and these files.
    pub fn new(keytabs: AccountKeytabs, book: Book) -> Self {
        Self { keytabs, book }
    }
}

#[async_trait]
impl AccountKeySource for AccountKeyring {
    async fn keys(&self, account: &GrantedTicket) -> Result<AccountKeys, AccountKeyError> {
        let client = account.client.clone();
        match self.book.read(|ledger| made_keysets(ledger, &client)) {
            Some(keysets) => Ok(AccountKeys { client, keysets }),
            None if account.mode == AccountMode::Managed => {
                Err(AccountKeyError::NotMade { client })
            }
            None => self.keytabs.keys(account).await,
        }
    }
}

/// The keysets of a principal that a KDC may use now: the current one, and one that is being
/// set, which some KDCs use already. `None` while there is no current one.
fn made_keysets(ledger: &Ledger, client: &Principal) -> Option<Vec<Keyset>> {
    let managed = ledger.principal(client)?;
    let current = managed.current()?;
    let activating = managed.under_way().filter(|held| held.phase == Phase::Activating);
    Some([Some(current), activating].into_iter().flatten().map(|h| h.keyset.clone()).collect())
}

/// A directory of keytab files, one a login, `<login>.keytab`, as the administrator hands them
/// over. A file is read each time, so that one that was replaced counts from the next exchange.
#[derive(Clone, Debug)]
pub struct AccountKeytabs {
    dir: PathBuf,
}

impl AccountKeytabs {
    /// The keytab files in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }
}

#[async_trait]
impl AccountKeySource for AccountKeytabs {
    async fn keys(&self, account: &GrantedTicket) -> Result<AccountKeys, AccountKeyError> {
        let path = self.dir.join(format!("{}.keytab", account.login));
        let client = account.client.clone();
        let read = tokio::task::spawn_blocking({
            let path = path.clone();
            move || read_keys(&path, client)
        });
        read.await.map_err(|e| AccountKeyError::Unreadable { path, detail: e.to_string() })?
    }
}

/// The keys of `client` in a keytab file, newest first.
///
/// # Errors
/// When the file can't be used.
pub fn read_keys(path: &Path, client: Principal) -> Result<AccountKeys, AccountKeyError> {
    let unreadable = |detail| AccountKeyError::Unreadable { path: path.to_owned(), detail };
    let file = keytab::read(read(path)?.expose()).map_err(|e| unreadable(e.to_string()))?;
    let keysets = keytab::keysets(&file.entries, &client);
    if keysets.is_empty() {
        return Err(AccountKeyError::NoKey { path: path.to_owned() });
    }
    Ok(AccountKeys { client, keysets })
}

fn read(path: &Path) -> Result<krb_proto::Secret, AccountKeyError> {
    use std::{io::Read, os::unix::fs::MetadataExt};
    let unreadable = |e: std::io::Error| AccountKeyError::Unreadable {
        path: path.to_owned(),
        detail: e.to_string(),
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    let mode = found.mode() & 0o7777;
    // kubelet gives a pod that is not root's a Secret's files by their group alone
    let ours = found.gid() == rustix::process::getegid().as_raw();
    if mode & if ours { 0o037 } else { 0o077 } != 0 {
        return Err(AccountKeyError::Open { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::with_capacity(4096);
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(krb_proto::Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, chown},
    };

    use super::*;

    #[test]
    fn a_keytab_is_read_only_where_it_is_the_brokers_alone_or_its_own_groups() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tsfoo.keytab");
        fs::write(&path, "x").unwrap();
        let own = rustix::process::getegid().as_raw();
        let with = |mode, group| {
            chown(&path, None, Some(group)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            read(&path)
        };
        for mode in [0o400, 0o600, 0o440, 0o640] {
            assert_eq!(with(mode, own).unwrap().expose(), b"x", "{mode:o}");
        }
        for mode in [0o444, 0o604, 0o660, 0o450, 0o602] {
            assert!(matches!(with(mode, own), Err(AccountKeyError::Open { .. })), "{mode:o}");
        }
        if rustix::process::geteuid().is_root() {
            with(0o600, own + 1).unwrap();
            assert!(matches!(with(0o440, own + 1), Err(AccountKeyError::Open { .. })));
        }
    }
}
