//! The manifests of `deploy/`: rendered from their source, and with no more rights than they need.
//!
//! `kubectl kustomize` reads files alone, so no cluster is needed. That the manifests work is for the
//! cluster's stories to show. Where there is no kubectl this says so and shows nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
};

use krb_broker::{
    config::{Config, admission::AdmissionConfig},
    entitlement::load::Entitlements,
    yaml,
};
use krb_node_agent::config::{Config as AgentConfig, Given};
use serde_json::{Value, json};

/// What kubectl and its kin call an object: kind, namespace, name.
type Key = (String, String, String);
type Objects = BTreeMap<Key, Value>;

const WORKLOADS: [&str; 2] = ["Deployment", "DaemonSet"];

fn deploy() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy"))
}

/// Whether there is a kubectl; says so if not.
fn has_kubectl() -> bool {
    let found = Command::new("kubectl").args(["version", "--client"]).output();
    if found.is_err() {
        #[expect(clippy::print_stderr, reason = "it is not to pass in silence")]
        {
            eprintln!("deploy: NOT RUN (needs kubectl)");
        }
    }
    found.is_ok()
}

fn objects(text: &str) -> Objects {
    let documents = yaml::documents(text).expect("YAML");
    let keyed = documents.into_iter().map(|object| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let meta = &object["metadata"];
        let key = (text(&object["kind"]), text(&meta["namespace"]), text(&meta["name"]));
        assert!(!key.0.is_empty() && !key.2.is_empty(), "an object without a name: {object}");
        (key, object)
    });
    let mut all = Objects::new();
    for (key, object) in keyed {
        assert!(all.insert(key.clone(), object).is_none(), "{key:?} is there twice");
    }
    all
}

fn checked_in(name: &str) -> Objects {
    objects(&fs::read_to_string(deploy().join(name)).expect(name))
}

/// What `kubectl kustomize` makes of a directory of the source.
fn rendered(source: &str) -> Objects {
    let directory = deploy().join("kustomize").join(source);
    let output = Command::new("kubectl").arg("kustomize").arg(directory).output().expect("kubectl");
    assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
    objects(&String::from_utf8(output.stdout).expect("UTF-8"))
}

/// Names of the manifests that are checked in.
fn manifests() -> Vec<String> {
    let entries = fs::read_dir(deploy()).expect("deploy/");
    let names = entries.map(|entry| entry.expect("entry").file_name().into_string().expect("name"));
    names.filter(|name| name.ends_with(".yaml")).collect()
}

