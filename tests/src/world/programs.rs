//! The project's own programs, as they were built.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::WorldError;

/// A program of this build: beside the running test, or one folder up.
///
/// # Errors
/// When it was not built: `make build` does.
pub fn program(name: &str) -> Result<PathBuf, WorldError> {
    let running = env::current_exe().map_err(|e| WorldError::new("finding the test", e))?;
    let found = running.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|p| p.exists());
    found.ok_or_else(|| WorldError::new(format!("finding {name}"), "run `make build` first"))
}

/// The driver: the static one that `make build` leaves in `target/dist`, which is what is
/// installed on nodes; else the one of this build.
///
/// # Errors
/// When neither was built.
pub fn driver() -> Result<PathBuf, WorldError> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/dist/krb-flexvolume");
    if built.exists() { Ok(built) } else { program("krb-flexvolume") }
}
