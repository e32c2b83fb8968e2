//! The broker's API, as an operator or viewer uses it.

use std::net::SocketAddr;

use krb_node_agent::dial::{Proof, TlsDial};
use krb_proto::v1::{
    self, lease_service_client::LeaseServiceClient,
    namespace_service_client::NamespaceServiceClient,
    node_admin_service_client::NodeAdminServiceClient, node_service_client::NodeServiceClient,
    principal_service_client::PrincipalServiceClient, status_service_client::StatusServiceClient,
};
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use super::{WorldError, pki};

/// A channel of one caller.
#[derive(Clone)]
pub struct Api {
    channel: Channel,
}

impl Api {
    /// Connects with the certificate that was issued under this name.
    pub async fn connect(
        address: SocketAddr,
        pki: &pki::Pki,
        name: &str,
    ) -> Result<Self, WorldError> {
        let files = pki.files(name);
        let failed = |e: &dyn std::fmt::Display| WorldError::new("connecting", e);
        let dial = TlsDial {
            broker: format!("https://{address}").parse().map_err(|e| failed(&e))?,
            broker_name: pki::BROKER.try_into().map_err(|e| failed(&e))?,
            ca: pki.ca("broker"),
            proof: Proof::Certificate { certificate: files.certificate, key: files.key },
        };
        let channel = dial.channel().await.map_err(|e| failed(&krb_broker::audit::chain(&e)))?;
        Ok(Self { channel })
    }

    /// The channel itself, for services that are not ours.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// `LeaseService`.
    pub fn leases(&self) -> LeaseServiceClient<Channel> {
        LeaseServiceClient::new(self.channel.clone())
    }

    /// `StatusService`.
    pub fn status(&self) -> StatusServiceClient<Channel> {
        StatusServiceClient::new(self.channel.clone())
    }

    /// `NamespaceService`.
    pub fn namespaces(&self) -> NamespaceServiceClient<Channel> {
        NamespaceServiceClient::new(self.channel.clone())
    }

    /// `NodeAdminService`.
    pub fn node_admin(&self) -> NodeAdminServiceClient<Channel> {
        NodeAdminServiceClient::new(self.channel.clone())
    }

    /// What the broker says of a node.
    pub async fn node(&self, name: &str) -> Result<Option<v1::Node>, tonic::Status> {
        let request = v1::ListNodesRequest { page_size: 1_000, ..v1::ListNodesRequest::default() };
        let nodes = self.node_admin().list_nodes(request).await?.into_inner().nodes;
        Ok(nodes.into_iter().find(|node| node.name == name))
    }

    /// `PrincipalService`.
    pub fn principals(&self) -> PrincipalServiceClient<Channel> {
        PrincipalServiceClient::new(self.channel.clone())
    }

    /// Asks for a new key of the principal; the number of the one in use.
    pub async fn rotate(
        &self,
        principal: &str,
        kind: v1::RotationKind,
    ) -> Result<u32, tonic::Status> {
        let request = v1::RotatePrincipalRequest {
            principal: principal.to_owned(),
            kind: kind.into(),
            reason: "a story asks for it".to_owned(),
        };
        Ok(self.principals().rotate_principal(request).await?.into_inner().current_kvno)
    }

    /// `NodeService`.
    pub fn nodes(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel.clone())
    }

    /// Every lease that fits.
    pub async fn list(
        &self,
        request: v1::ListLeasesRequest,
    ) -> Result<Vec<v1::Lease>, tonic::Status> {
        let mut request = request;
        let mut leases = Vec::new();
        loop {
            let page = self.leases().list_leases(request.clone()).await?.into_inner();
            leases.extend(page.leases);
            if page.next_page_token.is_empty() {
                return Ok(leases);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// The newest lease of a pod.
    pub async fn lease_of(&self, pod_uid: &str) -> Result<Option<v1::Lease>, tonic::Status> {
        let pod_uid = pod_uid.to_owned();
        let request = v1::ListLeasesRequest { pod_uid, ..v1::ListLeasesRequest::default() };
        let mut leases = self.list(request).await?;
        leases.sort_by_key(|lease| {
            lease.acquired_at.map(|at| (at.seconds, at.nanos)).unwrap_or_default()
        });
        Ok(leases.pop())
    }
}

/// The stable reason of a failed call.
pub fn reason(status: &tonic::Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}
