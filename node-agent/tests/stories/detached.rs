//! Volumes that are filled before they are mounted.

use std::{fs, os::fd::AsRawFd as _, time::Duration};

use rustix::fd::OwnedFd;
use tokio::{io::AsyncReadExt as _, net::UnixStream};

use crate::{broker::material, node::Node, story};

/// A file of a volume that is mounted nowhere.
fn read(volume: &OwnedFd, file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/self/fd/{}/{file}", volume.as_raw_fd())).ok()
}

/// Waits until the agent has hung up; whatever it says before that.
async fn heard_out(mut driver: UnixStream) -> Vec<u8> {
    let mut said = Vec::new();
    let _or_reset = driver.read_to_end(&mut said).await;
    said
}

async fn released(node: &Node, lease: u8) {
    let line = format!("release {lease}");
    node.until("it is released", |n| n.broker.state().log.contains(&line)).await;
}

story! {
    async fn a_volume_is_filled_before_it_is_mounted_and_served_after() {
        let node = Node::attached().await;
        let (place, volume, driver) = node.filled_detached("uid-1").await;
        assert_eq!(read(&volume, "tickets/tsfoo").unwrap(), "ccache-1");
        assert!(node.pods.files(&place).is_empty(), "nobody sees it yet");
        node.pods.put(&place, &volume);
        drop((driver, volume));
        assert_eq!(node.pods.files(&place).len(), 4);

        node.broker.push(node.lease(&place), 1, material("keytab-3", &[3], "ccache-2"));
        node.until("it is acknowledged", |n| !n.broker.state().acknowledged.is_empty()).await;
        assert_eq!(node.pods.read(&place, "keytabs/tsfoo").unwrap(), "keytab-3");
        node.pods.unmount(&place); // would fail with EBUSY if a descriptor were open
    }
}

story! {
    async fn a_push_on_the_way_to_the_mount_is_neither_lost_nor_acknowledged_early() {
        let node = Node::attached().await;
        let (place, volume, driver) = node.filled_detached("uid-1").await;
        node.broker.push(node.lease(&place), 1, material("keytab-3", &[3], "ccache-2"));
        node.broker.push(node.lease(&place), 2, material("keytab-4", &[4], "ccache-2"));
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(node.broker.state().acknowledged.is_empty());
        assert_eq!(read(&volume, "keytabs/tsfoo").unwrap(), "keytab-2");
        node.pods.put(&place, &volume);
        drop(driver);
        node.until("both are acknowledged", |n| n.broker.state().acknowledged.len() == 2).await;
        assert_eq!(node.pods.read(&place, "keytabs/tsfoo").unwrap(), "keytab-4");
    }
}

story! {
    async fn a_driver_that_dies_before_the_mount_gives_its_lease_back() {
        let node = Node::attached().await;
        let (place, volume, driver) = node.filled_detached("uid-1").await;
        node.broker.push(node.lease(&place), 1, material("keytab-3", &[3], "ccache-2"));
        drop((driver, volume)); // SIGKILL closes both
        released(&node, 1).await;
        assert!(node.broker.state().acknowledged.is_empty(), "it is nowhere in place");
        assert!(node.broker.state().live.is_empty());

        let (place, volume, driver) = node.filled_detached(place.pod.as_str()).await;
        node.pods.put(&place, &volume);
        drop((driver, volume));
        tokio::time::sleep(Duration::from_secs(300)).await;
        let mut log = node.broker.state().log.clone();
        log.dedup(); // it may be told twice
        assert_eq!(log, ["issue 1", "release 1", "issue 2"]);
        assert_eq!(node.pods.files(&place).len(), 4);
    }
}

story! {
    async fn a_driver_that_dies_while_it_waits_gives_its_lease_back_and_the_next_gets_its_own() {
        let node = Node::attached().await;
        node.broker.state().slow = Duration::from_secs(5);
        let (place, volume) = node.pods.make_detached("uid-1");
        let driver = node.send_fill(&place, &[&volume]).await;
        node.until("it is asked", |n| n.broker.state().issues.len() == 1).await;
        drop((driver, volume));
        let (place, volume, driver) = node.filled_detached("uid-1").await; // the retry
        node.pods.put(&place, &volume);
        drop((driver, volume));
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(node.pods.files(&place).len(), 4, "the first call takes nothing from it");
        assert_eq!(node.broker.state().live.len(), 1);
        let lease = node.lease(&place);
        let note = node.pods.read(&place, "conf/lease.json").unwrap();
        assert!(note.contains(&lease.to_string()), "{note}: a lease that lives");
    }
}

