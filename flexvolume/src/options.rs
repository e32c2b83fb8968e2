//! The options that kubelet hands to `mount`, read to agree with the target, and for the names
//! that the pod has in the cluster.
//!
//! Kubelet sets the keys under `kubernetes.io/` itself, and the API server refuses them from
//! users. All other keys are the user's and are not looked at: what the volume is to hold, the
//! broker reads from its own copy of the pod's spec.

use serde_json::Value;

use crate::{failure::Failure, target::Target};

/// The longest options that are read, in bytes.
pub const MAX_OPTIONS: usize = 64 * 1024;

const POD_UID: &str = "kubernetes.io/pod.uid";
const VOLUME: &str = "kubernetes.io/pvOrVolumeName";
const POD_NAMESPACE: &str = "kubernetes.io/pod.namespace";
const POD_NAME: &str = "kubernetes.io/pod.name";

/// What a pod is called: where the broker looks for it, and no more than that.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PodNames {
    /// Its namespace; empty when kubelet does not say.
    pub namespace: String,
    /// Its name; empty when kubelet does not say.
    pub name: String,
}

/// Checks that the options are of the pod and volume that the target names. Gives the pod's names.
///
/// # Errors
/// [`Failure::Options`] when they are too long, no JSON object, or lack one of the two names;
/// [`Failure::Disagree`] when they name another pod or volume.
pub fn agree(json: &str, target: &Target) -> Result<PodNames, Failure> {
    if json.len() > MAX_OPTIONS {
        return Err(Failure::Options);
    }
    let options: Value = serde_json::from_str(json).map_err(|_| Failure::Options)?;
    let option = |key| options.get(key).and_then(Value::as_str);
    let named = |key| option(key).ok_or(Failure::Options);
    if named(POD_UID)? != target.uid.as_str() || named(VOLUME)? != target.volume.as_str() {
        return Err(Failure::Disagree);
    }
    let name = |key| option(key).unwrap_or_default().to_owned();
    Ok(PodNames { namespace: name(POD_NAMESPACE), name: name(POD_NAME) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<PodNames, Failure> {
        agree(json, &"/k/pods/u-1/volumes/ts~krb/v".parse().unwrap())
    }

    #[test]
    fn options_must_name_the_targets_pod_and_volume() {
        let kubelets = r#"{"kubernetes.io/fsType":"","kubernetes.io/pod.uid":"u-1","kubernetes.io/pvOrVolumeName":"v","ts/services":"HTTP"}"#;
        assert_eq!(check(kubelets), Ok(PodNames::default()));
        let names = r#"{"kubernetes.io/pod.namespace":"tsfoo","kubernetes.io/pod.name":"web-0","#;
        let (namespace, name) = ("tsfoo".to_owned(), "web-0".to_owned());
        assert_eq!(check(&kubelets.replace('{', names)), Ok(PodNames { namespace, name }));
        assert_eq!(check(&kubelets.replace("u-1", "u-2")), Err(Failure::Disagree));
        assert_eq!(check(&kubelets.replace("\"v\"", "\"w\"")), Err(Failure::Disagree));
    }

    #[test]
    fn what_is_no_object_with_both_names_is_refused() {
        let deep = "[".repeat(10_000);
        let long = format!(
            r#"{{"kubernetes.io/pod.uid":"u-1","kubernetes.io/pvOrVolumeName":"v","x":"{}"}}"#,
            "x".repeat(MAX_OPTIONS)
        );
        for bad in [
            "",
            "{",
            "null",
            "[]",
            "\"\"",
            "{}",
            "{} {}",
            &deep,
            &long,
            r#"{"kubernetes.io/pod.uid":"u-1"}"#,
            r#"{"kubernetes.io/pod.uid":1,"kubernetes.io/pvOrVolumeName":"v"}"#,
            r#"[{"kubernetes.io/pod.uid":"u-1","kubernetes.io/pvOrVolumeName":"v"}]"#,
        ] {
            assert_eq!(check(bad), Err(Failure::Options), "{bad:.40}");
        }
    }
}
