//! The keytab files of role accounts, as the Kerberos administrator hands them over.
//!
//! One file a login, `<login>.keytab`, read each time its keys are needed, so that a file
//! that was replaced counts from the next exchange on.

use std::path::{Path, PathBuf};

use krb_proto::Principal;

use crate::{entitlement::GrantedTicket, kdc::AccountKeys, krb5::keytab};

/// The most bytes of a keytab file that are read.
const MAX_FILE: u64 = 256 * 1024;

/// A directory of keytab files.
#[derive(Clone, Debug)]
pub struct AccountKeytabs {
    dir: PathBuf,
}

/// Why an account's keytab can't be used.
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
    #[error("the keytab file {path} is open to others: its mode is {mode:o}, not 600 or 400")]
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
}

impl AccountKeytabs {
    /// The keytab files in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The account's keys.
    ///
    /// # Errors
    /// When its file can't be used.
    pub async fn keys(&self, account: &GrantedTicket) -> Result<AccountKeys, AccountKeyError> {
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
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(AccountKeyError::Open { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::with_capacity(4096);
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(krb_proto::Secret::new(bytes))
}
