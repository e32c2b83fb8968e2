//! Machines that lose their power or their cable.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    time::Duration,
};

use krb_tests::{
    cluster::{ClusterError, Node, wait},
    world::Account,
};
use serde_json::{Value, json};

use crate::{
    field::Field,
    pod::Pod,
    stolen::{Stolen, principals},
    story::{Needs, Story, Told, World, attempt, story, text, wait_for},
    tenant::{TSBAR, TSFOO, TSMANY, host},
    workload::{Kind, Workload},
};

/// Told in this order.
pub const STORIES: &[Story] = &[
    story!(a_reboot_that_nobody_noticed_leaves_every_lease_as_it_was).needing(Needs::Power),
    story!(twenty_pods_lose_their_power_and_their_keys_are_replaced).needing(Needs::Power),
    story!(a_node_without_its_cable_loses_its_keys_and_wipes_its_files_by_itself)
        .needing(Needs::Power)
        .long(),
];

/// How long a dead node's keys may take to be replaced: Kubernetes' 40 s until the node is
/// NotReady, the broker's own patience, and the walks.
const REVOKED: Duration = Duration::from_secs(150);
/// How long Deployments may take to have their pods on the other node.
const MOVED: Duration = Duration::from_secs(240);
/// How long the node may take to serve again.
const SERVED: Duration = Duration::from_secs(180);
/// How long what it had may be misused at most: the tickets' life, and what tells the holders.
const EXPOSED: Duration = Duration::from_secs(180);
/// `lease_ttl` of the stories' broker, and what a busy machine adds.
const CUT_OFF: Duration = Duration::from_secs(240);

/// Pods of one tenant on the node that dies, in a Deployment.
fn crowd(field: &Field<'_>, tenant: &Account, replicas: u32, tolerations: &Value) -> Workload {
    let crowd = field.workload(Kind::Deployment, tenant, "crowd").replicas(replicas);
    crowd.services("HTTP").ticket().set("tolerations", tolerations.clone())
}

/// Moves to another node 5 s after Kubernetes has given its own up.
fn moves() -> Value {
    let away = |key: &str| {
        json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists",
               "effect": "NoExecute", "tolerationSeconds": 5})
    };
    json!([away("not-ready"), away("unreachable")])
}

/// Waits for its node, however long.
fn stays() -> Value {
    json!([{"operator": "Exists"}])
}

fn twenty_pods_lose_their_power_and_their_keys_are_replaced(world: &World<'_>) -> Told {
    let field = world.field()?;
    field.settle()?;
    let node = world.cluster.node("n2");
    let [web, many] = [(&TSFOO, 7), (&TSMANY, 6)].map(|(of, n)| crowd(field, of, n, &moves()));
    let waiting = crowd(field, &TSBAR, 7, &stays()).on("n2");
    let kubectl = world.cluster.kubectl();
    kubectl.run(&["cordon", "n1"])?;
    let started = [&web, &many, &waiting].iter().try_for_each(|crowd| field.start(crowd).map(drop));
    kubectl.run(&["uncordon", "n1"])?;
    started?;
    let mut doomed = Doomed::on(field, &node, &[&web, &many, &waiting])?;
    assert_eq!(doomed.pods.len(), 20);
    let generation = field.generation("n2")?;

    node.kill()?;
    let told = attempt(|| {
        doomed.are_revoked()?;
        doomed.keytabs_are_worthless()?;
        [&web, &many].iter().try_for_each(|crowd| successors_work(field, crowd))?;
        // an administrator does not wait for a dead machine: of these the node finds none again
        let of_many = doomed.pods.iter().filter(|pod| pod.namespace() == TSMANY.login);
        of_many.clone().try_for_each(Pod::delete_by_force)
    });
    node.boot()?; // for the stories that follow, whatever came of this one
    told?;

    // fenced, cleaned, serving
    assert!(field.generation("n2")? > generation, "the node came back under its old generation");
    for old in doomed.pods.iter().filter(|pod| pod.namespace() != TSBAR.login) {
        is_cleaned(&node, old)?;
    }
    for pod in field.pods_of(&waiting)? {
        let before = doomed.pods.iter().find(|old| old.uid == pod.uid);
        assert!(before.is_some(), "{} was not there before", pod.name);
        doomed.is_served_anew(&pod)?;
    }
    let pod = field.pods_of(&waiting)?.pop().ok_or("no pod")?;
    pod.authenticates()?;
    doomed.exposures_end()?;
    [&web, &many, &waiting].iter().try_for_each(|crowd| field.delete(crowd))
}

