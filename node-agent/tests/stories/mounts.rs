//! Mount namespaces, and kubelet's directory with the driver's mounts in it.

use std::{
    ffi::CString,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use krb_node_agent::place::{Kubelet, Place};
use rustix::{
    fd::OwnedFd,
    fs::{CWD, Mode, mkdirat},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
        fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, move_mount, unmount,
    },
};

const INSIDE: &str = "KRB_AGENT_STORY_INSIDE";

/// Runs the story in a fresh mount namespace, or fails with what it said.
pub fn in_own_namespace(path: &str, story: impl FnOnce()) {
    assert!(rustix::process::geteuid().is_root(), "the stories mount tmpfs: they need root");
    if std::env::var_os(INSIDE).is_some() {
        return story();
    }
    let (_crate, name) = path.split_once("::").unwrap();
    let out = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare, of util-linux");
    let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.contains("1 passed"), "{said}");
}

/// Kubelet's directory of one node.
pub struct Pods {
    dir: tempfile::TempDir,
}

impl Pods {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn kubelet(&self) -> Kubelet {
        Kubelet::new(self.dir.path().join("kubelet"), "ts~krb".to_owned())
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub fn target(&self, place: &Place) -> PathBuf {
        self.kubelet().target(place)
    }

    /// The driver's part of a mount: a tmpfs and its four directories.
    pub fn mount(&self, pod: &str) -> Place {
        self.mount_sized(pod, "size=256k,nr_inodes=64,mode=0755")
    }

    pub fn mount_sized(&self, pod: &str, options: &str) -> Place {
        let place = Place::new(pod, "krb").unwrap();
        let target = self.target(&place);
        fs::create_dir_all(&target).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let data = CString::new(options).unwrap();
        mount("krb", &target, "tmpfs", flags, Some(data.as_c_str())).unwrap();
        for directory in krb_proto::driver::DIRECTORIES {
            fs::create_dir(target.join(directory)).unwrap();
        }
        place
    }

    /// The driver's part of a mount up to the fill: a tmpfs with its directories that is mounted
    /// nowhere yet, and kubelet's directory for it.
    pub fn make_detached(&self, pod: &str) -> (Place, OwnedFd) {
        let place = Place::new(pod, "krb").unwrap();
        fs::create_dir_all(self.target(&place)).unwrap();
        let new = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        for (name, value) in [("size", "256k"), ("nr_inodes", "64"), ("mode", "0755")] {
            fsconfig_set_string(&new, name, value).unwrap();
        }
        fsconfig_create(&new).unwrap();
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        let volume = fsmount(&new, flags, MountAttrFlags::empty()).unwrap();
        for directory in krb_proto::driver::DIRECTORIES {
            mkdirat(&volume, directory, Mode::from_raw_mode(0o755)).unwrap();
        }
        (place, volume)
    }

    /// The driver's last step with it.
    pub fn put(&self, place: &Place, volume: &OwnedFd) {
        let whole = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(volume, "", CWD, self.target(place), whole).unwrap();
    }

    /// Takes the tmpfs off; fails when somebody keeps it busy.
    pub fn unmount(&self, place: &Place) {
        unmount(self.target(place), UnmountFlags::empty()).expect("nobody holds the volume open");
    }

    pub fn read(&self, place: &Place, file: &str) -> Option<String> {
        fs::read_to_string(self.target(place).join(file)).ok()
    }

    /// Every regular file of the volume.
    pub fn files(&self, place: &Place) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.target(place), &self.target(place), &mut found);
        found.sort();
        found
    }

    /// Mode, uid and gid.
    pub fn stat(&self, place: &Place, file: &str) -> (u32, u32, u32) {
        let found = fs::symlink_metadata(self.target(place).join(file)).unwrap();
        (found.permissions().mode() & 0o7777, found.uid(), found.gid())
    }
}

fn walk(root: &Path, dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            walk(root, &path, found);
        } else if entry.file_type().unwrap().is_file() {
            found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}
