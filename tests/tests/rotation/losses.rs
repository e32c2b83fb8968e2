//! A node that is lost, again and again, in each of the ways there are.

use krb_proto::v1::LeaseState;
use krb_tests::world::{
    see::{lease_in, lease_that},
    wait_for,
};

use super::{Story, holder, newest, shaking, world};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_frozen_and_killed_costs_the_others_no_handshake() -> Story {
    let mut world = world(&["node-a", "node-b", "node-c"])?;
    let holders = [
        holder(&world, "web-0", "node-a")?,
        holder(&world, "web-1", "node-a")?,
        holder(&world, "web-2", "node-b")?,
    ];
    let lost = holder(&world, "web-3", "node-c")?;
    let load = shaking(&world, &holders.each_ref())?;
    let operator = world.operator().await?;
    let before = newest(&world, &holders[2]);
    let revoked = lease_in(&operator, &lost.uid, LeaseState::Active).await?;

    world.node("node-c").cable()?.pull()?;
    lease_in(&operator, &lost.uid, LeaseState::Revoked).await?;
    world.node("node-c").cable()?.join()?;
    let again = lease_that(&operator, &lost.uid, |lease| {
        lease.state() == LeaseState::Active && lease.lease_id != revoked.lease_id
    })
    .await?;

    world.node("node-c").freeze()?;
    lease_in(&operator, &lost.uid, LeaseState::Revoked).await?;
    world.node("node-c").thaw()?;
    lease_that(&operator, &lost.uid, |lease| {
        lease.state() == LeaseState::Active && lease.lease_id != again.lease_id
    })
    .await?;

    world.node("node-c").power_off();
    lease_in(&operator, &lost.uid, LeaseState::Revoked).await?;
    wait_for("the last key of all", || (newest(&world, &holders[2]) >= before + 3).then_some(()))?;
    let enough = load.tally().done + 30;
    wait_for("more handshakes", || (load.tally().done > enough).then_some(()))?;
    for pod in &holders {
        assert!(load.tally_of(&pod.name)?.done > 100, "{:?}", load.tally_of(&pod.name)?);
    }
    assert_eq!(load.stop().failed, [""; 0], "\n{}", world.broker.audit());
    Ok(())
}
