//! The certificate that is served, replaced while connections go on.
//!
//! A connection has the certificate of the moment at which it was made. What can't be used is
//! refused when it is offered, and what was served before goes on being served.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use krb_proto::Secret;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use sha2::{Digest as _, Sha256};

use crate::api::tls::{TlsError, certificates, private_key};

/// A certificate and its key.
pub struct Material {
    /// The certificate, and those that lead to its CA.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key, DER.
    pub key: Secret,
    /// Whether the API server can believe it; else it only lets probes be answered.
    pub believable: bool,
}

/// Why a certificate can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// A file can't be used.
    #[error(transparent)]
    File(#[from] TlsError),
    /// The certificate and its key don't go together, or are none.
    #[error("the certificate and its key can't be served")]
    Refused(#[source] rustls::Error),
    /// It is no certificate.
    #[error("the certificate can't be read")]
    Unreadable,
}

/// What is served now.
pub struct Certificates {
    client_ca: Option<PathBuf>,
    now: RwLock<Option<Served>>,
}

#[derive(Clone)]
struct Served {
    config: Arc<ServerConfig>,
    not_after: SystemTime,
    believable: bool,
    digest: [u8; 32],
}

impl Material {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// When a file can't be used, or others can read the key.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let key = private_key(key)?.secret_der().to_vec();
        Ok(Self { chain: certificates(certificate)?, key: Secret::new(key), believable: true })
    }
}

impl Certificates {
    /// None yet. With `client_ca`, callers can show a certificate of it, and none of another.
    pub fn new(client_ca: Option<PathBuf>) -> Self {
        Self { client_ca, now: RwLock::new(None) }
    }

    /// Serves this from now on; whether it was news. The client CA is read again, too.
    ///
    /// # Errors
    /// When it can't be served. Nothing changes then.
    pub fn offer(&self, material: &Material) -> Result<bool, ServingError> {
        let trusted = self.client_ca.as_deref().map(certificates).transpose()?;
        let digest = digest(material, trusted.as_deref().unwrap_or_default());
        if self.served().is_some_and(|served| served.digest == digest) {
            return Ok(false);
        }
        let config = Arc::new(server_config(material, self.verifier(trusted)?)?);
        let not_after = not_after(material).ok_or(ServingError::Unreadable)?;
        let served = Served { config, not_after, believable: material.believable, digest };
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Some(served);
        Ok(true)
    }

    /// How a connection is made now, if there is a certificate.
    pub fn config(&self) -> Option<Arc<ServerConfig>> {
        self.served().map(|served| served.config)
    }

    /// Whether the API server can believe what is served.
    pub fn is_good(&self, now: SystemTime) -> bool {
        self.served().is_some_and(|served| served.believable && now < served.not_after)
    }

    fn served(&self) -> Option<Served> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Probes show no certificate, so that one may be absent here and is asked for later.
    fn verifier(
        &self,
        trusted: Option<Vec<CertificateDer<'static>>>,
    ) -> Result<Arc<dyn ClientCertVerifier>, ServingError> {
        let (Some(path), Some(trusted)) = (&self.client_ca, trusted) else {
            return Ok(Arc::new(NoClientAuth));
        };
        let unusable = |error: &dyn std::fmt::Display| TlsError::File {
            path: path.clone(),
            detail: error.to_string(),
        };
        let mut roots = RootCertStore::empty();
        for ca in trusted {
            roots.add(ca).map_err(|error| unusable(&error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        Ok(builder.allow_unauthenticated().build().map_err(|error| unusable(&error))?)
    }
}

fn server_config(
    material: &Material,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<ServerConfig, ServingError> {
    let key = PrivateKeyDer::try_from(material.key.expose().to_vec())
        .map_err(|why| ServingError::Refused(rustls::Error::General(why.to_owned())))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ServingError::Refused)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(material.chain.clone(), key)
        .map_err(ServingError::Refused)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn digest(material: &Material, trusted: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update([u8::from(material.believable)]);
    for part in material.chain.iter().chain(trusted) {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.update(material.key.expose());
    hash.finalize().into()
}

/// When the certificate that is shown ends.
fn not_after(material: &Material) -> Option<SystemTime> {
    let (_, certificate) = x509_parser::parse_x509_certificate(material.chain.first()?).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}
