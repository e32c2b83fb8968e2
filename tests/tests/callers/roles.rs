//! What each role may call.

use krb_proto::v1;
use krb_tests::world::{
    World,
    api::{Api, reason},
};
use tokio_stream::StreamExt as _;
use tonic::Status;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{Story, world};

async fn api(world: &World, name: &str) -> Result<Api, Box<dyn std::error::Error>> {
    Ok(Api::connect(world.broker.address(), &world.pki, name).await?)
}

fn outcome<T>(answer: Result<T, Status>) -> String {
    match answer {
        Ok(_) => "OK".to_owned(),
        Err(status) => reason(&status),
    }
}

/// Every method of operators and viewers, and how the caller was answered.
async fn asks(api: &Api) -> Vec<(&'static str, String)> {
    let (mut leases, mut names) = (api.leases(), api.namespaces());
    let (mut status, mut nodes) = (api.status(), api.node_admin());
    let lease = v1::GetLeaseRequest::default();
    let accept = v1::AcceptNamespaceRequest::default();
    vec![
        ("ListLeases", outcome(leases.list_leases(v1::ListLeasesRequest::default()).await)),
        ("GetLease", outcome(leases.get_lease(lease).await)),
        ("ListNamespaces", outcome(names.list_namespaces(v1::ListNamespacesRequest {}).await)),
        ("AcceptNamespace", outcome(names.accept_namespace(accept).await)),
        ("ListNodes", outcome(nodes.list_nodes(v1::ListNodesRequest::default()).await)),
        ("EvictNode", outcome(nodes.evict_node(v1::EvictNodeRequest::default()).await)),
        ("UnbanNode", outcome(nodes.unban_node(v1::UnbanNodeRequest::default()).await)),
        ("ReleaseBrake", outcome(nodes.release_brake(v1::ReleaseBrakeRequest::default()).await)),
        ("GetStatus", outcome(status.get_status(v1::GetStatusRequest {}).await)),
        ("FinishRecovery", outcome(status.finish_recovery(v1::FinishRecoveryRequest {}).await)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_calls_its_methods_and_no_other() -> Story {
    let world = world(&["node-a"])?;
    let node = api(&world, "node-node-a").await?;
    for (method, said) in asks(&node).await {
        assert_eq!(said, "ROLE_NOT_ALLOWED", "a node calls {method}");
    }
    let viewer = api(&world, "viewer").await?;
    for (method, said) in asks(&viewer).await {
        let sees = ["ListLeases", "GetLease", "GetStatus"].contains(&method);
        assert_eq!(said != "ROLE_NOT_ALLOWED", sees, "a viewer calls {method}: {said}");
    }
    let operator = api(&world, "operator").await?;
    for (method, said) in asks(&operator).await {
        assert_ne!(said, "ROLE_NOT_ALLOWED", "an operator calls {method}");
    }
    for (who, api) in [("viewer", viewer), ("operator", operator)] {
        let mut nodes = api.nodes();
        let hello = tokio_stream::once(v1::SyncRequest::default());
        for said in [
            outcome(nodes.issue(v1::IssueRequest::default()).await),
            outcome(nodes.release(v1::ReleaseRequest::default()).await),
            outcome(nodes.sync(hello).await),
        ] {
            assert_eq!(said, "ROLE_NOT_ALLOWED", "{who}");
        }
    }
    let denied = world.broker.audited("call.denied");
    assert_eq!(denied.len(), 10 + 7 + 3 + 3);
    assert!(denied.iter().all(|line| line["reason"] == "ROLE_NOT_ALLOWED"), "{denied:?}");
    let actors = ["node:node-a", "viewer:victor", "operator:olga"];
    for (actor, lines) in actors.iter().zip([10, 10, 3]) {
        assert_eq!(denied.iter().filter(|line| line["actor"] == *actor).count(), lines, "{actor}");
    }
    world.serves_on("good", "node-a").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_for_all_and_reflection_for_people() -> Story {
    let world = world(&["node-a"])?;
    for (name, person) in [("node-node-a", false), ("viewer", true), ("operator", true)] {
        let api = api(&world, name).await?;
        let mut health = HealthClient::new(api.channel());
        let request = HealthCheckRequest { service: "krb.broker.v1.NodeService".to_owned() };
        let answer = health.check(request).await?.into_inner();
        assert_eq!(answer.status, 1, "{name}: serving");
        for said in [services_v1(&api).await, services_v1alpha(&api).await] {
            match said {
                Ok(services) => {
                    assert!(person, "{name} may not look around");
                    assert!(services.iter().any(|s| s == "krb.broker.v1.LeaseService"));
                }
                Err(status) => {
                    assert!(!person, "{name}: {status}");
                    assert_eq!(reason(&status), "ROLE_NOT_ALLOWED");
                }
            }
        }
    }
    Ok(())
}

async fn services_v1(api: &Api) -> Result<Vec<String>, Status> {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest::ListServices,
        server_reflection_response::MessageResponse::ListServicesResponse,
    };
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(api.channel());
    let mut answers =
        client.server_reflection_info(tokio_stream::once(request)).await?.into_inner();
    match answers.next().await.transpose()?.and_then(|answer| answer.message_response) {
        Some(ListServicesResponse(list)) => Ok(list.service.into_iter().map(|s| s.name).collect()),
        other => panic!("{other:?}"),
    }
}

async fn services_v1alpha(api: &Api) -> Result<Vec<String>, Status> {
    use tonic_reflection::pb::v1alpha::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest::ListServices,
        server_reflection_response::MessageResponse::ListServicesResponse,
    };
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(api.channel());
    let mut answers =
        client.server_reflection_info(tokio_stream::once(request)).await?.into_inner();
    match answers.next().await.transpose()?.and_then(|answer| answer.message_response) {
        Some(ListServicesResponse(list)) => Ok(list.service.into_iter().map(|s| s.name).collect()),
        other => panic!("{other:?}"),
    }
}
