//! What a pod's container sees: the volume's parts at their paths, its environment, its user,
//! and nothing of the node's beside.

use std::process::{Command, Output};

use super::{WorldError, node::Node, pods::Pod};

/// Runs `script` with `sh` as the pod's first container would: in a mount namespace where the
/// parts of the volume lie at the paths that the manifest names, as the pod's user, with the
/// manifest's environment and `path` in front of it.
pub fn run(node: &Node, pod: &Pod, path: &str, script: &str) -> Result<Output, WorldError> {
    Ok(command(node, pod, path, script).output()?)
}

/// The same command, not yet started.
pub fn command(node: &Node, pod: &Pod, path: &str, script: &str) -> Command {
    let target = node.target(pod).display().to_string();
    let user = pod.object["spec"]["securityContext"]["runAsUser"].as_u64().unwrap_or(0);
    let group = pod.object["spec"]["securityContext"]["runAsGroup"].as_u64().unwrap_or(0);
    // The volume is kept at hand while /run and /var/spool are made the container's own.
    let mut set_up = format!(
        "set -e; mount --bind '{target}' /mnt; mount -t tmpfs -o mode=755 tmpfs /run; \
         mount -t tmpfs -o mode=755 tmpfs /var/spool; "
    );
    for (at, part, read_only) in pod.mounts() {
        set_up += &format!("mkdir -p '{at}'; mount --bind '/mnt/{part}' '{at}'; ");
        if read_only {
            set_up += &format!("mount -o remount,bind,ro '{at}'; ");
        }
    }
    set_up += &format!(
        "umount -l /mnt; exec setpriv --reuid {user} --regid {group} --clear-groups \
         --no-new-privs --inh-caps=-all -- sh -c \"$0\""
    );
    let mut command = node.command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &set_up, script]);
    command.env_clear().env("PATH", format!("{path}:/usr/bin:/bin:/usr/sbin:/sbin"));
    command.env("LC_ALL", "C").envs(pod.environment());
    command
}
