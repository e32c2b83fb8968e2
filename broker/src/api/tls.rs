//! TLS with a trust root for each role.
//!
//! A connection with a certificate of none of the roles' CAs ends in the handshake, and so does one
//! without a certificate, unless nodes may prove themselves by tokens. Who a connection is, is
//! found out once, when it is made; who has shown nothing is on [`super::probation`].

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::AbortHandle,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::{
    MAX_HANDSHAKES,
    caller::{Caller, Identity, identify},
    probation::{Probation, Probations, Proven},
    roles::{Role, RoleRoots},
};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why TLS can't be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file can't be used.
    #[error("{}: {detail}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// The key of the certificate is open to others.
    #[error("{}: its mode is {mode:o}: others can read it", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Two roles have a CA in common.
    #[error("{first} and {second} have a CA in common ({}): a certificate must not be both", path.display())]
    SharedCa {
        /// A role.
        first: Role,
        /// Another.
        second: Role,
        /// The second's CA file.
        path: PathBuf,
    },
    /// The certificate and its key don't go together, or rustls refuses them.
    #[error("the certificate {}: {source}", path.display())]
    Certificate {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// Makes connections and tells who they are.
#[derive(Clone)]
pub struct Acceptor {
    tls: tokio_rustls::TlsAcceptor,
    roles: Arc<Vec<(Role, Arc<dyn ClientCertVerifier>)>>,
    roots: Arc<RoleRoots>,
    probations: Probations,
}

impl Acceptor {
    /// Reads the certificate, its key and the CAs.
    ///
    /// # Errors
    /// When a file can't be used, or two roles have a CA in common.
    pub fn new(certificate: &Path, key: &Path, roots: &RoleRoots) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let files = [
            (Role::Node, roots.node.as_ref()),
            (Role::Operator, Some(&roots.operator)),
            (Role::Viewer, roots.viewer.as_ref()),
        ];
        let mut all = RootCertStore::empty();
        let mut roles: Vec<(Role, Arc<dyn ClientCertVerifier>)> = Vec::new();
        let mut seen: Vec<(Role, CertificateDer<'static>)> = Vec::new();
        for (role, path) in files {
            let Some(path) = path else { continue };
            let mut own = RootCertStore::empty();
            for ca in certificates(path)? {
                if let Some((first, _)) = seen.iter().find(|(_, known)| *known == ca) {
                    let (first, path) = (*first, path.clone());
                    return Err(TlsError::SharedCa { first, second: role, path });
                }
                for store in [&mut own, &mut all] {
                    store.add(ca.clone()).map_err(|e| unusable(path, &e))?;
                }
                seen.push((role, ca));
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(own.into(), provider.clone())
                    .build()
                    .map_err(|e| unusable(path, &e))?;
            roles.push((role, verifier));
        }
        let mut any = WebPkiClientVerifier::builder_with_provider(all.into(), provider.clone());
        if roots.node_tokens {
            any = any.allow_unauthenticated();
        }
        let any = any.build().map_err(|e| unusable(&roots.operator, &e))?;
        let refused = |source| TlsError::Certificate { path: certificate.to_owned(), source };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .with_client_cert_verifier(any)
            .with_single_cert(certificates(certificate)?, private_key(key)?)
            .map_err(refused)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            tls: Arc::new(config).into(),
            roles: Arc::new(roles),
            roots: Arc::new(roots.clone()),
            probations: Probations::default(),
        })
    }

    async fn accept(&self, tcp: TcpStream) -> io::Result<Connection> {
        tcp.set_nodelay(true)?;
        let stream =
            tokio::time::timeout(HANDSHAKE, self.tls.accept(tcp)).await.map_err(|_| {
                io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long")
            })??;
        let caller = self.caller(stream.get_ref().1.peer_certificates().unwrap_or_default());
        let unproven = caller.identity == Identity::Unproven;
        let probation = unproven.then(|| self.probations.begin());
        Ok(Connection { stream, caller, probation })
    }

    /// Which role's CA signed the certificate, and who it says the peer is.
    fn caller(&self, chain: &[CertificateDer<'_>]) -> Caller {
        let nobody = Caller {
            identity: Identity::Nobody { why: "no certificate of exactly one role's CA" },
            not_after: std::time::SystemTime::UNIX_EPOCH,
            key: None,
            node_uid: None,
        };
        let Some((certificate, intermediates)) = chain.split_first() else {
            return if self.roots.node_tokens { Caller::unproven() } else { nobody };
        };
        let now = UnixTime::now();
        let signed = |verifier: &Arc<dyn ClientCertVerifier>| {
            verifier.verify_client_cert(certificate, intermediates, now).is_ok()
        };
        // A chain that leads to the CAs of two roles proves neither.
        let mut roles = self.roles.iter().filter(|(_, verifier)| signed(verifier));
        let (Some((role, _)), None) = (roles.next(), roles.next()) else { return nobody };
        let mut caller = identify(certificate, *role);
        if let Identity::Viewer(name, visible) = &mut caller.identity {
            *visible = self.roots.viewer_namespaces.get(name).cloned();
        }
        caller
    }
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), detail: error.to_string() }
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| unusable(path, &e))?;
    if certificates.is_empty() {
        return Err(unusable(path, &"holds no certificate"));
    }
    Ok(certificates)
}

pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    use std::os::unix::fs::MetadataExt;
    let mode = std::fs::metadata(path).map_err(|e| unusable(path, &e))?.mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(TlsError::Open { path: path.to_owned(), mode });
    }
    PrivateKeyDer::from_pem_file(path).map_err(|e| unusable(path, &e))
}

/// Connections that have proved themselves, until `stop`.
pub fn incoming(
    listener: TcpListener,
    acceptor: Acceptor,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut handshakes = VecDeque::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let (tcp, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await; // out of descriptors
                    continue;
                }
            };
            make_room(&mut handshakes);
            let (acceptor, ready) = (acceptor.clone(), ready.clone());
            let handshake = tokio::spawn(async move {
                match acceptor.accept(tcp).await {
                    Ok(connection) => drop(ready.send(Ok(connection)).await),
                    Err(error) if hung_up(&error) => {
                        tracing::debug!(%peer, %error, "a connection ended in its handshake");
                    }
                    Err(error) => {
                        tracing::info!(%peer, %error, "a connection did not prove itself")
                    }
                }
            });
            handshakes.push_back(handshake.abort_handle());
        }
    });
    ReceiverStream::new(connections)
}

/// Whether the peer went away by itself, as kubelet's probes do, every few seconds.
fn hung_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

/// Where as many connections are in their handshake as may be, the one that has been for the
/// longest ends: an honest one takes milliseconds, so that idle ones keep nobody out.
fn make_room(handshakes: &mut VecDeque<AbortHandle>) {
    handshakes.retain(|handshake| !handshake.is_finished());
    while handshakes.len() >= MAX_HANDSHAKES {
        let oldest = handshakes.pop_front();
        if let Some(oldest) = oldest {
            oldest.abort();
        }
    }
}

/// A connection whose peer is known, or must make itself known by its first calls.
pub struct Connection {
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    caller: Caller,
    probation: Option<Probation>,
}

/// What each call of a connection brings along.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Whose connection it is.
    pub caller: Caller,
    /// Where a call that proves itself is noted, if none has.
    pub proof: Option<Arc<Proven>>,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        let proof = self.probation.as_ref().map(Probation::proven);
        Peer { caller: self.caller.clone(), proof }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(probation) = &mut self.probation {
            match probation.poll_over(context) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.probation = None,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
