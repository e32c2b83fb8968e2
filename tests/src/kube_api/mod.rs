//! A real API server with its etcd and nothing else: no kubelet, no scheduler, no controllers.
//!
//! For what needs only the API: objects are made and changed by [`KubeApi::kubectl`], and stay as
//! they are written, since nobody acts on them. The Node authorizer, RBAC and NodeRestriction are
//! on, TokenRequest and TokenReview work, webhooks are called. The admission plugin
//! ServiceAccount is off: a pod has the service account that its spec names, whether or not
//! there is one. A namespace that is deleted stays until [`KubeApi::finalize`].
//!
//! Everything lies in a private temporary directory; both daemons listen on a loopback address
//! that nobody else uses, and die with the [`KubeApi`], or with this process.

mod pki;
mod servers;

use std::{net::SocketAddr, path::PathBuf, sync::OnceLock};

pub use pki::Credential;
use pki::Pki;
use servers::Servers;

use crate::cluster::{ClusterError, Kubectl, api_server};

/// What the API server signs and expects in service account tokens besides the audiences that are
/// asked for.
pub const ISSUER: &str = "https://kubernetes.default.svc";

/// What an API server is to be like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its authorizers, in order.
    pub authorization_mode: String,
    /// Whether the admission plugin NodeRestriction is on.
    pub node_restriction: bool,
    /// More of its flags.
    pub flags: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            authorization_mode: "Node,RBAC".to_owned(),
            node_restriction: true,
            flags: Vec::new(),
        }
    }
}

/// A running API server. Dropping it ends both daemons and removes their files.
#[derive(Debug)]
pub struct KubeApi {
    servers: Servers,
    pki: Pki,
    kubectl: Kubectl,
    // after the daemons: they go first
    _dir: tempfile::TempDir,
}

impl KubeApi {
    /// Starts etcd and the API server, and waits until it is ready. `None` where the binaries are
    /// not to be had: then it has been said.
    ///
    /// # Errors
    /// When they are there and do not come up.
    pub fn start() -> Result<Option<Self>, ClusterError> {
        Self::start_with(&Options::default())
    }

    /// The same with other options.
    ///
    /// # Errors
    /// When the binaries are there and do not come up.
    pub fn start_with(options: &Options) -> Result<Option<Self>, ClusterError> {
        let Some(binaries) = binaries()? else { return Ok(None) };
        let dir = tempfile::Builder::new()
            .prefix("krb-kube-api-")
            .tempdir()
            .map_err(|error| ClusterError::new("making the API server's directory", error))?;
        let address = servers::random_loopback();
        let pki = Pki::new(dir.path(), address)?;
        let servers = Servers::start(&binaries, dir.path(), address, &pki, options)?;
        let url = format!("https://{}", servers.api());
        pki.issue(ADMIN, "admin", Some("system:masters"))?;
        let kubeconfig = pki.kubeconfig(ADMIN, &url)?;
        let api = Self { servers, pki, kubectl: Kubectl::new(kubeconfig), _dir: dir };
        api.wait_ready()?;
        Ok(Some(api))
    }

    /// `https://address:port`.
    pub fn url(&self) -> String {
        format!("https://{}", self.servers.api())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.servers.api()
    }

    /// PEM of the CA that signed its certificate and signs client certificates.
    pub fn ca(&self) -> PathBuf {
        self.pki.ca()
    }

    /// The administrator's kubeconfig: `system:masters`.
    pub fn kubeconfig(&self) -> PathBuf {
        self.pki.kubeconfig_path(ADMIN)
    }

    /// `kubectl` as the administrator.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// A client certificate of a user in a group, as PEM files.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn credential(&self, user: &str, group: Option<&str>) -> Result<Credential, ClusterError> {
        self.pki.issue(&file_name(user), user, group)
    }

    /// A kubeconfig of a user in a group, who has such a certificate.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn kubeconfig_of(&self, user: &str, group: Option<&str>) -> Result<PathBuf, ClusterError> {
        self.credential(user, group)?;
        self.pki.kubeconfig(&file_name(user), &self.url())
    }

    /// A kubeconfig with a bearer token.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn kubeconfig_with_token(&self, name: &str, token: &str) -> Result<PathBuf, ClusterError> {
        self.pki.kubeconfig_with_token(&file_name(name), token, &self.url())
    }

    /// Ends the API server; etcd and what it holds stay.
    pub fn stop(&mut self) {
        self.servers.stop_api();
    }

    /// Starts the API server again where it was, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_again(&mut self) -> Result<(), ClusterError> {
        self.servers.start_api()?;
        self.wait_ready()
    }

    /// Makes both daemons stand still, so that requests are not answered, or go on.
    pub fn freeze(&self, frozen: bool) {
        self.servers.freeze(frozen);
    }

    /// Ends both daemons and starts them with an empty store, as an operator's mistake does.
    ///
    /// # Errors
    /// When they do not come up.
    pub fn start_empty(&mut self) -> Result<(), ClusterError> {
        self.servers.stop_api();
        self.servers.empty_etcd()?;
        self.start_again()
    }

    /// Forgets all revisions before this moment: watches from an earlier one are told `410 Gone`
    /// once the API server has also forgotten them, which a restart brings about.
    ///
    /// # Errors
    /// When etcd can't be asked.
    pub fn compact(&self) -> Result<(), ClusterError> {
        self.servers.compact()
    }

    /// Takes an object out of the store behind the API server's back, as the backup of a store
    /// without it does. `key` is that of etcd: `/registry/pods/default/web-0`.
    ///
    /// # Errors
    /// When etcd can't be asked.
    pub fn erase(&self, key: &str) -> Result<(), ClusterError> {
        self.servers.erase(key)
    }

    /// Lets a deleted namespace go, as the namespace controller does when it is empty.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn finalize(&self, namespace: &str) -> Result<(), ClusterError> {
        let path = self.servers.dir().join(format!("finalize-{namespace}.json"));
        let body = format!(
            r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{namespace}"}},"spec":{{"finalizers":[]}}}}"#
        );
        std::fs::write(&path, body)
            .map_err(|error| ClusterError::new("writing a namespace", error))?;
        let resource = format!("/api/v1/namespaces/{namespace}/finalize");
        let path = path.to_string_lossy();
        self.kubectl.run(&["replace", "--raw", &resource, "-f", &path]).map(drop)
    }

    /// The last lines of the API server's log, for a test that fails.
    pub fn log(&self) -> String {
        self.servers.log()
    }

    fn wait_ready(&self) -> Result<(), ClusterError> {
        let ready = || Ok(self.kubectl.run(&["get", "--raw", "/readyz"]).ok());
        crate::cluster::wait::until("the API server to be ready", servers::READY, ready)
            .map(drop)
            .map_err(|error| ClusterError::new(error.to_string(), self.log()))
    }
}

/// The name of the administrator's files.
const ADMIN: &str = "admin";

/// The folder with the binary, looked for once in a process; `None` where there is none.
fn binaries() -> Result<Option<PathBuf>, ClusterError> {
    static FOUND: OnceLock<Result<Option<PathBuf>, ClusterError>> = OnceLock::new();
    let find = || match api_server()? {
        Ok(binaries) => Ok(Some(binaries)),
        Err(why) => {
            say_not_run(&why);
            Ok(None)
        }
    };
    FOUND.get_or_init(find).clone()
}

#[expect(clippy::print_stdout, reason = "the output of a test runner")]
fn say_not_run(why: &str) {
    println!("kube_api: NOT RUN ({why})");
}

/// A user's name as part of a file name.
fn file_name(user: &str) -> String {
    user.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}
