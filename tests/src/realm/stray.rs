//! A KDC that nobody was told of, with a copy of the realm's database as it once was.
//!
//! It goes on issuing tickets under the keys of that time. Whoever stole the key of a service can
//! make such tickets himself, for any client and without a KDC; this one makes them with MIT's
//! own code.

use std::path::{Path, PathBuf};

use super::{RealmError, Tool, daemon::Daemon, servers::Servers};

/// A running stray KDC. Dropping it kills it.
#[derive(Debug)]
pub struct Stray {
    profile: PathBuf,
    _daemon: Daemon,
    // after the daemon: it goes first
    _dir: tempfile::TempDir,
}

impl Stray {
    /// Copies the primary database into a directory below `dir`, and serves it.
    pub(super) fn start(servers: &Servers, dir: &Path) -> Result<Self, RealmError> {
        let place = tempfile::Builder::new()
            .prefix("stray-")
            .tempdir_in(dir)
            .map_err(|error| RealmError::new("making a stray KDC's directory", error))?;
        let profile = place.path().join("krb5.conf");
        let daemon = servers.start_copy(&place.path().join("kdc"), &profile)?;
        Ok(Self { profile, _daemon: daemon, _dir: place })
    }

    /// krb5.conf for a client that asks it and no other.
    pub fn profile_path(&self) -> &Path {
        &self.profile
    }

    /// A tool of the packages whose KDC it is.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn tool(&self, name: &str) -> Result<Tool, RealmError> {
        Tool::new(name, &self.profile)
    }
}
