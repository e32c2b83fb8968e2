//! The load of GSSAPI handshakes itself: that it counts what succeeds, and what fails.

use std::fs;

use krb_tests::{
    handshakes::Handshakes,
    world::{TSFOO, World, wait_for},
};

type Story = Result<(), Box<dyn std::error::Error>>;

const SERVICE: &str = "HTTP@web.tsfoo.svc.cluster.local";

#[test]
fn a_handshake_fails_with_the_library_s_words_when_a_holder_s_keytab_is_broken() -> Story {
    let mut world = World::with_nodes(&["node-a"])?;
    world.pods.service("tsfoo", "web")?;
    let pods = [world.pod("web-0", "node-a")?, world.pod("web-1", "node-a")?];
    for pod in &pods {
        assert!(world.node("node-a").mount(pod)?.is_success());
    }
    let load = Handshakes::start(&world, SERVICE, TSFOO.login, &[&pods[0], &pods[1]])?;
    wait_for("some handshakes", || (load.tally().done > 20).then_some(()))?;
    assert_eq!(load.tally().failed, [""; 0]);

    let node = &world.nodes[0];
    let keytab = node.inside(&node.target(&pods[0]).join("keytabs/tsfoo").display().to_string());
    let whole = fs::read(&keytab)?;
    fs::write(&keytab, [5, 2])?;
    wait_for("failures", || (load.tally_of("web-0").ok()?.failed.len() > 2).then_some(()))?;
    fs::write(&keytab, whole)?;
    load.hold("web-0")?;
    let (broken, well) = (load.tally_of("web-0")?, load.tally_of("web-1")?);
    assert!(broken.failed.iter().all(|said| said.contains("acceptor")), "{:?}", broken.failed);
    assert!(broken.failed[0].contains("web-0, "), "{:?}", broken.failed);
    assert_eq!(well.failed, [""; 0]);

    load.resume("web-0")?;
    let failed = broken.failed.len();
    wait_for("it to work again", || {
        (load.tally_of("web-0").ok()?.done > broken.done + 5).then_some(())
    })?;
    let all = load.stop();
    assert_eq!(all.failed.len(), failed, "{:?}", all.failed);
    Ok(())
}
