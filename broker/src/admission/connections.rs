//! The webhook's connections: HTTP/1.1 and HTTP/2 over TLS, so many and no more.
//!
//! Where all places are taken, the oldest connection is asked to end after what it is at: the
//! newest always gets in, so that idle ones keep the API server from nothing.

use std::{collections::VecDeque, io, pin::pin, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{server::Proof, serving::Certificates};

/// The most connections that are not asked to end.
const MAX_CONNECTIONS: usize = 256;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long the head of a request may take to come; an idle HTTP/1.1 connection ends then, too.
const HEAD: Duration = Duration::from_secs(30);

/// How long a connection that is asked to end has for what it is at.
const LEAVE: Duration = Duration::from_secs(10);

/// Serves until `stop`, and then until what is under way is answered.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    certificates: Arc<Certificates>,
    stop: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let mut open: VecDeque<(CancellationToken, AbortHandle)> = VecDeque::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let tcp = match accepted {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await; // out of descriptors
                continue;
            }
        };
        make_room(&mut open);
        let leave = stop.child_token();
        let connection = connection(tcp, router.clone(), certificates.clone(), leave.clone());
        let task = tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
        open.push_back((leave, task.abort_handle()));
    }
    tasks.close();
    tasks.wait().await;
}

/// Asks the oldest to end, and ends those that were asked long ago and are still there.
fn make_room(open: &mut VecDeque<(CancellationToken, AbortHandle)>) {
    open.retain(|(_, task)| !task.is_finished());
    while open.len() >= 2 * MAX_CONNECTIONS {
        if let Some((_, task)) = open.pop_front() {
            task.abort();
        }
    }
    let staying = open.iter().filter(|(leave, _)| !leave.is_cancelled());
    let surplus = (staying.count() + 1).saturating_sub(MAX_CONNECTIONS);
    let oldest = open.iter().filter(|(leave, _)| !leave.is_cancelled()).take(surplus);
    oldest.for_each(|(leave, _)| leave.cancel());
}

async fn connection(
    tcp: TcpStream,
    router: Router,
    certificates: Arc<Certificates>,
    leave: CancellationToken,
) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let config = certificates.config().ok_or_else(|| io::Error::other("no certificate yet"))?;
    let handshake = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(tcp));
    let stream = handshake.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let proof = Proof(stream.get_ref().1.peer_certificates().is_some_and(|c| !c.is_empty()));
    let service = TowerToHyperService::new(router.layer(Extension(proof)));
    let builder = builder();
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = leave.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(LEAVE, connection).await {
                Ok(ended) => ended,
                Err(_) => return Err(io::Error::from(io::ErrorKind::TimedOut)),
            }
        }
    };
    ended.map_err(io::Error::other)
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD)
        .keep_alive_timeout(HANDSHAKE)
        .max_concurrent_streams(2 * super::server::MAX_IN_FLIGHT as u32)
        .max_header_list_size(32 * 1024);
    builder
}
