//! The whole way: from annotations in a manifest to an authenticated service in a pod, and back
//! to nothing.

use std::{error::Error, time::Duration};

use krb_tests::{
    cluster::{Cluster, wait},
    world::node::DRIVER_DIR,
};
use serde_json::Value;

use crate::{
    field::{Field, agent_pod},
    story::{Told, World},
};

/// The namespace, which is the account's.
const NAMESPACE: &str = "tsfoo";
/// The service principal that all its pods share.
const SERVICE: &str = "HTTP/web.tsfoo.svc.cluster.local";
/// How long the broker may take to hear that a pod is gone.
const RELEASE: Duration = Duration::from_secs(60);
/// How long a ticket may take to be replaced: more than half its life.
const REFRESH: Duration = Duration::from_secs(90);
/// How long a dead node's keys may take to be replaced: silence, loss, and the walks.
const REVOCATION: Duration = Duration::from_secs(180);

/// What an application owner writes: annotations, and nothing of volumes.
const OWNERS_MANIFEST: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: tsfoo}
spec:
  selector: {app: web}
  ports: [{port: 80}]
---
apiVersion: v1
kind: Pod
metadata:
  name: web-0
  namespace: tsfoo
  labels: {app: web}
  annotations:
    ts/services: HTTP
    ts/prestashtkt: 'true'
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  securityContext: {runAsUser: 1234, runAsGroup: 1235}
  initContainers:
  - name: first
    image: localhost/krb-tools:1
    imagePullPolicy: Never
    command: [sh, -c, 'test -s /var/spool/keytabs/tsfoo && klist -s']
  containers:
  - name: main
    image: localhost/krb-tools:1
    imagePullPolicy: Never
    command: [sleep, '100000']
";

/// A pod of the stories' account, as the stories use it.
struct Pod<'a> {
    cluster: &'a Cluster,
    field: &'a Field,
    name: &'a str,
    /// Where kubelet has its volumes of our driver.
    volumes: String,
}

impl<'a> Pod<'a> {
    /// Applies an owner's manifest as `inject` made it.
    fn apply(world: &'a World<'_>, name: &'a str, injected: &str) -> Result<Self, Box<dyn Error>> {
        let (cluster, field) = (world.cluster, world.field()?);
        let kubectl = cluster.kubectl();
        kubectl.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: tsfoo}\n")?;
        wait::until("the default service account", RELEASE, || {
            kubectl.get(NAMESPACE, "serviceaccount", "default")
        })?;
        kubectl.apply(injected)?;
        let object = kubectl.get(NAMESPACE, "pod", name)?.ok_or("no such pod")?;
        let uid = object["metadata"]["uid"].as_str().ok_or("a pod without a uid")?;
        let volumes = format!("/var/lib/kubelet/pods/{uid}/volumes/{DRIVER_DIR}");
        Ok(Self { cluster, field, name, volumes })
    }

    /// Starts a pod with the annotations of the manifest, and waits until it runs.
    fn start(world: &'a World<'_>, name: &'a str) -> Result<Self, Box<dyn Error>> {
        let injected = world.field()?.servers.inject(&OWNERS_MANIFEST.replace("web-0", name))?;
        let pod = Self::apply(world, name, &injected)?;
        pod.cluster.kubectl().wait_ready(NAMESPACE, name)?;
        Ok(pod)
    }

    /// Runs a shell command in it; what it printed.
    fn run(&self, script: &str) -> Result<String, Box<dyn Error>> {
        Ok(self.cluster.kubectl().exec(NAMESPACE, self.name, "main", script)?)
    }

    /// Its lease.
    fn lease(&self) -> Result<Value, Box<dyn Error>> {
        self.field.servers.lease_of(self.name)
    }

    /// Waits until the lease is in this state.
    fn wait_lease(&self, state: &str, limit: Duration) -> Result<Value, Box<dyn Error>> {
        let mut seen = Value::Null;
        let outcome = wait::until(&format!("{state} for {}", self.name), limit, || {
            seen = self.lease().unwrap_or_else(|error| Value::String(error.to_string()));
            Ok((seen["state"] == state).then_some(()))
        });
        outcome.map_err(|error| format!("{error}; last seen: {seen}"))?;
        Ok(seen)
    }

    /// Deletes it, and sees that the node has nothing left of it.
    fn delete(&self) -> Told {
        self.cluster.kubectl().delete_pod(NAMESPACE, self.name)?;
        Ok(self.cluster.node("n1").wait_unmounted(&self.volumes)?)
    }

    /// Deletes it, and sees that the broker has nothing left of it either.
    fn end(&self) -> Told {
        self.delete()?;
        self.wait_lease("LEASE_STATE_RELEASED", RELEASE).map(drop)
    }
}

