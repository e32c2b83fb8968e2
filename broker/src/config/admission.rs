//! `admission.toml`: what the webhook runs by. It shares `[entitlements]` with `broker.toml`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use krb_proto::{Realm, text};
use serde::Deserialize;

use super::{check::Checker, parsed, raw, text_of};
use crate::{
    entitlement::{problems::Problems, rules::Rules},
    kubernetes::client::Settings,
};

/// What the webhook runs by.
#[derive(Clone, Debug)]
pub struct AdmissionConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Directory of entitlement files.
    pub entitlements: PathBuf,
    /// How often it is read again.
    pub entitlements_every: Duration,
    /// What decisions go by.
    pub rules: Rules,
    /// Where its certificate comes from.
    pub certificate: CertificateSource,
    /// The CA of the API server's client certificate, which must then be shown.
    pub client_ca: Option<PathBuf>,
    /// A file with the text that the paths of its calls must end with.
    pub path_end: Option<PathBuf>,
}

/// Where the serving certificate comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CertificateSource {
    /// PEM files, read anew as they change.
    Files {
        /// The certificate and what leads to its CA.
        certificate: PathBuf,
        /// Its key, not readable by others.
        key: PathBuf,
    },
    /// The replicas make it themselves, and tell the API server.
    SelfMade(SelfMade),
}

/// How the replicas of a webhook make their own certificates.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SelfMade {
    /// The API server, and who they are there.
    pub kubernetes: Settings,
    /// Their namespace.
    pub namespace: String,
    /// The Secret in it that holds their CA.
    pub secret: String,
    /// The names that the API server calls them by.
    pub names: Vec<String>,
    /// Their one MutatingWebhookConfiguration.
    pub mutating: String,
    /// Their one ValidatingWebhookConfiguration.
    pub validating: String,
    /// How long a CA lives; it is replaced after two thirds of it.
    pub life: Duration,
    /// How often all of it is looked at.
    pub every: Duration,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    listen: String,
    realm: String,
    path_end: Option<PathBuf>,
    tls: Tls,
    entitlements: raw::Entitlements,
    kubernetes: Option<Kubernetes>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    self_made: Option<RawSelfMade>,
    client_ca: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSelfMade {
    namespace: String,
    secret: Option<String>,
    names: Vec<String>,
    mutating: String,
    validating: String,
    life: Option<String>,
    every: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kubernetes {
    kubeconfig: Option<PathBuf>,
}

impl AdmissionConfig {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self::read(&name, &text_of(path)?)
    }

    /// Checks a text; `name` is what problems call it.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(name: &str, text: &str) -> Result<Self, Problems> {
        let raw: Raw = parsed(name, text)?;
        let mut c = Checker::new(name);
        let listen = c.parse("listen", &raw.listen);
        let _: Option<Realm> = c.parse("realm", &raw.realm);
        let every = raw.entitlements.reload_every.as_deref();
        let entitlements_every =
            c.span("entitlements.reload_every", every, Duration::from_secs(10));
        let entitlements = raw.entitlements.dir.clone();
        let rules = c.rules(&raw.realm, raw.entitlements);
        let client_ca = raw.tls.client_ca.clone();
        let certificate = c.certificate(raw.tls, raw.kubernetes);
        let checked = match (listen, rules, certificate) {
            (Some(listen), Some(rules), Some(certificate)) => Some(Self {
                listen,
                entitlements,
                entitlements_every,
                rules,
                certificate,
                client_ca,
                path_end: raw.path_end,
            }),
            _ => None,
        };
        c.finish(checked)
    }
}

impl Checker<'_> {
    fn certificate(
        &mut self,
        raw: Tls,
        kubernetes: Option<Kubernetes>,
    ) -> Option<CertificateSource> {
        match (raw.certificate, raw.key, raw.self_made) {
            (Some(certificate), Some(key), None) => {
                if kubernetes.is_some() {
                    self.add("kubernetes", "is of use to tls.self_made alone");
                }
                Some(CertificateSource::Files { certificate, key })
            }
            (None, None, Some(raw)) => {
                let kubeconfig = kubernetes.unwrap_or_default().kubeconfig;
                Some(CertificateSource::SelfMade(self.self_made(raw, Settings { kubeconfig })))
            }
            _ => {
                self.add("tls", "needs either certificate and key, or self_made");
                None
            }
        }
    }

    fn self_made(&mut self, raw: RawSelfMade, kubernetes: Settings) -> SelfMade {
        let secret = raw.secret.unwrap_or_else(|| "krb-broker-admission-ca".to_owned());
        let objects = [
            ("namespace", &raw.namespace),
            ("secret", &secret),
            ("mutating", &raw.mutating),
            ("validating", &raw.validating),
        ];
        let names = raw.names.iter().map(|name| ("names", name));
        for (field, name) in objects.into_iter().chain(names) {
            if !text::is_dns_name(name) {
                self.add(&format!("tls.self_made.{field}"), format!("{name:?} is not a DNS name"));
            }
        }
        if raw.names.is_empty() {
            self.add("tls.self_made.names", "is empty: the API server calls by a name");
        }
        let default = Duration::from_secs(365 * 24 * 3600);
        let every = raw.every.as_deref();
        SelfMade {
            kubernetes,
            namespace: raw.namespace,
            secret,
            names: raw.names,
            mutating: raw.mutating,
            validating: raw.validating,
            life: self.span("tls.self_made.life", raw.life.as_deref(), default),
            every: self.span("tls.self_made.every", every, Duration::from_secs(30)),
        }
    }
}