/// Pods on a node that is about to die, and what they had.
struct Doomed<'a> {
    field: &'a Field<'a>,
    pods: Vec<Pod<'a>>,
    /// Their leases, by the uid of their pods.
    leases: BTreeMap<String, Value>,
    /// A keytab of each workload.
    stolen: Vec<Stolen<'a>>,
    died: Duration,
}

impl<'a> Doomed<'a> {
    fn on(
        field: &'a Field<'a>,
        node: &Node<'_>,
        workloads: &[&Workload],
    ) -> Result<Self, Box<dyn Error>> {
        let (mut pods, mut stolen) = (Vec::new(), Vec::new());
        for workload in workloads {
            let of = field.pods_of(workload)?;
            stolen.push(Stolen::from(field, of.first().ok_or("no pod")?)?);
            pods.extend(of);
        }
        let elsewhere: Vec<_> = pods.iter().filter(|pod| pod.node != node.name()).collect();
        assert!(elsewhere.is_empty(), "{} is not on {}", elsewhere[0].name, node.name());
        let leases =
            field.leases(&json!({"node": node.name(), "states": ["LEASE_STATE_ACTIVE"]}))?;
        let by_pod = |lease: Value| (text(&lease["pod"]["uid"]), lease);
        let mut leases: BTreeMap<_, _> = leases.into_iter().map(by_pod).collect();
        leases.retain(|uid, _| pods.iter().any(|pod| &pod.uid == uid));
        assert_eq!(leases.len(), pods.len(), "every pod has a lease");
        for keytab in &stolen {
            assert_eq!(keytab.still_good()?, keytab.all(), "what a pod has is good while it lives");
        }
        Ok(Self { field, pods, leases, stolen, died: wait::monotonic() })
    }

    fn ids(&self) -> BTreeSet<String> {
        self.leases.values().map(|lease| text(&lease["leaseId"])).collect()
    }

    /// Waits until every lease is Revoked, and sees that each was Revoking before.
    fn are_revoked(&mut self) -> Told {
        let ids = self.ids();
        self.died = wait::monotonic();
        wait_for("the dead node's leases to be revoked", REVOKED, || {
            let revoked = self.field.leases(&json!({"states": ["LEASE_STATE_REVOKED"]}))?;
            let revoked: BTreeSet<_> =
                revoked.iter().map(|lease| text(&lease["leaseId"])).collect();
            Ok(ids.is_subset(&revoked))
        })?;
        println!(
            "cluster-test: {} leases revoked {} s after their node died",
            ids.len(),
            (wait::monotonic() - self.died).as_secs()
        );
        let since = |event: &str| -> BTreeMap<String, u64> {
            let lines = self.field.audited(event);
            let seq = |line: &Value| Some((text(&line["lease"]), line["seq"].as_u64()?));
            lines.iter().filter_map(seq).collect()
        };
        let (revoking, revoked) = (since("lease.revoking"), since("lease.revoked"));
        for id in &ids {
            assert!(revoking.contains_key(id), "{id} was never Revoking");
            assert!(revoking.get(id) < revoked.get(id), "{id} was Revoked before it was Revoking");
        }
        Ok(())
    }

    /// The KDC has none of the keys any more, and they open nothing that it gives out.
    fn keytabs_are_worthless(&self) -> Told {
        for lease in self.leases.values() {
            for keys in lease["keytab"].as_array().into_iter().flatten() {
                let held = keys["kvnos"].as_array().into_iter().flatten().filter_map(Value::as_u64);
                let now = self.field.kdc_kvno(&text(&keys["principal"]))?;
                assert!(Some(now) > held.max(), "{} still has kvno {now}", keys["principal"]);
            }
        }
        for keytab in &self.stolen {
            assert_eq!(keytab.still_good()?, [""; 0], "tickets open with a dead node's key");
        }
        // accounts of this tenant may be clients
        let web = self.stolen.first().ok_or("no keytab")?;
        assert!(!web.opens_as(&format!("HTTP/{}", host(&TSFOO)))?, "the KDC takes the old key");
        Ok(())
    }

    /// The pod of before has a lease of its own again, with newer keys.
    fn is_served_anew(&self, pod: &Pod<'_>) -> Told {
        let before = self.leases.get(&pod.uid).ok_or("it had no lease")?;
        let now = pod.wait_lease("LEASE_STATE_ACTIVE", SERVED)?;
        assert_ne!(now["leaseId"], before["leaseId"], "a revoked lease lives again");
        wait_for(&format!("{} to be served anew", pod.name), SERVED, || {
            Ok(pod.run("klist -s && klist -k >/dev/null").is_ok())
        })
    }

