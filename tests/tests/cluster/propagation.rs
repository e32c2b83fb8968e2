//! What the agent and the driver rely on kubelet and the container runtime for.
//!
//! Told with the smallest driver there is, so that a failure here is the cluster's, not ours.

use std::path::PathBuf;

use krb_tests::cluster::Cluster;

use crate::story::{Needs, Story, Told, World, story};

/// Told in this order.
pub const STORIES: &[Story] = &[
    story!(a_volume_is_mounted_for_its_pod_and_gone_after_it).needing(Needs::Machines),
    story!(an_agent_in_a_pod_fills_what_the_driver_mounted_on_the_node).needing(Needs::Machines),
];

/// The driver of these stories: a shell script that mounts a tmpfs with the file `hello`.
const DRIVER: &str = "example.com~min";

/// What `kubectl apply` is given for a pod that mounts a volume of that driver at `/v`.
fn pod(name: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default}}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  securityContext: {{runAsUser: 1234, runAsGroup: 1111}}
  containers:
  - name: main
    image: localhost/test:1
    imagePullPolicy: Never
    command: [sleep, '100000']
    volumeMounts: [{{name: v, mountPath: /v}}]
  volumes:
  - name: v
    flexVolume: {{driver: example.com/min}}
"
    )
}

/// A pod with the rights of the agent's, and no more.
const AGENT: &str = "
apiVersion: v1
kind: Pod
metadata: {name: looker, namespace: default}
spec:
  nodeName: n1
  hostNetwork: true
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  containers:
  - name: main
    image: localhost/test:1
    imagePullPolicy: Never
    command: [sleep, '100000']
    securityContext:
      runAsUser: 0
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL], add: [CHOWN, FOWNER, DAC_OVERRIDE, IPC_LOCK]}
    volumeMounts:
    - {name: kubelet, mountPath: /var/lib/kubelet, mountPropagation: HostToContainer}
  volumes:
  - name: kubelet
    hostPath: {path: /var/lib/kubelet, type: Directory}
";

/// Where kubelet has a pod's volume of that driver.
fn target(cluster: &Cluster, pod: &str) -> Result<String, Box<dyn std::error::Error>> {
    let object = cluster.kubectl().get("default", "pod", pod)?.ok_or("no such pod")?;
    let uid = object["metadata"]["uid"].as_str().ok_or("a pod without a uid")?;
    Ok(format!("/var/lib/kubelet/pods/{uid}/volumes/{DRIVER}/v"))
}

fn install_driver(cluster: &Cluster) -> Told {
    let script: PathBuf = cluster.scripts().join("flex-min");
    Ok(cluster.node("n1").install_driver(&script, DRIVER)?)
}

fn a_volume_is_mounted_for_its_pod_and_gone_after_it(world: &World<'_>) -> Told {
    let cluster = world.cluster;
    let kubectl = cluster.kubectl();
    install_driver(cluster)?;
    kubectl.apply(&pod("plain"))?;
    kubectl.wait_ready("default", "plain")?;
    let target = target(cluster, "plain")?;

    let mounts = cluster.node("n1").mounts(&target)?;
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    assert_eq!(mounts[0].kind, "tmpfs");
    assert_eq!(kubectl.exec("default", "plain", "main", "cat /v/hello")?, "hi\n");

    kubectl.delete_pod("default", "plain")?;
    Ok(cluster.node("n1").wait_unmounted(&target)?)
}

fn an_agent_in_a_pod_fills_what_the_driver_mounted_on_the_node(world: &World<'_>) -> Told {
    let cluster = world.cluster;
    let kubectl = cluster.kubectl();
    install_driver(cluster)?;
    kubectl.apply(AGENT)?;
    kubectl.wait_ready("default", "looker")?; // before the mount: it must come in by propagation
    kubectl.apply(&pod("filled"))?;
    kubectl.wait_ready("default", "filled")?;
    let target = target(cluster, "filled")?;

    let fill = format!(
        "cd {target} && echo secret >.new && chown 1234:1111 .new && chmod 0400 .new && mv .new keytab"
    );
    kubectl.exec("default", "looker", "main", &fill)?;
    assert_eq!(kubectl.exec("default", "filled", "main", "cat /v/keytab")?, "secret\n");
    let owner = kubectl.exec("default", "filled", "main", "stat -c %u:%g:%a /v/keytab")?;
    assert_eq!(owner.trim(), "1234:1111:400");

    // kubelet's view goes although the agent's container had the mount too, and so does the agent's
    kubectl.delete_pod("default", "filled")?;
    cluster.node("n1").wait_unmounted(&target)?;
    let seen = kubectl.exec("default", "looker", "main", "cat /proc/mounts")?;
    assert!(!seen.contains(&target), "the agent still sees the volume");
    Ok(kubectl.delete_pod("default", "looker")?)
}
