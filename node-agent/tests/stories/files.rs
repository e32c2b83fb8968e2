//! Volumes whose pods mean harm, or that are not what they seem.

use std::{
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::Path,
};

use krb_node_agent::{
    place::Place,
    volume::{VolumeError, Volumes},
};

use crate::{broker::material, mounts::Pods, node::Node, story};

fn empty(pods: &Pods, place: &Place) -> Result<(), VolumeError> {
    Volumes::new(pods.kubelet()).lock(place).empty()
}

story! {
    async fn a_link_in_place_of_a_file_is_replaced_and_not_followed() {
        let node = Node::attached().await;
        let place = node.pods.mount("uid-1");
        let (target, outside) = (node.pods.target(&place), tempfile::tempdir().unwrap());
        let victim = outside.path().join("victim");
        fs::write(&victim, "untouched").unwrap();
        for name in ["tickets/tsfoo", "tickets/.new", "keytabs/tsfoo", "conf/krb5.conf"] {
            symlink(&victim, target.join(name)).unwrap();
        }
        assert_eq!(node.fill(&place).await, "");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        assert_eq!(node.pods.files(&place).len(), 4);
    }
}

story! {
    async fn a_directory_that_is_a_link_or_a_pods_own_gets_nothing() {
        let node = Node::attached().await;
        let outside = tempfile::tempdir().unwrap();
        let linked = node.pods.mount("uid-1");
        let tickets = node.pods.target(&linked).join("tickets");
        fs::remove_dir(&tickets).unwrap();
        symlink(outside.path(), &tickets).unwrap();
        let owned = node.pods.mount("uid-2");
        std::os::unix::fs::chown(node.pods.target(&owned).join("keytabs"), Some(1234), None).unwrap();
        for place in [linked, owned] {
            assert_ne!(node.fill(&place).await, "");
            assert!(node.pods.files(&place).is_empty());
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}

story! {
    async fn a_volume_that_is_a_link_to_another_is_not_one() {
        let node = Node::attached().await;
        let other = node.pods.mount("uid-2");
        let place = Place::new("uid-1", "krb").unwrap();
        fs::create_dir_all(node.pods.target(&place).parent().unwrap()).unwrap();
        symlink(node.pods.target(&other), node.pods.target(&place)).unwrap();
        assert!(node.fill(&place).await.ends_with("(VOLUME_FAILED)"));
        assert!(node.pods.files(&other).is_empty());
    }
}

story! {
    async fn a_mount_that_is_no_tmpfs_gets_nothing() {
        use rustix::mount::{MountFlags, mount};
        let node = Node::attached().await;
        let place = Place::new("uid-1", "krb").unwrap();
        let target = node.pods.target(&place);
        fs::create_dir_all(&target).unwrap();
        mount("proc", &target, "proc", MountFlags::empty(), None).unwrap();
        assert_eq!(node.fill(&place).await, "the volume was not made by the driver (VOLUME_FOREIGN)");
    }
}

story! {
    async fn a_full_volume_keeps_the_old_files_and_is_not_acknowledged() {
        let node = Node::attached().await;
        let place = node.filled("uid-1").await;
        let large = "x".repeat(300 * 1024);
        node.broker.push(node.lease(&place), 1, material(&large, &[3], "ccache-2"));
        node.broker.push(node.lease(&place), 2, material("keytab-3", &[3], "ccache-3"));
        node.until("the second is acknowledged", |n| !n.broker.state().acknowledged.is_empty()).await;
        assert_eq!(node.broker.state().acknowledged[0].push_id, 2);
        assert_eq!(node.pods.read(&place, "keytabs/tsfoo").unwrap(), "keytab-3");

        let other = node.filled("uid-2").await;
        node.broker.push(node.lease(&other), 3, material(&large, &[3], "ccache-2"));
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        assert_eq!(node.pods.read(&other, "keytabs/tsfoo").unwrap(), "keytab-2");
        assert_eq!(node.pods.files(&other).len(), 4, "no part of a file is left");
        assert_eq!(node.broker.state().acknowledged.len(), 1);
    }
}

story! {
    async fn what_a_pod_hides_in_its_replay_cache_goes_with_a_wipe_and_nothing_else_does() {
        let node = Node::attached().await;
        let place = node.filled("uid-1").await;
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("victim"), "untouched").unwrap();
        let rcache = node.pods.target(&place).join("rcache");
        fs::create_dir_all(rcache.join("a/b/c")).unwrap();
        fs::write(rcache.join("a/b/c/keytab-copy"), "k").unwrap();
        fs::write(rcache.join(Path::new(std::ffi::OsStr::from_bytes(b"\xff\xfe"))), "k").unwrap();
        symlink(outside.path(), rcache.join("way-out")).unwrap();
        fs::create_dir_all(rcache.join("1/2/3/4/5/6/7/8/9/10/11/12")).unwrap();
        assert_eq!(empty(&node.pods, &place), Ok(()));
        assert!(node.pods.files(&place).is_empty());
        assert!(!rcache.join("way-out").exists());
        assert_eq!(fs::read_to_string(outside.path().join("victim")).unwrap(), "untouched");
        for directory in krb_proto::driver::DIRECTORIES {
            assert!(node.pods.target(&place).join(directory).is_dir());
        }
    }
}

story! {
    async fn an_open_directory_sees_the_new_file() {
        let node = Node::attached().await;
        let place = node.filled("uid-1").await;
        let open = fs::File::open(node.pods.target(&place).join("keytabs")).unwrap(); // a subPath
        node.broker.push(node.lease(&place), 1, material("keytab-3", &[3], "ccache-2"));
        node.until("it is acknowledged", |n| !n.broker.state().acknowledged.is_empty()).await;
        let seen = Path::new("/proc/self/fd").join(std::os::fd::AsRawFd::as_raw_fd(&open).to_string());
        assert_eq!(fs::read_to_string(seen.join("tsfoo")).unwrap(), "keytab-3");
    }
}

story! {
    async fn a_ticket_that_is_pushed_without_contents_stays_as_it_is() {
        let node = Node::attached().await;
        let place = node.filled("uid-1").await;
        let ticket = node.pods.target(&place).join("tickets/tsfoo");
        fs::write(&ticket, "ccache-1 and a service ticket").unwrap(); // as libkrb5 appends it
        node.broker.push(node.lease(&place), 1, material("keytab-3", &[3], ""));
        node.until("it is acknowledged", |n| !n.broker.state().acknowledged.is_empty()).await;
        assert_eq!(node.pods.read(&place, "keytabs/tsfoo").unwrap(), "keytab-3");
        assert_eq!(fs::read_to_string(&ticket).unwrap(), "ccache-1 and a service ticket");
    }
}
