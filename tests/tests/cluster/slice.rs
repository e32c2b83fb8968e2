//! The whole way: from annotations in a manifest to an authenticated service in a pod, and back
//! to nothing.

use std::{error::Error, time::Duration};

use krb_tests::cluster::{Cluster, wait};
use serde_json::Value;

use crate::{
    field::{DRIVER, Field, agent_pod},
    story::{Told, World},
};

/// The namespace, which is the account's.
const NAMESPACE: &str = "tsfoo";
/// How long the broker may take to hear that a pod is gone.
const RELEASE: Duration = Duration::from_secs(60);
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
  securityContext: {runAsUser: 1234, runAsGroup: 1111}
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

/// Has the namespace, with the service account that pods in it need.
fn make_namespace(cluster: &Cluster) -> Told {
    let kubectl = cluster.kubectl();
    kubectl.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: tsfoo}\n")?;
    let account = wait::until("the default service account", RELEASE, || {
        kubectl.get(NAMESPACE, "serviceaccount", "default")
    });
    Ok(account.map(drop)?)
}

/// Starts a pod from an owner's manifest; the directory of its volumes on the node.
fn start_pod(
    cluster: &Cluster,
    field: &Field,
    manifest: &str,
    pod: &str,
) -> Result<String, Box<dyn Error>> {
    make_namespace(cluster)?;
    let kubectl = cluster.kubectl();
    kubectl.apply(&field.servers.inject(manifest)?)?;
    field.servers.show_objects(cluster)?;
    kubectl.wait_ready(NAMESPACE, pod)?;
    let object = kubectl.get(NAMESPACE, "pod", pod)?.ok_or("no such pod")?;
    let uid = object["metadata"]["uid"].as_str().ok_or("a pod without a uid")?;
    Ok(format!("/var/lib/kubelet/pods/{uid}/volumes/{DRIVER}"))
}

/// Deletes a pod, and sees that its node and the broker have nothing left of it.
fn end_pod(cluster: &Cluster, field: &Field, pod: &str, volumes: &str) -> Told {
    let kubectl = cluster.kubectl();
    kubectl.delete_pod(NAMESPACE, pod)?;
    cluster.node("n1").wait_unmounted(volumes)?;
    field.servers.show_objects(cluster)?;
    no_lease_lives(field)?;
    Ok(kubectl.wait_gone(NAMESPACE, pod)?)
}

/// The one active lease of a pod.
fn lease_of(field: &Field, pod: &str) -> Result<Value, Box<dyn Error>> {
    let mut leases = field.servers.leases(&["ACTIVE"])?;
    leases.retain(|lease| lease["pod"]["name"] == pod);
    match <[Value; 1]>::try_from(leases) {
        Ok([lease]) => Ok(lease),
        Err(leases) => Err(format!("{pod} has {} active leases: {leases:?}", leases.len()).into()),
    }
}

/// Waits until the broker has no lease that still gives anything.
fn no_lease_lives(field: &Field) -> Told {
    let mut left = Vec::new();
    let mut failure = None;
    let outcome = wait::until("the end of all leases", RELEASE, || {
        match field.servers.leases(&["PENDING", "ACTIVE", "REVOKING"]) {
            Ok(leases) => left = leases,
            Err(error) => failure = Some(error.to_string()),
        }
        Ok((left.is_empty() || failure.is_some()).then_some(()))
    });
    if let Some(failure) = failure {
        return Err(failure.into());
    }
    Ok(outcome.map_err(|error| format!("{error}: {left:?}"))?)
}

pub fn a_pod_authenticates_with_what_its_annotations_asked_for(world: &World<'_>) -> Told {
    let (cluster, field) = (world.cluster, world.field()?);
    let volumes = start_pod(cluster, field, OWNERS_MANIFEST, "web-0")?;
    let kubectl = cluster.kubectl();
    let in_pod = |script: &str| kubectl.exec(NAMESPACE, "web-0", "main", script);
    let service = "HTTP/web.tsfoo.svc.cluster.local";

    let ticket = in_pod("klist")?;
    assert!(ticket.contains("Default principal: tsfoo@TEST.EXAMPLE.COM"), "{ticket}");
    let keytab = in_pod("klist -k")?;
    assert!(keytab.contains(&format!("{service}@TEST.EXAMPLE.COM")), "{keytab}");

    // the KDC takes the ticket, the keytab opens what the KDC made, and two programs agree on it
    let kvno = in_pod(&format!("kvno -k $KRB5_KTNAME {service}"))?;
    assert!(kvno.contains("keytab entry valid"), "{kvno}");
    in_pod(
        "gss-server -port 4444 -once -logfile /tmp/gss.log HTTP@web.tsfoo.svc.cluster.local >/tmp/gss.out 2>&1 & sleep 1; \
            gss-client -port 4444 127.0.0.1 HTTP@web.tsfoo.svc.cluster.local 'hello, world'",
    )?;
    let served = in_pod("cat /tmp/gss.log /tmp/gss.out")?;
    assert!(served.contains("tsfoo@TEST.EXAMPLE.COM"), "{served}");

    let lease = lease_of(field, "web-0")?;
    assert_eq!(lease["node"]["name"], "n1");
    assert_eq!(lease["account"], "tsfoo");

    let mounts = cluster.node("n1").mounts(&volumes)?;
    let options = &mounts.first().ok_or("no volume is mounted")?.options;
    for option in ["nosuid", "nodev", "noexec"] {
        assert!(options.split(',').any(|has| has == option), "{options}");
    }
    end_pod(cluster, field, "web-0", &volumes)
}

