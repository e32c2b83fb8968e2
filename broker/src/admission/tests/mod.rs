//! Stories of injection.

use krb_proto::reason::Reason;
use serde_json::{Value, json};

use super::inject::inject;
use crate::{
    entitlement::{
        Denial,
        tests::{entitlements, rules},
    },
    yaml,
};

mod arbitrary;
mod command;
mod server;
mod webhook;

/// A pod as its owner writes it.
const POD: &str = include_str!("pod.yaml");

/// The same with its volume.
const INJECTED: &str = include_str!("injected.yaml");

fn parsed(text: &str) -> Value {
    yaml::documents(text).unwrap().remove(0)
}

fn injected(object: Value) -> Result<Value, Vec<Denial>> {
    inject(object, None, &entitlements("client: true\n"), &rules())
}

/// The reasons for which `POD`, changed so, is refused.
fn reasons(change: impl Fn(&mut Value)) -> Vec<Reason> {
    let mut pod = parsed(POD);
    change(&mut pod);
    injected(pod).err().into_iter().flatten().map(|denial| denial.reason).collect()
}

#[test]
fn a_pod_gets_its_volume_mounts_and_environment_and_nothing_else_changes() {
    let pod = injected(parsed(POD)).unwrap();
    assert_eq!(yaml::text(std::slice::from_ref(&pod)).unwrap(), INJECTED);
    assert_eq!(injected(pod.clone()), Ok(pod), "injected again, it stays the same");
}

#[test]
fn what_makes_pods_is_injected_in_its_template() {
    let pod = parsed(POD);
    let template = json!({"metadata": pod["metadata"], "spec": pod["spec"]});
    let wanted = injected(pod.clone()).unwrap();
    for (version, kind, path) in [
        ("apps/v1", "Deployment", "/spec/template"),
        ("apps/v1", "ReplicaSet", "/spec/template"),
        ("apps/v1", "DaemonSet", "/spec/template"),
        ("apps/v1", "StatefulSet", "/spec/template"),
        ("batch/v1", "Job", "/spec/template"),
        ("batch/v1beta1", "CronJob", "/spec/jobTemplate/spec/template"),
    ] {
        let spec = match kind {
            "CronJob" => json!({"jobTemplate": {"spec": {"template": template}}}),
            _ => json!({"template": template}),
        };
        let metadata = json!({"name": "x", "namespace": "tsfoo"});
        let object =
            json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec});
        let done = injected(object).unwrap();
        assert_eq!(done.pointer(path).unwrap()["spec"], wanted["spec"], "{kind}");
        let annotations = &done.pointer(path).unwrap()["metadata"]["annotations"];
        assert_eq!(annotations["ts/runasusername"], "tsfoo", "{kind}");
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [pod, {"kind": "Secret"}]});
    assert_eq!(injected(list).unwrap()["items"][0], wanted);
}

#[test]
fn what_asks_for_nothing_comes_back_as_it_was() {
    let mut quiet = parsed(POD);
    for annotations in [
        json!(null),
        json!({}),
        json!({"ts/prestashtkt": "false", "ts/certs": "false", "ts/runasusername": "x", "a": "b"}),
        json!({"other/services": "HTTP", "tsx/services": "HTTP"}),
    ] {
        quiet["metadata"]["annotations"] = annotations;
        quiet["spec"]["securityContext"] = json!({"runAsUser": 0});
        assert_eq!(injected(quiet.clone()), Ok(quiet.clone()));
    }
    for other in
        [json!({"kind": "ConfigMap", "apiVersion": "v1"}), json!([1]), json!("x"), json!(null)]
    {
        assert_eq!(injected(other.clone()), Ok(other));
    }
}

#[test]
fn what_would_be_denied_for_certain_is_refused_now() {
    use Reason::*;
    type Change = fn(&mut Value);
    let cases: [(Reason, Change); 16] = [
        (AccountMismatch, |pod| annotate(pod, "runasusername", "tsbar")),
        (ServiceNotEntitled, |pod| annotate(pod, "services", "ftp")),
        (ServiceReserved, |pod| annotate(pod, "services", "host")),
        (HostNotEntitled, |pod| annotate(pod, "externalclusters", "b.example.com")),
        (TicketNotEntitled, |pod| annotate(pod, "prestashtkt", "root")),
        (AskMalformed, |pod| annotate(pod, "services", "HTTP,,nfs")),
        (AskMalformed, |pod| pod["metadata"]["annotations"]["ts/services"] = json!(5)),
        (AskMalformed, |pod| annotate(pod, "prestashtxt", "tsbar")),
        (NotSupported, |pod| annotate(pod, "certs", "true")),
        (PodNotEligible, |pod| {
            pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("x");
        }),
        (RunAsUser, |pod| pod["spec"]["securityContext"] = json!({})),
        (RunAsUser, |pod| {
            pod["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 0})
        }),
        (AccountMismatch, |pod| pod["spec"]["securityContext"] = json!({"runAsUser": 9})),
        (NamespaceNotEntitled, |pod| pod["metadata"]["namespace"] = json!("default")),
        (InvalidArgument, |pod| pod["metadata"]["namespace"] = json!(null)),
        (InvalidArgument, |pod| pod["spec"] = json!("x")),
    ];
    for (index, (reason, change)) in cases.into_iter().enumerate() {
        assert_eq!(reasons(change), [reason], "case {index}");
    }
}

fn annotate(pod: &mut Value, option: &str, value: &str) {
    pod["metadata"]["annotations"][format!("ts/{option}")] = json!(value);
}

#[test]
fn what_stands_in_the_way_is_refused_and_what_is_ours_is_brought_up_to_date() {
    use Reason::InvalidArgument;
    let other = json!([{"name": "krb-credentials", "emptyDir": {}}]);
    assert_eq!(reasons(|pod| pod["spec"]["volumes"] = other.clone()), [InvalidArgument]);
    let mount = json!([{"name": "data", "mountPath": "/var/spool/tickets/"}]);
    let mounted = |pod: &mut Value| pod["spec"]["containers"][0]["volumeMounts"] = mount.clone();
    assert_eq!(reasons(mounted), [InvalidArgument]);
    assert_eq!(reasons(|pod| pod["spec"]["volumes"] = json!("x")), [InvalidArgument]);

    let mut edited = injected(parsed(POD)).unwrap();
    annotate(&mut edited, "services", "nfs");
    let again = injected(edited).unwrap();
    let volumes = again["spec"]["volumes"].as_array().unwrap();
    let options: Vec<&Value> = volumes
        .iter()
        .filter(|volume| volume["name"] == "krb-credentials")
        .map(|volume| &volume["flexVolume"]["options"]["services"])
        .collect();
    assert_eq!(options, ["nfs"]);
}

#[test]
fn the_namespace_that_is_given_must_be_the_one_that_is_said() {
    let given = "tsbar".parse().unwrap();
    let refused = inject(parsed(POD), Some(&given), &entitlements(""), &rules()).unwrap_err();
    assert_eq!(refused[0].reason, Reason::InvalidArgument);
    let mut pod = parsed(POD);
    pod["metadata"].as_object_mut().unwrap().remove("namespace");
    let given = "tsfoo".parse().unwrap();
    assert!(inject(pod, Some(&given), &entitlements(""), &rules()).is_ok());
}
