//! The C program of both sides, built from its source beside this file.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    realm::packages,
    world::{WorldError, make_dir},
};

/// The program; built unless it is newer than its source.
///
/// # Errors
/// When the packages can't be brought, or the compiler fails.
pub(super) fn built() -> Result<PathBuf, WorldError> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = here.join("src/handshakes/handshake.c");
    let dir = here.join("../target/handshakes");
    let program = dir.join("handshake");
    if is_newer(&program, &source) {
        return Ok(program);
    }
    packages::plugins().map_err(|e| WorldError::new("bringing the headers of libkrb5", e))?;
    make_dir(&dir)?;
    // under a name of its own: other tests build the same at the same time
    let new =
        dir.join(format!("handshake.{}.{:?}", std::process::id(), std::thread::current().id()));
    let mut cc = Command::new("cc");
    cc.args(["-Wall", "-Wextra", "-Werror", "-O1", "-I"]);
    cc.arg(packages::root().join("usr/include/mit-krb5")).arg("-o").args([&new, &source]);
    let output = cc.arg("-l:libgssapi_krb5.so.2").output()?;
    if !output.status.success() {
        return Err(WorldError::new(
            "compiling handshake.c",
            String::from_utf8_lossy(&output.stderr),
        ));
    }
    fs::rename(&new, &program)?;
    Ok(program)
}

fn is_newer(program: &Path, source: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    matches!((changed(program), changed(source)), (Some(built), Some(written)) if built > written)
}
