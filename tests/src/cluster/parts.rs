//! Where the cluster's scripts and binaries are.
//!
//! `CLUSTER` names the folder of the scripts (`../shared/cluster` beside the repository unless
//! set), `K8S_BIN` the folder of the four Kubernetes binaries (`target/k8s`), which are unpacked
//! from the archive beside the scripts when they are not there. Nothing there at all is an answer,
//! [`Found::Nothing`]; anything there that does not work is an error.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{ClusterError, command::Run};

/// How long unpacking the binaries, or installing packages, may take.
const BRING: Duration = Duration::from_secs(600);

/// What there is to bring up a cluster with.
#[derive(Clone, Debug)]
pub struct Parts {
    pub(super) scripts: PathBuf,
    pub(super) binaries: PathBuf,
}

/// The outcome of looking for them.
#[derive(Debug)]
pub enum Found {
    /// All is there.
    All(Parts),
    /// No scripts, or no binaries and no archive of them; in words.
    Nothing(String),
}

impl Parts {
    /// Looks for them, and unpacks the binaries when only their archive is there.
    ///
    /// # Errors
    /// When the archive is there but can't be unpacked.
    pub fn find() -> Result<Found, ClusterError> {
        let scripts = folder("CLUSTER", "../shared/cluster");
        let binaries = folder("K8S_BIN", "target/k8s");
        if !scripts.join("up.sh").is_file() {
            return Ok(Found::Nothing(format!("no scripts in {}", scripts.display())));
        }
        Run::new("bash")
            .arg(repository().join("tests/cluster-binaries.sh"))
            .args([&scripts, &binaries])
            .limit(BRING)
            .run()?;
        if !binaries.join("kubelet").is_file() {
            return Ok(Found::Nothing(format!("no binaries in {}", binaries.display())));
        }
        Ok(Found::All(Self { scripts, binaries }))
    }

    /// Installs the Debian packages that the scripts use.
    pub(super) fn bring_packages(&self) -> Result<(), ClusterError> {
        bring_packages()
    }
}

/// The folder with the API server's binary, and the packages that go with it. The scripts are not
/// needed where the binary is there already.
///
/// # Errors
/// When an archive or a package is there but can't be brought.
pub(crate) fn api_server() -> Result<Result<PathBuf, String>, ClusterError> {
    let binaries = folder("K8S_BIN", "target/k8s");
    let binaries = if binaries.join("kube-apiserver").is_file() {
        binaries
    } else {
        match Parts::find()? {
            Found::All(parts) => parts.binaries,
            Found::Nothing(why) => return Ok(Err(why)),
        }
    };
    bring_packages()?;
    Ok(Ok(binaries))
}

fn bring_packages() -> Result<(), ClusterError> {
    let script = repository().join("tests/packages-cluster.sh");
    Run::new("bash").arg(script).limit(BRING).run().map(drop)
}

/// The folder that a variable names, or the default; both relative to the repository.
fn folder(variable: &str, default: &str) -> PathBuf {
    let named = env::var_os(variable).filter(|value| !value.is_empty());
    let path = repository().join(named.unwrap_or_else(|| default.into()));
    path.canonicalize().unwrap_or(path)
}

/// The root of the repository.
fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
