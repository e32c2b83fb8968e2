//! Kubelet's directory for a volume, taken apart and checked.
//!
//! It is the only thing that both `mount` and `unmount` are told, so pod and volume are read
//! from it. Whether anything exists there is not asked here.

use std::{fmt, path::Path, str::FromStr};

use krb_proto::{PodUid, VolumeName, text::is_path_part};

use crate::failure::Failure;

/// `<root>/pods/<pod uid>/volumes/<vendor~driver>/<volume>`.
#[derive(Debug, Eq, PartialEq)]
pub struct Target {
    /// The path as kubelet wrote it, with no empty, `.` or `..` part.
    path: String,
    /// How many bytes of `path` are kubelet's own root, without the slash after it.
    root: usize,
    /// The directory of the driver's volumes, `vendor~driver`.
    driver: String,
    /// The pod.
    pub uid: PodUid,
    /// The volume's name in the pod's spec.
    pub volume: VolumeName,
}

impl Target {
    /// The path as kubelet wrote it.
    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// Kubelet's root. An operator may have made it a link; nothing below it may be one.
    pub fn root(&self) -> &Path {
        Path::new(&self.path[..self.root])
    }

    /// The directories between the root and the volume's own, outermost first.
    pub fn above(&self) -> [&str; 4] {
        ["pods", self.uid.as_str(), "volumes", &self.driver]
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.uid, self.volume)
    }
}

/// The longest path that is read, in bytes: the system's own limit.
const MAX_PATH: usize = 4095;

impl FromStr for Target {
    type Err = Failure;

    fn from_str(path: &str) -> Result<Self, Failure> {
        let rest = path.strip_prefix('/').ok_or(Failure::Target)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let plain = |part: &&str| !matches!(*part, "" | "." | "..") && !part.contains('\0');
        if path.len() > MAX_PATH || !parts.iter().all(plain) {
            return Err(Failure::Target);
        }
        let [.., root, "pods", uid, "volumes", driver, volume] = parts.as_slice() else {
            return Err(Failure::Target);
        };
        let below: usize =
            ["pods", uid, "volumes", driver, volume].iter().map(|p| p.len() + 1).sum();
        let split = path.len().checked_sub(below).ok_or(Failure::Target)?;
        if root.is_empty() || !is_driver(driver) {
            return Err(Failure::Target);
        }
        Ok(Self {
            root: split,
            driver: (*driver).to_owned(),
            uid: uid.parse().map_err(|_| Failure::Target)?,
            volume: volume.parse().map_err(|_| Failure::Target)?,
            path: path.to_owned(),
        })
    }
}

/// Whether a directory is named as kubelet names a flexvolume driver's: `vendor~driver`.
fn is_driver(name: &str) -> bool {
    name.split_once('~')
        .is_some_and(|(vendor, driver)| is_path_part(vendor) && is_path_part(driver))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "7b13ca15-96e5-4eea-9536-8fb9859c1200";

    #[test]
    fn kubelets_path_is_taken_apart() {
        let path = format!("/var/lib/kubelet/pods/{UID}/volumes/ts~krb/creds");
        let target: Target = path.parse().unwrap();
        assert_eq!(target.as_str(), path);
        assert_eq!(target.root(), Path::new("/var/lib/kubelet"));
        assert_eq!(target.above(), ["pods", UID, "volumes", "ts~krb"]);
        assert_eq!((target.uid.as_str(), target.volume.as_str()), (UID, "creds"));
    }

    #[test]
    fn what_is_not_a_volumes_directory_is_refused() {
        let good = format!("/k/pods/{UID}/volumes/ts~krb/creds");
        assert!(good.parse::<Target>().is_ok());
        for bad in [
            String::new(),
            "/".to_owned(),
            "/etc".to_owned(),
            format!("/pods/{UID}/volumes/ts~krb/creds"), // the whole file system is no root
            good[1..].to_owned(),
            format!("{good}/"),
            format!("/{good}"),
            format!("{good}/.."),
            format!("/k/../k/pods/{UID}/volumes/ts~krb/creds"),
            format!("/k/./pods/{UID}/volumes/ts~krb/creds"),
            format!("/k/pods/{UID}/volumes/ts~krb/.."),
            format!("/k/pods/{UID}/volumes/ts~krb/Creds"),
            format!("/k/pods/{UID}/volumes/krb/creds"),
            format!("/k/pods/{UID}/volumes/ts~/creds"),
            format!("/k/pods/{UID}/plugins/ts~krb/creds"),
            "/k/pods/../volumes/ts~krb/creds".to_owned(),
            "/k/pods/a b/volumes/ts~krb/creds".to_owned(),
            format!("/{}/pods/{UID}/volumes/ts~krb/creds", "k/".repeat(2048)),
        ] {
            assert_eq!(bad.parse::<Target>(), Err(Failure::Target), "{bad}");
        }
    }
}
