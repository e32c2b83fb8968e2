//! `NodeService`: what a node's agent asks.

use std::{pin::Pin, sync::Arc, time::Duration};

use krb_proto::{
    Generation, LeaseId, NodeName, PodRef,
    reason::Reason,
    v1::{self, node_service_server::NodeService, sync_request, sync_response},
};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    authorize::caller,
    caller::Caller,
    errors::{invalid, status, try_again},
};
use crate::{
    audit,
    issue::{self, IssueError, Issuer, NotIssued},
    ledger::sessions::NotServed,
    notices::{About, Notice, Notices},
    pods::Place,
    session::{
        sync::{Attached, Proof, Syncing, Until},
        witness::Witnesses,
    },
    tokens::NodeTokens,
};

/// How long a stream may be without its Hello.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// When it is worth another try to attach in another Node object's place.
const SOON: Duration = Duration::from_secs(1);

/// Serves nodes.
pub struct NodeApi {
    /// Issues and releases.
    pub issuer: Arc<Issuer>,
    /// Serves the streams.
    pub syncing: Syncing,
    /// Who reviews tokens, where nodes have them.
    pub tokens: Option<Arc<dyn NodeTokens>>,
    /// Tells the owners of pods.
    pub notices: Arc<dyn Notices>,
    /// Whom a Node object's uid is asked of, where the caller does not prove it.
    pub witnesses: Arc<dyn Witnesses>,
    /// krb5.conf for pods.
    pub profile: Arc<[u8]>,
    /// Where streams run.
    pub tasks: TaskTracker,
    /// Ends them: a stream that lives on would keep the server, and so the broker, from ending.
    pub stop: CancellationToken,
}

type Outbound = Pin<Box<dyn Stream<Item = Result<v1::SyncResponse, Status>> + Send>>;

#[tonic::async_trait]
impl NodeService for NodeApi {
    async fn issue(
        &self,
        request: Request<v1::IssueRequest>,
    ) -> Result<Response<v1::IssueResponse>, Status> {
        let node = self.node_of(&request)?;
        let key = caller(&request)?.key;
        let asked = request.into_inner();
        let request = issue::Request {
            node,
            key,
            generation: Generation(asked.generation),
            pod: asked.pod_uid.parse().map_err(|e| invalid("pod_uid", e))?,
            hint: hint(&asked),
            volume: asked.volume.parse().map_err(|e| invalid("volume", e))?,
        };
        let issued = self.issuer.issue(&request).await.map_err(|NotIssued { error, pod: owned }| {
            let (node, pod) = (&request.node, &request.pod);
            tracing::info!(%node, %pod, reason = %error.reason(), error = audit::chain(&error), "nothing issued");
            let status = Status::from(&error);
            owned.into_iter().for_each(|pod| self.notices.tell(notice(pod, &error, &status)));
            status
        })?;
        let lease = issued.lease;
        Ok(Response::new(v1::IssueResponse {
            lease_id: lease.id.to_string(),
            pod: Some(super::lease::pod_ref(&lease.holder.pod)),
            volume: lease.holder.volume.to_string(),
            user: lease.owner.account.to_string(),
            uid: lease.owner.uid,
            gid: lease.owner.gid,
            keytab_gid: lease.owner.keytab_gid,
            material: Some(issued.material),
            profile: self.profile.to_vec(),
        }))
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        let node = self.node_of(&request)?;
        let lease: LeaseId =
            request.into_inner().lease_id.parse().map_err(|e| invalid("lease_id", e))?;
        self.issuer.release(&node, &lease).await?;
        Ok(Response::new(v1::ReleaseResponse {}))
    }

    type SyncStream = Outbound;