pub fn a_pod_that_asks_for_more_never_starts_and_its_owner_reads_why(world: &World<'_>) -> Told {
    let (cluster, field) = (world.cluster, world.field()?);
    make_namespace(cluster)?;
    let manifest = OWNERS_MANIFEST.replace("web-0", "greedy-0");
    let refused = field.servers.inject(&manifest.replace("ts/services: HTTP", "ts/services: nfs"));
    assert!(refused.is_err(), "injection lets through what is not entitled");

    // somebody who writes the volume by hand meets the broker's own decision
    let kubectl = cluster.kubectl();
    let injected = field.servers.inject(&manifest)?;
    let forged = injected.replace("services: HTTP", "services: nfs");
    assert_ne!(forged, injected);
    kubectl.apply(&forged)?;
    field.servers.show_objects(cluster)?;
    let event = kubectl.wait_event(NAMESPACE, "greedy-0", "SERVICE_NOT_ENTITLED")?;
    assert!(event.contains("nfs"), "{event}");
    let pod = kubectl.get(NAMESPACE, "pod", "greedy-0")?.unwrap_or(Value::Null);
    assert_eq!(pod["status"]["phase"], "Pending");

    let uid = pod["metadata"]["uid"].as_str().ok_or("a pod without a uid")?;
    end_pod(cluster, field, "greedy-0", &format!("/var/lib/kubelet/pods/{uid}/volumes/{DRIVER}"))
}

pub fn a_new_agent_takes_over_the_volumes_of_the_one_before(world: &World<'_>) -> Told {
    let (cluster, field) = (world.cluster, world.field()?);
    let manifest = OWNERS_MANIFEST.replace("web-0", "steady-0");
    let volumes = start_pod(cluster, field, &manifest, "steady-0")?;
    let kubectl = cluster.kubectl();
    let before = lease_of(field, "steady-0")?;

    let old = agent_pod(cluster)?;
    let sums = "klist -s && sha256sum /var/spool/tickets/tsfoo /var/spool/keytabs/tsfoo";
    let files = || kubectl.exec(NAMESPACE, "steady-0", "main", sums);
    let served = files()?;
    kubectl.run(&["-n", "krb-broker", "delete", "pod", &old])?; // returns when it is gone
    assert_eq!(files()?, served, "the pod is served while there is no agent");
    assert_ne!(agent_pod(cluster)?, old);

    let after = lease_of(field, "steady-0")?;
    assert_eq!(before["leaseId"], after["leaseId"], "the lease must live on");
    assert_eq!(files()?, served, "the new agent leaves good files as they are");
    end_pod(cluster, field, "steady-0", &volumes)
}

pub fn a_node_that_dies_loses_its_leases_and_its_keys_are_replaced(world: &World<'_>) -> Told {
    let (cluster, field) = (world.cluster, world.field()?);
    let manifest = OWNERS_MANIFEST.replace("web-0", "doomed-0");
    start_pod(cluster, field, &manifest, "doomed-0")?;
    let lease = lease_of(field, "doomed-0")?;
    let held = lease["keytab"][0]["kvnos"].as_array().ok_or("a lease without kvnos")?;
    let held = held.iter().filter_map(Value::as_u64).max().ok_or("no kvno")?;

    cluster.node("n1").kill()?;
    wait::until("the lease to be revoked", REVOCATION, || {
        let revoked = field.servers.leases(&["REVOKED"]).unwrap_or_default();
        Ok(revoked.iter().any(|revoked| revoked["leaseId"] == lease["leaseId"]).then_some(()))
    })?;
    let shown = ["getprinc", "HTTP/web.tsfoo.svc.cluster.local"];
    let shown = field.servers.realm.kadmin_local(&shown)?;
    let stale = shown.lines().any(|line| line.contains(&format!("vno {held},")));
    assert!(!stale, "the KDC still has the dead node's key:\n{shown}");
    assert!(shown.contains(&format!("vno {}", held + 1)), "{shown}");
    Ok(())
}
