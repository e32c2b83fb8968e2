//! The parts of the control plane: stopped, killed and started one by one.

use std::{fs, time::Duration};

use super::{Cluster, ClusterError, command::Run, wait};

/// How long the API server may take until it answers again.
const READY: Duration = Duration::from_secs(90);

/// A process of the control plane.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// The store that the API server answers from.
    Etcd,
    /// The API server.
    ApiServer,
    /// What makes pods of Deployments, and marks nodes that are silent.
    ControllerManager,
    /// What binds pods to nodes.
    Scheduler,
}

impl Part {
    /// Its name, as the scripts have it.
    fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }
}

impl Cluster {
    /// Ends a part in good order.
    ///
    /// # Errors
    /// When there is no such process of ours.
    pub fn stop(&self, part: Part) -> Result<(), ClusterError> {
        self.control(part, "stop")
    }

    /// Kills a part.
    ///
    /// # Errors
    /// When there is no such process of ours.
    pub fn kill(&self, part: Part) -> Result<(), ClusterError> {
        self.control(part, "kill")
    }

    /// Starts a part as it was started first; the API server until it answers.
    ///
    /// # Errors
    /// When it can't be started, or does not answer in time.
    pub fn start(&self, part: Part) -> Result<(), ClusterError> {
        self.control(part, "start")?;
        if part == Part::ApiServer { self.wait_ready() } else { Ok(()) }
    }

    /// Puts an empty store in the place of etcd's, so that the API server knows nothing: what a
    /// restored control plane looks like. [`Cluster::restore_store`] takes it back.
    ///
    /// # Errors
    /// When a part can't be stopped or started, or the store can't be moved.
    pub fn empty_store(&self) -> Result<(), ClusterError> {
        self.with_store_down(|| fs::rename(self.dir().join("etcd"), self.dir().join("etcd.aside")))
    }

    /// Puts the store back that [`Cluster::empty_store`] took away; what was written since is lost.
    ///
    /// # Errors
    /// As for [`Cluster::empty_store`].
    pub fn restore_store(&self) -> Result<(), ClusterError> {
        self.with_store_down(|| {
            fs::remove_dir_all(self.dir().join("etcd"))?;
            fs::rename(self.dir().join("etcd.aside"), self.dir().join("etcd"))
        })
    }

    fn with_store_down(
        &self,
        work: impl FnOnce() -> std::io::Result<()>,
    ) -> Result<(), ClusterError> {
        self.stop(Part::ApiServer)?;
        self.stop(Part::Etcd)?;
        let done = work().map_err(|error| ClusterError::new("moving etcd's data", error));
        self.start(Part::Etcd)?;
        self.start(Part::ApiServer)?;
        done
    }

    /// Waits until the API server answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_ready(&self) -> Result<(), ClusterError> {
        let kubectl = self.kubectl();
        wait::until("the API server to answer", READY, || {
            let said = kubectl.run(&["get", "--raw", "/readyz", "--request-timeout=5s"]);
            Ok(said.is_ok_and(|said| said.trim() == "ok").then_some(()))
        })
    }

    fn control(&self, part: Part, action: &str) -> Result<(), ClusterError> {
        let run: Run = self.script("cp.sh").args([part.name(), action]);
        run.run().map(drop)
    }
}
