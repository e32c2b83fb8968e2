//! `RotatePrincipal` under handshakes: every holder is there, or some are lost in the middle.

use std::time::Duration;

use krb_proto::v1::{LeaseState, RotationKind};
use krb_tests::world::{
    World, WorldError,
    api::Api,
    see::{lease_in, principal_that},
    wait_for,
};

use super::{PRINCIPAL, Story, holder, newest, shaking, world};

/// So often the key is replaced.
const ROTATIONS: u32 = 20;

/// With every holder there, a walk waits for nothing but its turn, which comes within 3 s. It
/// asks a holder again that has not answered for 30 s: that must not be needed.
const AT_ONCE: Duration = Duration::from_secs(20);

/// Asks for a new key, and waits until the KDC uses it and no walk is under way.
async fn rotate(api: &Api) -> Result<u32, Box<dyn std::error::Error>> {
    let before = api.rotate(PRINCIPAL, RotationKind::Overlap).await?;
    let after = principal_that(api, PRINCIPAL, |principal| {
        principal.due.is_empty() && current(principal).is_some_and(|kvno| kvno > before)
    })
    .await?;
    Ok(current(&after).unwrap_or_default())
}

fn current(principal: &krb_proto::v1::Principal) -> Option<u32> {
    let newest = principal.keysets.last()?;
    (newest.phase == "Current").then_some(newest.kvno)
}

fn distributing(world: &World) -> usize {
    world.broker.audited("key.distributing").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_rotations_cost_three_holders_on_two_nodes_no_handshake() -> Story {
    let world = world(&["node-a", "node-b"])?;
    let holders = [
        holder(&world, "web-0", "node-a")?,
        holder(&world, "web-1", "node-a")?,
        holder(&world, "web-2", "node-b")?,
    ];
    let load = shaking(&world, &holders.each_ref())?;
    let operator = world.operator().await?;
    let mut kvno = newest(&world, &holders[0]);
    for _ in 0..ROTATIONS {
        let next = tokio::time::timeout(AT_ONCE, rotate(&operator)).await??;
        assert!(next > kvno, "{next} after {kvno}");
        kvno = next;
        let done: Vec<u64> = holders
            .iter()
            .map(|pod| Ok(load.tally_of(&pod.name)?.done))
            .collect::<Result<_, WorldError>>()?;
        wait_for("handshakes under the new key", || {
            let more = |(pod, done): (_, &u64)| {
                let pod: &krb_tests::world::pods::Pod = pod;
                load.tally_of(&pod.name).is_ok_and(|tally| tally.done >= done + 4)
            };
            holders.iter().zip(&done).all(more).then_some(())
        })?;
    }
    let tally = load.stop();
    assert_eq!(tally.failed, [""; 0], "\n{}", world.broker.audit());
    assert!(tally.done > u64::from(ROTATIONS) * 12, "{}", tally.done);
    for pod in &holders {
        assert_eq!(newest(&world, pod), kvno);
    }
    let used: std::collections::BTreeSet<String> =
        world.broker.audited("key.current").iter().map(|line| line["kvnos"].to_string()).collect();
    assert_eq!(used.len(), ROTATIONS as usize + 1, "{used:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_in_which_nodes_are_killed_cut_and_frozen_ends_and_costs_the_others_nothing() -> Story
{
    let mut world = world(&["node-a", "node-b", "node-c", "node-d", "node-e"])?;
    let holders = [
        holder(&world, "web-0", "node-a")?,
        holder(&world, "web-1", "node-a")?,
        holder(&world, "web-2", "node-b")?,
    ];
    let killed = holder(&world, "killed", "node-c")?;
    let cut = holder(&world, "cut", "node-d")?;
    let frozen = holder(&world, "frozen", "node-e")?;
    let load = shaking(&world, &[&holders[0], &holders[1], &holders[2], &cut, &frozen])?;
    let operator = world.operator().await?;
    let first = rotate(&operator).await?;

    // A holder that does not answer keeps the walk where it is.
    load.hold("frozen")?;
    world.node("node-e").freeze()?;
    let walks = distributing(&world);
    operator.rotate(PRINCIPAL, RotationKind::Overlap).await?;
    wait_for("the walk to be on its way", || (distributing(&world) > walks).then_some(()))?;
    load.hold("cut")?;
    world.node("node-c").power_off();
    world.node("node-d").cable()?.pull()?;

    for pod in [&killed, &cut, &frozen] {
        lease_in(&operator, &pod.uid, LeaseState::Revoked).await?;
    }
    let ended = principal_that(&operator, PRINCIPAL, |principal| {
        principal.due.is_empty() && current(principal).is_some_and(|kvno| kvno > first)
    })
    .await?;
    for pod in &holders {
        wait_for("the key of the walk's end", || {
            (Some(newest(&world, pod)) == current(&ended)).then_some(())
        })?;
    }
    rotate(&operator).await?;

    // Those that return are served again, and serve.
    world.node("node-d").cable()?.join()?;
    world.node("node-e").thaw()?;
    for pod in [&cut, &frozen] {
        lease_in(&operator, &pod.uid, LeaseState::Active).await?;
        wait_for("its keytab", || (newest(&world, pod) > first).then_some(()))?;
        let done = load.tally_of(&pod.name)?.done;
        load.resume(&pod.name)?;
        wait_for("its handshakes", || {
            (load.tally_of(&pod.name).ok()?.done > done + 10).then_some(())
        })?;
    }
    rotate(&operator).await?;
    let tally = load.stop();
    assert_eq!(tally.failed, [""; 0], "\n{}", world.broker.audit());
    Ok(())
}