story! {
    async fn a_lease_that_ends_on_the_way_to_the_mount_is_wiped_when_it_is_there() {
        let node = Node::attached().await;
        let (place, volume, driver) = node.filled_detached("uid-1").await;
        node.broker.wipe(node.lease(&place), "REVOKED");
        tokio::time::sleep(Duration::from_secs(3)).await;
        node.pods.put(&place, &volume);
        drop(driver);
        node.until("it is wiped", |n| n.pods.files(&place).is_empty()).await;
    }
}

story! {
    async fn a_fence_on_the_way_to_the_mount_has_the_volume_issued_again() {
        let node = Node::attached().await;
        let (place, volume, driver) = node.filled_detached("uid-1").await;
        node.broker.fence();
        tokio::time::sleep(Duration::from_secs(3)).await;
        node.pods.put(&place, &volume);
        drop(driver);
        node.until("it is issued again", |n| n.broker.state().log.contains(&"issue 2".into())).await;
        node.until("it is there", |n| n.pods.files(&place).len() == 4).await;
    }
}

story! {
    async fn a_driver_that_never_mounts_is_given_up_and_sees_that_the_agent_has_hung_up() {
        let node = Node::attached().await;
        let (_place, _volume, driver) = node.filled_detached("uid-1").await;
        assert_eq!(heard_out(driver).await, b"", "it hung up");
        released(&node, 1).await;
    }
}

story! {
    async fn an_agent_that_stops_hangs_up_first_and_the_next_has_forgotten_the_volume() {
        let mut node = Node::attached().await;
        let (_place, _volume, driver) = node.filled_detached("uid-1").await;
        node.stop().await;
        assert_eq!(heard_out(driver).await, b"");
        node.start();
        released(&node, 1).await;
    }
}

story! {
    async fn a_volume_that_went_without_a_word_is_released_before_the_next_is_filled() {
        let node = Node::attached().await;
        let place = node.filled("uid-1").await;
        node.pods.unmount(&place); // its driver could not reach the agent
        let (place, volume, driver) = node.filled_detached("uid-1").await;
        node.pods.put(&place, &volume);
        drop((driver, volume));
        let mut log = node.broker.state().log.clone();
        log.dedup(); // it may be told twice
        assert_eq!(log, ["issue 1", "release 1", "issue 2"]);
    }
}

story! {
    async fn only_one_tmpfs_is_taken_and_only_where_kubelet_has_a_directory() {
        let node = Node::attached().await;
        let (place, volume) = node.pods.make_detached("uid-1");
        let asked = |volumes: Vec<&OwnedFd>| {
            let volumes: Vec<OwnedFd> = volumes.into_iter().map(|v| v.try_clone().unwrap()).collect();
            let (node, place) = (&node, &place);
            async move { heard_out(node.send_fill(place, &volumes.iter().collect::<Vec<_>>()).await).await }
        };
        assert_eq!(asked(vec![&volume, &volume]).await, b"", "two are no request");
        assert_eq!(asked(vec![&volume, &volume, &volume]).await, b"");
        let said = asked(vec![]).await;
        assert!(said.ends_with(b"(INVALID_ARGUMENT)"), "{said:?}");
        assert!(node.broker.state().issues.is_empty());

        let file: OwnedFd = fs::File::open("/etc/passwd").unwrap().into();
        let other: OwnedFd = fs::File::open("/proc").unwrap().into();
        let around: OwnedFd = fs::File::open(node.pods.target(&place)).unwrap().into();
        for (wrong, reason) in
            [(&file, "(VOLUME_FAILED)"), (&other, "(VOLUME_FOREIGN)"), (&around, "(VOLUME_NOT_MOUNTED)")]
        {
            let said = asked(vec![wrong]).await;
            let text = String::from_utf8_lossy(&said).into_owned();
            assert!(text.ends_with(reason), "{text}");
        }
        assert!(node.pods.files(&place).is_empty());
        node.until("nothing is left", |n| n.broker.state().live.is_empty()).await;
    }
}