/// Each workload's name and its pods' spec.
fn pods(objects: &Objects) -> Vec<(String, Value)> {
    let workloads = objects.iter().filter(|((kind, ..), _)| WORKLOADS.contains(&kind.as_str()));
    workloads
        .map(|(key, object)| (key.2.clone(), object["spec"]["template"]["spec"].clone()))
        .collect()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn containers(pod: &Value) -> Vec<Value> {
    [list(&pod["initContainers"]), list(&pod["containers"])].concat()
}

#[test]
fn the_manifests_are_what_their_source_renders_to() {
    if !has_kubectl() {
        return;
    }
    let fresh = tempfile::tempdir().expect("directory");
    let run = Command::new("bash").arg(deploy().join("render.sh")).arg(fresh.path()).output();
    let run = run.expect("bash");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let made = fs::read_dir(fresh.path()).expect("directory");
    let made: BTreeSet<_> =
        made.map(|entry| entry.expect("entry").file_name().into_string()).collect();
    assert_eq!(made, manifests().into_iter().map(Ok).collect(), "which manifests there are");
    for name in manifests() {
        let anew = objects(&fs::read_to_string(fresh.path().join(&name)).expect("manifest"));
        assert_eq!(checked_in(&name), anew, "{name}: run `make manifests`");
    }
}

#[test]
fn every_option_renders_and_says_what_it_changes() {
    if !has_kubectl() {
        return;
    }
    let volume = |objects: &Objects, workload: &str, name: &str| {
        let (_, pod) = pods(objects).into_iter().find(|(found, _)| found == workload).expect("pod");
        list(&pod["volumes"]).into_iter().find(|volume| volume["name"] == name).unwrap_or_default()
    };
    let on_node = rendered("store-on-node");
    assert_eq!(volume(&on_node, "krb-broker", "store")["hostPath"]["path"], "/var/lib/krb-broker");
    assert!(!on_node.keys().any(|(kind, ..)| kind == "PersistentVolumeClaim"));
    let secret = volume(&rendered("admin-keytab-secret"), "krb-broker", "admin-keytab");
    assert_eq!(
        secret["secret"],
        json!({"secretName": "krb-broker-admin-keytab", "defaultMode": 0o440})
    );
    let identity = volume(&rendered("node-certificate"), "krb-node-agent", "identity");
    assert_eq!(identity["hostPath"]["path"], "/etc/krb-broker/node");
    assert!(identity.get("projected").is_none(), "{identity}");
    let certificates = rendered("cert-manager");
    assert!(!certificates.keys().any(|(kind, ..)| kind == "Role"), "the webhook needs no rights");
    assert!(!certificates.keys().any(|(kind, ..)| kind == "Secret"));
    let configured = rendered("example");
    assert!(configured.contains_key(&(
        "ConfigMap".to_owned(),
        "krb-broker".to_owned(),
        "krb-broker-config".to_owned()
    )));
}

#[test]
fn no_container_may_more_than_it_must() {
    for manifest in ["krb-broker.yaml", "krb-broker-up-to-1.20.yaml"] {
        for (name, pod) in pods(&checked_in(manifest)) {
            let is_agent = name == "krb-node-agent";
            assert_eq!(pod["hostNetwork"] == true, is_agent, "{name}");
            assert_eq!(pod["securityContext"]["runAsNonRoot"] == true, !is_agent, "{name}");
            for never in ["hostPID", "hostIPC", "shareProcessNamespace"] {
                assert!(pod.get(never).is_none(), "{name}: {never}");
            }
            for container in containers(&pod) {
                let context = &container["securityContext"];
                let what = format!("{name}/{}", container["name"]);
                assert_eq!(context["readOnlyRootFilesystem"], true, "{what}");
                assert_eq!(context["allowPrivilegeEscalation"], false, "{what}");
                assert!(context.get("privileged").is_none(), "{what}");
                assert_eq!(context["capabilities"]["drop"], json!(["ALL"]), "{what}");
                let added = list(&context["capabilities"]["add"]);
                let of_agent = ["CHOWN", "FOWNER", "DAC_OVERRIDE", "IPC_LOCK"].map(Value::from);
                let expected = if container["name"] == "agent" { &of_agent[..] } else { &[] };
                assert_eq!(added, expected, "{what}");
                assert!(container["resources"]["limits"]["memory"].is_string(), "{what}");
            }
        }
    }
}

#[test]
fn seccomp_is_on_in_the_way_that_the_version_knows() {
    let annotation = "seccomp.security.alpha.kubernetes.io/pod";
    for (manifest, by_field) in [("krb-broker.yaml", true), ("krb-broker-up-to-1.20.yaml", false)] {
        for object in checked_in(manifest).values().filter(|o| !o["spec"]["template"].is_null()) {
            let template = &object["spec"]["template"];
            let field = &template["spec"]["securityContext"]["seccompProfile"];
            let annotated = &template["metadata"]["annotations"][annotation];
            let expected = (json!({"type": "RuntimeDefault"}), Value::Null);
            let expected =
                if by_field { expected } else { (Value::Null, "runtime/default".into()) };
            assert_eq!((field.clone(), annotated.clone()), expected, "{manifest}");
        }
    }
}

#[test]
fn the_agent_has_no_right_and_nobody_any_on_secrets_but_the_webhooks_own() {
    let all = checked_in("krb-broker.yaml");
    for object in all.values() {
        let subjects = list(&object["subjects"]);
        assert!(!subjects.iter().any(|s| s["name"] == "krb-node-agent"), "{object}");
        for rule in list(&object["rules"]) {
            let named = |field: &str, word: &str| list(&rule[field]).contains(&word.into());
            assert!(!named("verbs", "*") && !named("resources", "*") && !named("apiGroups", "*"));
            let mut others =
                ["delete", "deletecollection", "impersonate", "escalate", "bind"].iter();
            assert!(!others.any(|verb| named("verbs", verb)), "{rule}");
            if named("resources", "secrets") {
                assert_eq!(object["kind"], "Role", "only in its own namespace");
                assert_eq!(list(&rule["resourceNames"]), ["krb-broker-admission-ca"], "by name");
            }
        }
    }
    let (_, agent) =
        pods(&all).into_iter().find(|(name, _)| name == "krb-node-agent").expect("agent");
    assert_eq!(agent["automountServiceAccountToken"], false);
    let identity =
        list(&agent["volumes"]).into_iter().find(|v| v["name"] == "identity").expect("identity");
    let token = &identity["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(
        (&token["audience"], &token["expirationSeconds"]),
        (&json!("krb-broker"), &json!(43200))
    );
}

#[test]
fn no_part_waits_for_another_to_start() {
    let all = checked_in("krb-broker.yaml");
    for (name, pod) in pods(&all) {
        assert_eq!(pod["dnsPolicy"], "Default", "{name} starts without cluster DNS");
        for volume in list(&pod["volumes"]) {
            assert!(volume.get("flexVolume").is_none() && volume.get("csi").is_none(), "{name}");
        }
    }
    let namespaces = all.values().filter(|object| object["kind"] == "Namespace");
    for namespace in namespaces {
        assert_eq!(namespace["metadata"]["labels"]["krb-broker/enabled"], "false");
    }
}

#[test]
fn the_webhook_is_asked_only_about_namespaces_that_opted_in() {
    let all = checked_in("krb-broker.yaml");
    let is_webhook = |object: &&Value| !object["webhooks"].is_null();
    let mut seen = 0;
    for webhook in all.values().filter(is_webhook).flat_map(|object| list(&object["webhooks"])) {
        seen += 1;
        assert_eq!(webhook["failurePolicy"], "Fail");
        assert_eq!(webhook["sideEffects"], "None");
        assert_eq!(webhook["timeoutSeconds"], 5);
        let selector = &webhook["namespaceSelector"];
        assert_eq!(selector["matchLabels"], json!({"krb-broker/enabled": "true"}));
        let never = &selector["matchExpressions"][0];
        assert_eq!(
            (&never["key"], &never["operator"]),
            (&json!("kubernetes.io/metadata.name"), &json!("NotIn"))
        );
        assert_eq!(never["values"], json!(["kube-system", "krb-broker"]));
    }
    assert_eq!(seen, 2);
}

#[test]
fn one_broker_has_the_store_and_leaves_a_dead_node_soon() {
    let all = checked_in("krb-broker.yaml");
    let key = ("Deployment".to_owned(), "krb-broker".to_owned(), "krb-broker".to_owned());
    let spec = &all[&key]["spec"];
    assert_eq!((&spec["replicas"], &spec["strategy"]["type"]), (&json!(1), &json!("Recreate")));
    let pod = &spec["template"]["spec"];
    let soon = list(&pod["tolerations"]).iter().filter(|t| t["tolerationSeconds"] == 30).count();
    assert_eq!(soon, 2, "not ready, unreachable");
    let secrets = list(&pod["volumes"]).into_iter().filter(|volume| !volume["secret"].is_null());
    let names: Vec<_> = secrets.map(|volume| volume["secret"]["secretName"].clone()).collect();
    assert_eq!(names, ["krb-broker-tls"], "no Secret of the cluster holds Kerberos material");
}

#[test]
fn the_configuration_of_the_example_is_what_the_programs_read() {
    let example = deploy().join("kustomize/example");
    let text = |name: &str| fs::read_to_string(example.join(name)).expect(name);
    let broker = Config::read("broker.toml", &text("broker/broker.toml")).expect("broker.toml");
    let admission = AdmissionConfig::load(&example.join("admission/admission.toml"));
    let admission = admission.expect("admission.toml");
    assert_eq!(broker.entitlements, admission.entitlements, "both read the same ConfigMap");
    Entitlements::load(&example.join("entitlements")).expect("the example's entitlements");

    // the CA is a file of the pod, so that is all that may be missing here
    let given =
        Given { node: Some("n1".to_owned()), broker: Some("https://10.96.0.7:8443".to_owned()) };
    let agent = AgentConfig::read_with(&example.join("node-agent/agent.toml"), given);
    let problems = agent.expect_err("no CA here").to_string();
    assert!(problems.contains("agent.toml: ca: ") && !problems.contains(';'), "{problems}");
}
