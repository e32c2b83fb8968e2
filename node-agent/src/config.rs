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
    dial::{Proof, TlsDial},
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

/// What is given beside the file, and goes before what it says: a DaemonSet's one file serves
/// all nodes, and the broker's address is known when the pod starts.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// This node's name.
    pub node: Option<String>,
    /// The broker, `https://host:port`.
    pub broker: Option<String>,
}

/// `agent.toml` as written; an unknown key is an error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    node: Option<String>,
    broker: Option<String>,
    broker_name: String,
    ca: PathBuf,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    token_file: Option<PathBuf>,
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

/// Spans such as `10s`, `1m 30s` or `500ms`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawTimeouts {
    connect: Option<String>,
    call: Option<String>,
    fill: Option<String>,
    reconnect_max: Option<String>,
    again_max: Option<String>,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self { calls_at_once: 256 }
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
        Self::read_with(path, Given::default())
    }

    /// Reads a file, and checks it together with what is given beside it.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn read_with(path: &Path, given: Given) -> Result<Self, ConfigError> {
        let shown = || path.display().to_string();
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: shown(), source })?;
        let mut raw: RawConfig = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: shown(), source: Box::new(source) })?;
        raw.node = given.node.or(raw.node);
        raw.broker = given.broker.or(raw.broker);
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
        let node = problems.note("node", required(self.node.as_deref()));
        let node = node.and_then(|name| problems.note("node", name.parse::<NodeName>()));
        let broker = problems.note("broker", required(self.broker.as_deref()));
        let broker = broker.and_then(|url| problems.note("broker", broker_uri(url)));
        let broker_name =
            problems.note("broker_name", ServerName::try_from(self.broker_name.clone()));
        for (field, path) in [("kubelet_root", &self.kubelet_root), ("run_dir", &self.run_dir)] {
            problems.note(field, plain_absolute(path));
        }
        if !is_driver_directory(&self.driver_directory) {
            problems.add("driver_directory", "is not vendor~driver");
        }
        problems.note("ca", fs::metadata(&self.ca));
        let proof = proof(self.certificate, self.key, self.token_file, &mut problems);
        if !(1..=4096).contains(&self.limits.calls_at_once) {
            problems.add("limits.calls_at_once", "is not 1 to 4096");
        }
        let times = self.timeouts.check(&mut problems);
        match (node, broker, broker_name, proof) {
            (Some(node), Some(broker), Some(broker_name), Some(proof)) if problems.0.is_empty() => {
                Ok(Config {
                    node,
                    dial: TlsDial { broker, broker_name, ca: self.ca, proof },
                    kubelet: Kubelet::new(self.kubelet_root, self.driver_directory),
                    run_dir: self.run_dir,
                    calls_at_once: self.limits.calls_at_once,
                    times,
                })
            }
            _ => Err(problems),
        }
    }
}

/// How the node proves who it is: a certificate with its key, or a token; exactly one of the two.
fn proof(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    token_file: Option<PathBuf>,
    problems: &mut Problems,
) -> Option<Proof> {
    match (certificate, key, token_file) {
        (Some(certificate), Some(key), None) => {
            problems.note("certificate", fs::metadata(&certificate));
            problems.note("key", only_owner_reads(&key));
            Some(Proof::Certificate { certificate, key })
        }
        // the file need not be there yet: kubelet writes it, and writes it anew
        (None, None, Some(file)) => {
            problems.note("token_file", plain_absolute(&file));
            Some(Proof::Token { file: file.into() })
        }
        (Some(_), None, None) => {
            problems.add("key", "is missing beside `certificate`");
            None
        }
        (None, Some(_), None) => {
            problems.add("certificate", "is missing beside `key`");
            None
        }
        (None, None, None) => {
            problems.add("token_file", "is missing, and so are `certificate` and `key`");
            None
        }
        (_, _, Some(_)) => {
            problems.add("token_file", "stands beside `certificate` or `key`: only one can be");
            None
        }
    }
}

/// The longest span that a timeout may be.
const LONGEST: Duration = Duration::from_secs(3600);

/// The driver itself gives up at 100 s, and is to be told before.
const LONGEST_FILL: Duration = Duration::from_secs(95);

impl RawTimeouts {
    fn check(&self, problems: &mut Problems) -> Times {
        let default = Times::default();
        let mut span = |field: &str, text: &Option<String>, longest, default| {
            let Some(text) = text else { return default };
            let checked = problems.note(&format!("timeouts.{field}"), parse_span(text, longest));
            checked.unwrap_or(default)
        };
        Times {
            connect: span("connect", &self.connect, LONGEST, default.connect),
            call: span("call", &self.call, LONGEST, default.call),
            fill: span("fill", &self.fill, LONGEST_FILL, default.fill),
            reconnect: span("reconnect_max", &self.reconnect_max, LONGEST, default.reconnect),
            again: span("again_max", &self.again_max, LONGEST, default.again),
            ..default
        }
    }
}

fn parse_span(text: &str, longest: Duration) -> Result<Duration, String> {
    let span = text.parse::<jiff::SignedDuration>().ok().and_then(|s| Duration::try_from(s).ok());
    match span {
        Some(span) if !span.is_zero() && span <= longest => Ok(span),
        Some(_) => Err(format!("{text:?} is not over 0 and up to {longest:?}")),
        None => Err(format!("{text:?} is not a time span such as 10s or 500ms")),
    }
}

fn required(text: Option<&str>) -> Result<&str, &'static str> {
    text.ok_or("is neither in the file nor given beside it")
}

