//! How the API server is reached, and as whom.

use std::{path::PathBuf, time::Duration};

pub use kube::Client;
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a request may stay without a byte; a watch gets a bookmark each minute or so.
const READ: Duration = Duration::from_secs(295);
/// How long a request may take to be written.
const WRITE: Duration = Duration::from_secs(10);

/// Which API server, and who the broker is there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    /// A kubeconfig file; none: the service account of the pod that the broker runs in.
    pub kubeconfig: Option<PathBuf>,
}

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig can't be used.
    #[error("the kubeconfig {}", path.display())]
    Kubeconfig {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<kube::config::KubeconfigError>,
    },
    /// There is no service account here.
    #[error("the pod's service account (outside a pod name a kubeconfig: kubernetes.kubeconfig)")]
    InCluster(#[source] Box<kube::config::InClusterError>),
    /// The client can't be made.
    #[error("the client of the API server")]
    Client(#[source] Box<kube::Error>),
}

/// A client for the API server. Nothing is asked yet. A service account's token is read anew as
/// it is replaced.
///
/// # Errors
/// When the files that say where and who can't be used.
pub async fn connect(settings: &Settings) -> Result<Client, ConnectError> {
    let mut config = match &settings.kubeconfig {
        Some(path) => {
            let failed =
                |source| ConnectError::Kubeconfig { path: path.clone(), source: Box::new(source) };
            let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(failed)?
        }
        None => Config::incluster().map_err(|e| ConnectError::InCluster(Box::new(e)))?,
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(READ);
    config.write_timeout = Some(WRITE);
    Client::try_from(config).map_err(|e| ConnectError::Client(Box::new(e)))
}

/// What went wrong with a request, in one line: the API server's own words where it answered.
pub fn described(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => crate::audit::chain(other),
    }
}
