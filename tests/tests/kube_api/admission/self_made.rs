//! Replicas that make their own certificates, with the least rights at the API server.

use std::{fs, path::Path};

use krb_tests::kube_api::KubeApi;
use serde_json::Value;

use super::{
    NAMESPACES, apply, pod,
    webhook::{Failed, Webhook, configurations, until},
};

/// All that a replica may do.
const RIGHTS: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: krb-broker}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: admission, namespace: krb-broker}
rules:
- {apiGroups: [''], resources: [secrets], resourceNames: [krb-broker-admission-ca], verbs: [get, update]}
- {apiGroups: [''], resources: [secrets], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: admission, namespace: krb-broker}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: admission}
subjects: [{kind: User, name: admission, apiGroup: rbac.authorization.k8s.io}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: admission}
rules:
- apiGroups: [admissionregistration.k8s.io]
  resources: [mutatingwebhookconfigurations, validatingwebhookconfigurations]
  resourceNames: [krb-broker]
  verbs: [get, update]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: admission}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: admission}
subjects: [{kind: User, name: admission, apiGroup: rbac.authorization.k8s.io}]
";

fn replica(dir: &Path, kubeconfig: &Path) -> Result<Webhook, Failed> {
    fs::create_dir_all(dir)?;
    let tls = format!(
        "[tls.self_made]\nnamespace = \"krb-broker\"\nnames = [\"localhost\"]\n\
         mutating = \"krb-broker\"\nvalidating = \"krb-broker\"\nlife = \"60s\"\nevery = \"1s\"\n\
         [kubernetes]\nkubeconfig = \"{}\"\n",
        kubeconfig.display()
    );
    Webhook::start(dir, &tls)
}

/// How many CAs the Secret has, and the newest's name.
fn authorities(api: &KubeApi) -> Result<Vec<String>, Failed> {
    let secret = api.kubectl().get("krb-broker", "secret", "krb-broker-admission-ca")?;
    let data = secret.as_ref().and_then(|secret| secret["data"].as_object());
    let mut names: Vec<String> = data
        .into_iter()
        .flat_map(|data| data.keys())
        .filter(|n| n.ends_with(".crt"))
        .cloned()
        .collect();
    names.sort();
    Ok(names)
}

#[test]
fn replicas_share_a_ca_and_no_pod_waits_while_it_is_replaced() -> Result<(), Failed> {
    let Some(mut api) = KubeApi::start()? else { return Ok(()) };
    api.kubectl().apply(NAMESPACES)?;
    api.kubectl().apply(RIGHTS)?;
    let kubeconfig = api.kubeconfig_of("admission", None)?;
    let dir = tempfile::tempdir()?;
    let one = replica(&dir.path().join("one"), &kubeconfig)?;
    assert_eq!(one.ask("healthz", &["-k"])?.0, 200, "probes are answered before there is a CA");
    assert_eq!(one.ask("readyz", &["-k"])?.0, 503, "the configurations are not there");
    // one is called to change pods, the other to judge them
    let two = replica(&dir.path().join("two"), &kubeconfig)?;
    let text = configurations(&one.url("mutate"), &two.url("validate"), None);
    api.kubectl().apply(&text)?;
    let name = std::cell::Cell::new(0);
    let served = || {
        name.set(name.get() + 1);
        apply(api.kubectl(), &pod(&format!("pod-{}", name.get()), |_| ()))
    };
    let ready = |webhook: &Webhook| Ok(webhook.ask("readyz", &["-k"])?.0 == 200);
    until("one to be ready", || ready(&one))?;
    until("two to be ready", || ready(&two))?;
    until("pods to be served", || Ok(served().is_ok()))?;
    let first = authorities(&api)?;
    assert_eq!(first.len(), 1, "both replicas have one CA");

    until("the first CA to be gone", || {
        served().map_err(|said| format!("a pod was kept waiting: {said}"))?;
        Ok(!authorities(&api)?.contains(&first[0]))
    })?;
    for webhook in [&one, &two] {
        let changes = webhook.log().matches("a certificate of this CA is served").count();
        assert!(changes >= 2, "each went over to a newer CA: {}", webhook.log());
    }

    let configuration =
        api.kubectl().run(&["get", "mutatingwebhookconfiguration", "krb-broker", "-o", "json"])?;
    let configuration: Value = serde_json::from_str(&configuration)?;
    assert_eq!(configuration["webhooks"][0]["reinvocationPolicy"], "IfNeeded", "all else is kept");

    api.stop();
    until("it to be noticed", || Ok(one.log().contains("could not be looked after")))?;
    assert_eq!(one.ask("readyz", &["-k"])?.0, 200, "what it has, it serves on");
    api.start_again()?;
    until("pods to be served again", || Ok(apply(api.kubectl(), &pod("after", |_| ())).is_ok()))?;
    Ok(())
}
