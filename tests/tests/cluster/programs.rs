//! Our programs, built from this tree, and the tools that the stories use.
//!
//! Brought before the cluster is: the stories run in a network that leads nowhere.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use krb_tests::{realm::packages, world::programs::program};

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Builds the programs, and brings the packages of the KDC and of the stock gRPC client.
pub fn bring() -> Result<(), Box<dyn Error>> {
    packages::bin("krb5kdc")?;
    run(Command::new("bash").arg(repository().join("tests/packages-python.sh")))?;
    // a part of what `make build` does; quick after it
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = ["build", "--quiet", "--locked", "--workspace"];
    let ours = ["--bin", "krb-broker", "--bin", "krb-node-agent"];
    run(Command::new(cargo).args(build).args(ours))?;
    run(Command::new("sh").arg("flexvolume/build.sh").arg(driver()))?;
    // without what debuggers read they are a tenth of the size, and images load as much faster
    fs::create_dir_all(stripped(""))?;
    ["krb-node-agent", "krb-broker"].into_iter().try_for_each(strip)
}

/// Strips a program, unless that was done since it was built: images are known by its time.
fn strip(name: &str) -> Result<(), Box<dyn Error>> {
    let (built, stripped) = (program(name)?, stripped(name));
    let time = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    if time(&stripped) > time(&built) {
        return Ok(());
    }
    run(Command::new("strip").arg("-o").arg(stripped).arg(built))
}

/// The driver, static.
pub fn driver() -> PathBuf {
    repository().join("target/dist/krb-flexvolume")
}

/// One of our programs without what debuggers read.
pub fn stripped(name: &str) -> PathBuf {
    repository().join("target/stripped").join(name)
}

/// The Python that has the stock gRPC client.
pub fn python() -> PathBuf {
    repository().join("target/venv/bin/python")
}

/// Runs one of our programs to its end; what it printed, or what it complained of.
pub fn run_ours(name: &str, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
    let output = Command::new(program(name)?).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{name} {}: {said}", arguments.join(" ")).into())
}

/// Runs a command to its end, in the repository.
///
/// What cargo tells a test about itself is kept from it: some crates' build scripts look at those
/// variables, and all that depends on them would be built anew.
fn run(command: &mut Command) -> Result<(), Box<dyn Error>> {
    for (name, _) in env::vars_os() {
        let of_this_test = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"];
        let name = name.to_string_lossy();
        if of_this_test.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(&*name);
        }
    }
    let output = command.current_dir(repository()).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{command:?}: {}: {said}", output.status).into())
}
