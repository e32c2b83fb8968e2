//! Limits that are reached.

use krb_tests::world::{Account, TSFOO, World, broker::Settings, wait_for};

use super::{Story, changed, options};

fn limited(more: &'static str) -> Result<World, krb_tests::world::WorldError> {
    let account = Account { more, ..TSFOO };
    let settings = Settings::default();
    let world = World::build(&["node-a"], &[account], Default::default(), settings)?;
    world.pods.service("tsfoo", "web")?;
    Ok(world)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_beyond_the_limit_waits_until_another_ends() -> Story {
    let world = limited("services: [HTTP]\nlimits: {leases: 1}\n")?;
    let (first, second) = (world.pod("first", "node-a")?, world.pod("second", "node-a")?);
    assert!(world.nodes[0].mount(&first)?.is_success());
    world.refused(&second, "node-a", "LIMIT_REACHED").await?;
    assert!(world.nodes[0].mount(&first)?.is_success(), "the holder is served as before");
    assert!(world.nodes[0].unmount(&first)?.is_success());
    wait_for("the lease to be released", || {
        (!world.broker.audited("lease.released").is_empty()).then_some(())
    })?;
    let answer = world.nodes[0].mount(&second)?;
    assert!(answer.is_success(), "{answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_makes_no_more_principals_than_it_may() -> Story {
    for more in [
        "services: [HTTP, nfs]\nlimits: {principals: 1}\n",
        "services: [HTTP, nfs]\nlimits: {new_principals_per_hour: 1}\n",
    ] {
        let world = limited(more)?;
        world.serves_on("first", "node-a").await?;
        let more = changed(&world, "more", |pod| options(pod)["services"] = "nfs".into())?;
        world.refused(&more, "node-a", "LIMIT_REACHED").await?;
        world.serves_on("as-before", "node-a").await?;
        let made = world.realm.kadmin_local(&["listprincs", "nfs/*"])?;
        assert!(!made.contains("nfs/"), "nothing was made at the KDC: {made}");
    }
    Ok(())
}
