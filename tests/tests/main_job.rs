//! The main job: from an annotated pod to a working keytab and ticket, and back.

use krb_proto::v1::LeaseState;
use krb_tests::world::{World, container, wait_for};

type Story = Result<(), Box<dyn std::error::Error>>;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_asks_for_a_keytab_and_a_ticket_gets_both_and_gives_them_back() -> Story {
    let mut world = World::with_nodes(&["node-a"])?;
    world.pods.service("tsfoo", "web")?;
    let pod = world.pod("web-0", "node-a")?;

    let answer = world.node("node-a").mount(&pod)?;
    assert!(
        answer.is_success(),
        "{answer:?}\n{}\n{}",
        world.broker.log(),
        world.node("node-a").log()
    );

    let tools = krb_tests::realm::packages::root().join("usr/bin");
    let node = world.node("node-a");
    let seen = container::run(
        node,
        &pod,
        &tools.display().to_string(),
        "klist && klist -k -e && kvno -k $(echo $KRB5_KTNAME | cut -d: -f2) HTTP/web.tsfoo.svc.cluster.local && ls -lnR /var/spool",
    )?;
    let text = String::from_utf8_lossy(&seen.stdout).into_owned();
    assert!(seen.status.success(), "{text}{}", String::from_utf8_lossy(&seen.stderr));
    assert!(text.contains("Default principal: tsfoo@TEST.EXAMPLE.COM"), "{text}");
    assert!(text.contains("HTTP/web.tsfoo.svc.cluster.local@TEST.EXAMPLE.COM: kvno = 2"), "{text}");

    let operator = world.operator().await?;
    let lease = operator.lease_of(&pod.uid).await?.expect("the pod has a lease");
    assert_eq!(lease.state(), LeaseState::Active);
    assert!(lease.exposure.as_ref().is_some_and(|exposure| exposure.open));

    let answer = world.node("node-a").unmount(&pod)?;
    assert!(answer.is_success(), "{answer:?}");
    assert!(!world.node("node-a").is_mounted(&pod));
    for _ in 0..200 {
        let lease = operator.lease_of(&pod.uid).await?.expect("ended leases can be listed");
        if lease.state() == LeaseState::Released {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let _ = wait_for::<()>("nothing", || Some(()));
    panic!("the lease is not released: {}", world.broker.log());
}