fn broker_uri(text: &str) -> Result<Uri, &'static str> {
    let uri: Uri = bracketed(text).parse().map_err(|_| "is no URL")?;
    let plain = uri.path_and_query().is_none_or(|path| path == "/");
    let named = uri.host().is_some_and(|host| !host.is_empty()) && uri.port_u16().is_some();
    let user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    if uri.scheme_str() == Some("https") && named && plain && !user {
        Ok(uri)
    } else {
        Err("is not https://host:port")
    }
}

/// An IPv6 address in the brackets that it must have before a port: kubelet's variables leave them
/// out (RFC 3986 3.2.2).
fn bracketed(text: &str) -> String {
    let bare = text.strip_prefix("https://").and_then(|rest| {
        let (host, port) = rest.trim_end_matches('/').rsplit_once(':')?;
        host.parse::<std::net::Ipv6Addr>().ok().map(|host| format!("https://[{host}]:{port}"))
    });
    bare.unwrap_or_else(|| text.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The agent's example in the documentation.
    fn documented() -> &'static str {
        let page = include_str!("../../docs/configuration.md");
        let (_, section) = page.split_once("## The agent: `agent.toml`").unwrap();
        let (_, example) = section.split_once("```toml\n").unwrap();
        example.split_once("```").unwrap().0
    }

    #[test]
    fn the_documented_example_is_what_is_read_and_shows_the_defaults() {
        let raw: RawConfig = toml::from_str(documented()).unwrap();
        assert_eq!(raw.node.as_deref(), Some("node-a"));
        // What is commented out below the required keys is the default, written out.
        let whole = documented().replace("\n# [", "\n[");
        let whole: String = whole
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|l| l.contains(" = ")).unwrap_or(line))
            .map(|line| format!("{line}\n"))
            .collect();
        let whole: RawConfig = toml::from_str(&whole).unwrap();
        let mut problems = Problems::default();
        let (times, default) = (whole.timeouts.check(&mut problems), Times::default());
        assert_eq!(problems, Problems::default());
        assert!(whole.timeouts.fill.is_some(), "the defaults are written out");
        let spans = |t: &Times| [t.connect, t.call, t.fill, t.reconnect, t.again];
        assert_eq!(spans(&times), spans(&default));
        assert_eq!(whole.limits.calls_at_once, RawLimits::default().calls_at_once);
        assert_eq!(whole.kubelet_root, kubelet_root());
        assert_eq!(whole.driver_directory, driver_directory());
        assert_eq!(whole.run_dir, run_dir());
    }

    #[test]
    fn what_is_given_goes_before_the_file_and_without_either_the_field_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        let read = |text: &str, given| {
            fs::write(&file, format!("{text}{}", &documented_without_names())).unwrap();
            Config::read_with(&file, given).unwrap_err().to_string()
        };
        let given = Given {
            node: Some("n1".to_owned()),
            broker: Some("https://10.96.0.7:8443".to_owned()),
        };
        let problems = read("", Given::default());
        for field in ["node: is neither", "broker: is neither"] {
            assert!(problems.contains(field), "{problems}");
        }
        let problems = read("node = \"-\"\nbroker = \"http://x\"\n", given.clone());
        assert!(!problems.contains("node: ") && !problems.contains("broker: "), "{problems}");
        let unexpanded = Given { broker: Some("https://$(X):$(Y)".to_owned()), ..given };
        assert!(read("", unexpanded).contains("broker: is"), "an unset variable is noticed");
    }

    /// The example without the two names; its files do not exist here.
    fn documented_without_names() -> String {
        let named = |line: &&str| !line.starts_with("node =") && !line.starts_with("broker =");
        documented().lines().filter(named).map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn a_node_has_a_certificate_with_its_key_or_a_token_and_nothing_between() {
        let path = |there: bool| there.then(|| PathBuf::from("/nonexistent/file"));
        for (certificate, key, token, wrong) in [
            (true, true, false, &["certificate", "key"][..]), // they are not there
            (true, false, false, &["key"]),
            (false, true, false, &["certificate"]),
            (false, false, false, &["token_file"]),
            (true, true, true, &["token_file"]),
            (false, true, true, &["token_file"]),
            (false, false, true, &[]), // nor is it, yet
        ] {
            let mut problems = Problems::default();
            let found = proof(path(certificate), path(key), path(token), &mut problems);
            let fields: Vec<_> = problems.0.iter().filter_map(|p| p.split(':').next()).collect();
            assert_eq!(fields, wrong, "{certificate} {key} {token}");
            assert_eq!(found.is_some(), certificate == key && (certificate != token));
        }
    }

    #[test]
    fn an_address_of_the_broker_is_bracketed_where_it_must_be() {
        let host = |text: &str| broker_uri(text).map(|uri| uri.host().unwrap().to_owned());
        assert_eq!(host("https://fd00::1:8443").unwrap(), "[fd00::1]");
        assert_eq!(host("https://[fd00::1]:8443").unwrap(), "[fd00::1]");
        assert_eq!(host("https://10.96.0.7:8443").unwrap(), "10.96.0.7");
        assert!(host("https://fd00::1").is_err(), "no port");
    }

    #[test]
    fn spans_are_read_as_the_broker_reads_them_and_the_others_are_named() {
        let text = "connect = \"0s\"\ncall = \"1m 30s\"\nfill = \"96s\"\nagain_max = \"5\"\n";
        let raw: RawTimeouts = toml::from_str(text).unwrap();
        let mut problems = Problems::default();
        assert_eq!(raw.check(&mut problems).call, Duration::from_secs(90));
        let fields: Vec<_> = problems.0.iter().filter_map(|p| p.split(':').next()).collect();
        assert_eq!(fields, ["timeouts.connect", "timeouts.fill", "timeouts.again_max"]);
    }
}
