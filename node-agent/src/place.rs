//! Where a pod's volume is: kubelet's directory for it.
//!
//! A path that the driver names is compared with the one that its pod and volume give;
//! it is never opened as it was written.

use std::path::{Path, PathBuf};

use krb_proto::{PodUid, VolumeName, pod::InvalidName, text};

/// A volume of a pod on this node.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// The pod.
    pub pod: PodUid,
    /// The volume's name in the pod's spec.
    pub volume: VolumeName,
}

impl Place {
    /// The place of these names.
    ///
    /// # Errors
    /// One of them is not a name of its kind.
    pub fn new(pod: &str, volume: &str) -> Result<Self, InvalidName> {
        Ok(Self { pod: pod.parse()?, volume: volume.parse()? })
    }
}

/// What a pod is called in the cluster, as kubelet told the driver: where the broker looks for it,
/// and no more than that. Empty when it is not known.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PodNames {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.pod, self.volume)
    }
}

/// Kubelet's directory, and the driver whose volumes are in it.
#[derive(Clone, Debug)]
pub struct Kubelet {
    root: PathBuf,
    driver: String,
}

impl Kubelet {
    /// Kubelet's root directory, absolute, and the driver's directory name, `vendor~driver`.
    pub fn new(root: PathBuf, driver: String) -> Self {
        Self { root, driver }
    }

    /// Kubelet's root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the driver's volumes of one pod, relative to the root.
    pub fn parent(&self, pod: &PodUid) -> PathBuf {
        ["pods", pod.as_str(), "volumes", &self.driver].iter().collect()
    }

    /// The mount directory of a place.
    pub fn target(&self, place: &Place) -> PathBuf {
        self.root.join(self.parent(&place.pod)).join(place.volume.as_str())
    }

    /// The place whose mount directory `target` is.
    ///
    /// # Errors
    /// It is the mount directory of no volume of this driver.
    pub fn place(&self, target: &str) -> Result<Place, NotATarget> {
        let refused = || NotATarget(text::shown(target));
        let rest = Path::new(target).strip_prefix(&self.root).map_err(|_| refused())?;
        let parts: Option<Vec<&str>> = rest.iter().map(|part| part.to_str()).collect();
        let place = match parts.as_deref() {
            Some(["pods", pod, "volumes", driver, volume]) if *driver == self.driver => {
                Place::new(pod, volume).map_err(|_| refused())?
            }
            _ => return Err(refused()),
        };
        // Only the one spelling: no doubled or trailing slash, no dot.
        if self.target(&place).as_os_str() == target { Ok(place) } else { Err(refused()) }
    }
}

/// The path is the mount directory of no volume.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0} is not kubelet's directory for a volume of this driver")]
pub struct NotATarget(String);

/// Whether `name` may be a driver's directory: `vendor~driver`.
pub fn is_driver_directory(name: &str) -> bool {
    name.split_once('~').is_some_and(|(v, d)| text::is_path_part(v) && text::is_path_part(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubelet() -> Kubelet {
        Kubelet::new("/var/lib/kubelet".into(), "ts~krb".to_owned())
    }

    #[test]
    fn a_target_and_its_place_are_the_same_thing() {
        let place = Place::new("7b13ca15-96e5", "krb").unwrap();
        let target = kubelet().target(&place);
        assert_eq!(target, Path::new("/var/lib/kubelet/pods/7b13ca15-96e5/volumes/ts~krb/krb"));
        assert_eq!(kubelet().place(target.to_str().unwrap()), Ok(place));
    }

    #[test]
    fn no_other_spelling_of_a_path_is_a_target() {
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "/var/lib/kubelet/pods/u/volumes/ts~krb/",
            "/var/lib/kubelet/pods/u/volumes/ts~krb/v/",
            "/var/lib/kubelet/pods/u/volumes/ts~krb//v",
            "/var/lib/kubelet/./pods/u/volumes/ts~krb/v",
            "/var/lib/kubelet/pods/u/../u/volumes/ts~krb/v",
            "/var/lib/kubelet/pods/../volumes/ts~krb/v",
            "/var/lib/kubelet/pods/u/volumes/ts~krb/..",
            "/var/lib/kubelet/pods/u/volumes/other~krb/v",
            "/var/lib/kubelet/pods/u/volumes/ts~krb/v/tickets",
            "/var/lib/kubelet/pods/u/volumes/ts~krb/V",
            "/var/lib/kubelet/pods/u\0/volumes/ts~krb/v",
        ] {
            assert!(kubelet().place(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_driver_directory_is_vendor_and_driver() {
        assert!(is_driver_directory("ts~krb"));
        for bad in ["", "krb", "~", "ts~", "~krb", "ts~krb~x", "../x~y", "ts~.krb"] {
            assert!(!is_driver_directory(bad), "{bad}");
        }
    }
}
