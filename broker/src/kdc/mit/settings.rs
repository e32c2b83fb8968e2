//! What the adapter is told, and the profile that it writes from it.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use krb_proto::{Principal, Realm};

/// The name of the profile in the broker's run directory.
pub const PROFILE: &str = "kadmin.krb5.conf";

/// How to reach one MIT realm's administration.
#[derive(Clone, Debug)]
pub struct MitSettings {
    /// The realm.
    pub realm: Realm,
    /// Its KDCs, `host:port`, in the order in which they are tried.
    pub kdcs: Vec<String>,
    /// kadmind on the primary, `host:port`; not an IPv6 address, which kadm5 can't read.
    pub kadmin: String,
    /// The broker's principal.
    pub admin_principal: Principal,
    /// Its keytab.
    pub admin_keytab: PathBuf,
    /// libkadm5clnt_mit; unless given, what the dynamic linker finds under its usual names.
    pub library: Option<PathBuf>,
    /// Threads with a connection to kadmind each; kadmind is one loop, 2 are enough.
    pub threads: usize,
    /// The policy that every managed principal carries.
    pub policy: String,
    /// Primaries that are reserved (`host`, `ldap`, ...) and allowed all the same, exactly as
    /// written here.
    pub allowed_reserved: Vec<String>,
    /// A directory of the broker's own, where it writes the profile (0600).
    pub run_dir: PathBuf,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// How long a request to kadmind may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeouts {
    /// Until it passes the gate.
    pub gate: Duration,
    /// From there until kadmind has answered.
    pub answer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { gate: Duration::from_secs(20), answer: Duration::from_secs(15) }
    }
}

impl MitSettings {
    /// Writes the profile into `run_dir`; its path.
    ///
    /// The library takes nothing from any other, though kadm5 wants `KRB5_CONFIG` or
    /// `/etc/krb5.conf` to exist.
    pub(super) fn write_profile(&self) -> Result<PathBuf, SettingsError> {
        let text = self.profile()?;
        let path = self.run_dir.join(PROFILE);
        write_private(&path, &text)
            .map_err(|source| SettingsError::Profile { path: path.clone(), source })?;
        Ok(path)
    }

    fn profile(&self) -> Result<String, SettingsError> {
        let realm = &self.realm;
        let mut text = format!(
            "[libdefaults]\n  default_realm = {realm}\n  dns_lookup_kdc = false\n  \
             dns_lookup_realm = false\n  dns_canonicalize_hostname = false\n  rdns = false\n  \
             noaddresses = true\n\n[realms]\n  {realm} = {{\n"
        );
        for kdc in &self.kdcs {
            text += &format!("    kdc = {}\n", checked_address(kdc)?);
        }
        text += &format!("    admin_server = {}\n  }}\n", checked_address(&self.kadmin)?);
        Ok(text)
    }
}

/// An address that means nothing else in a profile.
fn checked_address(address: &str) -> Result<&str, SettingsError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b);
    if !address.is_empty() && address.bytes().all(allowed) {
        Ok(address)
    } else {
        Err(SettingsError::Address { address: address.to_owned() })
    }
}

/// Writes a file that only the broker reads, replacing an older one as a whole.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&fresh)?.write_all(text.as_bytes())?;
    fs::rename(&fresh, path)
}

/// Why the adapter can't start.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// An address that can't stand in a profile.
    #[error("{address:?} is no host:port")]
    Address {
        /// As configured.
        address: String,
    },
    /// The profile can't be written.
    #[error("writing {}", path.display())]
    Profile {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// kadm5 can't start without some default profile.
    #[error(
        "there is no /etc/krb5.conf and KRB5_CONFIG is not set: set it to a file before the \
         broker starts, an empty one will do"
    )]
    NoDefaultProfile,
    /// A path or name that C can't be given.
    #[error("{what} has a NUL in it")]
    Nul {
        /// Which setting.
        what: &'static str,
    },
    /// libkadm5clnt_mit can't be used.
    #[error("opening libkadm5clnt_mit: {detail}")]
    Library {
        /// What the dynamic linker said.
        detail: String,
    },
    /// No thread can be started.
    #[error("starting a thread for kadmin")]
    Thread {
        /// Why not.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn settings(run_dir: &Path) -> MitSettings {
        MitSettings {
            realm: "EXAMPLE.COM".parse().unwrap(),
            kdcs: vec!["kdc1.example.com:88".to_owned(), "[::1]:88".to_owned()],
            kadmin: "kdc1.example.com:749".to_owned(),
            admin_principal: "krb-broker/admin@EXAMPLE.COM".parse().unwrap(),
            admin_keytab: run_dir.join("keytab"),
            library: None,
            threads: 2,
            policy: "krb-broker".to_owned(),
            allowed_reserved: Vec::new(),
            run_dir: run_dir.to_owned(),
            timeouts: Timeouts::default(),
        }
    }

    #[test]
    fn the_profile_names_the_realms_servers_and_looks_nothing_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = settings(dir.path()).write_profile().unwrap();
        let expected = "[libdefaults]\n  default_realm = EXAMPLE.COM\n  dns_lookup_kdc = false\n  \
             dns_lookup_realm = false\n  dns_canonicalize_hostname = false\n  rdns = false\n  \
             noaddresses = true\n\n[realms]\n  EXAMPLE.COM = {\n    kdc = kdc1.example.com:88\n    \
             kdc = [::1]:88\n    admin_server = kdc1.example.com:749\n  }\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_address_can_not_smuggle_a_line_into_the_profile() {
        let dir = tempfile::tempdir().unwrap();
        for evil in ["", "a:88\n  kdc = evil", "a }", "a # b"] {
            let settings = MitSettings { kadmin: evil.to_owned(), ..settings(dir.path()) };
            assert!(matches!(settings.profile(), Err(SettingsError::Address { .. })), "{evil:?}");
        }
    }
}