pub fn a_pod_authenticates_with_what_its_annotations_asked_for(world: &World<'_>) -> Told {
    let pod = Pod::start(world, "web-0")?;

    let ticket = pod.run("klist")?;
    assert!(ticket.contains("Default principal: tsfoo@TEST.EXAMPLE.COM"), "{ticket}");
    let keytab = pod.run("klist -k")?;
    assert!(keytab.contains(&format!("{SERVICE}@TEST.EXAMPLE.COM")), "{keytab}");

    // the KDC takes the ticket, the keytab opens what the KDC made, and two programs agree on it
    let kvno = pod.run(&format!("kvno -k ${{KRB5_KTNAME#FILE:}} {SERVICE}"))?;
    assert!(kvno.contains("keytab entry valid"), "{kvno}");
    pod.run(
        "gss-server -port 4444 -once -logfile /tmp/gss.log HTTP@web.tsfoo.svc.cluster.local >/tmp/gss.out 2>&1 & sleep 1; \
            gss-client -port 4444 127.0.0.1 HTTP@web.tsfoo.svc.cluster.local 'hello, world'",
    )?;
    let served = pod.run("cat /tmp/gss.log /tmp/gss.out")?;
    assert!(served.contains("tsfoo@TEST.EXAMPLE.COM"), "{served}");

    let lease = pod.lease()?;
    assert_eq!(lease["state"], "LEASE_STATE_ACTIVE");
    assert_eq!(lease["node"]["name"], "n1");
    assert_eq!(lease["account"], "tsfoo");

    let mounts = world.cluster.node("n1").mounts(&pod.volumes)?;
    let options = &mounts.first().ok_or("no volume is mounted")?.options;
    for option in ["nosuid", "nodev", "noexec"] {
        assert!(options.split(',').any(|has| has == option), "{options}");
    }
    pod.end()
}

pub fn a_pod_that_asks_for_more_never_starts_and_its_owner_reads_why(world: &World<'_>) -> Told {
    let servers = &world.field()?.servers;
    let manifest = OWNERS_MANIFEST.replace("web-0", "greedy-0");
    let refused = servers.inject(&manifest.replace("ts/services: HTTP", "ts/services: nfs"));
    assert!(refused.is_err(), "injection lets through what is not entitled");

    // somebody who writes the volume by hand meets the broker's own decision
    let injected = servers.inject(&manifest)?;
    let forged = injected.replace("services: HTTP", "services: nfs");
    assert_ne!(forged, injected);
    let pod = Pod::apply(world, "greedy-0", &forged)?;
    let kubectl = world.cluster.kubectl();
    let line = kubectl.wait_described(NAMESPACE, "greedy-0", "(SERVICE_NOT_ENTITLED)")?;
    for part in ["FailedMount", "krb-credentials", "status: Failure, reason: ", "nfs"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let object = kubectl.get(NAMESPACE, "pod", "greedy-0")?.ok_or("no such pod")?;
    assert_eq!(object["status"]["phase"], "Pending");
    // between two tries nothing is mounted: kubelet would take what is left for a success
    world.cluster.node("n1").wait_unmounted(&pod.volumes)?;

    pod.delete()?;
    let leases = servers.leases_of("greedy-0")?;
    assert!(leases.is_empty(), "{leases:?}");
    Ok(())
}

pub fn a_new_agent_takes_over_the_volumes_of_the_one_before(world: &World<'_>) -> Told {
    let cluster = world.cluster;
    let pod = Pod::start(world, "steady-0")?;
    let lease = pod.lease()?["leaseId"].clone();
    let keytab = || pod.run("klist -s && sha256sum /var/spool/keytabs/tsfoo");
    let served = keytab()?;

    let old = agent_pod(cluster)?;
    cluster.kubectl().run(&["-n", "krb-broker", "delete", "pod", &old])?; // returns when it is gone
    assert_eq!(keytab()?, served, "the pod is served while there is no agent");
    assert_ne!(agent_pod(cluster)?, old);
    assert_eq!(keytab()?, served, "the new agent leaves good files as they are");
    assert_eq!(pod.lease()?["leaseId"], lease, "the lease lives on");

    // what the broker pushes arrives through the new agent, in the container that was there before
    let ticket = || pod.run("klist -s && sha256sum /var/spool/tickets/tsfoo");
    let before = ticket()?;
    wait::until("a fresh ticket in the old pod", REFRESH, || {
        Ok(ticket().is_ok_and(|now| now != before).then_some(()))
    })?;
    pod.end()
}

pub fn a_kubelet_that_starts_again_leaves_the_volumes_as_they_are(world: &World<'_>) -> Told {
    let node = world.cluster.node("n1");
    let pod = Pod::start(world, "kept-0")?;
    let lease = pod.lease()?["leaseId"].clone();
    let mounts = node.mounts(&pod.volumes)?;
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    let keytab = || pod.run("klist -s && sha256sum /var/spool/keytabs/tsfoo");
    let served = keytab()?;

    node.stop_kubelet()?;
    node.start_kubelet()?;
    let later = Pod::start(world, "later-0")?; // kubelet has called the driver since
    assert_eq!(node.mounts(&pod.volumes)?, mounts, "no second layer, and not mounted anew");
    assert_eq!(keytab()?, served);
    assert_eq!(pod.lease()?["leaseId"], lease);

    later.end()?;
    assert_eq!(keytab()?, served, "one pod's end leaves the other's files");
    pod.end()
}

pub fn a_node_that_dies_loses_its_leases_and_its_keys_are_replaced(world: &World<'_>) -> Told {
    let pod = Pod::start(world, "doomed-0")?;
    let held = pod.lease()?["keytab"][0]["kvnos"].clone();
    let held = held.as_array().ok_or("a lease without kvnos")?;
    let held = held.iter().filter_map(Value::as_u64).max().ok_or("no kvno")?;

    world.cluster.node("n1").kill()?;
    pod.wait_lease("LEASE_STATE_REVOKED", REVOCATION)?;
    let shown = pod.field.servers.realm.kadmin_local(&["getprinc", SERVICE])?;
    let stale = shown.lines().any(|line| line.contains(&format!("vno {held},")));
    assert!(!stale, "the KDC still has the dead node's key:\n{shown}");
    assert!(shown.contains(&format!("vno {}", held + 1)), "{shown}");
    Ok(())
}
