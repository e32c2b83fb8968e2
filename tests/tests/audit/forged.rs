//! Somebody edits the log, cuts it, or puts an old one back.

use std::{fs, path::Path};

use krb_proto::v1;
use krb_tests::{
    realm::Options,
    world::{TSFOO, World, broker::Settings},
};

use super::{Story, status, verify};

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_line_is_named_by_the_command_and_by_the_next_start() -> Story {
    let mut world = World::with_nodes(&["node-a"])?;
    world.pods.service("tsfoo", "web")?;
    let pod = world.pod("web-0", "node-a")?;
    let early = status(&world.operator().await?).await?;
    assert!(world.node("node-a").mount(&pod)?.is_success());
    let head = status(&world.operator().await?).await?;
    let log = world.broker.audit_files().remove(0);
    let moved = log.with_extension("log.moved");
    fs::rename(&log, &moved)?; // by hand, while it runs
    assert!(world.node("node-a").unmount(&pod)?.is_success());
    world.broker.stop()?;

    let files = [moved.display().to_string(), log.display().to_string()];
    let head = format!("{}:{}", head.seq, head.mac);
    let args = ["--head", &head, &files[0], &files[1]];
    let (said, holds) = verify(&world, &args)?;
    assert!(holds, "{said}");
    // the new file names the end of the one before, and nothing earlier
    let early = format!("{}:{}", early.seq, early.mac);
    assert!(!verify(&world, &["--head", &early, &files[1]])?.1, "that head is not in that file");

    let text = fs::read_to_string(&log)?;
    let released = text.lines().position(|line| line.contains("lease.released"));
    let line = released.ok_or("no lease was released")? + 1;
    fs::write(&log, text.replace("lease.released", "lease.reissued"))?;
    let (said, holds) = verify(&world, &args)?;
    assert!(!holds && said.contains(&format!("line {line} (seq")), "{said}");
    assert!(said.contains("was edited"), "{said}");
    world.broker.restart()?;
    let forged = world.broker.audited("recovery.audit_forged");
    assert!(
        forged.len() == 1 && forged[0]["detail"].as_str().is_some_and(|d| d.contains("edited"))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_and_a_log_put_back_from_a_backup_are_told_by_the_second_place() -> Story {
    let apart = tempfile::tempdir()?;
    let mark = apart.path().join("mark");
    let store = format!("mark_file = {:?}\n", mark.display().to_string());
    let settings = Settings { store, ..Settings::default() };
    let mut world = World::build(&["node-a"], &[TSFOO], Options::default(), settings)?;
    world.pods.service("tsfoo", "web")?;
    let pod = world.pod("web-0", "node-a")?;
    assert!(world.node("node-a").mount(&pod)?.is_success());
    world.broker.stop()?;
    let (store, log) = (world.dir().join("store"), world.dir().join("audit.log"));
    copy(&store, &apart.path().join("store"))?;
    fs::copy(&log, apart.path().join("audit.log"))?;

    world.broker.restart()?;
    assert!(world.node("node-a").unmount(&pod)?.is_success());
    world.broker.stop()?;
    assert!(verify(&world, &[])?.1);
    fs::remove_dir_all(&store)?;
    copy(&apart.path().join("store"), &store)?;
    fs::copy(apart.path().join("audit.log"), &log)?;
    let (said, holds) = verify(&world, &[])?;
    assert!(!holds && said.contains("which the mark file names"), "{said}");

    world.broker.restart()?;
    let operator = world.operator().await?;
    let status = operator.status().get_status(v1::GetStatusRequest {}).await?.into_inner();
    assert!(!status.store.unwrap_or_default().recovery.is_empty(), "the store is in recovery");
    for event in ["recovery.started", "recovery.audit_short"] {
        assert_eq!(world.broker.audited(event).len(), 1, "{event}");
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let there = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &there)?;
        } else {
            fs::copy(entry.path(), there)?;
        }
    }
    Ok(())
}
