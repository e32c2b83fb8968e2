//! What goes on while pods run: tickets are fetched anew, leases of pods that are gone end,
//! and a KDC that lags is waited for.

use krb_proto::v1::LeaseState;
use krb_tests::{
    realm::Options,
    world::{
        TSFOO, World,
        broker::Settings,
        container,
        see::{lease_in, lease_that},
        wait_for,
    },
};

type Story = Result<(), Box<dyn std::error::Error>>;

fn tools() -> String {
    krb_tests::realm::packages::root().join("usr/bin").display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_pod_s_ticket_is_replaced_before_it_ends_and_the_kdc_is_asked_once_for_all()
-> Story {
    let mut settings = Settings::default();
    settings.realm += "ticket_life = \"16s\"\n";
    let mut world = World::build(&["node-a"], &[TSFOO], Options::default(), settings)?;
    world.pods.service("tsfoo", "web")?;
    let pods = [world.pod("web-0", "node-a")?, world.pod("web-1", "node-a")?];
    for pod in &pods {
        assert!(world.node("node-a").mount(pod)?.is_success());
    }
    let asked = world.realm.kdc_requests().total();
    let before: Vec<_> =
        pods.iter().map(|pod| world.node("node-a").read(pod, "tickets/tsfoo")).collect();
    assert_eq!(before[0], before[1], "both have the same ticket");

    let node = &world.nodes[0];
    wait_for("new tickets", || {
        let is_new = |(pod, old): (_, &Option<Vec<u8>>)| node.read(pod, "tickets/tsfoo") != *old;
        pods.iter().zip(&before).all(is_new).then_some(())
    })?;
    // One exchange is one request once the account's salt and kvno are known, however many pods.
    assert_eq!(world.realm.kdc_requests().total() - asked, 1);
    let seen = container::run(
        &world.nodes[0],
        &pods[0],
        &tools(),
        "klist -s && kvno -q krbtgt/TEST.EXAMPLE.COM",
    )?;
    assert!(seen.status.success(), "{seen:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_gone_from_the_cluster_loses_its_lease_and_its_files() -> Story {
    let mut world = World::with_nodes(&["node-a"])?;
    world.pods.service("tsfoo", "web")?;
    let (gone, stays) = (world.pod("web-0", "node-a")?, world.pod("web-1", "node-a")?);
    for pod in [&gone, &stays] {
        assert!(world.node("node-a").mount(pod)?.is_success());
    }
    world.pods.delete(&gone)?;
    let operator = world.operator().await?;
    lease_in(&operator, &gone.uid, LeaseState::Released).await?;
    let node = &world.nodes[0];
    wait_for("its files to go", || node.read(&gone, "keytabs/tsfoo").is_none().then_some(()))?;
    lease_in(&operator, &stays.uid, LeaseState::Active).await?;
    assert!(world.nodes[0].read(&stays, "keytabs/tsfoo").is_some());
    assert!(world.node("node-a").unmount(&gone)?.is_success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_not_revoked_while_a_replica_still_uses_the_old_key() -> Story {
    let options = Options { kdcs: 2, ..Options::default() };
    let mut world = World::build(&["node-a"], &[TSFOO], options, Settings::default())?;
    world.pods.service("tsfoo", "web")?;
    let pod = world.pod("web-0", "node-a")?;
    assert!(world.node("node-a").mount(&pod)?.is_success());
    world.realm.propagate()?;

    world.node("node-a").kill_agent();
    let operator = world.operator().await?;
    let waiting = lease_that(&operator, &pod.uid, |lease| {
        lease.state() == LeaseState::Revoking && lease.reason.contains("still has kvno 2")
    })
    .await?;
    let replica = world.realm.kdc_addrs()[1].to_string();
    assert!(waiting.reason.contains(&replica), "{}", waiting.reason);

    world.realm.propagate()?;
    lease_in(&operator, &pod.uid, LeaseState::Revoked).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_told_to_stop_does_so_at_once_although_agents_are_attached() -> Story {
    let mut world = World::with_nodes(&["node-a"])?;
    world.broker.stop()?;
    assert_eq!(world.broker.audited("broker.stopped").len(), 1);
    world.broker.restart()?;
    Ok(())
}
