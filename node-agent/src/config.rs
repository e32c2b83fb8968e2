//! `agent.toml`: read raw, checked whole, then trusted.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use krb_proto::NodeName;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tonic::transport::Uri;

use crate::{
    agent::Times,
    dial::TlsDial,
    place::{Kubelet, is_driver_directory},
};

/// The checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node; the name in its certificate is what the broker goes by.
    pub node: NodeName,
    /// The way to the broker.
    pub dial: TlsDial,
    /// Where the volumes are.
    pub kubelet: Kubelet,
    /// Directory of the socket and the journal, on a tmpfs, 0700.
    pub run_dir: PathBuf,
    /// How many callers are served at once.
    pub calls_at_once: usize,
    /// How long the agent waits.
    pub times: Times,
}

/// `agent.toml` as written; an unknown key is an error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    node: String,
    broker: String,
    broker_name: String,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    #[serde(default = "kubelet_root")]
    kubelet_root: PathBuf,
    #[serde(default = "driver_directory")]
    driver_directory: String,
    #[serde(default = "run_dir")]
    run_dir: PathBuf,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    timeouts: RawTimeouts,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    calls_at_once: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawTimeouts {
    connect_ms: u64,
    call_ms: u64,
    fill_ms: u64,
    reconnect_max_ms: u64,
    again_max_ms: u64,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self { calls_at_once: 256 }
    }
}

impl Default for RawTimeouts {
    fn default() -> Self {
        let times = Times::default();
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self {
            connect_ms: millis(times.connect),
            call_ms: millis(times.call),
            fill_ms: millis(times.fill),
            reconnect_max_ms: millis(times.reconnect),
            again_max_ms: millis(times.again),
        }
    }
}

fn kubelet_root() -> PathBuf {
    "/var/lib/kubelet".into()
}

fn driver_directory() -> String {
    "krb-broker~credentials".to_owned()
}

fn run_dir() -> PathBuf {
    "/run/krb-broker".into()
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("reading {path}")]
    Read {
        /// Which one.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It is no TOML, or has an unknown or missing key.
    #[error("{path}: {source}")]
    Parse {
        /// Which one.
        path: String,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// Values that can't be; all of them.
    #[error("{path}: {problems}")]
    Check {
        /// Which one.
        path: String,
        /// One line each.
        problems: Problems,
    },
}

/// Everything that is wrong, `field: message`.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl Problems {
    fn add(&mut self, field: &str, message: impl fmt::Display) {
        self.0.push(format!("{field}: {message}"));
    }

    fn note<T, E: fmt::Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(field, error)).ok()
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// It can't be read, is no TOML, or has values that can't be.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let shown = || path.display().to_string();
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: shown(), source })?;
        let raw: RawConfig = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: shown(), source: Box::new(source) })?;
        raw.check().map_err(|problems| ConfigError::Check { path: shown(), problems })
    }

    /// Where the socket is.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("agent.sock")
    }
}

impl RawConfig {
    /// Checks everything and reports every problem at once.
    fn check(self) -> Result<Config, Problems> {
        let mut problems = Problems::default();
        let node = problems.note("node", self.node.parse::<NodeName>());
        let broker = problems.note("broker", broker_uri(&self.broker));
        let broker_name =
            problems.note("broker_name", ServerName::try_from(self.broker_name.clone()));
        for (field, path) in [("kubelet_root", &self.kubelet_root), ("run_dir", &self.run_dir)] {
            problems.note(field, plain_absolute(path));
        }
        if !is_driver_directory(&self.driver_directory) {
            problems.add("driver_directory", "is not vendor~driver");
        }
        for (field, path) in [("ca", &self.ca), ("certificate", &self.certificate)] {
            problems.note(field, fs::metadata(path));
        }
        problems.note("key", only_owner_reads(&self.key));
        if !(1..=4096).contains(&self.limits.calls_at_once) {
            problems.add("limits.calls_at_once", "is not 1 to 4096");
        }
        let times = self.timeouts.check(&mut problems);
        match (node, broker, broker_name) {
            (Some(node), Some(broker), Some(broker_name)) if problems.0.is_empty() => Ok(Config {
                node,
                dial: TlsDial {
                    broker,
                    broker_name,
                    ca: self.ca,
                    certificate: self.certificate,
                    key: self.key,
                },
                kubelet: Kubelet::new(self.kubelet_root, self.driver_directory),
                run_dir: self.run_dir,
                calls_at_once: self.limits.calls_at_once,
                times,
            }),
            _ => Err(problems),
        }
    }
}

impl RawTimeouts {
    fn check(&self, problems: &mut Problems) -> Times {
        for (field, millis) in [
            ("timeouts.connect_ms", self.connect_ms),
            ("timeouts.call_ms", self.call_ms),
            ("timeouts.fill_ms", self.fill_ms),
            ("timeouts.reconnect_max_ms", self.reconnect_max_ms),
            ("timeouts.again_max_ms", self.again_max_ms),
        ] {
            if !(1..=3_600_000).contains(&millis) {
                problems.add(field, "is not 1 to 3600000");
            }
        }
        if self.fill_ms > 95_000 {
            problems.add("timeouts.fill_ms", "is over 95000: the driver gives up at 100 s");
        }
        Times {
            connect: Duration::from_millis(self.connect_ms),
            call: Duration::from_millis(self.call_ms),
            fill: Duration::from_millis(self.fill_ms),
            reconnect: Duration::from_millis(self.reconnect_max_ms),
            again: Duration::from_millis(self.again_max_ms),
            ..Times::default()
        }
    }
}

fn broker_uri(text: &str) -> Result<Uri, &'static str> {
    let uri: Uri = text.parse().map_err(|_| "is no URL")?;
    let plain = uri.path_and_query().is_none_or(|path| path == "/");
    let named = uri.host().is_some_and(|host| !host.is_empty()) && uri.port_u16().is_some();
    let user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    if uri.scheme_str() == Some("https") && named && plain && !user {
        Ok(uri)
    } else {
        Err("is not https://host:port")
    }
}

/// Paths are compared as texts: they have one spelling.
fn plain_absolute(path: &Path) -> Result<(), &'static str> {
    let spelled: PathBuf = path.components().collect();
    let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
    if path.is_absolute() && !climbs && spelled.as_os_str() == path.as_os_str() {
        Ok(())
    } else {
        Err("is not an absolute path without '.', '..' or a slash too many")
    }
}

fn only_owner_reads(key: &Path) -> Result<(), String> {
    let mode = fs::metadata(key).map_err(|error| error.to_string())?.mode();
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(format!("is mode {:o}: others may read it", mode & 0o777))
    }
}
