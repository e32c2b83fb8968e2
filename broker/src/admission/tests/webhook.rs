//! Stories of requests: what is changed, what is refused, what is let pass.

use krb_proto::reason::Reason;
use serde_json::{Value, json};

use super::{POD, annotate, injected, parsed};
use crate::{
    admission::{
        mutate::mutate,
        refusal::Refusal,
        review::{self, Request},
        validate::validate,
    },
    entitlement::{
        Denial,
        tests::{entitlements, rules},
    },
};

/// What the API server sends.
pub(super) fn request(operation: &str, object: &Value, old: &Value) -> Request {
    let body = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "kind": {"group": "", "version": "v1", "kind": object["kind"].as_str().unwrap_or("Pod")},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "subResource": if operation == "DEBUG" { "ephemeralcontainers" } else { "" },
            "namespace": "tsfoo",
            "operation": if operation == "DEBUG" { "UPDATE" } else { operation },
            "userInfo": {"username": "andrew"},
            "object": object,
            "oldObject": old,
        },
    });
    review::read(body.to_string().as_bytes()).unwrap()
}

fn reasons(outcome: Result<(), Vec<Denial>>) -> Vec<Reason> {
    outcome.err().into_iter().flatten().map(|denial| denial.reason).collect()
}

fn created(pod: &Value) -> Vec<Reason> {
    let request = request("CREATE", pod, &Value::Null);
    reasons(validate(&request, &entitlements(""), &rules()))
}

fn updated(old: &Value, change: impl FnOnce(&mut Value)) -> Vec<Reason> {
    let mut new = old.clone();
    change(&mut new);
    reasons(validate(&request("UPDATE", &new, old), &entitlements(""), &rules()))
}

/// The pod with its volume, after a change.
fn with_volume(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = injected(parsed(POD)).unwrap();
    change(&mut pod);
    pod
}

fn options(pod: &mut Value) -> &mut Value {
    &mut pod["spec"]["volumes"][1]["flexVolume"]["options"]
}

#[test]
fn a_pod_without_a_name_or_namespace_of_its_own_is_patched_to_what_inject_makes_of_it() {
    let mut pod = parsed(POD);
    let metadata = pod["metadata"].as_object_mut().unwrap();
    metadata.remove("namespace");
    metadata.remove("name");
    metadata.insert("generateName".to_owned(), json!("web-"));
    let request = request("CREATE", &pod, &Value::Null);
    assert_eq!(request.name, "web-*");
    let patch = mutate(&request, &entitlements("client: true\n"), &rules()).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    let wanted = injected(parsed(POD)).unwrap();
    assert_eq!(pod["spec"], wanted["spec"]);
    assert_eq!(pod["metadata"]["annotations"], wanted["metadata"]["annotations"]);
}