    async fn sync(
        &self,
        request: Request<Streaming<v1::SyncRequest>>,
    ) -> Result<Response<Outbound>, Status> {
        let node = node_of(&request)?;
        let caller = caller(&request)?;
        // only a token proves the uid of the Node object by itself
        let tokens = caller.node_uid.as_ref().and(self.tokens.clone());
        let until = Until { not_after: caller.not_after, tokens };
        let mut said = request.into_inner();
        let hello = hello(&mut said).await?;
        let proof = Proof { key: caller.key, node_uid: self.node_uid(&caller) };
        match self.syncing.attach(&node, &proof, &hello).await? {
            Attached::Welcome(stream, told) => {
                let (syncing, stop) = (self.syncing.clone(), self.stop.clone());
                self.tasks
                    .spawn(async move { syncing.serve(&node, stream, said, until, &stop).await });
                Ok(Response::new(Box::pin(ReceiverStream::new(told).map(Ok))))
            }
            Attached::Fenced(generation) => Ok(fenced(generation, Reason::Fenced)),
            Attached::Banned(generation) => Ok(fenced(generation, Reason::Banned)),
            Attached::Wait => {
                let message = "too many agents under one node's name in a minute".to_owned();
                Err(status(Code::ResourceExhausted, Reason::NotAttached, message))
            }
            Attached::Replaces => {
                let message = NotServed::Replaced.to_string();
                Err(try_again(Code::Unavailable, Reason::NotAttached, message, SOON))
            }
            Attached::TooOften(wait) => {
                let message = "the node attaches too often".to_owned();
                Err(try_again(Code::ResourceExhausted, Reason::RateLimited, message, wait))
            }
        }
    }
}

/// What the owner of a pod that got nothing is told: what the mount's failure says too.
fn notice(pod: PodRef, error: &IssueError, status: &Status) -> Notice {
    let passes = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted)
        || matches!(error, IssueError::Node { .. } | IssueError::Ended { .. });
    let about = if passes { About::Delayed } else { About::Denied };
    Notice { pod, about, text: format!("{} ({})", status.message(), error.reason()) }
}

/// A stream that tells the agent to wipe, and no more.
/// Where the node says that the pod is; nothing when it does not say, or what it says is no name.
fn hint(asked: &v1::IssueRequest) -> Option<Place> {
    Some((asked.pod_namespace.parse().ok()?, asked.pod_name.parse().ok()?))
}

fn fenced(generation: Generation, reason: Reason) -> Response<Outbound> {
    let fenced = v1::Fenced { generation: generation.0, reason: reason.as_str().to_owned() };
    let only = v1::SyncResponse { event: Some(sync_response::Event::Fenced(fenced)) };
    Response::new(Box::pin(tokio_stream::once(Ok(only))))
}

impl NodeApi {
    /// The uid of the caller's Node object: proved with its token, or else as the cluster has it.
    fn node_uid(&self, caller: &Caller) -> Option<String> {
        let known = || self.witnesses.node_uid(caller.node()?);
        caller.node_uid.clone().or_else(known)
    }

    /// The node that calls, if its session is not another Node object's.
    fn node_of<T>(&self, request: &Request<T>) -> Result<NodeName, Status> {
        let (node, uid) = (node_of(request)?, caller(request)?.node_uid);
        let same = self.syncing.book.read(|ledger| ledger.check_node_uid(&node, uid.as_deref()));
        match same {
            Ok(()) => Ok(node),
            Err(why) => Err(status(Code::FailedPrecondition, Reason::NotAttached, why.to_string())),
        }
    }
}

fn node_of<T>(request: &Request<T>) -> Result<NodeName, Status> {
    let node = caller(request)?.node().cloned();
    node.ok_or_else(|| {
        let message = "only a node may call this".to_owned();
        status(Code::PermissionDenied, Reason::RoleNotAllowed, message)
    })
}

/// The first message of a stream.
async fn hello(said: &mut Streaming<v1::SyncRequest>) -> Result<v1::Hello, Status> {
    let first = tokio::time::timeout(HELLO_WITHIN, said.next())
        .await
        .map_err(|_| invalid("the stream", "says no Hello"))?;
    match first.transpose()?.and_then(|message| message.event) {
        Some(sync_request::Event::Hello(hello)) => Ok(hello),
        _ => Err(invalid("the stream", "does not begin with a Hello")),
    }
}
