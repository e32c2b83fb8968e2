//! Leases that are taken away.

use std::fs;

use krb_proto::v1::{self, LeaseState, RevocationKind, revoke_leases_request::Target};
use krb_tests::world::{
    api::reason,
    see::{keytab_opens, kvnos, lease_in, lease_that, principal_that},
    wait_for,
};

use super::{SERVICE, Story, revoke, two_holders};

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_the_act_then_does() -> Story {
    let (world, one, two) = two_holders()?;
    let api = world.operator().await?;
    let stolen = world.dir().join("stolen.keytab");
    let first = |path| world.nodes[0].read(&one, path);
    fs::write(&stolen, first("keytabs/tsfoo").expect("a keytab"))?;
    let target = Target::PodUid(one.uid.clone());

    let planned = revoke(&api, target.clone(), RevocationKind::Overlap, true).await?;
    let leases: Vec<_> = planned.leases.iter().map(|lease| lease.lease_id.clone()).collect();
    let sharer = api.lease_of(&two.uid).await?.expect("a lease").lease_id;
    assert_eq!(planned.principals.len(), 1, "{planned:?}");
    let principal = &planned.principals[0];
    assert_eq!(principal.principal, SERVICE);
    assert_eq!((&principal.burnt_kvnos[..], &principal.breaks[..]), (&[2][..], ""));
    assert_eq!(principal.sharer_lease_ids, [sharer]);
    assert!(planned.leases[0].tickets_until.is_some() && principal.usable_until.is_some());
    lease_in(&api, &one.uid, LeaseState::Active).await?;
    assert!(keytab_opens(&world, &stolen, SERVICE)?, "nothing was done");

    let done = revoke(&api, target, RevocationKind::Overlap, false).await?;
    assert_eq!(done.leases.iter().map(|l| l.lease_id.clone()).collect::<Vec<_>>(), leases);
    let revoked = lease_in(&api, &one.uid, LeaseState::Revoked).await?;
    assert!(revoked.reason.contains("operator:olga: a story asks for it"), "{revoked:?}");
    assert!(!keytab_opens(&world, &stolen, SERVICE)?, "at the moment it says Revoked");
    wait_for("its files to go", || first("keytabs/tsfoo").is_none().then_some(()))?;
    let kept = lease_that(&api, &two.uid, |lease| kvnos(lease) == [2, 3]).await?;
    assert_eq!(kept.state(), LeaseState::Active);
    let line = &world.broker.audited("revocation.asked")[0];
    assert_eq!(line["actor"], "operator:olga", "{line}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_compromise_the_key_leaves_every_keytab_as_the_new_one_is_set() -> Story {
    let (world, one, two) = two_holders()?;
    let api = world.operator().await?;
    let target = Target::Node("node-a".to_owned());
    let planned = revoke(&api, target.clone(), RevocationKind::Now, true).await?;
    assert!(planned.principals[0].breaks.contains("1 other holders"), "{planned:?}");
    revoke(&api, target, RevocationKind::Now, false).await?;
    lease_in(&api, &one.uid, LeaseState::Revoked).await?;
    // tickets live for ten minutes here: an overlap would keep both numbers
    let kept = lease_that(&api, &two.uid, |lease| kvnos(lease) == [3]).await?;
    assert_eq!(kept.state(), LeaseState::Active);
    let closed = lease_that(&api, &one.uid, |lease| {
        lease.exposure.as_ref().is_some_and(|exposure| !exposure.open)
    })
    .await?;
    let until = closed.exposure.and_then(|exposure| exposure.exposed_until).expect("a time");
    let ended = closed.ended_at.expect("it has ended");
    assert!(until.seconds >= ended.seconds + 600, "a TGT of it as a client may live ten minutes");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_principal_gets_no_tickets_until_an_operator_enables_it() -> Story {
    let (mut world, one, two) = two_holders()?;
    let api = world.operator().await?;
    let copy = world.dir().join("copy.keytab");
    fs::write(&copy, world.node("node-a").read(&one, "keytabs/tsfoo").expect("a keytab"))?;
    let target = Target::Principal(SERVICE.to_owned());
    revoke(&api, target, RevocationKind::Disable, false).await?;
    for pod in [&one, &two] {
        lease_in(&api, &pod.uid, LeaseState::Revoked).await?;
    }
    let disabled = principal_that(&api, SERVICE, |p| p.standing == "disabled").await?;
    assert_eq!(disabled.switched_off_by, "operator:olga");
    assert!(keytab_opens(&world, &copy, SERVICE).is_err(), "the KDC has it locked");
    let later = world.pod("web-2", "node-b")?;
    let answer = world.node("node-b").mount(&later)?;
    assert!(!answer.is_success() && answer.message.contains("switched off"), "{answer:?}");

    let request = v1::EnablePrincipalRequest { principal: SERVICE.to_owned() };
    api.principals().enable_principal(request).await?;
    let answer = world.node("node-b").mount(&later)?;
    assert!(answer.is_success(), "{answer:?}");
    let lease = lease_in(&api, &later.uid, LeaseState::Active).await?;
    assert_eq!(kvnos(&lease), [3], "above every number it had");
    assert!(!keytab_opens(&world, &copy, SERVICE)?, "the old key opens nothing");
    let fresh = world.dir().join("fresh.keytab");
    fs::write(&fresh, world.node("node-b").read(&later, "keytabs/tsfoo").expect("a keytab"))?;
    assert!(keytab_opens(&world, &fresh, SERVICE)?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_finished_by_a_broker_that_was_killed_in_it() -> Story {
    let (mut world, one, two) = two_holders()?;
    let api = world.operator().await?;
    world.realm.pause_kadmind();
    let target = Target::Namespace("tsfoo".to_owned());
    revoke(&api, target, RevocationKind::Overlap, false).await?;
    world.broker.kill();
    world.realm.resume_kadmind();
    world.broker.restart()?;
    let api = world.operator().await?;
    for pod in [&one, &two] {
        lease_in(&api, &pod.uid, LeaseState::Revoked).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_t_be_revoked_is_said_and_changes_nothing() -> Story {
    let (world, one, _) = two_holders()?;
    let api = world.operator().await?;
    let kind = RevocationKind::Overlap;
    let unknown = [
        Target::PodUid("nobody".to_owned()),
        Target::Node("node-z".to_owned()),
        Target::Principal("HTTP/nobody@TEST.EXAMPLE.COM".to_owned()),
        Target::Namespace("nowhere".to_owned()),
    ];
    for target in unknown {
        let status = revoke(&api, target, kind, false).await.expect_err("nothing is there");
        assert_eq!(reason(&status), "NOT_FOUND", "{status:?}");
    }
    let malformed = [Target::LeaseId("x".to_owned()), Target::Principal("no realm".to_owned())];
    for target in malformed {
        let status = revoke(&api, target, kind, false).await.expect_err("it is malformed");
        assert_eq!(reason(&status), "INVALID_ARGUMENT", "{status:?}");
    }
    let request = v1::RevokeLeasesRequest {
        target: Some(Target::PodUid(one.uid.clone())),
        ..v1::RevokeLeasesRequest::default()
    };
    let status = api.leases().revoke_leases(request).await.expect_err("no reason is given");
    assert!(status.message().contains("reason"), "{status:?}");
    lease_in(&api, &one.uid, LeaseState::Active).await?;
    assert!(world.broker.audited("revocation.asked").is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_a_disabled_principal_has_its_key_again_once_it_is_enabled() -> Story {
    let (mut world, one, two) = two_holders()?;
    let api = world.operator().await?;
    let target = Target::PodUid(one.uid.clone());
    revoke(&api, target, RevocationKind::Disable, false).await?;
    lease_in(&api, &one.uid, LeaseState::Revoked).await?;
    lease_that(&api, &two.uid, |lease| {
        lease.state() == LeaseState::Active && kvnos(lease).is_empty()
    })
    .await?;
    let request = v1::EnablePrincipalRequest { principal: SERVICE.to_owned() };
    api.principals().enable_principal(request).await?;
    let shared = lease_that(&api, &two.uid, |lease| !kvnos(lease).is_empty()).await?;
    assert_eq!((shared.state(), kvnos(&shared)), (LeaseState::Active, vec![3]));
    let node = world.node("node-b");
    let fresh = wait_for("its keytab", || node.read(&two, "keytabs/tsfoo"))?;
    let copy = world.dir().join("fresh.keytab");
    fs::write(&copy, fresh)?;
    assert!(keytab_opens(&world, &copy, SERVICE)?);
    Ok(())
}
