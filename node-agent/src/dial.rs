//! The way to the broker: TCP, TLS, HTTP/2.
//!
//! Only the broker's CA and the broker's name are accepted. The node's certificate and key
//! are read anew for each connection, so that a rotated one is taken.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint, Uri};

/// Opens a channel to the broker.
pub trait Dial: Send + Sync {
    /// A new connection.
    fn dial(&self) -> Dialling<'_>;
}

/// A connection in the making.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = Result<Channel, DialError>> + Send + 'a>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// A file can't be read.
    #[error("reading {path}")]
    File {
        /// Which one.
        path: String,
        /// Why.
        source: pem::Error,
    },
    /// The CA, the certificate or the key can't be used.
    #[error("using the node's certificate")]
    Certificate(#[source] rustls::Error),
    /// Nobody answers, or not as the broker.
    #[error("connecting to {address}")]
    Connect {
        /// Where to.
        address: String,
        /// Why not.
        source: tonic::transport::Error,
    },
}

/// Where the broker is, and who this node is to it.
#[derive(Clone, Debug)]
pub struct TlsDial {
    /// `https://host:port`.
    pub broker: Uri,
    /// The name in the broker's certificate.
    pub broker_name: ServerName<'static>,
    /// PEM of the CA that signs the broker's certificate.
    pub ca: PathBuf,
    /// PEM of the node's certificate, its chain after it.
    pub certificate: PathBuf,
    /// PEM of its key.
    pub key: PathBuf,
}

impl Dial for TlsDial {
    fn dial(&self) -> Dialling<'_> {
        Box::pin(async move {
            let tls = TlsConnector::from(Arc::new(self.client_config()?));
            let name = self.broker_name.clone();
            let connector = tower::service_fn(move |uri: Uri| {
                let (tls, name) = (tls.clone(), name.clone());
                async move { connect(&uri, &tls, name).await.map(TokioIo::new) }
            });
            let endpoint = Endpoint::from(self.broker.clone());
            let connected = endpoint.connect_with_connector(connector).await;
            let address = self.broker.to_string();
            connected.map_err(|source| DialError::Connect { address, source })
        })
    }
}

impl TlsDial {
    fn client_config(&self) -> Result<ClientConfig, DialError> {
        let mut roots = RootCertStore::empty();
        for ca in certificates(&self.ca)? {
            roots.add(ca).map_err(DialError::Certificate)?;
        }
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(in_file(&self.key))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(DialError::Certificate)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(DialError::Certificate)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

async fn connect(
    uri: &Uri,
    tls: &TlsConnector,
    name: ServerName<'static>,
) -> io::Result<TlsStream<TcpStream>> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let tcp = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
    tcp.set_nodelay(true)?;
    tls.connect(name, tcp).await
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, DialError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read.map_err(in_file(path))? {
        none if none.is_empty() => Err(in_file(path)(pem::Error::NoItemsFound)),
        some => Ok(some),
    }
}

fn in_file(path: &Path) -> impl FnOnce(pem::Error) -> DialError {
    let path = path.display().to_string();
    move |source| DialError::File { path, source }
}
