//! An API server that is away, has forgotten everything, or whose Nodes and pods somebody deleted.

use std::{error::Error, time::Duration};

use krb_tests::cluster::{Cluster, NODES, Part, wait};
use serde_json::Value;

use crate::{
    agents::Hanging,
    calm::Calm,
    field::Field,
    pod::Pod,
    story::{Needs, Story, Told, World, attempt, story, wait_for},
    tenant::TSFOO,
    workload::{Kind, Workload},
};

/// Told in this order.
pub const STORIES: &[Story] = &[
    story!(while_the_api_server_is_away_holders_go_on_and_new_pods_are_told_why)
        .needing(Needs::ApiControl)
        .long(),
    story!(with_every_node_deleted_agents_go_on).needing(Needs::ApiControl).long(),
    story!(with_every_node_deleted_the_brake_holds_agents_that_fall_silent)
        .needing(Needs::ApiControl)
        .long(),
    story!(when_every_pod_seems_gone_the_brake_holds_and_their_files_stay)
        .needing(Needs::ApiControl)
        .long(),
    story!(an_api_server_with_an_empty_store_takes_nothing_from_anybody)
        .needing(Needs::ApiControl)
        .long(),
];

/// For how long the broker believes what it saw of a pod before: 10 s, and a little.
const STALE: Duration = Duration::from_secs(13);
/// After which the broker would have given up what seems gone, if nothing held it: silence and
/// loss, or a pod's absence and the sweep.
const WOULD_BE_LOST: Duration = Duration::from_secs(30);
/// How long the brake may take to notice.
const BRAKE: Duration = Duration::from_secs(60);
/// How long a pod may take to be served once nothing hinders it: kubelet's patience between tries.
const SERVED: Duration = Duration::from_secs(180);
/// Why nothing is issued while the API server is away: nobody can say whose the agent's token is,
/// or what the pod is.
const NOBODY_SAYS: [&str; 2] = ["(TOKENS_UNAVAILABLE)", "(PODS_UNAVAILABLE)"];
/// Pods that seem gone at once: more than the brake of the stories' broker lets pass.
const MANY: u32 = 12;

/// A pod on each node, served.
fn one_each<'a>(field: &'a Field<'a>, name: &str) -> Result<Vec<Pod<'a>>, Box<dyn Error>> {
    NODES.into_iter().map(|node| field.web(name, node)).collect()
}

fn while_the_api_server_is_away_holders_go_on_and_new_pods_are_told_why(world: &World<'_>) -> Told {
    let (cluster, field) = (world.cluster, world.field()?);
    field.settle()?;
    let node = cluster.node("n2");
    let calm = Calm::of(field, one_each(field, "holder")?)?;
    // bound to its node, but not served yet when the API server goes
    let hanging = Hanging::on(&node)?;
    let late = late_pod(field);
    cluster.stop(Part::ApiServer)?;
    wait::pause(STALE);
    hanging.let_go()?;
    let told = attempt(|| {
        let (_, pod) = late?;
        wait_for("a refusal", SERVED, || said_of(&pod, NOBODY_SAYS))?;
        pod.has_no_files()?;
        calm.holds()?;
        Ok(pod)
    });
    cluster.start(Part::ApiServer)?;
    let pod = told?;
    field.settle()?;
    // its owner reads why, and it is served without anybody's help
    let line =
        pod.wait_described(NOBODY_SAYS[0]).or_else(|_| pod.wait_described(NOBODY_SAYS[1]))?;
    assert!(line.contains("FailedMount"), "{line}");
    wait_for("the pod to be served", SERVED, || {
        Ok(pod.run("klist -s && klist -k >/dev/null").is_ok())
    })?;
    calm.holds()?;
    pod.end()?;
    calm.ends()
}

/// A pod that is bound to n2, where nobody serves it.
fn late_pod<'a>(field: &'a Field<'a>) -> Result<(Workload, Pod<'a>), Box<dyn Error>> {
    let late = field.workload(Kind::Pod, &TSFOO, "late").services("HTTP").ticket().on("n2");
    field.apply(&late)?;
    let pod = field.pod_of(&late)?;
    pod.wait_called()?; // the driver waits for the agent
    Ok((late, pod))
}

fn with_every_node_deleted_agents_go_on(world: &World<'_>) -> Told {
    with_every_node_deleted(world, |_| Ok(()))
}

fn with_every_node_deleted_the_brake_holds_agents_that_fall_silent(world: &World<'_>) -> Told {
    with_every_node_deleted(world, |field| {
        let machines = NODES.map(|name| world.cluster.node(name));
        let hanging = machines.iter().map(Hanging::on).collect::<Result<Vec<_>, _>>()?;
        braked(field, "nodes vanish at once")?;
        wait::pause(WOULD_BE_LOST);
        for name in NODES {
            let session = field.session(name)?;
            assert_eq!(session["state"], "NODE_STATE_SILENT", "{session}");
            assert_eq!(session["witness"], "NODE_WITNESS_GONE", "{session}");
        }
        hanging.into_iter().try_for_each(Hanging::let_go)
    })
}

/// Deletes all Nodes, sees that nobody notices, does something more, and makes them again.
fn with_every_node_deleted(world: &World<'_>, more: impl FnOnce(&Field<'_>) -> Told) -> Told {
    let (cluster, field) = (world.cluster, world.field()?);
    field.settle()?;
    let calm = Calm::of(field, one_each(field, "nodeless")?)?;
    // else it would collect the pods of Nodes that are gone, ours and everybody's, within a minute
    cluster.stop(Part::ControllerManager)?;
    let nodes = Nodes::delete_all(cluster)?;
    let told = attempt(|| {
        wait::pause(WOULD_BE_LOST);
        calm.holds()?;
        assert!(field.status()?["brake"]["reason"].as_str().unwrap_or_default().is_empty());
        more(field)?;
        calm.holds()
    });
    nodes.make_again(cluster)?;
    cluster.start(Part::ControllerManager)?;
    told?;
    all_is_well(field)?;
    calm.holds()?;
    calm.ends()
}

