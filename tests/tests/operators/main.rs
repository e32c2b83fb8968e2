//! What operators do: take leases away, watch them, rotate, adopt, compare and switch off
//! principals.

mod principals;
mod revocations;
mod watching;

use krb_proto::v1::{self, revoke_leases_request::Target};
use krb_tests::world::{World, WorldError, api::Api, pods::Pod};

type Story = Result<(), Box<dyn std::error::Error>>;

const SERVICE: &str = "HTTP/web.tsfoo.svc.cluster.local@TEST.EXAMPLE.COM";

/// Two nodes with a pod each that share [`SERVICE`], mounted.
fn two_holders() -> Result<(World, Pod, Pod), WorldError> {
    let mut world = World::with_nodes(&["node-a", "node-b"])?;
    world.pods.service("tsfoo", "web")?;
    let (one, two) = (world.pod("web-0", "node-a")?, world.pod("web-1", "node-b")?);
    for (pod, node) in [(&one, "node-a"), (&two, "node-b")] {
        let answer = world.node(node).mount(pod)?;
        assert!(answer.is_success(), "{answer:?}");
    }
    Ok((world, one, two))
}

async fn revoke(
    api: &Api,
    target: Target,
    kind: v1::RevocationKind,
    dry_run: bool,
) -> Result<v1::RevocationPlan, tonic::Status> {
    let request = v1::RevokeLeasesRequest {
        target: Some(target),
        kind: kind.into(),
        reason: "a story asks for it".to_owned(),
        dry_run,
        drop_oldest_retiring: false,
    };
    Ok(api.leases().revoke_leases(request).await?.into_inner().plan.unwrap_or_default())
}
