//! What kubelet does to the driver, and what becomes of volumes while a part is away.

use std::time::Duration;

use krb_tests::cluster::wait;

use crate::{
    install::{NAMESPACE, agent_pod},
    story::{Needs, Story, Told, World, story},
};

/// Told in this order.
pub const STORIES: &[Story] = &[
    story!(a_new_agent_takes_over_the_volumes_of_the_one_before),
    story!(a_kubelet_that_starts_again_leaves_the_volumes_as_they_are).needing(Needs::Machines),
];

/// How long a ticket may take to be replaced: more than half its life.
const REFRESH: Duration = Duration::from_secs(90);

fn a_new_agent_takes_over_the_volumes_of_the_one_before(world: &World<'_>) -> Told {
    let cluster = world.cluster;
    let pod = world.field()?.web("steady", "n2")?;
    let lease = pod.lease()?["leaseId"].clone();
    let keytab = || pod.run("klist -s && sha256sum /var/spool/keytabs/tsfoo");
    let served = keytab()?;

    let old = agent_pod(cluster, "n2")?;
    cluster.kubectl().run(&["-n", NAMESPACE, "delete", "pod", &old])?; // returns when it is gone
    assert_eq!(keytab()?, served, "the pod is served while there is no agent");
    assert_ne!(agent_pod(cluster, "n2")?, old);
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

fn a_kubelet_that_starts_again_leaves_the_volumes_as_they_are(world: &World<'_>) -> Told {
    let field = world.field()?;
    let node = world.cluster.node("n2");
    let pod = field.web("kept", "n2")?;
    let lease = pod.lease()?["leaseId"].clone();
    let mounts = node.mounts(&pod.volumes())?;
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    let keytab = || pod.run("klist -s && sha256sum /var/spool/keytabs/tsfoo");
    let served = keytab()?;

    node.stop_kubelet()?;
    node.start_kubelet()?;
    let later = field.web("later", "n2")?; // kubelet has called the driver since
    assert_eq!(node.mounts(&pod.volumes())?, mounts, "no second layer, and not mounted anew");
    assert_eq!(keytab()?, served);
    assert_eq!(pod.lease()?["leaseId"], lease);

    later.end()?;
    assert_eq!(keytab()?, served, "one pod's end leaves the other's files");
    pod.end()
}
