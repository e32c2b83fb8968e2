use std::time::Duration;

use serde_json::json;

use super::*;
use crate::{
    clock::{Clock, TestClock},
    kubernetes::kept::{Around, selector},
};

const DRIVER: &str = "krb-broker/credentials";
/// Enough of them to weigh one.
const MANY: u32 = 30_000;
/// What a pod may take: 150,000 of them 300 MB.
const A_POD: u64 = 2_000;

/// A pod as a large cluster has them: one of a job, with what kubelet and controllers write.
fn pod(number: u32, change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("build-{number}-x7k2p"),
            "namespace": format!("team-{}", number % 200),
            "uid": format!("0f7c2c1a-0000-4000-8000-{number:012}"),
            "resourceVersion": number.to_string(),
            "labels": {
                "app.kubernetes.io/name": "build", "app.kubernetes.io/managed-by": "farm",
                "controller-uid": format!("1f7c2c1a-0000-4000-8000-{number:012}"),
                "job-name": format!("build-{number}"), "team": format!("team-{}", number % 200),
            },
            "annotations": {"kubernetes.io/config.source": "api", "ts/services": "HTTP"},
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {"f:phase": {}}}}],
        },
        "spec": {
            "nodeName": format!("node-{}.example.com", number % 1500),
            "serviceAccountName": "default",
            "securityContext": {"runAsUser": 1234, "fsGroup": 1111},
            "containers": [
                {"name": "main", "image": "registry.example.com/build:1", "env": [{"name": "A", "value": "b"}]},
                {"name": "sidecar", "image": "registry.example.com/sidecar:1"},
            ],
            "initContainers": [{"name": "prepare", "image": "registry.example.com/prepare:1"}],
            "volumes": [
                {"name": "creds", "flexVolume": {
                    "driver": DRIVER, "options": {"ts/services": "HTTP,nfs", "ts/prestashtkt": "true"},
                }},
                {"name": "scratch", "emptyDir": {}},
                {"name": "other", "csi": {"driver": "disk.example.com", "volumeAttributes": {"a": "b"}}},
            ],
        },
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    });
    change(&mut pod);
    pod
}

fn view() -> (View, TestClock) {
    (View::new("prod-1".into(), DRIVER.to_owned()), TestClock::default())
}

fn kept(view: &View, number: u32) -> Arc<KeptPod> {
    let uid = format!("0f7c2c1a-0000-4000-8000-{number:012}").parse().unwrap();
    view.pods.look(|pods| pods.get(&uid).cloned()).expect("it is there")
}

fn selects(pod: &KeptPod, of: Value) -> bool {
    pod.is_selected_by(&selector(&serde_json::from_value(of).unwrap()))
}

#[test]
fn what_is_kept_of_a_pod_is_all_that_a_decision_needs() {
    let (view, clock) = view();
    view.pods.put(&pod(1, |_| {}), clock.now());
    let kept = kept(&view, 1);
    let around = Around { namespace_uid: "ns".to_owned(), ..Around::default() };
    let pod = kept.described(&"prod-1".into(), around, clock.now()).expect("it is bound");
    assert_eq!(pod.node.as_str(), "node-1.example.com");
    assert_eq!((pod.run_as_users.len(), pod.run_as_users[0].uid), (3, Some(1234)));
    assert_eq!((pod.fs_group, pod.not_eligible, pod.finished), (Some(1111), None, false));
    assert_eq!(pod.volumes.len(), 2);
    assert_eq!(pod.volumes[0].options["ts/services"], "HTTP,nfs");
    assert!(pod.volumes[1].options.is_empty(), "another driver's options are nobody's");
    assert!(selects(&kept, json!({"app.kubernetes.io/name": "build", "team": "team-1"})));
    assert!(!selects(&kept, json!({"app.kubernetes.io/name": "build", "team": "team-2"})));
    assert!(!selects(&kept, json!({})), "nothing selects nothing");
}

#[test]
fn a_pod_once_seen_finished_stays_finished_whatever_its_status_says_later() {
    let (view, clock) = view();
    view.pods.put(&pod(1, |pod| pod["status"]["phase"] = json!("Failed")), clock.now());
    let since = kept(&view, 1).finished_since(clock.now()).expect("it is finished");
    clock.advance(Duration::from_secs(30));
    view.pods.put(&pod(1, |_| {}), clock.now());
    assert_eq!(kept(&view, 1).finished_since(clock.now()), Some(since));
    let (_, again) = view.pods.read(&pod(1, |_| {}), clock.now()).unwrap();
    assert!(again.unwrap().finished_since(clock.now()).is_some(), "a direct answer, too");
}

#[test]
fn a_pod_is_finished_when_its_deletion_with_its_grace_is_past() {
    let (view, clock) = view();
    let at = clock.now().wall + Duration::from_secs(30);
    let at = jiff::Timestamp::try_from(at).unwrap().to_string();
    view.pods.put(&pod(1, |pod| pod["metadata"]["deletionTimestamp"] = json!(at)), clock.now());
    clock.advance(Duration::from_secs(29));
    assert_eq!(kept(&view, 1).finished_since(clock.now()), None);
    clock.advance(Duration::from_secs(11));
    let since = kept(&view, 1).finished_since(clock.now()).expect("it is over");
    assert_eq!(clock.now().boot.since(since), Duration::from_secs(10));
}

#[test]
fn a_service_that_selects_nothing_any_more_gives_no_name() {
    let (view, clock) = view();
    let service = |spec: Value| {
        json!({
            "apiVersion": "v1", "kind": "Service", "spec": spec,
            "metadata": {"name": "web", "namespace": "tsfoo"},
        })
    };
    let put = |spec| view.services.put(&service(spec), clock.now());
    let count = || view.services.look(Mirror::len);
    put(json!({"selector": {"app": "web"}}));
    assert_eq!(count(), 1);
    put(json!({"selector": {"app": "web"}, "type": "ExternalName"}));
    assert_eq!(count(), 0);
    put(json!({"selector": {"app": "web"}}));
    put(json!({}));
    assert_eq!(count(), 0);
}

#[test]
fn what_can_not_be_read_gives_nothing() {
    let (view, clock) = view();
    for broken in [json!(null), json!([]), json!({"metadata": {"name": 1}}), json!({"kind": "Pod"})]
    {
        for kind in view.kinds() {
            kind.put(&broken, clock.now());
            kind.remove(&broken, clock.now());
        }
    }
    assert!(view.pods.look(Mirror::is_empty) && view.nodes.look(Mirror::is_empty));
}

#[test]
fn many_pods_take_little_memory_and_no_more_while_they_are_listed_anew() {
    let (view, clock) = view();
    let list = || {
        view.pods.begin_list();
        (0..MANY).for_each(|number| view.pods.put(&pod(number, |_| {}), clock.now()));
        view.pods.end_list(clock.now());
    };
    let before = resident();
    list();
    let first = (resident() - before) / u64::from(MANY);
    list();
    let second = resident().saturating_sub(before) / u64::from(MANY);
    assert_eq!(view.pods.look(Mirror::len), MANY as usize);
    assert!(first < A_POD && second < A_POD, "{first} and then {second} bytes a pod");
    #[expect(clippy::print_stdout, reason = "the figure of docs/performance.md")]
    {
        println!("{first} bytes a pod, {second} after a second list");
    }
}

/// The memory of this process that is in use, in bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