fn when_every_pod_seems_gone_the_brake_holds_and_their_files_stay(world: &World<'_>) -> Told {
    let (cluster, field) = (world.cluster, world.field()?);
    field.settle()?;
    let node = cluster.node("n2");
    let crowd = field.workload(Kind::Deployment, &TSFOO, "forgotten").replicas(MANY).on("n2");
    let crowd = crowd.services("HTTP");
    let pods = field.start(&crowd)?;
    let calm = Calm::of(field, pods)?;
    // kubelet knows nothing of it: the API alone says that they are gone
    node.stop_kubelet()?;
    let told = attempt(|| {
        field.delete(&crowd)?;
        let selector = crowd.selector();
        let delete = ["-n", crowd.namespace(), "delete", "pods", "-l", &selector];
        let by_force = ["--force", "--grace-period=0", "--wait=false"];
        cluster.kubectl().run(&[&delete[..], &by_force].concat())?;
        braked(field, "pods vanish at once")?;
        wait::pause(WOULD_BE_LOST);
        calm.holds()
    });
    node.start_kubelet()?;
    told?;
    // kubelet takes them down in its own time, and their leases end one by one
    wait_for("the pods' leases to end", SERVED, || {
        let ended = |pod: &Pod<'_>| pod.lease().is_ok_and(|l| l["state"] == "LEASE_STATE_RELEASED");
        Ok(calm.pods.iter().all(ended))
    })?;
    all_is_well(field)
}

fn an_api_server_with_an_empty_store_takes_nothing_from_anybody(world: &World<'_>) -> Told {
    let (cluster, field) = (world.cluster, world.field()?);
    field.settle()?;
    let calm = Calm::of(field, one_each(field, "remembered")?)?;
    // a kubelet that reads of no pods kills them all, whoever they are; here the broker is looked at
    NODES.iter().try_for_each(|name| cluster.node(name).stop_kubelet())?;
    cluster.stop(Part::ControllerManager)?;
    // nor at a cluster network that forgets where it is
    field.proxy.hold(true);
    cluster.empty_store()?;
    let told = attempt(|| {
        let pods = cluster.kubectl().run(&["get", "pods", "--all-namespaces", "-o", "name"])?;
        assert_eq!(pods.trim(), "", "the store is not empty");
        wait::pause(WOULD_BE_LOST);
        wait::pause(WOULD_BE_LOST);
        for name in NODES {
            let session = field.session(name)?;
            assert_eq!(session["state"], "NODE_STATE_ATTACHED", "{session}");
        }
        calm.holds()
    });
    cluster.restore_store()?;
    field.proxy.hold(false);
    cluster.start(Part::ControllerManager)?;
    NODES.iter().try_for_each(|name| cluster.node(name).start_kubelet())?;
    told?;
    all_is_well(field)?;
    calm.holds()?;
    // what comes later is served as before
    field.web("afterwards", "n2")?.end()?;
    calm.ends()
}

/// The Node objects of the cluster, taken away.
struct Nodes(Vec<Value>);

impl Nodes {
    fn delete_all(cluster: &Cluster) -> Result<Self, Box<dyn Error>> {
        let mut nodes = cluster.kubectl().list("default", "nodes", &[])?;
        for node in &mut nodes {
            if let Some(metadata) = node["metadata"].as_object_mut() {
                for own in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
                    metadata.remove(own);
                }
            }
        }
        cluster.kubectl().run(&["delete", "nodes", "--all"])?;
        Ok(Self(nodes))
    }

    /// Makes them again as a kubelet that starts does, with new uids.
    fn make_again(&self, cluster: &Cluster) -> Told {
        self.0.iter().try_for_each(|node| Ok(cluster.kubectl().apply(&node.to_string())?))
    }
}

/// Waits until the brake is on for this reason.
fn braked(field: &Field<'_>, why: &str) -> Told {
    let mut status = Value::Null;
    let outcome = wait_for(&format!("the brake: {why}"), BRAKE, || {
        status = field.status()?["brake"].clone();
        Ok(status["reason"].as_str().is_some_and(|reason| reason.contains(why)))
    });
    outcome.map_err(|error| format!("{error}; the brake: {status}").into())
}

/// Waits until every node is heard of and the brake is off.
fn all_is_well(field: &Field<'_>) -> Told {
    let mut status = Value::Null;
    let outcome = wait_for("all to be well again", SERVED, || {
        status = field.status()?;
        let is_off = status["brake"]["reason"].as_str().unwrap_or_default().is_empty();
        Ok(is_off && status["nodes"]["attached"] == NODES.len())
    });
    outcome.map_err(|error| format!("{error}; {status}"))?;
    field.settle()
}

/// Whether kubelet's log has a line of a pod with one of these texts.
fn said_of(pod: &Pod<'_>, texts: [&str; 2]) -> Result<bool, Box<dyn Error>> {
    let log = std::fs::read_to_string(pod.node().kubelet_log())?;
    let mut of_it = log.lines().filter(|line| line.contains(&pod.uid));
    Ok(of_it.any(|line| texts.iter().any(|text| line.contains(text))))
}
