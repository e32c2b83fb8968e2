//! The way to the broker: TCP, TLS, HTTP/2.
//!
//! Only the broker's CA and the broker's name are accepted. The node proves who it is by a
//! certificate, which is read anew for each connection, or by the service account token of the
//! agent's own pod, which is read anew for each call: kubelet replaces it long before its end.
//! The token goes only over such a connection, and into no log.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use hyper_util::rt::TokioIo;
use krb_proto::Secret;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Uri},
};
use zeroize::Zeroizing;

/// Opens a channel to the broker.
pub trait Dial: Send + Sync {
    /// A new connection, whose calls prove who the node is.
    fn dial(&self) -> Dialling<'_>;
}

/// A connection in the making.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = Result<ToBroker, DialError>> + Send + 'a>>;

/// A connection to the broker.
pub type ToBroker = InterceptedService<Channel, Bearer>;

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
    #[error("using the CA or the node's certificate")]
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
    /// How the node proves who it is.
    pub proof: Proof,
}

/// How a node proves who it is.
#[derive(Clone, Debug)]
pub enum Proof {
    /// By a certificate, PEM, its chain after it, and its key.
    Certificate {
        /// PEM of the certificate, its chain after it.
        certificate: PathBuf,
        /// PEM of its key.
        key: PathBuf,
    },
    /// By the token of the agent's own pod.
    Token {
        /// Where kubelet writes it.
        file: Arc<Path>,
    },
}

impl Dial for TlsDial {
    fn dial(&self) -> Dialling<'_> {
        Box::pin(async move { Ok(ToBroker::new(self.channel().await?, self.bearer())) })
    }
}

impl TlsDial {
    /// A new connection, which proves who the node is only where it has a certificate.
    ///
    /// # Errors
    /// When a file can't be used, or nobody answers as the broker.
    pub async fn channel(&self) -> Result<Channel, DialError> {
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
    }

    fn bearer(&self) -> Bearer {
        match &self.proof {
            Proof::Certificate { .. } => Bearer::none(),
            Proof::Token { file } => Bearer { file: Some(file.clone()) },
        }
    }

    fn client_config(&self) -> Result<ClientConfig, DialError> {
        let mut roots = RootCertStore::empty();
        for ca in certificates(&self.ca)? {
            roots.add(ca).map_err(DialError::Certificate)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(DialError::Certificate)?
            .with_root_certificates(roots);
        let mut config = match &self.proof {
            Proof::Certificate { certificate, key } => {
                let chain = certificates(certificate)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(in_file(key))?;
                config.with_client_auth_cert(chain, key).map_err(DialError::Certificate)?
            }
            Proof::Token { .. } => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// Puts the token into each call, where the node has one.
#[derive(Clone, Debug)]
pub struct Bearer {
    file: Option<Arc<Path>>,
}

impl Bearer {
    /// For a connection that proves who it is by itself.
    pub fn none() -> Self {
        Self { file: None }
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(file) = &self.file {
            let header = header(file).map_err(|why| {
                tracing::warn!(file = %file.display(), why, "the agent's token can't be used");
                Status::unavailable("the agent's own token can't be used")
            })?;
            request.metadata_mut().insert("authorization", header);
        }
        Ok(request)
    }
}

/// The longest token, as the broker has it.
const MAX_TOKEN: usize = 16 * 1024;

/// The header of the token that the file holds now. A read of some kilobytes from memory: the
/// file lies on a tmpfs of kubelet's.
fn header(file: &Path) -> Result<MetadataValue<Ascii>, String> {
    let token = Secret::new(std::fs::read(file).map_err(|error| error.to_string())?);
    let text = token.expose().trim_ascii();
    if text.is_empty() || text.len() > MAX_TOKEN {
        return Err("it is empty, or longer than 16 KiB".to_owned());
    }
    let header = Zeroizing::new([b"Bearer ", text].concat());
    let header = MetadataValue::try_from(header.as_slice());
    let mut header = header.map_err(|_| "it has characters that no token has".to_owned())?;
    header.set_sensitive(true); // shown nowhere, and in no table of HTTP/2's
    Ok(header)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn called(bearer: &mut Bearer) -> Result<Option<String>, Status> {
        let request = bearer.call(Request::new(()))?;
        let header = request.metadata().get("authorization");
        assert!(header.is_none_or(|header| header.is_sensitive()), "no log shows it");
        Ok(header.map(|header| header.to_str().unwrap().to_owned()))
    }

    #[test]
    fn each_call_carries_the_token_that_the_file_holds_then() {
        let dir = tempfile::tempdir().unwrap();
        let file: Arc<Path> = dir.path().join("token").into();
        let mut bearer = Bearer { file: Some(file.clone()) };
        let missing = called(&mut bearer).unwrap_err();
        assert_eq!(missing.code(), tonic::Code::Unavailable, "it is asked again");
        for token in ["first", "second\n"] {
            std::fs::write(&file, token).unwrap();
            let expected = format!("Bearer {}", token.trim());
            assert_eq!(called(&mut bearer).unwrap(), Some(expected));
        }
        for bad in ["", "\n", "a\nb", &"a".repeat(MAX_TOKEN + 1)] {
            std::fs::write(&file, bad).unwrap();
            assert!(called(&mut bearer).is_err());
        }
        assert_eq!(called(&mut Bearer::none()).unwrap(), None);
    }
}
