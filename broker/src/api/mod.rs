//! The gRPC API: who may call what, and how use cases and their failures look from outside.
//!
//! - [`tls`] accepts connections and tells who each one is, once; [`caller`] reads a
//!   certificate, `bearer` takes a call's token out of it; [`roles`] says which role may call which method, default deny.
//! - [`authorize`] stands before every service; a service never sees a caller that may not
//!   call it.
//! - [`errors`] is the one place where a failure becomes a code.
//!
//! Nothing is decided here: each method parses its request, calls one use case, and writes
//! the answer.

use std::{net::SocketAddr, time::Duration};

use krb_proto::v1::{
    DESCRIPTORS, lease_service_server::LeaseServiceServer,
    namespace_service_server::NamespaceServiceServer,
    node_admin_service_server::NodeAdminServiceServer, node_service_server::NodeServiceServer,
    principal_service_server::PrincipalServiceServer, status_service_server::StatusServiceServer,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

pub mod authorize;
mod bearer;
pub mod caller;
pub mod errors;
pub mod lease;
pub mod namespace;
pub mod node;
pub mod node_admin;
pub mod principal;
pub mod probation;
pub mod revocation;
pub mod roles;
pub mod status;
pub mod tls;
mod watch;

/// The longest request that is read, in bytes: a Hello with 10,000 volumes.
const MAX_REQUEST: usize = 4 * 1024 * 1024;
/// Calls of one connection that may be under way at once: an agent fills 256 volumes.
const CALLS_AT_ONCE: usize = 512;
/// Streams of one connection, those calls included.
const STREAMS_AT_ONCE: u32 = 1024;
/// Connections that may be in their TLS handshake at once.
pub(crate) const MAX_HANDSHAKES: usize = 256;

/// The services, ready to serve.
pub struct Services {
    /// For nodes.
    pub node: node::NodeApi,
    /// For operators and viewers.
    pub lease: lease::LeaseApi,
    /// For operators.
    pub node_admin: node_admin::NodeAdminApi,
    /// For operators.
    pub namespace: namespace::NamespaceApi,
    /// For operators.
    pub principal: principal::PrincipalApi,
    /// For operators and viewers.
    pub status: status::StatusApi,
}

/// Why the API does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address can't be had.
    #[error("listening on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The certificate, its key or a CA can't be used.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The descriptors can't be reflected on.
    #[error("reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server failed.
    #[error("serving")]
    Serve(#[from] tonic::transport::Error),
}

/// Serves until `stop`, then lets calls that are under way end.
///
/// # Errors
/// When it can't begin, or the server fails.
pub async fn serve(
    address: SocketAddr,
    acceptor: tls::Acceptor,
    services: Services,
    authorize: authorize::Authorize,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Listen { address, source })?;
    let address = listener.local_addr().unwrap_or(address);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<NodeServiceServer<node::NodeApi>>().await;
    let reflect = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let incoming = tls::incoming(listener, acceptor, stop.clone());
    tracing::info!(%address, "the API is served");
    Server::builder()
        .concurrency_limit_per_connection(CALLS_AT_ONCE)
        .max_concurrent_streams(STREAMS_AT_ONCE)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .layer(authorize)
        .add_service(health_service)
        .add_service(reflect().build_v1()?)
        .add_service(reflect().build_v1alpha()?)
        .add_service(NodeServiceServer::new(services.node).max_decoding_message_size(MAX_REQUEST))
        .add_service(LeaseServiceServer::new(services.lease))
        .add_service(NodeAdminServiceServer::new(services.node_admin))
        .add_service(NamespaceServiceServer::new(services.namespace))
        .add_service(PrincipalServiceServer::new(services.principal))
        .add_service(StatusServiceServer::new(services.status))
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await?;
    Ok(())
}
