//! Entitlements with errors, at the start and while the broker runs.

use std::fs;

use krb_proto::v1;
use krb_tests::world::{World, wait_for};

use super::{Story, refuses, stopped};

const BAD: [(&str, &str); 3] = [
    ("a.yaml", "entity_type: unix_role_account\nunix_login: a/b\nunix_uid: 0\nunix_gid: 7\n"),
    ("b.yaml", "entity_type: unix_role_account\nunix_login: tsb\nunix_uid: 61234\nunix_gid: 7\n"),
    ("c.yaml", "unix_login: [\n"),
];

fn spoil(world: &World) -> std::io::Result<()> {
    BAD.iter().try_for_each(|(name, text)| fs::write(world.entitlements().join(name), text))
}

fn mend(world: &World) -> std::io::Result<()> {
    BAD.iter().try_for_each(|(name, _)| fs::remove_file(world.entitlements().join(name)))
}

const FOUND: [&str; 4] = ["a.yaml: unix_login", "a.yaml: unix_uid", "b.yaml", "c.yaml"];

#[tokio::test(flavor = "multi_thread")]
async fn errors_in_three_files_are_all_reported_at_the_start() -> Story {
    let mut world = stopped()?;
    spoil(&world)?;
    refuses(&mut world, &FOUND)?;
    let config = world.broker.config().display().to_string();
    let said = world.broker.run(&["check", "--config", &config]).expect_err("is wrong").to_string();
    assert!(FOUND.iter().all(|word| said.contains(word)), "check says the same: {said}");
    mend(&world)?;
    super::runs(&mut world, "good").await?;
    let kept = world.entitlements().join("tsfoo.yaml");
    fs::rename(&kept, world.dir().join("away"))?;
    refuses(&mut world, &["has no *.yaml file"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_while_it_runs_leave_in_force_what_was() -> Story {
    let mut world = stopped()?;
    world.broker.restart()?;
    let operator = world.operator().await?;
    let pod = world.pod("good", "node-a")?;
    spoil(&world)?;
    let mut refused = Vec::new();
    wait_for("the problem to be in the audit log", || {
        refused = world.broker.audited("entitlements.refused");
        let all = |line: &serde_json::Value| {
            let detail = line["detail"].as_str().unwrap_or_default();
            FOUND.iter().all(|word| detail.contains(word))
        };
        refused.iter().any(all).then_some(())
    })?;
    let status = operator.status().get_status(v1::GetStatusRequest {}).await?.into_inner();
    let entitlements = status.entitlements.expect("is always there");
    assert_eq!(entitlements.accounts, 1);
    assert!(FOUND.iter().all(|word| entitlements.problem.contains(word)), "{entitlements:?}");
    let answer = world.node("node-a").mount(&pod)?;
    assert!(answer.is_success(), "{answer:?}");
    world.nothing_panicked()?;
    let lines = world.broker.audited("entitlements.refused").len();
    krb_tests::world::pause(std::time::Duration::from_millis(400));
    assert_eq!(world.broker.audited("entitlements.refused").len(), lines, "is said once");

    mend(&world)?;
    for _ in 0..100 {
        let status = operator.status().get_status(v1::GetStatusRequest {}).await?.into_inner();
        if status.entitlements.is_some_and(|now| now.problem.is_empty()) {
            return Ok(());
        }
        krb_tests::world::pause(std::time::Duration::from_millis(50));
    }
    Err("the problem stays".into())
}
