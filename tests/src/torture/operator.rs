//! What operators do meanwhile: they ask for new keys, and take leases away.

use krb_proto::v1::{
    ListPrincipalsRequest, RevocationKind, RevokeLeasesRequest, RotationKind,
    revoke_leases_request::Target,
};
use tonic::Code;

use super::{chance::Chance, place::Place};
use crate::world::{WorldError, api::Api};

/// One act of an operator, or none; whatever follows from it goes on when this returns. The
/// place is one that does nothing now.
pub(super) async fn act(
    api: &Api,
    chance: &Chance,
    place: Option<&mut Place>,
) -> Result<(), WorldError> {
    let wrong = |e: tonic::Status| WorldError::new("an operator's act", e);
    match chance.below(100) {
        0..50 => rotate(api, chance).await.map_err(wrong),
        50..80 => match place {
            Some(place) => revoke(api, chance, place).await.map_err(wrong),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Asks for a new key of any principal.
async fn rotate(api: &Api, chance: &Chance) -> Result<(), tonic::Status> {
    let request = ListPrincipalsRequest::default();
    let known = api.principals().list_principals(request).await?.into_inner().principals;
    let (number, emergency) = (chance.below(known.len().max(1)), chance.happens(20));
    let Some(principal) = known.get(number) else { return Ok(()) };
    let kind = if emergency { RotationKind::Emergency } else { RotationKind::Overlap };
    match api.rotate(&principal.principal, kind).await {
        // it has no key yet
        Err(status) if status.code() == Code::FailedPrecondition => Ok(()),
        asked => asked.map(drop),
    }
}

/// Takes a pod's lease away.
async fn revoke(api: &Api, chance: &Chance, place: &mut Place) -> Result<(), tonic::Status> {
    let kind = if chance.happens(50) { RevocationKind::Now } else { RevocationKind::Overlap };
    let Some(pod_uid) = place.any_holder(chance).map(str::to_owned) else { return Ok(()) };
    let request = RevokeLeasesRequest {
        target: Some(Target::PodUid(pod_uid.clone())),
        kind: kind.into(),
        reason: "torture".to_owned(),
        ..Default::default()
    };
    match api.leases().revoke_leases(request).await {
        // its node is lost, and no agent has asked anew yet
        Err(status) if status.code() == Code::NotFound => return Ok(()),
        asked => asked?,
    };
    place.revoked(&pod_uid);
    Ok(())
}