#[test]
fn what_neither_asks_nor_has_a_volume_is_let_pass_untouched() {
    let mut quiet = parsed(POD);
    quiet["metadata"]["annotations"] = json!({"ts/runasusername": "tsbar", "a": "b"});
    quiet["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("x");
    quiet["spec"]["securityContext"] = json!({"runAsUser": 0, "fsGroup": 0});
    let request = request("CREATE", &quiet, &Value::Null);
    assert_eq!(mutate(&request, &entitlements(""), &rules()).unwrap().0, []);
    assert_eq!(created(&quiet), []);
    let deployment = json!({"kind": "Deployment", "spec": {"template": parsed(POD)}});
    assert_eq!(created(&deployment), []);
}

#[test]
fn a_new_pod_is_refused_for_everything_that_the_broker_would_deny() {
    use Reason::*;
    type Change = fn(&mut Value);
    assert_eq!(created(&with_volume(|_| ())), []);
    let cases: [(Reason, Change); 19] = [
        (ServiceNotEntitled, |pod| options(pod)["services"] = json!("ftp")),
        (TicketNotEntitled, |pod| options(pod)["prestashtkt"] = json!("root")),
        (AskMalformed, |pod| options(pod)["keytab"] = json!("true")),
        (NotSupported, |pod| options(pod)["certs"] = json!("true")),
        (AccountMismatch, |pod| options(pod)["runasusername"] = json!("tsbar")),
        (AccountMismatch, |pod| annotate(pod, "runasusername", "tsbar")),
        (AskChanged, |pod| options(pod)["services"] = json!("nfs")),
        (AskChanged, |pod| annotate(pod, "userprefixedhostname", "true")),
        (AskMalformed, |pod| annotate(pod, "services", "HTTP,,nfs")),
        (VolumeUnknown, |pod| {
            pod["spec"]["volumes"].as_array_mut().unwrap().pop();
        }),
        (InvalidArgument, |pod| {
            let mut second = pod["spec"]["volumes"][1].clone();
            second["name"] = json!("second");
            pod["spec"]["volumes"].as_array_mut().unwrap().push(second);
        }),
        (RunAsUser, |pod| pod["spec"]["securityContext"] = json!({})),
        (RunAsUser, |pod| {
            pod["spec"]["initContainers"][0]["securityContext"] = json!({"runAsUser": 0});
        }),
        (AccountMismatch, |pod| pod["spec"]["securityContext"]["runAsUser"] = json!(1235)),
        (RunAsGroup, |pod| pod["spec"]["securityContext"]["runAsGroup"] = json!(0)),
        (RunAsGroup, |pod| pod["spec"]["securityContext"]["supplementalGroups"] = json!([0])),
        (RunAsGroup, |pod| pod["spec"]["securityContext"]["fsGroup"] = json!(1112)),
        (PodNotEligible, |pod| {
            pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("x");
        }),
        (PodNotEligible, |pod| {
            pod["metadata"]["annotations"]["kubernetes.io/config.source"] = json!("file");
        }),
    ];
    for (index, (reason, change)) in cases.into_iter().enumerate() {
        assert_eq!(created(&with_volume(change)), [reason], "case {index}");
    }
    let mut elsewhere = request("CREATE", &with_volume(|_| ()), &Value::Null);
    elsewhere.namespace = "tsbar".to_owned();
    let refused = validate(&elsewhere, &entitlements(""), &rules());
    assert_eq!(reasons(refused), [NamespaceNotEntitled]);
}

#[test]
fn a_hand_written_volume_may_ask_by_itself() {
    let unannotated = |pod: &mut Value| pod["metadata"]["annotations"] = json!({});
    assert_eq!(created(&with_volume(unannotated)), []);
    let lying = with_volume(|pod| {
        pod["metadata"]["annotations"] = json!({"ts/runasusername": "tsbar"});
        options(pod).as_object_mut().unwrap().remove("runasusername");
    });
    assert_eq!(created(&lying), [Reason::AccountMismatch]);
    let reordered = with_volume(|pod| annotate(pod, "services", "nfs , HTTP"));
    assert_eq!(created(&reordered), [], "the order of a list is no difference");
}

#[test]
fn a_change_that_touches_nothing_of_ours_passes_whatever_the_account_has_today() {
    let old = with_volume(|pod| options(pod)["services"] = json!("ftp"));
    for change in [
        |pod: &mut Value| pod["metadata"]["finalizers"] = json!([]),
        |pod: &mut Value| pod["metadata"]["labels"]["app"] = json!("other"),
        |pod: &mut Value| pod["metadata"]["annotations"]["a"] = json!("b"),
        |pod: &mut Value| pod["status"] = json!({"phase": "Running"}),
        |pod: &mut Value| pod["spec"]["containers"][0]["image"] = json!("nginx:2"),
    ] {
        assert_eq!(updated(&old, change), []);
    }
    let gone = request("UPDATE", &old, &old);
    let nobody = crate::entitlement::load::Entitlements::default();
    assert_eq!(validate(&gone, &nobody, &rules()), Ok(()));
}

#[test]
fn a_change_that_would_have_no_effect_is_refused() {
    use Reason::*;
    let old = with_volume(|_| ());
    assert_eq!(updated(&old, |pod| annotate(pod, "services", "nfs")), [AskChanged]);
    assert_eq!(updated(&old, |pod| annotate(pod, "runasusername", "tsbar")), [AskChanged]);
    assert_eq!(updated(&old, |pod| annotate(pod, "services", "HTTP,,")), [AskMalformed]);
    let removed = |pod: &mut Value| pod["metadata"]["annotations"] = json!({});
    assert_eq!(updated(&old, removed), [AskChanged]);
    assert_eq!(updated(&old, |pod| annotate(pod, "services", "nfs,HTTP")), [], "the same ask");
    let plain = json!({"kind": "Pod", "spec": {"containers": []}, "metadata": {}});
    assert_eq!(updated(&plain, |pod| annotate(pod, "services", "HTTP")), [AskChanged]);
    assert_eq!(updated(&plain, |pod| annotate(pod, "runasusername", "tsbar")), []);
    let mirror = |pod: &mut Value| {
        pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("x");
    };
    assert_eq!(updated(&old, mirror), [PodNotEligible]);
    assert_eq!(updated(&plain, mirror), [], "a pod that has nothing");
    let was = with_volume(mirror);
    assert_eq!(updated(&was, |pod| pod["metadata"]["labels"] = json!({})), [], "it was before");
}

#[test]
fn ephemeral_containers_run_as_the_account_where_their_pod_has_a_volume_of_ours() {
    use Reason::*;
    let debugged = |pod: &Value, security: Value| {
        let mut new = pod.clone();
        new["spec"]["ephemeralContainers"] =
            json!([{"name": "debug", "securityContext": security}]);
        reasons(validate(&request("DEBUG", &new, pod), &entitlements(""), &rules()))
    };
    let ours = with_volume(|_| ());
    let cases = [
        (json!(null), vec![]),
        (json!({"runAsUser": 1234, "runAsGroup": 1111}), vec![]),
        (json!({"runAsUser": 0}), vec![RunAsUser]),
        (json!({"runAsUser": 7}), vec![AccountMismatch]),
        (json!({"runAsGroup": 0}), vec![RunAsGroup]),
    ];
    for (security, wanted) in cases {
        assert_eq!(debugged(&ours, security.clone()), wanted, "{security}");
        assert_eq!(debugged(&parsed(POD), security), [], "a pod without a volume of ours");
    }
    let mut there = ours;
    there["spec"]["ephemeralContainers"] =
        json!([{"name": "old", "securityContext": {"runAsUser": 0}}]);
    let unchanged = request("DEBUG", &there, &there);
    assert_eq!(validate(&unchanged, &entitlements(""), &rules()), Ok(()), "it is there already");
}

#[test]
fn ephemeral_containers_of_an_unseen_pod_are_kept_to_the_account_of_the_namespace() {
    use Reason::*;
    let debugged = |security: Value| {
        let old = json!({"kind": "EphemeralContainers", "ephemeralContainers": []});
        let mut new = old.clone();
        new["ephemeralContainers"] = json!([{"name": "debug", "securityContext": security}]);
        request("DEBUG", &new, &old)
    };
    let judged = |request: &Request| reasons(validate(request, &entitlements(""), &rules()));
    assert_eq!(judged(&debugged(json!(null))), []);
    assert_eq!(judged(&debugged(json!({"runAsUser": 1234}))), []);
    assert_eq!(judged(&debugged(json!({"runAsUser": 0}))), [RunAsUser]);
    assert_eq!(judged(&debugged(json!({"runAsUser": 7}))), [AccountMismatch]);
    assert_eq!(judged(&debugged(json!({"runAsGroup": 7}))), [RunAsGroup]);
    let mut elsewhere = debugged(json!({"runAsUser": 0}));
    elsewhere.namespace = "default".to_owned();
    assert_eq!(judged(&elsewhere), [], "a namespace without an account");
}

#[test]
fn a_refusal_is_one_line_that_names_the_field_and_the_reason_of_each_denial() {
    let mut pod = parsed(POD);
    annotate(&mut pod, "services", "ftp,HTTP");
    annotate(&mut pod, "prestashtkt", "root");
    pod["spec"]["securityContext"]["fsGroup"] = json!(0);
    let asked = request("CREATE", &pod, &Value::Null);
    let refused = mutate(&asked, &entitlements(""), &rules()).unwrap_err();
    assert_eq!(
        Refusal::new(refused, &rules()).message(),
        "securityContext: fsGroup 0 is neither 1111, the group of tsfoo, nor one it is member of \
         (RUN_AS_GROUP); ts/services: tsfoo may not have the service ftp (SERVICE_NOT_ENTITLED); \
         ts/prestashtkt: tsfoo may not have tickets of root (TICKET_NOT_ENTITLED)"
    );
    let line = |option: &str, value: &str| {
        let mut pod = parsed(POD);
        annotate(&mut pod, option, value);
        let refused = mutate(&request("CREATE", &pod, &Value::Null), &entitlements(""), &rules());
        Refusal::new(refused.unwrap_err(), &rules()).message()
    };
    assert_eq!(line("services", ","), "ts/services has an empty entry (ASK_MALFORMED)");
    assert!(line("runasusername", "tsbar").starts_with("ts/runasusername says tsbar"));
    assert!(line("token", "hunter2").starts_with("ts/token is not supported yet"));
    let many = vec![Denial::new(Reason::ServiceNotEntitled, "x".repeat(90)); 64];
    let long = Refusal::new(many, &rules()).message();
    assert!(long.len() < 2_100 && long.ends_with("... and more"), "{long}");
}

#[test]
fn an_answer_is_in_the_version_of_its_question() {
    for version in ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"] {
        let body = json!({
            "apiVersion": version, "kind": "AdmissionReview",
            "request": {"uid": "u-9", "kind": {"group": "", "version": "v1", "kind": "Pod"},
                        "operation": "CREATE", "object": parsed(POD)},
        });
        let request = review::read(body.to_string().as_bytes()).unwrap();
        let refused = request.refused(&Refusal::new(vec![Denial::malformed("no")], &rules()));
        assert_eq!(refused["apiVersion"], version);
        assert_eq!(refused["response"]["uid"], "u-9");
        assert_eq!(refused["response"]["allowed"], false);
        assert_eq!(refused["response"]["status"]["message"], "no (ASK_MALFORMED)");
        let patch = json_patch::Patch(vec![]);
        let allowed = request.allowed(&patch);
        assert_eq!(allowed["response"], json!({"uid": "u-9", "allowed": true}));
    }
    let v2 = json!({"apiVersion": "admission.k8s.io/v2", "kind": "AdmissionReview",
        "request": {"uid": "1", "kind": {"group": "", "kind": "Pod"}, "operation": "CREATE"}});
    assert!(review::read(v2.to_string().as_bytes()).is_err());
    for body in ["", "{", "[]", "{}", "null", r#"{"apiVersion":"admission.k8s.io/v1"}"#] {
        assert!(review::read(body.as_bytes()).is_err(), "{body}");
    }
    assert!(review::read("[".repeat(100_000).as_bytes()).is_err(), "deep, and no panic");
}
