//! The rival of the broker's API: a process with the same TLS, the same callers and the same
//! server, whose answers are empty and cost nothing.

use std::{net::SocketAddr, path::PathBuf, pin::Pin};

use krb_broker::api::{roles::RoleRoots, tls};
use krb_proto::v1::{
    self,
    node_service_server::{NodeService, NodeServiceServer},
};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::Failure;

/// What the process is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// Where it listens
    #[arg(long)]
    pub listen: SocketAddr,
    /// The directory of certificates
    #[arg(long)]
    pub pki: PathBuf,
}

struct Empty;

type Nothing = Pin<Box<dyn Stream<Item = Result<v1::SyncResponse, Status>> + Send>>;

#[tonic::async_trait]
impl NodeService for Empty {
    async fn issue(
        &self,
        _: Request<v1::IssueRequest>,
    ) -> Result<Response<v1::IssueResponse>, Status> {
        Ok(Response::new(v1::IssueResponse::default()))
    }

    async fn release(
        &self,
        _: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        Ok(Response::new(v1::ReleaseResponse {}))
    }

    type SyncStream = Nothing;

    async fn sync(
        &self,
        _: Request<Streaming<v1::SyncRequest>>,
    ) -> Result<Response<Nothing>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }
}

/// Answers until it is killed.
///
/// # Errors
/// When it can't listen or its certificates can't be used.
pub async fn serve(settings: Settings) -> Result<(), Failure> {
    let file = |name: &str| settings.pki.join(name);
    let roots = RoleRoots {
        node: Some(file("node-ca.crt")),
        node_tokens: false,
        operator: file("operator-ca.crt"),
        viewer: None,
        viewer_namespaces: std::collections::BTreeMap::new(),
    };
    let acceptor = tls::Acceptor::new(&file("broker.crt"), &file("broker.key"), &roots)?;
    let listener = tokio::net::TcpListener::bind(settings.listen).await?;
    let incoming = tls::incoming(listener, acceptor, CancellationToken::new());
    Server::builder()
        .add_service(NodeServiceServer::new(Empty))
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}
