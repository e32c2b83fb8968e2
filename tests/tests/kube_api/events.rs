//! What pods' owners are told, as `kubectl` shows it.

use std::{sync::Arc, time::Duration};

use krb_broker::{
    clock::SystemClock,
    kubernetes::{
        client::{Settings, connect},
        events::Events,
    },
    notices::{About, Notice, Notices},
};
use krb_proto::PodRef;
use krb_tests::kube_api::KubeApi;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// What the broker may do for this, and no more.
const RIGHTS: &str = r#"
{"apiVersion": "v1", "kind": "List", "items": [
{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tsfoo"}},
{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "broker"},
 "rules": [{"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]}]},
{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
 "metadata": {"name": "broker"},
 "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "broker"},
 "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "broker"}]}
]}"#;

fn notice(about: About, text: &str) -> Notice {
    let pod = PodRef {
        cluster: "test".into(),
        namespace: "tsfoo".parse().expect("a namespace"),
        name: "web-0".parse().expect("a name"),
        uid: "5d5c0a4e-0000-4000-8000-000000000001".parse().expect("a uid"),
    };
    Notice { pod, about, text: text.to_owned() }
}

fn events(api: &KubeApi) -> Vec<Value> {
    let list = ["-n", "tsfoo", "get", "events", "-o", "json"];
    let list: Value =
        serde_json::from_str(&api.kubectl().run(&list).expect("get")).expect("a list");
    list["items"].as_array().expect("items").clone()
}

async fn until(what: &str, api: &KubeApi, so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    for _ in 0..100 {
        let seen = events(api);
        if so(&seen) {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it never came to be that {what}: {:?}", events(api));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_is_an_event_of_its_pod_whose_count_rises() {
    let Some(mut api) = KubeApi::start().expect("an API server") else { return };
    api.kubectl().apply(RIGHTS).expect("rights");
    let kubeconfig = api.kubeconfig_of("broker", None).expect("a kubeconfig");
    let client = connect(&Settings { kubeconfig: Some(kubeconfig) }).await.expect("a client");
    let told = Arc::new(Events::new(client, Arc::new(SystemClock)));
    let stop = CancellationToken::new();
    let writing = tokio::spawn(told.clone().run(stop.clone()));

    let text = "tsfoo may not have the service nfs (SERVICE_NOT_ENTITLED)";
    told.tell(notice(About::Denied, text));
    let first = until("it is written", &api, |seen| seen.len() == 1).await;
    for _ in 0..3 {
        told.tell(notice(About::Denied, text));
    }
    let seen = until("it is counted", &api, |seen| seen[0]["count"] == 4).await;
    let event = &seen[0];
    assert_eq!(event["metadata"]["name"], first[0]["metadata"]["name"]);
    assert_eq!(
        (&event["type"], &event["reason"]),
        (&"Warning".into(), &"CredentialsDenied".into())
    );
    assert_eq!(event["message"], text);
    assert_eq!(event["reportingComponent"], "krb-broker");
    let object = &event["involvedObject"];
    assert_eq!((&object["kind"], &object["name"]), (&"Pod".into(), &"web-0".into()));
    assert_eq!(object["uid"], "5d5c0a4e-0000-4000-8000-000000000001");

    // somebody removed it, or an hour has passed
    api.kubectl().run(&["-n", "tsfoo", "delete", "events", "--all"]).expect("deleted");
    told.tell(notice(About::Denied, text));
    told.tell(notice(About::Delayed, "no KDC answers for tsfoo@R now (KDC_UNAVAILABLE)"));
    let seen = until("both are there", &api, |seen| seen.len() == 2).await;
    let delayed = seen.iter().find(|event| event["reason"] == "CredentialsDelayed");
    assert_eq!(delayed.expect("the second kind")["type"], "Normal");

    // an outage costs the Events of its time, and nothing else
    api.stop();
    told.tell(notice(About::Revoked, "lost"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    api.start_again().expect("it starts again");
    told.tell(notice(About::Revoked, "seen"));
    let told_again = |seen: &[Value]| seen.iter().any(|event| event["message"] == "seen");
    until("they are written again", &api, told_again).await;
    stop.cancel();
    writing.await.expect("it ends in good order");
}
