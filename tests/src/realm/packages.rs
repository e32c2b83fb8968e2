//! The Debian packages that real-realm tests use, unpacked below `target/packages`.
//!
//! `tests/packages.sh` fetches them; the first use in a process runs it, which takes
//! milliseconds when all is there.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use super::RealmError;

/// Where the packages are unpacked: as they would lie below `/`.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/packages")
}

/// The path of an unpacked program, such as `kinit` or `krb5kdc`.
///
/// # Errors
/// When the packages can't be brought, or none of them has such a program.
pub fn bin(name: &str) -> Result<PathBuf, RealmError> {
    ready()?;
    ["usr/bin", "usr/sbin"]
        .into_iter()
        .map(|dir| root().join(dir).join(name))
        .find(|path| path.exists())
        .ok_or_else(|| RealmError::new("finding a program", format!("no package has {name}")))
}

/// The unpacked plug-ins of libkrb5: the directory that holds `kdb/` and `preauth/`.
///
/// # Errors
/// As for [`bin`].
pub fn plugins() -> Result<PathBuf, RealmError> {
    ready()?;
    let lib = root().join("usr/lib");
    let entries = std::fs::read_dir(&lib)
        .map_err(|error| RealmError::new("reading the unpacked packages", error))?;
    entries
        .flatten()
        .map(|entry| entry.path().join("krb5/plugins"))
        .find(|path| path.join("kdb/db2.so").exists())
        .ok_or_else(|| RealmError::new("finding the KDC's database module", lib.display()))
}

/// Runs `tests/packages.sh` once in this process.
fn ready() -> Result<(), RealmError> {
    static RAN: OnceLock<Result<(), String>> = OnceLock::new();
    let ran = RAN.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packages.sh");
        let output = Command::new("sh").arg(&script).output().map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    });
    ran.clone().map_err(|error| RealmError::new("bringing the Debian packages", error))
}
