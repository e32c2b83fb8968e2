//! A pod that has moved: what its old node still has of it.

use std::fs;

use krb_proto::v1::{LeaseState, RotationKind};
use krb_tests::{
    handshakes::{Handshakes, single::Acceptor},
    world::{World, pods::Pod, see::lease_in},
};

use super::{
    Attempts, PRINCIPAL, SERVICE, Story, TSFOO, ccache, holder, lease_of, options, refusal,
    settings, taken, tgt, tried_until_its_end, world,
};

/// A pod on node-a, then deleted and made again on node-b. Its old self, its new one, and a
/// server with the keytab that node-a kept a copy of.
async fn moved(world: &mut World) -> Result<(Pod, Pod, Acceptor), Box<dyn std::error::Error>> {
    let before = holder(world, "web-0", "node-a")?;
    let keytab = taken(world, &before, "keytabs/tsfoo")?;
    world.pods.delete(&before)?;
    assert!(world.node("node-a").unmount(&before)?.is_success());
    let operator = world.operator().await?;
    lease_in(&operator, &before.uid, LeaseState::Released).await?;
    let after = holder(world, "web-0", "node-b")?;
    Ok((before, after, Acceptor::with_keytab(world, &keytab)?))
}

/// Whatever a client of the new pod presents, the copy opens it until the time that the API names,
/// and never after.
async fn copy_opens_nothing_after_its_end(
    world: &World,
    before: &Pod,
    copy: &mut [Attempts; 1],
) -> Story {
    let client = tgt(world, &world.realm.profile_path(), "client")?;
    let operator = world.operator().await?;
    tried_until_its_end(world, &operator, before, &client, copy).await?;
    let said = refusal(copy[0].with(world, &client).await?)?;
    assert!(said.contains("acceptor") && said.contains("not found in keytab"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_old_node_lives_its_copy_opens_tickets_until_the_key_is_replaced() -> Story {
    let mut world = world(&["node-a", "node-b"], options(1), settings())?;
    let (before, after, copy) = moved(&mut world).await?;
    let load = Handshakes::start(&world, SERVICE, TSFOO.login, &[&after])?;
    let operator = world.operator().await?;
    let mut copy = [Attempts::new("copy", &world.realm.profile_path(), copy)?];
    let client = tgt(&world, &world.realm.profile_path(), "early")?;
    for _ in 0..20 {
        assert!(copy[0].with(&world, &client).await?.is_accepted(), "nothing was replaced");
        let lease = lease_of(&operator, &before).await?;
        assert_eq!(lease.state(), LeaseState::Released);
        assert!(lease.exposure.as_ref().is_some_and(|exposure| exposure.open), "{lease:?}");
    }

    operator.rotate(PRINCIPAL, RotationKind::Overlap).await?;
    copy_opens_nothing_after_its_end(&world, &before, &mut copy).await?;
    assert_eq!(load.stop().failed, [""; 0], "\n{}", world.broker.audit());
    assert_eq!(lease_of(&operator, &before).await?.state(), LeaseState::Released);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_old_node_is_lost_the_key_is_replaced_and_its_copy_opens_nothing_any_more() -> Story
{
    let mut world = world(&["node-a", "node-b"], options(1), settings())?;
    let (before, after, copy) = moved(&mut world).await?;
    let load = Handshakes::start(&world, SERVICE, TSFOO.login, &[&after])?;
    let mut copy = [Attempts::new("copy", &world.realm.profile_path(), copy)?];

    world.node("node-a").kill_agent();
    copy_opens_nothing_after_its_end(&world, &before, &mut copy).await?;
    assert_eq!(load.stop().failed, [""; 0], "\n{}", world.broker.audit());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_a_client_kept_from_before_is_opened_by_the_copy_no_longer_than_named()
-> Story {
    let mut world = world(&["node-a", "node-b"], options(1), settings())?;
    let (before, _, copy) = moved(&mut world).await?;
    let operator = world.operator().await?;
    let mut copy = [Attempts::new("copy", &world.realm.profile_path(), copy)?];
    let client = tgt(&world, &world.realm.profile_path(), "kept")?;

    // The last ticket that the KDC issued under the old key, shown again and again.
    operator.rotate(PRINCIPAL, RotationKind::Overlap).await?;
    let mut kept = None;
    while copy[0].with(&world, &client).await?.is_accepted() {
        kept = copy[0].last.as_ref().map(|(_, ccache)| ccache.clone());
    }
    let last = kept.ok_or("the copy never opened anything")?;
    let kept = world.dir().join("last.ccache");
    fs::copy(&last, &kept)?;
    ccache::pretend_it_lives(&kept)?;
    tried_until_its_end(&world, &operator, &before, &kept, &mut copy).await?;
    refusal(copy[0].with(&world, &kept).await?)?;
    Ok(())
}
