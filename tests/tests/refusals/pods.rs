//! Pods that give no authority, and users that are not the account's.

use krb_tests::world::{TSFOO, pods::Pod};
use serde_json::{Value, json};

use super::{Story, TSBAR, Table, changed, world};

type Change = fn(&mut Value);

/// All that a node learns of a pod that is not its own.
const UNKNOWN: &str = "no such pod on this node (POD_UNKNOWN)";

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_gives_no_authority_is_refused() -> Story {
    let world = world()?;
    let rows: [(&str, Change, &str); 18] = [
        ("of another node", |pod| pod["spec"]["nodeName"] = "node-b".into(), "POD_UNKNOWN"),
        ("of no node", |pod| remove(&mut pod["spec"], "nodeName"), "POD_UNKNOWN"),
        ("of a bad node", |pod| pod["spec"]["nodeName"] = "a/b".into(), "POD_UNKNOWN"),
        ("without a uid", |pod| remove(&mut pod["metadata"], "uid"), "POD_UNKNOWN"),
        ("with another uid", |pod| pod["metadata"]["uid"] = OTHER.into(), "POD_UNKNOWN"),
        ("without a phase", |pod| pod["status"] = json!({}), "POD_UNKNOWN"),
        ("without a status", |pod| remove(pod, "status"), "POD_UNKNOWN"),
        ("with a bad spec", |pod| pod["spec"]["containers"] = "none".into(), "POD_UNKNOWN"),
        ("of a bad namespace", |pod| pod["metadata"]["namespace"] = "a/b".into(), "POD_UNKNOWN"),
        ("of a namespace that is not there", |pod| namespace(pod, "tsbaz"), "POD_UNKNOWN"),
        ("succeeded", |pod| pod["status"]["phase"] = "Succeeded".into(), "POD_FINISHED"),
        ("failed", |pod| pod["status"]["phase"] = "Failed".into(), "POD_FINISHED"),
        ("past its deletion", |pod| deleted(pod, "2001-01-01T00:00:00Z"), "POD_FINISHED"),
        ("with a bad deletion", |pod| deleted(pod, "soon"), "POD_UNKNOWN"),
        (
            "a mirror",
            |pod| pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "x".into(),
            "POD_NOT_ELIGIBLE",
        ),
        (
            "from a file",
            |pod| pod["metadata"]["annotations"]["kubernetes.io/config.source"] = "file".into(),
            "POD_NOT_ELIGIBLE",
        ),
        (
            "owned by a node",
            |pod| {
                let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "node-a"});
                pod["metadata"]["ownerReferences"] = json!([owner]);
            },
            "POD_NOT_ELIGIBLE",
        ),
        (
            "without a service account",
            |pod| remove(&mut pod["spec"], "serviceAccountName"),
            "POD_NOT_ELIGIBLE",
        ),
    ];
    let mut table = Table::default();
    for (row, change, reason) in rows {
        let pod = changed(&world, &row.replace(' ', "-"), change)?;
        let text = table.note(row, world.refused(&pod, "node-a", reason).await);
        if reason == "POD_UNKNOWN" && text.as_deref().is_some_and(|text| text != UNKNOWN) {
            table.0.push(format!("{row}: tells more than it must: {text:?}"));
        }
    }
    table.note("after all that", world.serves_on("good", "node-a").await);
    table.verdict()
}

const OTHER: &str = "99999999-0000-4000-8000-000000000000";

