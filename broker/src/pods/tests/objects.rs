use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::pod_text;
use crate::{
    pods::objects::{Object, PodObject, read},
    yaml,
};

fn pod(text: &str) -> Arc<PodObject> {
    let documents = yaml::documents(text).unwrap();
    match read(&"c1".into(), &documents[0]).0.pop() {
        Some(Object::Pod(pod)) => pod,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_container_counts_with_its_own_user_or_the_pods() {
    let spec = "  initContainers:
  - name: init
  ephemeralContainers:
  - name: debug
    securityContext: {runAsUser: 0, runAsGroup: 0}
  - name: odd
    securityContext: {runAsUser: -1, runAsGroup: -1}
  securityContext: {runAsUser: 7, runAsGroup: 8, supplementalGroups: [9, 4294967296], fsGroup: -1}";
    let pod = pod(&pod_text("web-0", "uid-0", spec));
    let users: Vec<_> = pod.run_as_users.iter().map(|u| (u.container.as_str(), u.uid)).collect();
    assert_eq!(
        users,
        [("web", Some(1234)), ("init", Some(7)), ("debug", Some(0)), ("odd", None)],
        "a container's own user goes before the pod's, and one that is no uid is none"
    );
    let groups: Vec<_> = pod.run_as_groups.iter().map(|g| (g.container.as_str(), g.gid)).collect();
    assert_eq!(
        groups,
        [("web", 8), ("init", 8), ("debug", 0), ("odd", u32::MAX)],
        "what is no gid is nobody's and never unset"
    );
    assert_eq!(pod.supplemental_groups, [9, u32::MAX]);
    assert_eq!(pod.fs_group, Some(u32::MAX));
}

#[test]
fn volumes_of_both_kinds_are_read_with_their_options() {
    let spec = "  volumes:
  - name: creds
    flexVolume: {driver: a/b, options: {services: HTTP}}
  - name: inline
    csi: {driver: c.d, volumeAttributes: {services: nfs}}
  - name: tmp
    emptyDir: {}";
    let pod = pod(&pod_text("web-0", "uid-0", spec));
    let volumes: Vec<_> = pod
        .volumes
        .iter()
        .map(|v| (v.name.as_str(), v.driver.as_str(), v.options["services"].as_str()))
        .collect();
    assert_eq!(volumes, [("creds", "a/b", "HTTP"), ("inline", "c.d", "nfs")]);
}

#[test]
fn what_a_node_made_or_what_has_no_service_account_is_not_eligible() {
    let text = pod_text("web-0", "uid-0", "");
    assert_eq!(pod(&text).not_eligible, None);
    for (from, to) in [
        ("  labels:", "  annotations: {kubernetes.io/config.mirror: x}\n  labels:"),
        ("  labels:", "  annotations: {kubernetes.io/config.source: file}\n  labels:"),
        ("  labels:", "  ownerReferences: [{kind: Node, name: node-a}]\n  labels:"),
        ("  serviceAccountName: default\n", ""),
    ] {
        assert!(pod(&text.replace(from, to)).not_eligible.is_some(), "{to}");
    }
    let from_api = "  annotations: {kubernetes.io/config.source: api}\n  labels:";
    assert_eq!(pod(&text.replace("  labels:", from_api)).not_eligible, None);
}

#[test]
fn what_the_api_server_has_not_stamped_is_named() {
    let text = pod_text("web-0", "uid-0", "");
    for (from, to, what) in [
        ("  nodeName: node-a\n", "", "spec.nodeName"),
        ("  phase: Running\n", "  {}\n", "status.phase"),
        ("serviceAccountName: default", "volumes: 5", "a spec that can be read"),
        (
            "  labels:",
            "  deletionTimestamp: soon\n  labels:",
            "a deletionTimestamp that can be read",
        ),
    ] {
        assert_eq!(pod(&text.replace(from, to)).unstamped, Some(what));
    }
    let documents = yaml::documents(&text.replace("  uid: uid-0\n", "")).unwrap();
    let (objects, wrong) = read(&"c1".into(), &documents[0]);
    assert!(objects.is_empty());
    assert_eq!(wrong, ["Pod web-0: has no uid that the API server gave"]);
}

#[test]
fn a_pod_of_which_little_can_be_read_is_there_all_the_same() {
    let odd = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"uid": "u", "labels": 5}});
    let (objects, wrong) = read(&"c1".into(), &odd);
    assert!(matches!(&objects[..], [Object::Unreadable(uid)] if uid.as_str() == "u"));
    assert_eq!(wrong.len(), 1);
}

fn json_value() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        "kind|apiVersion|items|metadata|spec|status|name|namespace|uid|volumes|containers",
        "[a-z]{1,3}"
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        "Pod|List|v1|Service|Node|Namespace|a|\\PC{0,5}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_document_panics(mut value in json_value(), kind in "Pod|List|Service|Node|Namespace") {
        let _ = read(&"c1".into(), &value);
        if let Some(map) = value.as_object_mut() {
            map.insert("apiVersion".to_owned(), json!("v1"));
            map.insert("kind".to_owned(), json!(kind));
        }
        let _ = read(&"c1".into(), &value);
    }
}
