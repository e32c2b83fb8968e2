//! The two daemons: etcd and kube-apiserver.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;

use super::{ISSUER, Options, pki};
use crate::{cluster::ClusterError, realm::daemon::Daemon};

/// How long the API server may take from listening to being ready.
pub(super) const READY: Duration = Duration::from_secs(60);
/// How much of a log is repeated.
const TAIL: usize = 3_000;

/// etcd and the API server.
#[derive(Debug)]
pub(super) struct Servers {
    dir: PathBuf,
    binary: PathBuf,
    flags: Vec<String>,
    etcd_client: SocketAddr,
    etcd_peer: SocketAddr,
    api: SocketAddr,
    api_server: Option<Daemon>,
    etcd: Option<Daemon>,
}

impl Servers {
    pub(super) fn start(
        binaries: &Path,
        dir: &Path,
        address: IpAddr,
        pki: &pki::Pki,
        options: &Options,
    ) -> Result<Self, ClusterError> {
        let (etcd_client, etcd_peer) = (free_port(address)?, free_port(address)?);
        let api = free_port(address)?;
        let mut servers = Self {
            dir: dir.to_owned(),
            binary: binaries.join("kube-apiserver"),
            flags: flags(dir, api, etcd_client, pki, options),
            etcd_client,
            etcd_peer,
            api,
            api_server: None,
            etcd: None,
        };
        servers.start_etcd()?;
        servers.start_api()?;
        Ok(servers)
    }

    pub(super) fn api(&self) -> SocketAddr {
        self.api
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn start_api(&mut self) -> Result<(), ClusterError> {
        let mut command = Command::new(&self.binary);
        command.args(&self.flags);
        let started = Daemon::start(command, self.api);
        let daemon = started.map_err(|error| ClusterError::new(error.to_string(), self.log()))?;
        self.api_server = Some(daemon);
        Ok(())
    }

    /// Kills it, as a machine that loses its power does: a polite end takes up to a minute while
    /// watches are open.
    pub(super) fn stop_api(&mut self) {
        self.api_server = None;
    }

    fn start_etcd(&mut self) -> Result<(), ClusterError> {
        let (client, peer) =
            (format!("http://{}", self.etcd_client), format!("http://{}", self.etcd_peer));
        let mut command = Command::new("etcd");
        command.args(["--name", "kube-api", "--unsafe-no-fsync"]);
        command.arg("--data-dir").arg(self.dir.join("etcd"));
        command.args(["--logger", "zap"]);
        command.arg("--log-outputs").arg(self.dir.join("etcd.log"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("kube-api={peer}")]);
        let daemon = Daemon::start(command, self.etcd_client);
        self.etcd = Some(daemon.map_err(|error| ClusterError::new("starting etcd", error))?);
        Ok(())
    }

    /// Starts etcd anew without anything.
    pub(super) fn empty_etcd(&mut self) -> Result<(), ClusterError> {
        self.etcd = None;
        fs::remove_dir_all(self.dir.join("etcd"))
            .map_err(|error| ClusterError::new("emptying etcd", error))?;
        self.start_etcd()
    }

    pub(super) fn freeze(&self, frozen: bool) {
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        self.api_server.iter().chain(&self.etcd).for_each(|daemon| daemon.signal(signal));
    }

    /// Deletes a key from etcd.
    pub(super) fn erase(&self, key: &str) -> Result<(), ClusterError> {
        let body = format!(r#"{{"key":"{}"}}"#, base64(key.as_bytes()));
        self.ask_etcd("kv/deleterange", &body).map(drop)
    }

    /// One call of etcd's JSON gateway; its answer.
    fn ask_etcd(&self, path: &str, body: &str) -> Result<String, ClusterError> {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--max-time", "10", "-X", "POST"])
            .args([&format!("http://{}/v3/{path}", self.etcd_client), "-d", body])
            .output()
            .map_err(|error| ClusterError::new("running curl", error))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(said)
        } else {
            Err(ClusterError::new(format!("etcd: {path}"), said))
        }
    }

    /// Makes etcd forget all revisions but the present one.
    pub(super) fn compact(&self) -> Result<(), ClusterError> {
        let said = self.ask_etcd("maintenance/status", "{}")?;
        let revision = serde_json::from_str::<serde_json::Value>(&said).ok();
        let revision = revision.and_then(|v| Some(v["header"]["revision"].as_str()?.to_owned()));
        let revision =
            revision.ok_or_else(|| ClusterError::new("reading etcd's revision", said))?;
        let body = format!(r#"{{"revision":"{revision}","physical":true}}"#);
        self.ask_etcd("kv/compaction", &body).map(drop)
    }

    pub(super) fn log(&self) -> String {
        let text = fs::read(self.dir.join("api.log")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL)..]).into_owned()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.freeze(false);
        self.api_server = None; // it asks etcd to the last
    }
}

fn flags(
    dir: &Path,
    api: SocketAddr,
    etcd: SocketAddr,
    pki: &pki::Pki,
    options: &Options,
) -> Vec<String> {
    let own = pki.files("apiserver");
    let file = |path: PathBuf| path.display().to_string();
    let off =
        if options.node_restriction { "ServiceAccount" } else { "ServiceAccount,NodeRestriction" };
    let on = if options.node_restriction { "NodeRestriction" } else { "NamespaceLifecycle" };
    let mut flags: Vec<String> = [
        ("etcd-servers", format!("http://{etcd}")),
        ("bind-address", api.ip().to_string()),
        ("secure-port", api.port().to_string()),
        ("insecure-port", "0".to_owned()),
        // no endpoints of the Service `kubernetes`: they may not be loopback addresses
        ("endpoint-reconciler-type", "none".to_owned()),
        ("advertise-address", "192.0.2.1".to_owned()),
        ("service-cluster-ip-range", pki::SERVICE_RANGE.to_owned()),
        ("client-ca-file", file(pki.ca())),
        ("tls-cert-file", file(own.certificate)),
        ("tls-private-key-file", file(own.key)),
        ("authorization-mode", options.authorization_mode.clone()),
        ("enable-admission-plugins", on.to_owned()),
        ("disable-admission-plugins", off.to_owned()),
        ("allow-privileged", "true".to_owned()),
        ("service-account-issuer", ISSUER.to_owned()),
        ("service-account-key-file", file(pki.token_public_key())),
        ("service-account-signing-key-file", file(pki.token_key())),
        ("cert-dir", file(dir.join("generated"))),
        ("logtostderr", "false".to_owned()),
        ("log-file", file(dir.join("api.log"))),
        // objects that tests make by the thousand are not held up
        ("max-mutating-requests-inflight", "1000".to_owned()),
        ("max-requests-inflight", "2000".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| format!("--{name}={value}"))
    .collect();
    flags.extend(options.flags.iter().cloned());
    flags
}

/// Base64 with padding (RFC 4648 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for at in 0..4 {
            let digit = ALPHABET[((bits >> (18 - 6 * at)) & 63) as usize];
            text.push(if at <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// An address of the loopback network that nobody else uses.
pub(super) fn random_loopback() -> IpAddr {
    let mut bytes = [0; 3];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    let [a, b, c] = bytes;
    IpAddr::V4(Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254)))
}

/// A port of `address` that is free now.
fn free_port(address: IpAddr) -> Result<SocketAddr, ClusterError> {
    TcpListener::bind((address, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| ClusterError::new(format!("finding a free port of {address}"), error))
}
