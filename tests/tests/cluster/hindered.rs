//! Mounts and unmounts that something hinders: an agent that hangs, a kubelet that dies, a driver
//! that is gone, a broker or a webhook that is away, a pod that somebody deletes meanwhile.

use std::{error::Error, time::Duration};

use krb_tests::{
    cluster::{Cluster, wait},
    world::node::DRIVER_DIR,
};

use crate::{
    agents::Hanging,
    calm::Calm,
    field::Field,
    install::{NAMESPACE, rolled_out},
    pod::Pod,
    story::{Needs, Story, Told, World, attempt, story, wait_for},
    tenant::{TSFOO, TSRAW},
    workload::{Kind, Workload},
};

/// Told in this order.
pub const STORIES: &[Story] = &[
    story!(while_an_agent_hangs_in_a_mount_kubelet_may_die_and_other_pods_start)
        .needing(Needs::Machines),
    story!(an_unmount_without_a_driver_waits_until_it_is_back).needing(Needs::Machines),
    story!(a_pod_that_is_deleted_by_force_leaves_nothing).needing(Needs::Machines),
    story!(while_the_broker_is_away_holders_go_on_and_new_pods_wait).needing(Needs::Machines),
    story!(without_its_webhook_only_those_who_asked_for_it_are_refused),
];

/// How long a pod may take to be served once nothing hinders it: kubelet's patience between tries.
const SERVED: Duration = Duration::from_secs(180);
/// How long the end of a pod may take: kubelet looks for orphans once in a while.
const ENDED: Duration = Duration::from_secs(120);
/// How long something would have taken at most that must not happen.
const HINDERED: Duration = Duration::from_secs(12);
/// Where the driver lies on a machine.
const PLUGINS: &str = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec";

/// A pod of n2 in the making.
fn pod(field: &Field<'_>, name: &str) -> Workload {
    field.workload(Kind::Pod, &TSFOO, name).services("HTTP").ticket().on("n2")
}

/// Makes it, and waits until kubelet has called the driver for it.
fn called<'a>(field: &'a Field<'a>, workload: &Workload) -> Result<Pod<'a>, Box<dyn Error>> {
    field.apply(workload)?;
    let pod = field.pod_of(workload)?;
    pod.wait_called()?;
    Ok(pod)
}

/// Waits until its container runs, with what it asked for.
fn is_served(pod: &Pod<'_>) -> Told {
    wait_for(&format!("{} to be served", pod.name), SERVED, || {
        Ok(pod.run("klist -s && klist -k >/dev/null").is_ok())
    })
}

/// Waits until the machine has nothing of a pod, and it holds nothing.
fn is_forgotten(field: &Field<'_>, pod: &Pod<'_>) -> Told {
    wait_for(&format!("{} to be forgotten", pod.name), ENDED, || {
        let leases = field.leases(&serde_json::json!({ "podUid": pod.uid }))?;
        let ended = |lease: &serde_json::Value| lease["state"] == "LEASE_STATE_RELEASED";
        Ok(leases.iter().all(ended) && pod.node().mounts(&pod.uid)?.is_empty())
    })?;
    pod.has_no_files()
}

fn while_an_agent_hangs_in_a_mount_kubelet_may_die_and_other_pods_start(world: &World<'_>) -> Told {
    let field = world.field()?;
    let node = world.cluster.node("n2");
    let hanging = Hanging::on(&node)?;
    let waiting = called(field, &pod(field, "waiting"))?;
    let unwanted = called(field, &pod(field, "unwanted"))?;
    let empty = field.workload(Kind::Pod, &TSFOO, "empty").empty_dir().on("n2");
    field.start(&empty)?; // one hanging mount is nobody else's

    node.kill_kubelet()?;
    unwanted.delete_by_force()?;
    node.start_kubelet()?; // calls the driver again, beside the call that still waits
    field.delete(&empty)?;
    hanging.let_go()?;

    is_served(&waiting)?;
    let mounts = node.mounts(&waiting.volumes())?;
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    waiting.authenticates()?;
    is_forgotten(field, &unwanted)?;
    waiting.end()
}

