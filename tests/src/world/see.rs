//! What stories look at: states of leases, and whether a keytab still opens anything.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use krb_proto::v1::{GetPrincipalRequest, Lease, LeaseState, Principal};

use super::{World, WorldError, api::Api};
use crate::realm::Tool;

/// Waits until the newest lease of the pod is in this state; the lease then.
pub async fn lease_in(api: &Api, pod_uid: &str, state: LeaseState) -> Result<Lease, WorldError> {
    lease_that(api, pod_uid, |lease| lease.state() == state).await
}

/// Waits until the newest lease of the pod is as wanted; not for ever.
pub async fn lease_that(
    api: &Api,
    pod_uid: &str,
    wanted: impl Fn(&Lease) -> bool,
) -> Result<Lease, WorldError> {
    let mut seen = None;
    for _ in 0..3_000 {
        seen = api.lease_of(pod_uid).await.map_err(|e| WorldError::new("listing leases", e))?;
        if let Some(lease) = seen.as_ref().filter(|lease| wanted(lease)) {
            return Ok(lease.clone());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(WorldError::new("waiting for a lease", format!("it did not come; last seen: {seen:?}")))
}

/// Waits until the principal is as wanted; not for ever.
pub async fn principal_that(
    api: &Api,
    principal: &str,
    wanted: impl Fn(&Principal) -> bool,
) -> Result<Principal, WorldError> {
    let mut seen = None;
    for _ in 0..3_000 {
        let request = GetPrincipalRequest { principal: principal.to_owned() };
        let asked = api.principals().get_principal(request).await;
        let known = asked.map_err(|e| WorldError::new("asking for a principal", e))?.into_inner();
        if wanted(&known) {
            return Ok(known);
        }
        seen = Some(known);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(WorldError::new("waiting for a principal", format!("it did not come; last seen: {seen:?}")))
}

/// What `kinit` says when the KDC has another key.
const KEY_IS_OLD: [&str; 2] = ["Preauthentication failed", "Password incorrect"];

/// Whether the KDC gives `principal` a ticket for a key of this keytab, asked with the stock
/// `kinit`.
pub fn keytab_opens(world: &World, keytab: &Path, principal: &str) -> Result<bool, WorldError> {
    keytab_opens_by(world, &world.realm.profile_path(), keytab, principal)
}

/// The same, with the KDCs that this krb5.conf names. The ticket stays in [`probe_ccache`].
pub fn keytab_opens_by(
    world: &World,
    profile: &Path,
    keytab: &Path,
    principal: &str,
) -> Result<bool, WorldError> {
    let cache = probe_ccache(world);
    let tool = Tool::new("kinit", profile).map_err(|e| WorldError::new("finding kinit", e))?;
    let tool = tool.env("KRB5CCNAME", format!("FILE:{}", cache.display()));
    let said = tool.args([Path::new("-k"), Path::new("-t"), keytab, Path::new(principal)]).run();
    match said {
        Ok(_) => Ok(true),
        // The KDC's key is another one: it says so, or its reply does not open.
        Err(error) if KEY_IS_OLD.iter().any(|said| error.to_string().contains(said)) => Ok(false),
        Err(error) => Err(WorldError::new("asking for a ticket", error)),
    }
}

/// Where the last keytab that opened something left its ticket.
pub fn probe_ccache(world: &World) -> PathBuf {
    world.dir().join("probe.ccache")
}

/// The kvnos of a principal in a lease.
pub fn kvnos(lease: &Lease) -> Vec<u32> {
    lease.keytab.first().map(|keys| keys.kvnos.clone()).unwrap_or_default()
}
