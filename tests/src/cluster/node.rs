//! One node: a machine of its own as far as mounts, processes and network go.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Cluster, ClusterError, Kubectl, command::Run, wait};

/// How long kubelet may take to unmount what it no longer needs.
const UNMOUNT: Duration = Duration::from_secs(60);

/// How long a machine may take from power to Ready.
const BOOT: Duration = Duration::from_secs(180);

/// A node of a running cluster.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    cluster: &'a Cluster,
    name: String,
}

/// A line of the node's mount table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// Where.
    pub target: String,
    /// Of what type, such as `tmpfs`.
    pub kind: String,
    /// With what options, separated by commas.
    pub options: String,
}

impl<'a> Node<'a> {
    pub(super) fn new(cluster: &'a Cluster, name: &str) -> Self {
        Self { cluster, name: name.to_owned() }
    }

    /// Its name in the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// PEM files of kubelet's certificate (`O=system:nodes`, `CN=system:node:<name>`) and its key.
    pub fn certificate(&self) -> (PathBuf, PathBuf) {
        let pki = self.cluster.dir().join("pki");
        let file = |kind: &str| pki.join(format!("kubelet-{}.{kind}", self.name));
        (file("crt"), file("key"))
    }

    /// `kubectl` with the credentials that kubelet has on the node's disk.
    pub fn kubectl(&self) -> Kubectl {
        let disk = self.cluster.dir().join("nodes").join(&self.name);
        Kubectl::new(disk.join("kubelet.kubeconfig"))
    }

    /// kubelet's log, on the host.
    pub fn kubelet_log(&self) -> PathBuf {
        self.cluster.dir().join("nodes").join(&self.name).join("log/kubelet.log")
    }

    /// Installs or upgrades a flexvolume driver, `vendor~name`, as an operator must: by rename.
    ///
    /// # Errors
    /// When the file can't be copied.
    pub fn install_driver(&self, file: &Path, driver: &str) -> Result<(), ClusterError> {
        let install = self.cluster.script("install-flex.sh");
        install.arg(file).args([driver, &self.name]).run().map(drop)
    }

    /// Runs a shell command as root on the node; what it printed.
    ///
    /// # Errors
    /// When it ends with anything but 0.
    pub fn exec(&self, script: &str) -> Result<String, ClusterError> {
        self.call("node-exec.sh").args(["sh", "-c", script]).run()
    }

    /// Stops kubelet; containers and mounts stay.
    ///
    /// # Errors
    /// When the node is not running.
    pub fn stop_kubelet(&self) -> Result<(), ClusterError> {
        self.call("kubelet.sh").arg("stop").run().map(drop)
    }

    /// Kills kubelet: SIGKILL. Containers and mounts stay.
    ///
    /// # Errors
    /// When the node is not running.
    pub fn kill_kubelet(&self) -> Result<(), ClusterError> {
        self.call("kubelet.sh").arg("kill").run().map(drop)
    }

    /// Starts kubelet.
    ///
    /// # Errors
    /// When the node is not running.
    pub fn start_kubelet(&self) -> Result<(), ClusterError> {
        self.call("kubelet.sh").arg("start").run().map(drop)
    }

    /// Cuts the node's power: every process and mount of it goes at once.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn kill(&self) -> Result<(), ClusterError> {
        self.call("node-kill.sh").run().map(drop)
    }

    /// Boots it again after [`Node::kill`], with its old disk, and waits until it is Ready.
    ///
    /// # Errors
    /// When it runs, or does not become Ready.
    pub fn boot(&self) -> Result<(), ClusterError> {
        self.call("add-node.sh").limit(BOOT).run().map(drop)
    }

    /// Pulls its network cable. The machine and its containers go on.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn cut(&self) -> Result<(), ClusterError> {
        self.call("net.sh").arg("cut").run().map(drop)
    }

    /// Plugs its network cable in again.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn join(&self) -> Result<(), ClusterError> {
        self.call("net.sh").arg("join").run().map(drop)
    }

    /// Whether the machine has power.
    pub fn is_running(&self) -> bool {
        let pid = self.cluster.dir().join("nodes").join(&self.name).join("init.pid");
        let pid = fs::read_to_string(pid).unwrap_or_default();
        !pid.trim().is_empty() && Path::new("/proc").join(pid.trim()).exists()
    }

    /// All mounts in kubelet's namespace whose target contains `part`.
    ///
    /// # Errors
    /// When the node is not running.
    pub fn mounts(&self, part: &str) -> Result<Vec<Mount>, ClusterError> {
        let table = self.exec("cat /proc/mounts")?;
        let mounts = table.lines().filter_map(parse);
        Ok(mounts.filter(|mount| mount.target.contains(part)).collect())
    }

    /// Waits until no mount's target contains `part`.
    ///
    /// # Errors
    /// When one stays: with which.
    pub fn wait_unmounted(&self, part: &str) -> Result<(), ClusterError> {
        let mut left = Vec::new();
        let outcome = wait::until(&format!("{part} to be unmounted"), UNMOUNT, || {
            left = self.mounts(part)?;
            Ok(left.is_empty().then_some(()))
        });
        outcome.map_err(|error| ClusterError { detail: format!("{left:?}"), ..error })
    }

    /// A script that takes the node's name first.
    fn call(&self, script: &str) -> Run {
        self.cluster.script(script).arg(&self.name)
    }
}

/// Reads a line of `/proc/mounts`.
fn parse(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ').skip(1).map(str::to_owned);
    Some(Mount { target: fields.next()?, kind: fields.next()?, options: fields.next()? })
}
