//! Keytabs that somebody copied out of a pod, and what they are still worth.
//!
//! Tried with the stock tools against the realm's own KDC: as its service, and on tickets for it.

use std::{error::Error, path::PathBuf};

use krb_tests::realm::Tool;

use crate::{field::Field, pod::Pod};

/// What `kinit` says when the KDC has another key.
const KEY_IS_OLD: [&str; 2] = ["Preauthentication failed", "Password incorrect"];

/// A keytab as a pod had it at some time.
pub struct Stolen<'a> {
    field: &'a Field<'a>,
    /// Keytab, ticket cache.
    dir: tempfile::TempDir,
    account: String,
    /// `primary/instance@REALM` and the highest kvno, of each principal in it.
    pub principals: Vec<(String, u64)>,
}

impl<'a> Stolen<'a> {
    /// Copies what a pod has on its machine.
    pub fn from(field: &'a Field<'a>, pod: &Pod<'_>) -> Result<Self, Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let account = pod.namespace().to_owned();
        let encoded = dir.path().join("keytab.base64");
        std::fs::write(&encoded, pod.keytab_on_node()?)?;
        let decoded = std::process::Command::new("base64").arg("-d").arg(&encoded).output()?;
        let keytab = Self { field, dir, account, principals: principals(&pod.lease()?)? };
        std::fs::write(keytab.file(), decoded.stdout)?;
        Ok(keytab)
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("keytab")
    }

    /// Whether the KDC gives this principal a ticket for a key that is in it.
    pub fn opens_as(&self, principal: &str) -> Result<bool, Box<dyn Error>> {
        let file = self.file().display().to_string();
        match self.tool("kinit")?.args(["-k", "-t", &file, principal]).run() {
            Ok(_) => Ok(true),
            Err(error) if KEY_IS_OLD.iter().any(|said| error.to_string().contains(said)) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it opens the ticket that a client gets for this principal now.
    pub fn decrypts(&self, principal: &str) -> Result<bool, Box<dyn Error>> {
        let account = self.field.account_keytab(&self.account).display().to_string();
        self.tool("kinit")?.args(["-k", "-t", &account, &self.account]).run()?;
        let file = self.file().display().to_string();
        match self.tool("kvno")?.args(["-k", &file, principal]).run() {
            Ok(said) if said.contains("keytab entry valid") => Ok(true),
            Err(error) if error.to_string().contains("keytab entry invalid") => Ok(false),
            Ok(said) => Err(format!("kvno said: {said}").into()),
            Err(error) => Err(error.into()),
        }
    }

    /// All principals in it.
    pub fn all(&self) -> Vec<&str> {
        self.principals.iter().map(|(principal, _)| principal.as_str()).collect()
    }

    /// Of the principals in it, those that it still opens tickets for.
    pub fn still_good(&self) -> Result<Vec<&str>, Box<dyn Error>> {
        let mut good = Vec::new();
        for (principal, _) in &self.principals {
            if self.decrypts(principal)? {
                good.push(principal.as_str());
            }
        }
        Ok(good)
    }

    fn tool(&self, name: &str) -> Result<Tool, Box<dyn Error>> {
        let cache = format!("FILE:{}", self.dir.path().join("ccache").display());
        Ok(self.field.realm().tool(name)?.env("KRB5CCNAME", cache))
    }
}

/// The newest key of each principal of a lease. Older ones leave a keytab by themselves.
pub fn principals(lease: &serde_json::Value) -> Result<Vec<(String, u64)>, Box<dyn Error>> {
    let keytab = lease["keytab"].as_array().cloned().unwrap_or_default();
    let read = |keys: &serde_json::Value| {
        let kvnos = keys["kvnos"].as_array()?.iter().filter_map(serde_json::Value::as_u64);
        Some((keys["principal"].as_str()?.to_owned(), kvnos.max()?))
    };
    let principals: Option<Vec<_>> = keytab.iter().map(read).collect();
    let principals = principals.filter(|principals| !principals.is_empty());
    principals.ok_or_else(|| format!("a lease without keys: {lease}").into())
}
