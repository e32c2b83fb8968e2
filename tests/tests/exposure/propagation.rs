//! A dead node's keytab at each KDC by itself, while one of them lags behind.

use std::time::{Duration, UNIX_EPOCH};

use krb_proto::v1::LeaseState;
use krb_tests::world::{
    pause,
    see::{keytab_opens_by, lease_in, lease_that, principal_that, probe_ccache},
};

use super::{
    MOST, PRINCIPAL, SKEW, Story, ccache, end_of, holder, lease_of, now, options, settings, taken,
    world,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_s_keytab_opens_no_kdc_once_its_lease_is_revoked() -> Story {
    let mut world = world(&["node-a", "node-b"], options(2), settings())?;
    let dead = holder(&world, "web-0", "node-a")?;
    holder(&world, "web-1", "node-b")?;
    world.realm.propagate()?;
    let operator = world.operator().await?;
    principal_that(&operator, PRINCIPAL, |known| {
        known.keysets.iter().all(|keyset| keyset.phase == "Current")
    })
    .await?;
    let stolen = taken(&world, &dead, "keytabs/tsfoo")?;
    let profiles = [world.realm.profile_of_kdc(0)?, world.realm.profile_of_kdc(1)?];
    for profile in &profiles {
        assert!(keytab_opens_by(&world, profile, &stolen, PRINCIPAL)?);
    }

    world.node("node-a").kill_agent();
    let replica = world.realm.kdc_addrs()[1];
    let lags = format!("{replica} still has kvno 2");
    lease_that(&operator, &dead.uid, |lease| lease.reason.contains(&lags)).await?;
    assert!(!keytab_opens_by(&world, &profiles[0], &stolen, PRINCIPAL)?);

    // For longer than a KDC is waited for that says nothing.
    let long_after = now() + Duration::from_secs(4);
    while now() < long_after {
        let lease = lease_of(&operator, &dead).await?;
        assert_eq!(lease.state(), LeaseState::Revoking, "{lease:?}");
        assert!(lease.reason.contains(&lags), "{lease:?}");
        assert_eq!(end_of(&lease), None);
        pause(Duration::from_millis(20));
    }
    assert!(keytab_opens_by(&world, &profiles[1], &stolen, PRINCIPAL)?, "the replica is behind");
    let last_tgt = ccache::latest_end(&probe_ccache(&world))?;

    world.realm.propagate()?;
    lease_in(&operator, &dead.uid, LeaseState::Revoked).await?;
    for profile in &profiles {
        assert!(!keytab_opens_by(&world, profile, &stolen, PRINCIPAL)?, "{}", profile.display());
    }
    let closed = lease_that(&operator, &dead.uid, |lease| end_of(lease).is_some()).await?;
    let end = end_of(&closed).unwrap_or(UNIX_EPOCH);
    let truth = UNIX_EPOCH + Duration::from_secs(last_tgt + u64::from(SKEW));
    assert!(end >= truth, "{end:?} is before {truth:?}, the end of a TGT that the replica gave");
    assert!(end < truth + MOST, "{end:?} is long after {truth:?}");
    Ok(())
}
