use std::time::Duration;

use serde_json::{Value, json};

use super::*;

fn agents() -> Agents {
    let (namespace, service_account) = ("krb-broker".parse().unwrap(), "krb-node-agent".to_owned());
    Agents { audience: "krb-broker".to_owned(), namespace, service_account }
}

fn why<T: std::fmt::Debug>(outcome: Result<T, TokenError>) -> Refusal {
    match outcome {
        Err(TokenError::Refused { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

/// The review of a good token, with one value changed.
fn review(pointer: &str, value: Value) -> Result<(String, PodUid), TokenError> {
    let mut status = json!({
        "authenticated": true,
        "audiences": ["krb-broker"],
        "user": {
            "username": "system:serviceaccount:krb-broker:krb-node-agent",
            "extra": {POD_NAME: ["agent-x"], POD_UID: ["u-1"]},
        },
    });
    if let Some(changed) = status.pointer_mut(pointer) {
        *changed = value;
    }
    bound_pod(&serde_json::from_value(status).unwrap(), &agents())
}

#[test]
fn a_good_review_names_the_pod() {
    let (name, uid) = review("/nowhere", Value::Null).unwrap();
    assert_eq!((name.as_str(), uid.as_str()), ("agent-x", "u-1"));
}

#[test]
fn each_thing_that_a_review_lacks_is_a_refusal_of_its_own() {
    assert_eq!(why(review("/authenticated", json!(false))), Refusal::NotValid);
    assert_eq!(why(review("/authenticated", Value::Null)), Refusal::NotValid);
    assert_eq!(why(review("/user", Value::Null)), Refusal::NotValid);
    for audiences in [json!([]), Value::Null, json!(["api"])] {
        assert_eq!(why(review("/audiences", audiences)), Refusal::Audience);
    }
    for username in ["system:serviceaccount:krb-broker:default", "system:node:a", ""] {
        assert_eq!(why(review("/user/username", json!(username))), Refusal::ServiceAccount);
    }
    for extra in [
        Value::Null,
        json!({}),
        json!({POD_NAME: ["a"]}),
        json!({POD_UID: ["u"]}),
        json!({POD_NAME: ["a", "b"], POD_UID: ["u"]}),
        json!({POD_NAME: ["a"], POD_UID: ["../u"]}),
    ] {
        assert_eq!(why(review("/user/extra", extra)), Refusal::Pod);
    }
}

/// An agent's pod, with one value changed.
fn pod(pointer: &str, value: Value) -> Result<NodeName, TokenError> {
    let mut pod = json!({
        "metadata": {
            "name": "agent-x", "namespace": "krb-broker", "uid": "u-1",
            "annotations": {"kubernetes.io/config.source": "api", "kubernetes.io/config.hash": "x"},
            "ownerReferences": [
                {"kind": "DaemonSet", "name": "a", "uid": "d", "apiVersion": "apps/v1"}
            ],
            "deletionTimestamp": null,
        },
        "spec": {"nodeName": "node-a", "serviceAccountName": "krb-node-agent", "containers": []},
        "status": {"phase": "Running"},
    });
    *pod.pointer_mut(pointer).unwrap() = value;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000); // 2023-11-14T22:13:20Z
    node_of(&serde_json::from_value(pod).unwrap(), &"u-1".parse().unwrap(), &agents(), now)
}

#[test]
fn the_node_is_the_one_that_the_agents_pod_is_bound_to() {
    assert_eq!(pod("/status/phase", json!("Pending")).unwrap().as_str(), "node-a");
    let terminating = pod("/metadata/deletionTimestamp", json!("2023-11-14T22:13:30Z"));
    assert!(terminating.is_ok(), "it may end in good order");
}

#[test]
fn a_pod_that_is_not_a_running_agent_proves_nothing() {
    for (pointer, value) in [
        ("/metadata/uid", json!("u-2")),
        ("/status/phase", json!("Succeeded")),
        ("/status/phase", json!("Failed")),
        ("/metadata/deletionTimestamp", json!("2023-11-14T22:13:19Z")),
        ("/spec/serviceAccountName", json!("default")),
        ("/metadata/annotations", json!({"kubernetes.io/config.mirror": "x"})),
        ("/metadata/annotations", json!({"kubernetes.io/config.source": "file"})),
        ("/metadata/ownerReferences/0/kind", json!("Node")),
    ] {
        assert_eq!(why(pod(pointer, value.clone())), Refusal::Pod, "{pointer} {value}");
    }
    assert_eq!(why(pod("/spec/nodeName", Value::Null)), Refusal::Node);
    assert_eq!(why(pod("/spec/nodeName", json!("Node_A"))), Refusal::Node);
}
