//! A volume that its pod has filled.

use std::fs;

use krb_tests::{
    realm::Options,
    world::{broker::Settings, container, pause, wait_for},
};

use super::{Story, asking, impatient};

const FILL: &str = "cd $KRB5RCACHEDIR && dd if=/dev/zero of=fill bs=4096 2>/dev/null; \
                    dd if=/dev/zero of=rest bs=1 2>/dev/null; id -u; ls -l fill";

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_keeps_its_old_files_and_takes_new_ones_when_there_is_room() -> Story {
    let mut settings = Settings::default();
    settings.realm += "ticket_life = \"8s\"\n"; // refreshed, and so pushed, every 4 s
    let world = impatient(Options::default(), settings)?;
    let both = [("ts/services", "HTTP"), ("ts/prestashtkt", "true")];
    let pod = asking(&world, "full", &both)?;
    let node = &world.nodes[0];
    assert!(node.mount(&pod)?.is_success());
    let filled = container::run(node, &pod, "/usr/bin", FILL)?;
    let said = String::from_utf8_lossy(&filled.stdout).into_owned();
    assert!(said.starts_with("61234\n"), "the pod's own user fills it: {said}");
    let ticket = node.read(&pod, "tickets/tsfoo").expect("a ticket");
    let keytab = node.read(&pod, "keytabs/tsfoo").expect("a keytab");

    wait_for("the agent to say that there is no room", || {
        node.log().contains("too small").then_some(())
    })?;
    assert_eq!(node.read(&pod, "tickets/tsfoo"), Some(ticket.clone()), "the old one is whole");
    assert_eq!(node.read(&pod, "keytabs/tsfoo"), Some(keytab.clone()), "the old one is whole");

    // Another pod is not its neighbour's concern.
    let other = asking(&world, "other", &both)?;
    assert!(node.mount(&other)?.is_success());

    let rcache = node.inside(&node.target(&pod).join("rcache").display().to_string());
    fs::remove_file(rcache.join("fill"))?;
    wait_for("a new ticket", || {
        (node.read(&pod, "tickets/tsfoo").is_some_and(|now| now != ticket)).then_some(())
    })?;
    assert_eq!(node.read(&pod, "keytabs/tsfoo"), Some(keytab));
    pause(std::time::Duration::from_millis(100));
    for pod in [&pod, &other] {
        assert!(node.unmount(pod)?.is_success());
        assert!(!node.is_mounted(pod));
    }
    world.nothing_panicked()?;
    Ok(())
}