fn an_unmount_without_a_driver_waits_until_it_is_back(world: &World<'_>) -> Told {
    let field = world.field()?;
    let node = world.cluster.node("n2");
    let pods = [field.web("kept", "n2")?, field.web("going", "n2")?];
    let [kept, going] = &pods;
    let calm = Calm::of(field, vec![kept.clone()])?;
    let dir = format!("{PLUGINS}/{DRIVER_DIR}");
    node.exec(&format!("for f in {dir}/[!.]*; do mv $f {PLUGINS}/.aside; done"))?;
    let told = attempt(|| {
        world.cluster.kubectl().delete_pod(going.namespace(), &going.name)?;
        wait::pause(HINDERED);
        assert!(!node.mounts(&going.volumes())?.is_empty(), "who unmounted it?");
        assert!(!going.object()?["metadata"]["deletionTimestamp"].is_null());
        calm.holds()
    });
    let name = DRIVER_DIR.split('~').next_back().unwrap_or_default();
    node.exec(&format!("mv {PLUGINS}/.aside {dir}/{name}"))?;
    told?;
    is_forgotten(field, going)?;
    calm.ends()
}

fn a_pod_that_is_deleted_by_force_leaves_nothing(world: &World<'_>) -> Told {
    let field = world.field()?;
    let node = world.cluster.node("n2");
    let [one, other] = [field.web("forced", "n2")?, field.web("orphaned", "n2")?];
    one.delete_by_force()?;
    is_forgotten(field, &one)?;

    // the broker hears of it before kubelet does: the files go while the containers run
    node.stop_kubelet()?;
    let told = attempt(|| {
        other.delete_by_force()?;
        wait_for("the files of a pod that is gone to go", ENDED, || {
            Ok(other.keytab_on_node().is_err())
        })?;
        other.wait_lease("LEASE_STATE_RELEASED", ENDED).map(drop)
    });
    node.start_kubelet()?; // unmounts while the containers still run
    told?;
    is_forgotten(field, &other)
}

/// Has a Deployment of ours run as many pods.
fn scale(cluster: &Cluster, deployment: &str, replicas: u32) -> Told {
    let replicas = format!("--replicas={replicas}");
    cluster.kubectl().run(&["-n", NAMESPACE, "scale", "deployment", deployment, &replicas])?;
    rolled_out(cluster, &format!("deployment/{deployment}"))
}

fn while_the_broker_is_away_holders_go_on_and_new_pods_wait(world: &World<'_>) -> Told {
    let (cluster, field) = (world.cluster, world.field()?);
    let calm = Calm::of(field, vec![field.web("holding", "n2")?])?;
    scale(cluster, "krb-broker", 0)?;
    let told = attempt(|| {
        calm.pods.iter().try_for_each(Pod::authenticates)?;
        let late = called(field, &pod(field, "patient"))?;
        wait::pause(HINDERED);
        assert_eq!(late.object()?["status"]["phase"], "Pending");
        late.has_no_files()?;
        Ok(late)
    });
    scale(cluster, "krb-broker", 1)?;
    let late = told?;
    is_served(&late)?;
    calm.holds()?;
    late.end()?;
    calm.ends()
}

fn without_its_webhook_only_those_who_asked_for_it_are_refused(world: &World<'_>) -> Told {
    let (cluster, field) = (world.cluster, world.field()?);
    scale(cluster, "krb-broker-admission", 0)?;
    let told = attempt(|| {
        // a replica that is told to end serves on for some seconds
        wait_for("the webhook to be away", HINDERED * 5, || Ok(field.try_webhook().is_err()))?;
        let refused = field.apply(&pod(field, "unadmitted"));
        let said = refused.err().ok_or("an opted-in namespace takes pods unseen")?.to_string();
        assert!(said.contains("failed calling webhook"), "{said}");
        let free = field.workload(Kind::Pod, &TSRAW, "free").on("n2");
        field.start(&free)?;
        field.delete(&free)?;
        let system = "kubectl-made";
        let own =
            free.manifest().replace("\"namespace\":\"tsraw\"", "\"namespace\":\"kube-system\"");
        let own = own.replace(free.name(), system);
        cluster.kubectl().apply(&own)?;
        Ok(cluster.kubectl().delete_pod("kube-system", system)?)
    });
    scale(cluster, "krb-broker-admission", 2)?;
    told?;
    field.settle()?; // the Service has their addresses a moment later
    field.web("admitted", "n2")?.end()
}