#[tokio::test(flavor = "multi_thread")]
async fn all_containers_run_as_the_namespaces_account_or_nothing_is_given() -> Story {
    let world = world()?;
    let rows: [(&str, Change, &str); 14] = [
        ("unset", |pod| remove(&mut pod["spec"]["securityContext"], "runAsUser"), "RUN_AS_USER"),
        ("root", |pod| user(&mut pod["spec"], 0), "RUN_AS_USER"),
        ("negative", |pod| user(&mut pod["spec"], -1), "RUN_AS_USER"),
        ("huge", |pod| user(&mut pod["spec"], 1 << 40), "RUN_AS_USER"),
        ("anothers", |pod| user(&mut pod["spec"], TSBAR.uid.into()), "ACCOUNT_MISMATCH"),
        ("a nobodys", |pod| user(&mut pod["spec"], 65_534), "ACCOUNT_MISMATCH"),
        ("one differs", |pod| user(&mut pod["spec"]["containers"][0], 5), "ACCOUNT_MISMATCH"),
        ("one is root", |pod| beside(pod, "containers", 0), "RUN_AS_USER"),
        ("an init differs", |pod| beside(pod, "initContainers", 61_300), "RUN_AS_USER"),
        ("an ephemeral differs", |pod| beside(pod, "ephemeralContainers", 61_300), "RUN_AS_USER"),
        ("roots group", |pod| security(pod, "runAsGroup", json!(0)), "RUN_AS_GROUP"),
        ("roots files", |pod| security(pod, "fsGroup", json!(0)), "RUN_AS_GROUP"),
        (
            "roots other group",
            |pod| security(pod, "supplementalGroups", json!([0])),
            "RUN_AS_GROUP",
        ),
        ("anothers files", |pod| security(pod, "fsGroup", json!(TSBAR.uid + 1)), "RUN_AS_GROUP"),
    ];
    let mut table = Table::default();
    for (row, change, reason) in rows {
        let pod = changed(&world, &row.replace(' ', "-"), change)?;
        table.note(row, world.refused(&pod, "node-a", reason).await);
    }
    let stranger = changed(&world, "stranger", |pod| namespace(pod, "tsbar"))?;
    table.note("in another's", world.refused(&stranger, "node-a", "ACCOUNT_MISMATCH").await);
    world.pods.namespace("nobodys", "ns-nobodys-1")?;
    let nobodys = changed(&world, "nobodys", |pod| namespace(pod, "nobodys"))?;
    table.note("nobody's", world.refused(&nobodys, "node-a", "NAMESPACE_NOT_ENTITLED").await);
    table.note("after all that", world.serves_on("good", "node-a").await);
    table.verdict()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_once_seen_finished_stays_finished() -> Story {
    let mut world = world()?;
    let pod = world.pod("done", "node-a")?;
    let finished = pod.clone().changed(|pod| pod["status"]["phase"] = "Succeeded".into());
    world.pods.apply(&finished)?;
    world.refused(&pod, "node-a", "POD_FINISHED").await?;
    world.pods.apply(&pod)?;
    world.refused(&pod, "node-a", "POD_FINISHED").await?;
    world.broker.stop()?;
    world.broker.restart()?;
    world.refused(&pod, "node-a", "POD_FINISHED").await?;
    world.serves_on("good", "node-a").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_the_same_name_is_another_pod() -> Story {
    let world = world()?;
    let old = world.pod("web-0", "node-a")?;
    world.pods.delete(&old)?;
    let text = world.refused(&old, "node-a", "POD_UNKNOWN").await?;
    assert_eq!(text, UNKNOWN);
    let new = world.pod("web-0", "node-a")?;
    assert_ne!(old.uid, new.uid);
    assert_eq!(world.refused(&old, "node-a", "POD_UNKNOWN").await?, UNKNOWN);
    let answer = world.nodes[0].mount(&new)?;
    assert!(answer.is_success(), "{answer:?}");
    assert_eq!(world.refused(&new, "node-b", "POD_UNKNOWN").await.err().map(drop), Some(()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_objects_that_claim_one_uid_or_one_name_are_nobodys() -> Story {
    let world = world()?;
    let first = world.pod("first", "node-a")?;
    let mut second = Pod::new("second", TSFOO.login, TSFOO.uid, "node-a");
    second.object = first.object.clone();
    second.object["metadata"]["name"] = "second".into();
    world.pods.apply(&second)?;
    assert_eq!(world.refused(&first, "node-a", "POD_UNKNOWN").await?, UNKNOWN);
    world.pods.delete(&second)?;
    second.object["metadata"]["name"] = "first".into();
    second.object["metadata"]["uid"] = second.uid.clone().into();
    world.pods.apply(&second)?;
    assert_eq!(world.refused(&first, "node-a", "POD_UNKNOWN").await?, UNKNOWN);
    world.pods.delete(&second)?;
    assert!(world.nodes[0].mount(&first)?.is_success(), "alone it is served");
    Ok(())
}

fn remove(object: &mut Value, field: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(field);
    }
}

fn namespace(pod: &mut Value, name: &str) {
    pod["metadata"]["namespace"] = name.into();
}

fn deleted(pod: &mut Value, at: &str) {
    pod["metadata"]["deletionTimestamp"] = at.into();
}

fn user(of: &mut Value, uid: i64) {
    of["securityContext"]["runAsUser"] = uid.into();
}

fn security(pod: &mut Value, field: &str, value: Value) {
    pod["spec"]["securityContext"][field] = value;
}

/// One more container, of a user of its own.
fn beside(pod: &mut Value, kind: &str, uid: i64) {
    let one = json!({"name": "beside", "image": "b:1", "securityContext": {"runAsUser": uid}});
    match pod["spec"][kind].as_array_mut() {
        Some(containers) => containers.push(one),
        None => pod["spec"][kind] = json!([one]),
    }
}
