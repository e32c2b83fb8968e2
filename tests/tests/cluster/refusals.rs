//! What is refused, as `kubectl apply` and `kubectl describe pod` show it.

use serde_json::json;

use crate::{
    story::{Needs, Story, Told, World, story},
    tenant::{TSFOO, TSRAW},
    workload::Kind,
};

/// Told in this order.
pub const STORIES: &[Story] = &[
    story!(what_is_not_entitled_is_refused_when_it_is_applied),
    story!(a_pod_that_asks_for_more_never_starts_and_its_owner_reads_why).needing(Needs::Machines),
];

fn what_is_not_entitled_is_refused_when_it_is_applied(world: &World<'_>) -> Told {
    let field = world.field()?;
    let greedy = field.workload(Kind::Pod, &TSFOO, "greedy").services("imap");
    let refused = field.apply(&greedy).err().ok_or("what is not entitled can be applied")?;
    let said = refused.to_string();
    for part in ["ts/services", "imap", "SERVICE_NOT_ENTITLED"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(field.pods_of(&greedy)?.is_empty(), "a pod was made");
    Ok(())
}

fn a_pod_that_asks_for_more_never_starts_and_its_owner_reads_why(world: &World<'_>) -> Told {
    let field = world.field()?;
    // somebody who writes the volume by hand meets the broker's own decision
    let greedy = field.workload(Kind::Pod, &TSRAW, "greedy").services("HTTP").on("n2");
    let injected = field.injected(&greedy)?;
    let forged = injected.replace("services: HTTP", "services: nfs");
    assert_ne!(forged, injected);
    world.cluster.kubectl().apply(&forged)?;
    let pod = field.pod_of(&greedy)?;

    let line = pod.wait_described("(SERVICE_NOT_ENTITLED)")?;
    for part in ["FailedMount", "krb-credentials", "status: Failure, reason: ", "nfs"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(pod.object()?["status"]["phase"], "Pending");
    let denied = field.audited("lease.denied");
    assert!(denied.iter().any(|line| line.to_string().contains(&pod.uid)), "{denied:?}");
    // between two tries nothing is mounted: kubelet would take what is left for a success
    pod.node().wait_unmounted(&pod.volumes())?;

    pod.delete()?;
    let leases = field.leases(&json!({ "podUid": pod.uid }))?;
    assert!(leases.is_empty(), "{leases:?}");
    Ok(())
}
