//! Nodes that die, return, or only seem to: whose keys are replaced, and who never notices.

use std::fs;

use krb_proto::v1::LeaseState;
use krb_tests::world::{
    World, container,
    see::{keytab_opens, kvnos, lease_in, lease_that},
    wait_for,
};

type Story = Result<(), Box<dyn std::error::Error>>;

const SERVICE: &str = "HTTP/web.tsfoo.svc.cluster.local@TEST.EXAMPLE.COM";

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_s_key_is_replaced_and_the_other_holder_never_notices() -> Story {
    let mut world = World::with_nodes(&["node-a", "node-b"])?;
    world.pods.service("tsfoo", "web")?;
    let (dead, alive) = (world.pod("web-0", "node-a")?, world.pod("web-1", "node-b")?);
    assert!(world.node("node-a").mount(&dead)?.is_success());
    assert!(world.node("node-b").mount(&alive)?.is_success());
    let stolen = world.dir().join("stolen.keytab");
    fs::write(&stolen, world.node("node-a").read(&dead, "keytabs/tsfoo").expect("a keytab"))?;
    assert!(keytab_opens(&world, &stolen, SERVICE)?, "the account is a client");

    world.node("node-a").kill_agent();
    let operator = world.operator().await?;
    let lease = lease_in(&operator, &dead.uid, LeaseState::Revoked).await?;
    assert!(!keytab_opens(&world, &stolen, SERVICE)?, "at the moment it says Revoked: {lease:?}");
    assert!(lease.exposure.as_ref().is_some_and(|exposure| exposure.open), "{lease:?}");

    let kept = lease_in(&operator, &alive.uid, LeaseState::Active).await?;
    assert_eq!(kvnos(&kept), [2, 3], "old tickets still work");
    let fresh = world.dir().join("fresh.keytab");
    fs::write(&fresh, world.node("node-b").read(&alive, "keytabs/tsfoo").expect("a keytab"))?;
    assert!(keytab_opens(&world, &fresh, SERVICE)?, "the other pod has the new key");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_dead_node_had_ends_at_the_time_that_the_api_names() -> Story {
    let mut settings = krb_tests::world::broker::Settings::default();
    settings.realm =
        settings.realm.replace("10m", "2s").replace("clock_skew = \"5s\"", "clock_skew = \"1s\"");
    let options = krb_tests::realm::Options::default();
    let accounts = [krb_tests::world::TSFOO];
    let mut world = World::build(&["node-a", "node-b"], &accounts, options, settings)?;
    world.pods.service("tsfoo", "web")?;
    let (dead, alive) = (world.pod("web-0", "node-a")?, world.pod("web-1", "node-b")?);
    assert!(world.node("node-a").mount(&dead)?.is_success());
    assert!(world.node("node-b").mount(&alive)?.is_success());
    world.node("node-a").kill_agent();
    let operator = world.operator().await?;
    let closed = lease_that(&operator, &dead.uid, |lease| {
        lease
            .exposure
            .as_ref()
            .is_some_and(|exposure| exposure.exposed_until.is_some() && !exposure.open)
    })
    .await?;
    assert_eq!(closed.state(), LeaseState::Revoked);
    let kept = lease_in(&operator, &alive.uid, LeaseState::Active).await?;
    assert_eq!(kvnos(&kept), [3], "the old key has left the last keytab");
    let pruned = world.broker.audited("key.pruned");
    assert_eq!(pruned.len(), 1, "{pruned:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_agent_that_returns_wipes_and_is_served_again_with_nobody_s_help() -> Story {
    let mut world = World::with_nodes(&["node-a"])?;
    world.pods.service("tsfoo", "web")?;
    let pod = world.pod("web-0", "node-a")?;
    assert!(world.node("node-a").mount(&pod)?.is_success());
    let operator = world.operator().await?;
    let before = lease_in(&operator, &pod.uid, LeaseState::Active).await?;

    world.node("node-a").signal_agent(rustix::process::Signal::STOP);
    lease_in(&operator, &pod.uid, LeaseState::Revoked).await?;
    world.node("node-a").signal_agent(rustix::process::Signal::CONT);

    let after = lease_that(&operator, &pod.uid, |lease| {
        lease.state() == LeaseState::Active && lease.lease_id != before.lease_id
    })
    .await?;
    let newest = *kvnos(&after).last().expect("the keytab has a key");
    assert!(newest > 2, "{after:?}");
    let keytab = world.dir().join("again.keytab");
    let node = world.node("node-a");
    let bytes = wait_for("the keytab", || node.read(&pod, "keytabs/tsfoo"))?;
    fs::write(&keytab, bytes)?;
    assert!(keytab_opens(&world, &keytab, SERVICE)?);
    assert_eq!(world.broker.audited("session.fenced").len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_released_everything_and_then_died_is_rekeyed_all_the_same() -> Story {
    let mut world = World::with_nodes(&["node-a"])?;
    world.pods.service("tsfoo", "web")?;
    let pod = world.pod("web-0", "node-a")?;
    assert!(world.node("node-a").mount(&pod)?.is_success());
    let stolen = world.dir().join("stolen.keytab");
    fs::write(&stolen, world.node("node-a").read(&pod, "keytabs/tsfoo").expect("a keytab"))?;
    assert!(world.node("node-a").unmount(&pod)?.is_success());
    let operator = world.operator().await?;
    lease_in(&operator, &pod.uid, LeaseState::Released).await?;

    world.node("node-a").kill_agent();
    wait_for("the key to be replaced", || {
        (!world.broker.audited("key.current").iter().all(|line| line["kvnos"][0] == 2))
            .then_some(())
    })?;
    assert!(!keytab_opens(&world, &stolen, SERVICE)?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quick_restart_of_an_agent_or_of_its_node_is_noticed_by_nobody() -> Story {
    let mut world = World::with_nodes(&["node-a"])?;
    world.pods.service("tsfoo", "web")?;
    let pod = world.pod("web-0", "node-a")?;
    assert!(world.node("node-a").mount(&pod)?.is_success());
    let operator = world.operator().await?;
    let before = lease_in(&operator, &pod.uid, LeaseState::Active).await?;

    world.node("node-a").stop_agent()?;
    world.node("node-a").restart_agent()?;
    world.node("node-a").kill_agent();
    world.node("node-a").restart_agent()?;
    world.node("node-a").power_off();
    world.node("node-a").power_on()?;
    world.node("node-a").restart_agent()?;
    assert!(world.node("node-a").mount(&pod)?.is_success(), "kubelet mounts again after a boot");

    let after = lease_in(&operator, &pod.uid, LeaseState::Active).await?;
    assert_eq!((after.lease_id, kvnos(&before)), (before.lease_id.clone(), vec![2]));
    assert!(world.broker.audited("session.lost").is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_comes_back_with_every_lease_and_loses_no_node() -> Story {
    let mut world = World::with_nodes(&["node-a"])?;
    world.pods.service("tsfoo", "web")?;
    let pod = world.pod("web-0", "node-a")?;
    assert!(world.node("node-a").mount(&pod)?.is_success());
    let before = world.operator().await?.lease_of(&pod.uid).await?.expect("a lease");

    world.broker.kill();
    let tools = krb_tests::realm::packages::root().join("usr/bin").display().to_string();
    let seen = container::run(world.node("node-a"), &pod, &tools, "klist -s && klist -k")?;
    assert!(seen.status.success(), "the pod works on without the broker: {seen:?}");
    world.broker.restart()?;

    let operator = world.operator().await?;
    let after = lease_in(&operator, &pod.uid, LeaseState::Active).await?;
    assert_eq!(after.lease_id, before.lease_id);
    assert_eq!(kvnos(&after), [2]);
    let second = world.pod("web-1", "node-a")?;
    let answer = world.node("node-a").mount(&second)?;
    assert!(answer.is_success(), "the agent has attached again: {answer:?}");
    assert!(world.broker.audited("session.lost").is_empty());
    Ok(())
}
