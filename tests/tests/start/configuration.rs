//! `broker.toml`.

use super::{Story, refuses, runs, stopped};

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_wrong_with_the_configuration_is_said_at_once() -> Story {
    let mut world = stopped()?;
    for (from, to, words) in [
        ("cluster = \"test\"", "cluster = \"test\"\nclusters = 1", &["clusters"][..]),
        ("[audit]\n", "[audit]\nlevel = \"all\"\n", &["level"]),
        ("source = \"file\"", "source = \"kubernetes\"", &["pods.dir", "kubernetes: is missing"]),
        ("source = \"file\"", "source = \"nis\"", &["pods.source"]),
        ("cluster = \"test\"", "cluster = \"Te/st\"", &["cluster", "DNS label"]),
        ("heartbeat = \"200ms\"", "heartbeat = \"1 fortnight\"", &["sessions.heartbeat"]),
        ("per_second = 200", "per_second = 0", &["gate", "per_second"]),
        ("[store]\n", "[store]\n[store]\n", &["store"]),
    ] {
        world.broker.reconfigure(from, to)?;
        refuses(&mut world, words)?;
        world.broker.reconfigure(to, from)?;
    }
    for (from, to) in [
        ("cluster = \"test\"", "cluster = \"T\""),
        ("heartbeat = \"200ms\"", "heartbeat = \"x\""),
        ("source = \"file\"", "source = \"y\""),
    ] {
        world.broker.reconfigure(from, to)?;
    }
    let words = ["cluster", "sessions.heartbeat", "pods.source"];
    refuses(&mut world, &words)?;
    let config = world.broker.config().display().to_string();
    let said = world.broker.run(&["check", "--config", &config]).expect_err("is wrong").to_string();
    assert!(words.iter().all(|word| said.contains(word)), "check says the same: {said}");
    for (from, to) in [
        ("cluster = \"T\"", "cluster = \"test\""),
        ("heartbeat = \"x\"", "heartbeat = \"200ms\""),
        ("source = \"y\"", "source = \"file\""),
    ] {
        world.broker.reconfigure(from, to)?;
    }
    runs(&mut world, "good").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_ca_is_not_two_roles() -> Story {
    let mut world = stopped()?;
    let node = world.pki.ca("node").display().to_string();
    for role in ["operator", "viewer"] {
        let own = format!("{role}_ca = {:?}", world.pki.ca(role).display().to_string());
        let shared = format!("{role}_ca = {node:?}");
        world.broker.reconfigure(&own, &shared)?;
        refuses(&mut world, &["have a CA in common", "node", role])?;
        world.broker.reconfigure(&shared, &own)?;
    }
    runs(&mut world, "good").await?;
    Ok(())
}
