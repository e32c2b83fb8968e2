//! The time between a mount's beginning and its end: kubelet must find nothing in it.

use std::process::Stdio;

use krb_tests::world::{World, pause, wait_for};

type Story = Result<(), Box<dyn std::error::Error>>;

#[test]
fn a_driver_killed_while_the_kdc_is_away_leaves_no_mount_and_the_retry_succeeds() -> Story {
    let mut world = World::with_nodes(&["node-a"])?;
    world.pods.service("tsfoo", "web")?;
    let pod = world.pod("web-0", "node-a")?;
    world.realm.pause_kdc();

    let node = world.node("node-a");
    let mut driver = node.mount_call(&pod)?.stdout(Stdio::piped()).spawn()?;
    let locks = node.inside("/run/krb-broker/locks");
    wait_for("the driver to begin", || locks.read_dir().ok()?.next().map(drop))?;
    for _ in 0..100 {
        assert!(!node.is_mounted(&pod), "kubelet would take it for a filled volume");
        pause(std::time::Duration::from_millis(10));
    }
    assert!(driver.try_wait()?.is_none(), "it still waits for the KDC");
    driver.kill()?; // as systemd does when kubelet is restarted
    driver.wait()?;
    assert!(!node.is_mounted(&pod));

    world.realm.resume_kdc();
    let answer = world.node("node-a").mount(&pod)?;
    assert!(answer.is_success(), "{answer:?}\n{}", world.node("node-a").log());
    for file in ["tickets/tsfoo", "keytabs/tsfoo"] {
        let bytes = world.node("node-a").read(&pod, file);
        assert!(bytes.is_some_and(|bytes| !bytes.is_empty()), "{file}");
    }
    assert!(world.node("node-a").unmount(&pod)?.is_success());
    assert!(!world.node("node-a").is_mounted(&pod));
    Ok(())
}
