//! Revocations as operators ask for them, and plans as they read them.

use krb_proto::{reason::Reason, timestamp, v1};
use tonic::{Code, Status};

use super::{
    errors::{invalid, status},
    lease::{node_ref, pod_ref},
};
use crate::{
    audit::Actor,
    clock::Now,
    keys::due::Begins,
    ledger::{Ledger, revoking::How},
    revocation::{Plan, Revocation, Target, plan},
};

/// The longest reason that is taken, in characters.
const MAX_REASON: usize = 500;

/// What the operator asks for.
pub fn asked(request: &v1::RevokeLeasesRequest, by: Actor) -> Result<Revocation, Status> {
    use v1::revoke_leases_request::Target as Named;
    let target = match &request.target {
        None => return Err(invalid("target", "is not set")),
        Some(Named::LeaseId(id)) => Target::Lease(id.parse().map_err(|e| invalid("lease_id", e))?),
        Some(Named::PodUid(uid)) => Target::Pod(uid.parse().map_err(|e| invalid("pod_uid", e))?),
        Some(Named::Namespace(name)) => {
            Target::Namespace(name.parse().map_err(|e| invalid("namespace", e))?)
        }
        Some(Named::Node(name)) => Target::Node(name.parse().map_err(|e| invalid("node", e))?),
        Some(Named::Principal(name)) => {
            Target::Principal(name.parse().map_err(|e| invalid("principal", e))?)
        }
    };
    let how = match v1::RevocationKind::try_from(request.kind) {
        Ok(v1::RevocationKind::Unspecified | v1::RevocationKind::Overlap) => How::Overlap,
        Ok(v1::RevocationKind::Now) => How::Now,
        Ok(v1::RevocationKind::Disable) => How::Disable,
        Err(_) => return Err(invalid("kind", "is no kind of revocation")),
    };
    let reason = reason(&request.reason, request.dry_run)?;
    Ok(Revocation { target, how, ahead: request.drop_oldest_retiring, by, reason })
}

/// The operator's reason, which an act needs.
pub fn reason(text: &str, dry_run: bool) -> Result<String, Status> {
    let shown = krb_proto::text::shown(text.trim());
    if shown.is_empty() && !dry_run {
        return Err(invalid("reason", "is empty: say why, for the audit log"));
    }
    if shown.chars().count() > MAX_REASON {
        return Err(invalid("reason", format!("has more than {MAX_REASON} characters")));
    }
    Ok(shown)
}

/// Refuses a target that nothing is known of.
pub fn must_hit(plan: &Plan, asked: &Revocation) -> Result<(), Status> {
    if plan.leases.is_empty() && plan.principals.is_empty() {
        let message = format!("{} has no live lease, and no key of it is outside", asked.target);
        return Err(status(Code::NotFound, Reason::NotFound, message));
    }
    Ok(())
}

/// A plan as the API writes it.
pub fn written(ledger: &Ledger, plan: &Plan, now: Now) -> v1::RevocationPlan {
    v1::RevocationPlan {
        leases: plan.leases.iter().filter_map(|planned| lease(ledger, planned)).collect(),
        principals: plan.principals.iter().map(|planned| principal(planned, now)).collect(),
    }
}

fn lease(ledger: &Ledger, planned: &plan::PlannedLease) -> Option<v1::PlannedLease> {
    let lease = ledger.lease(&planned.lease)?;
    Some(v1::PlannedLease {
        lease_id: planned.lease.to_string(),
        node: Some(node_ref(&lease.holder)),
        pod: Some(pod_ref(&lease.holder.pod)),
        account: lease.owner.account.to_string(),
        tickets_until: planned.tickets_until.map(timestamp),
    })
}

fn principal(planned: &plan::PlannedPrincipal, now: Now) -> v1::PlannedPrincipal {
    v1::PlannedPrincipal {
        principal: planned.principal.to_string(),
        burnt_kvnos: planned.burnt.iter().map(|kvno| kvno.0).collect(),
        sharer_lease_ids: planned.sharers.iter().map(ToString::to_string).collect(),
        begins_at: Some(timestamp(begins_at(planned.begins, now))),
        breaks: planned.breaks.clone(),
        usable_until: Some(timestamp(planned.usable_until)),
    }
}

/// When a replacement begins.
pub fn begins_at(begins: Begins, now: Now) -> std::time::SystemTime {
    match begins {
        Begins::At(at) => at,
        Begins::Now | Begins::AfterDropping(_) => now.wall,
    }
}
