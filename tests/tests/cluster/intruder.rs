//! Somebody who calls the broker as a node's agent does, with whatever lies on the node's disk.

use std::{error::Error, io::Write as _, path::PathBuf, time::Duration};

use krb_node_agent::dial::{Dial as _, Proof, TlsDial, ToBroker};
use krb_proto::v1::{
    self, lease_service_client::LeaseServiceClient,
    namespace_service_client::NamespaceServiceClient,
    node_admin_service_client::NodeAdminServiceClient, node_service_client::NodeServiceClient,
    status_service_client::StatusServiceClient, sync_request, sync_response,
};
use krb_tests::{cluster::Node, world::api::reason};
use serde_json::json;
use tokio::{runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::{
    field::Field,
    install::{NAMESPACE, agent_pod},
};

/// How long a stream is listened to.
const LISTEN: Duration = Duration::from_secs(3);

/// A connection to the broker of somebody who has no business there.
pub struct Intruder {
    runtime: Runtime,
    channel: ToBroker,
    _token: Option<tempfile::NamedTempFile>,
}

/// A call that was refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused {
    /// gRPC's code.
    pub code: Code,
    /// The stable reason, if the broker gave one.
    pub reason: String,
    /// The message.
    pub message: String,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        Self { code: status.code(), reason: reason(&status), message }
    }
}

impl Intruder {
    /// Connects, each call with this token.
    pub fn with_token(field: &Field<'_>, token: &str) -> Result<Self, Box<dyn Error>> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(token.as_bytes())?;
        let proof = Proof::Token { file: file.path().into() };
        let (runtime, channel) = connect(field, proof)?;
        Ok(Self { runtime, channel, _token: Some(file) })
    }

    /// Connects with a certificate.
    pub fn with_certificate(
        field: &Field<'_>,
        (certificate, key): (PathBuf, PathBuf),
    ) -> Result<Self, Box<dyn Error>> {
        let (runtime, channel) = connect(field, Proof::Certificate { certificate, key })?;
        Ok(Self { runtime, channel, _token: None })
    }

    fn node(&self) -> NodeServiceClient<ToBroker> {
        NodeServiceClient::new(self.channel.clone())
    }

    /// `Issue`.
    pub fn issue(
        &self,
        generation: u64,
        pod: &str,
        volume: &str,
    ) -> Result<v1::IssueResponse, Refused> {
        let (pod_uid, volume) = (pod.to_owned(), volume.to_owned());
        let request = v1::IssueRequest { pod_uid, volume, generation, ..Default::default() };
        let issued = self.runtime.block_on(self.node().issue(request))?;
        Ok(issued.into_inner())
    }

    /// Why `Issue` is refused.
    pub fn is_refused(&self, generation: u64, pod: &str, volume: &str) -> Refused {
        match self.issue(generation, pod, volume) {
            Err(refused) => refused,
            Ok(issued) => panic!("{volume} of {pod} was issued as lease {}", issued.lease_id),
        }
    }

    /// `Release`.
    pub fn release(&self, generation: u64, lease: &str) -> Result<(), Refused> {
        let request = v1::ReleaseRequest { lease_id: lease.to_owned(), generation };
        self.runtime.block_on(self.node().release(request))?;
        Ok(())
    }

    /// `Sync` with this Hello: what the broker says in the first seconds.
    pub fn hello(&self, hello: v1::Hello) -> Result<Vec<sync_response::Event>, Refused> {
        self.runtime.block_on(async {
            let (says, said) = mpsc::channel(1);
            let event = Some(sync_request::Event::Hello(hello));
            let _ = says.send(v1::SyncRequest { event }).await; // the receiver is here
            let mut told = self.node().sync(ReceiverStream::new(said)).await?.into_inner();
            let mut events = Vec::new();
            while let Ok(Ok(Some(message))) = tokio::time::timeout(LISTEN, told.message()).await {
                events.extend(message.event);
            }
            Ok(events)
        })
    }

    /// What operators may do, and nodes may not: each call with its answer.
    pub fn operates(&self) -> Vec<(&'static str, Result<(), Refused>)> {
        let mut leases = LeaseServiceClient::new(self.channel.clone());
        let mut admin = NodeAdminServiceClient::new(self.channel.clone());
        let mut namespaces = NamespaceServiceClient::new(self.channel.clone());
        let mut state = StatusServiceClient::new(self.channel.clone());
        let listed = self.runtime.block_on(leases.list_leases(v1::ListLeasesRequest::default()));
        let evict = v1::EvictNodeRequest { node: "n1".to_owned(), ..Default::default() };
        let evicted = self.runtime.block_on(admin.evict_node(evict));
        let accept = v1::AcceptNamespaceRequest::default();
        let accepted = self.runtime.block_on(namespaces.accept_namespace(accept));
        let status = self.runtime.block_on(state.get_status(v1::GetStatusRequest {}));
        vec![
            ("ListLeases", listed.map(drop).map_err(Refused::from)),
            ("EvictNode", evicted.map(drop).map_err(Refused::from)),
            ("AcceptNamespace", accepted.map(drop).map_err(Refused::from)),
            ("GetStatus", status.map(drop).map_err(Refused::from)),
        ]
    }
}

fn connect(field: &Field<'_>, proof: Proof) -> Result<(Runtime, ToBroker), Box<dyn Error>> {
    let operator = &field.installed.operator;
    let dial = TlsDial {
        broker: format!("https://{}", operator.address).parse()?,
        broker_name: operator.server_name.clone().try_into()?,
        ca: operator.ca().to_owned(),
        proof,
    };
    let runtime = Runtime::new()?;
    let channel = runtime.block_on(dial.dial())?;
    Ok((runtime, channel))
}

/// The token of the agent's pod, as it lies on the disk of the node.
pub fn agent_token(field: &Field<'_>, node: &Node<'_>) -> Result<String, Box<dyn Error>> {
    let pod = agent_pod(field.cluster, node.name())?;
    let object = field.cluster.kubectl().get(NAMESPACE, "pod", &pod)?.ok_or("no agent")?;
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    let volumes = format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~projected");
    Ok(node.exec(&format!("cat {volumes}/*/token"))?.trim().to_owned())
}

/// The generation of a node's session, which its agent knows.
pub fn generation(field: &Field<'_>, node: &str) -> Result<u64, Box<dyn Error>> {
    let nodes =
        field.installed.operator.call("krb.broker.v1.NodeAdminService/ListNodes", &json!({}))?;
    let nodes = nodes["nodes"].as_array().cloned().unwrap_or_default();
    let session = nodes.iter().find(|session| session["name"] == node).ok_or("no such session")?;
    Ok(session["generation"].as_str().unwrap_or_default().parse()?)
}
