//! Many pods at once.

use std::{collections::BTreeSet, time::Duration};

use krb_tests::cluster::{NODES, wait};
use serde_json::json;

use crate::{
    install::{IN_FLIGHT, KADMIN_PER_SECOND, KDC_PER_SECOND},
    story::{Needs, Story, Told, World, story},
    tenant::TSMANY,
    workload::Kind,
};

/// Told in this order.
pub const STORIES: &[Story] = &[story!(two_hundred_pods_at_once_are_all_served_and_the_caps_hold)
    .needing(Needs::Machines)
    .long()];

/// Pods on each of the nodes.
const ON_EACH: u32 = 100;
/// How long all may take to start: two cores start two or three pods a second.
const ALL: Duration = Duration::from_secs(480);
/// How long their leases may take to end.
const ENDED: Duration = Duration::from_secs(240);

/// Each pod has a principal of its own, and so costs kadmind several requests: the caps matter.
fn two_hundred_pods_at_once_are_all_served_and_the_caps_hold(world: &World<'_>) -> Told {
    let field = world.field()?;
    let (kdc, kadmin) = (field.realm().kdc_seconds().len(), field.realm().kadmin_seconds().len());
    let crowd = NODES.map(|node| {
        let crowd = field.workload(Kind::Deployment, &TSMANY, "crowd").replicas(ON_EACH);
        let script = "until klist -s && klist -k >/dev/null; do sleep 1; done; exec sleep 100000";
        crowd.services("HTTP").ticket().script(script).on(node)
    });
    let started = wait::monotonic();
    for workload in &crowd {
        field.apply(workload)?;
    }
    for workload in &crowd {
        field.wait_ready(workload, ALL)?;
    }
    println!(
        "cluster-test: {} pods ready {} s after they were applied",
        crowd.len() * ON_EACH as usize,
        (wait::monotonic() - started).as_secs()
    );

    let active = json!({ "namespace": TSMANY.login, "states": ["LEASE_STATE_ACTIVE"] });
    let leases = field.leases(&active)?;
    let holders: BTreeSet<_> = leases.iter().map(|lease| lease["pod"]["uid"].to_string()).collect();
    assert_eq!(holders.len(), crowd.len() * ON_EACH as usize, "every pod has a lease");
    for workload in &crowd {
        field.pods_of(workload)?.first().ok_or("no pod")?.run("klist -s && klist -k")?;
    }

    let busiest = |seconds: &[u64]| seconds.iter().copied().max().unwrap_or(0);
    let kdc = busiest(field.realm().kdc_seconds().get(kdc..).unwrap_or_default());
    let kadmin = busiest(field.realm().kadmin_seconds().get(kadmin..).unwrap_or_default());
    println!("cluster-test: at most {kdc} requests a second to the KDC, {kadmin} to kadmin");
    // the cap is on requests that begin; those in flight may be answered in the next logged second
    assert!(kdc <= KDC_PER_SECOND + IN_FLIGHT, "the KDC was asked {kdc} times in a second");
    assert!(
        kadmin <= KADMIN_PER_SECOND + IN_FLIGHT,
        "kadmind was asked {kadmin} times in a second"
    );

    for workload in &crowd {
        field.delete(workload)?;
    }
    Ok(wait::until("the leases of all to end", ENDED, || {
        Ok(field.leases(&active).is_ok_and(|leases| leases.is_empty()).then_some(()))
    })?)
}