    /// The API says until when what the node had can be misused, and that time comes.
    fn exposures_end(&self) -> Told {
        let ids = self.ids();
        wait_for("the end of what the dead node had", EXPOSED, || {
            let leases = self.field.leases(&json!({"states": ["LEASE_STATE_REVOKED"]}))?;
            let of = leases.iter().filter(|lease| ids.contains(&text(&lease["leaseId"])));
            let has_end = |lease: &&Value| {
                let exposure = &lease["exposure"];
                exposure["open"] != true && exposure["exposedUntil"].is_string()
            };
            Ok(of.filter(has_end).count() == ids.len())
        })
    }
}

/// As many pods as before are ready on the other node, and one of them works.
fn successors_work(field: &Field<'_>, workload: &Workload) -> Told {
    let what = format!("{} pods of {} on n1", workload.count(), workload.name());
    wait_for(&what, MOVED, || Ok(field.ready_on(workload, "n1")?.len() >= workload.count()))?;
    let pod = field.ready_on(workload, "n1")?.pop().ok_or("no pod")?;
    assert_eq!(pod.lease()?["state"], "LEASE_STATE_ACTIVE");
    pod.authenticates()
}

/// Nothing of a pod that is gone lies on the machine that it was on.
fn is_cleaned(node: &Node<'_>, pod: &Pod<'_>) -> Told {
    node.wait_unmounted(&pod.volumes())?;
    pod.has_no_files()
}

fn a_node_without_its_cable_loses_its_keys_and_wipes_its_files_by_itself(
    world: &World<'_>,
) -> Told {
    let field = world.field()?;
    field.settle()?;
    let node = world.cluster.node("n2");
    let lonely = field.workload(Kind::Pod, &TSFOO, "lonely").services("HTTP").ticket();
    let lonely = lonely.set("tolerations", stays()).on("n2");
    let pod = field.start(&lonely)?.pop().ok_or("no pod")?;
    let mut doomed = Doomed::on(field, &node, &[&lonely])?;
    let files = || -> Result<String, ClusterError> {
        let list = format!("cd {}/* && find . -type f | sort", pod.volumes());
        node.exec(&list)
    };
    let secret = |files: &str| files.contains("keytabs/") || files.contains("tickets/");
    let fenced = field.audited("session.fenced").len();

    node.cut()?;
    let told = attempt(|| {
        doomed.are_revoked()?;
        doomed.keytabs_are_worthless()?;
        assert!(secret(&files()?), "its agent serves what it has until the end of lease_ttl");
        let wiped = || Ok((!secret(&files()?)).then_some(()));
        wait::until("the cut-off node to wipe its files", CUT_OFF, wiped)?;
        println!(
            "cluster-test: the files were gone {} s after the cable",
            (wait::monotonic() - doomed.died).as_secs()
        );
        Ok(())
    });
    node.join()?;
    told?;
    doomed.is_served_anew(&pod)?;
    assert!(field.audited("session.fenced").len() > fenced, "it was not fenced");
    pod.authenticates()?;
    pod.end()
}

fn a_reboot_that_nobody_noticed_leaves_every_lease_as_it_was(world: &World<'_>) -> Told {
    let field = world.field()?;
    field.settle()?;
    let node = world.cluster.node("n2");
    let kept = field.workload(Kind::Pod, &TSFOO, "rebooted").services("HTTP").ticket();
    let kept = kept.set("tolerations", stays()).on("n2");
    let pod = field.start(&kept)?.pop().ok_or("no pod")?;
    let (lease, generation) = (pod.lease()?, field.generation("n2")?);
    let lost = field.audited("session.lost").len();
    let cut = wait::monotonic();
    node.kill()?;
    node.boot()?;
    println!("cluster-test: a reboot took {} s", (wait::monotonic() - cut).as_secs());
    // its containers are new, and have another address
    wait_for("the pod to be served after the reboot", SERVED, || {
        Ok(field.pods_of(&kept)?.iter().any(|pod| pod.authenticates().is_ok()))
    })?;
    let after = pod.lease()?;
    assert_eq!(after["state"], "LEASE_STATE_ACTIVE", "{after}");
    assert_eq!(after["leaseId"], lease["leaseId"]);
    assert_eq!(principals(&after)?, principals(&lease)?, "nothing was rekeyed");
    assert_eq!(field.generation("n2")?, generation);
    assert_eq!(field.audited("session.lost").len(), lost, "nobody was lost");
    pod.end()
}
