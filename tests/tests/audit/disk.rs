//! A disk that is full: nothing is issued, and the dead are revoked.

use std::{
    fs,
    path::{Path, PathBuf},
};

use krb_proto::v1::LeaseState;
use krb_tests::{
    realm::Options,
    world::{
        TSFOO, World,
        broker::Settings,
        node::Node,
        see::{keytab_opens, lease_in},
        wait_for,
    },
};

use super::{Story, status, verify};

const SERVICE: &str = "HTTP/web.tsfoo.svc.cluster.local@TEST.EXAMPLE.COM";

/// A tmpfs of 1 MiB.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let disk = Self(tempfile::tempdir()?);
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("audit", disk.path(), "tmpfs", flags, c"size=1m,mode=0700")?;
        Ok(disk)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_nothing_is_issued_and_a_dead_node_is_revoked_all_the_same() -> Story {
    let disk = Disk::new()?;
    let settings = Settings { audit_dir: Some(disk.path().to_owned()), ..Settings::default() };
    let mut world = World::build(&["node-a"], &[TSFOO], Options::default(), settings)?;
    world.pods.service("tsfoo", "web")?;
    let node = Node::make(&world.dir().join("nodes"), "node-b", &world.pki, None)?;
    node.set_patience(2_000)?;
    world.nodes.push(node);
    let address = world.broker.address();
    world.node("node-b").start_agent(&address)?;
    let (dead, alive) = (world.pod("web-0", "node-a")?, world.pod("web-1", "node-b")?);
    assert!(world.node("node-a").mount(&dead)?.is_success());
    assert!(world.node("node-b").mount(&alive)?.is_success());
    let stolen = world.dir().join("stolen.keytab");
    fs::write(&stolen, world.node("node-a").read(&dead, "keytabs/tsfoo").expect("a keytab"))?;
    assert!(keytab_opens(&world, &stolen, SERVICE)?);

    // The log's last page takes a few more lines.
    fs::write(disk.filler(), vec![0; 2 << 20]).expect_err("it has 1 MiB");
    let mut refused = None;
    for n in 2..9 {
        let pod = world.pod(&format!("web-{n}"), "node-b")?;
        let answer = world.node("node-b").mount(&pod)?;
        if !answer.is_success() {
            refused = Some((pod, answer));
            break;
        }
    }
    let (pod, answer) = refused.ok_or("everything was issued")?;
    assert!(answer.message.ends_with("(STORE_FAILED)"), "{answer:?}");
    assert!(!world.node("node-b").is_mounted(&pod));
    let operator = world.operator().await?;
    let broken = status(&operator).await?;
    assert!(broken.problem.contains("writing the audit log"), "{broken:?}");
    assert!(broken.broken_since.is_some() && world.broker.log().contains("AUDIT LOG CAN'T BE"));

    world.node("node-a").kill_agent();
    lease_in(&operator, &dead.uid, LeaseState::Revoked).await?;
    assert!(!keytab_opens(&world, &stolen, SERVICE)?, "revoked without the log");
    assert!(world.broker.audited("session.lost").is_empty(), "which has no room for it");
    assert!(status(&operator).await?.lines_kept > 0);
    let answer = world.node("node-b").mount(&pod)?;
    assert!(answer.message.ends_with("(STORE_FAILED)"), "{answer:?}");

    fs::remove_file(disk.filler())?;
    wait_for("the gap to be told of", || {
        (!world.broker.audited("audit.gap").is_empty()).then_some(())
    })?;
    for event in ["session.lost", "lease.revoking", "lease.revoked"] {
        let lines = world.broker.audited(event);
        assert!(
            !lines.is_empty() && lines.iter().all(|line| line["happened"].is_string()),
            "{event}"
        );
    }
    assert!(world.node("node-b").mount(&pod)?.is_success(), "issued again");
    lease_in(&operator, &alive.uid, LeaseState::Active).await?;
    let now = status(&operator).await?;
    assert_eq!((now.problem.as_str(), now.lines_kept), ("", 0));
    let (said, holds) = verify(&world, &["--head", &format!("{}:{}", now.seq, now.mac)])?;
    assert!(holds && said.contains("the chain holds"), "{said}");
    assert!(world.broker.audit_files().len() > 1, "it went on in a new file: {said}");
    world.nothing_panicked()?;
    Ok(())
}
