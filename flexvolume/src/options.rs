//! The options that kubelet hands to `mount`, read for one purpose: to agree with the target.
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

/// Checks that the options are of the pod and volume that the target names.
///
/// # Errors
/// [`Failure::Options`] when they are too long, no JSON object, or lack one of the two names;
/// [`Failure::Disagree`] when they name another pod or volume.
pub fn agree(json: &str, target: &Target) -> Result<(), Failure> {
    if json.len() > MAX_OPTIONS {
        return Err(Failure::Options);
    }
    let options: Value = serde_json::from_str(json).map_err(|_| Failure::Options)?;
    let named = |key| options.get(key).and_then(Value::as_str).ok_or(Failure::Options);
    if named(POD_UID)? == target.uid.as_str() && named(VOLUME)? == target.volume.as_str() {
        Ok(())
    } else {
        Err(Failure::Disagree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<(), Failure> {
        agree(json, &"/k/pods/u-1/volumes/ts~krb/v".parse().unwrap())
    }

    #[test]
    fn options_must_name_the_targets_pod_and_volume() {
        let kubelets = r#"{"kubernetes.io/fsType":"","kubernetes.io/pod.uid":"u-1","kubernetes.io/pvOrVolumeName":"v","ts/services":"HTTP"}"#;
        assert_eq!(check(kubelets), Ok(()));
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
