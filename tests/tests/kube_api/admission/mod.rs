//! `krb-broker admission`, called by a real API server as people apply pods.

mod self_made;
mod webhook;

use std::{fs, process::Command};

use krb_tests::{
    cluster::Kubectl,
    kube_api::{KubeApi, Options},
};
use serde_json::{Value, json};
use webhook::{Failed, Webhook, certificate, configurations, files, until};

/// The namespaces of the stories: two that are opted in, and one that is not.
const NAMESPACES: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: tsfoo, labels: {krb-broker/enabled: 'true'}}
---
apiVersion: v1
kind: Namespace
metadata: {name: nobodys, labels: {krb-broker/enabled: 'true'}}
---
apiVersion: v1
kind: Namespace
metadata: {name: outside}
";

/// What the paths end with where callers must know it.
const PATH_END: &str = "fT3-0123456789_abcdefgh";

/// An API server where a webhook is called at paths that end so, with a certificate from files.
struct World {
    api: KubeApi,
    webhook: Webhook,
    dir: tempfile::TempDir,
}

/// `None`: there is no API server to be had, and it has been said.
fn world(path_end: &str) -> Result<Option<World>, Failed> {
    let flags = vec!["--feature-gates=EphemeralContainers=true".to_owned()];
    let Some(api) = KubeApi::start_with(&Options { flags, ..Options::default() })? else {
        return Ok(None);
    };
    let dir = tempfile::tempdir()?;
    let ca = certificate(dir.path())?;
    if !path_end.is_empty() {
        fs::write(dir.path().join("path-end"), path_end)?;
    }
    let webhook = Webhook::start(dir.path(), &files(dir.path(), ""))?;
    api.kubectl().apply(NAMESPACES)?;
    let url = |path: &str| webhook.url(format!("{path}/{path_end}").trim_end_matches('/'));
    let text = configurations(&url("mutate"), &url("validate"), Some(&ca));
    api.kubectl().apply(&text)?;
    let called =
        || Ok(apply(api.kubectl(), &pod("probe", |p| annotate(p, "ts/token", "x"))).is_err());
    until("the configurations to be in force", called)?;
    Ok(Some(World { api, webhook, dir }))
}

/// A pod of `tsfoo` that asks for HTTP and its ticket, after a change.
fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "tsfoo",
            "annotations": {"ts/services": "HTTP", "ts/prestashtkt": "true"},
        },
        "spec": {
            "securityContext": {"runAsUser": 1234, "runAsGroup": 1111, "fsGroup": 1112},
            "initContainers": [{"name": "init", "image": "i:1"}],
            "containers": [{"name": "web", "image": "w:1"}],
        },
    });
    change(&mut pod);
    pod
}

fn annotate(pod: &mut Value, name: &str, value: &str) {
    pod["metadata"]["annotations"][name] = json!(value);
}

fn apply(kubectl: &Kubectl, object: &Value) -> Result<(), String> {
    kubectl.apply(&object.to_string()).map_err(|error| {
        std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": ")
    })
}

#[test]
fn an_applied_pod_is_injected_once_and_a_dry_run_leaves_nothing() -> Result<(), Failed> {
    let Some(world) = world(PATH_END)? else { return Ok(()) };
    let World { api, webhook, .. } = &world;
    let kubectl = api.kubectl();
    apply(kubectl, &pod("web", |_| ()))?;
    let made = kubectl.get("tsfoo", "pod", "web")?.ok_or("no pod")?;
    assert_eq!(
        made["spec"]["volumes"][0]["flexVolume"]["options"],
        json!({"services": "HTTP", "prestashtkt": "true", "runasusername": "tsfoo"})
    );
    assert_eq!(made["metadata"]["annotations"]["ts/runasusername"], "tsfoo");
    for container in [&made["spec"]["containers"][0], &made["spec"]["initContainers"][0]] {
        assert_eq!(container["volumeMounts"].as_array().map(Vec::len), Some(4), "{container}");
        assert_eq!(container["env"][0]["value"], "FILE:/var/spool/tickets/tsfoo");
    }
    apply(kubectl, &pod("web", |_| ()))?;
    let again = kubectl.get("tsfoo", "pod", "web")?.ok_or("no pod")?;
    assert_eq!(again["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);

    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), pod("dry", |_| ()).to_string())?;
    let path = file.path().to_string_lossy();
    let dry = kubectl.run(&["apply", "--dry-run=server", "-o", "json", "-f", &path])?;
    let dry: Value = serde_json::from_str(&dry)?;
    assert_eq!(dry["spec"]["volumes"][0]["name"], "krb-credentials");
    assert_eq!(kubectl.get("tsfoo", "pod", "dry")?, None);

    let made_by_controllers = pod("x", |pod| {
        pod["metadata"]["generateName"] = json!("made-");
        pod["metadata"].as_object_mut().map(|metadata| metadata.remove("name"));
    });
    fs::write(file.path(), made_by_controllers.to_string())?;
    kubectl.run(&["create", "-f", &path])?;

    for untouched in [
        pod("quiet", |pod| pod["metadata"]["annotations"] = json!({})),
        pod("elsewhere", |pod| pod["metadata"]["namespace"] = json!("outside")),
    ] {
        apply(kubectl, &untouched)?;
        let namespace = untouched["metadata"]["namespace"].as_str().unwrap_or_default();
        let name = untouched["metadata"]["name"].as_str().unwrap_or_default();
        let made = kubectl.get(namespace, "pod", name)?.ok_or("no pod")?;
        assert_eq!(made["spec"]["volumes"], Value::Null, "{name}");
    }
    let stranger = webhook.ask("mutate", &["-k", "-d", "{}"])?;
    assert_eq!(
        stranger.0, 403,
        "who does not know the end of the path learns nothing: {stranger:?}"
    );
    assert!(!webhook.log().contains("panicked"));
    Ok(())
}

#[test]
fn whoever_applies_a_pod_reads_which_rule_is_missing() -> Result<(), Failed> {
    type Change = fn(&mut Value);
    let Some(world) = world("")? else { return Ok(()) };
    let World { api, webhook, .. } = &world;
    let kubectl = api.kubectl();
    let volume = |services: &str, name: &str| {
        json!({"name": name, "flexVolume": {"driver": "krb-broker/credentials",
               "options": {"services": services}}})
    };
    let by_hand = [
        ("by-hand", json!([volume("ftp", "v")]), "(SERVICE_NOT_ENTITLED)"),
        ("by-hand-2", json!([volume("HTTP", "v"), volume("HTTP", "w")]), "more than one volume"),
        ("by-hand-3", json!([volume("HTTP", "v")]), ""),
    ];
    for (name, volumes, wanted) in by_hand {
        let hand_written = pod(name, |pod| {
            pod["metadata"]["annotations"] = json!({});
            pod["spec"]["volumes"] = volumes;
        });
        match apply(kubectl, &hand_written) {
            Ok(()) => assert_eq!(wanted, "", "{name}"),
            Err(said) => assert!(!wanted.is_empty() && said.contains(wanted), "{name}: {said}"),
        }
    }
    let rows: [(&str, Change, &str); 14] = [
        (
            "service",
            |p| annotate(p, "ts/services", "ftp"),
            "ts/services: tsfoo may not have the service ftp (SERVICE_NOT_ENTITLED)",
        ),
        ("reserved", |p| annotate(p, "ts/services", "host"), "(SERVICE_RESERVED)"),
        (
            "malformed",
            |p| annotate(p, "ts/services", "HTTP,,nfs"),
            "ts/services has an empty entry",
        ),
        ("ticket", |p| annotate(p, "ts/prestashtkt", "tsbar"), "(TICKET_NOT_ENTITLED)"),
        ("host", |p| annotate(p, "ts/externalclusters", "a.example.com"), "(HOST_NOT_ENTITLED)"),
        ("later", |p| annotate(p, "ts/certs", "true"), "ts/certs is not supported yet"),
        ("liar", |p| annotate(p, "ts/runasusername", "tsbar"), "ts/runasusername says tsbar"),
        ("mirror", |p| annotate(p, "kubernetes.io/config.mirror", "x"), "(POD_NOT_ELIGIBLE)"),
        ("source", |p| annotate(p, "kubernetes.io/config.source", "file"), "(POD_NOT_ELIGIBLE)"),
        (
            "root",
            |p| p["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 0}),
            "container web runs as root (RUN_AS_USER)",
        ),
        (
            "init",
            |p| p["spec"]["initContainers"][0]["securityContext"] = json!({"runAsUser": 7}),
            "(RUN_AS_USER)",
        ),
        (
            "another",
            |p| p["spec"]["securityContext"]["runAsUser"] = json!(1235),
            "set runAsUser to 1234",
        ),
        ("group", |p| p["spec"]["securityContext"]["fsGroup"] = json!(0), "(RUN_AS_GROUP)"),
        ("nobodys", |p| p["metadata"]["namespace"] = json!("nobodys"), "(NAMESPACE_NOT_ENTITLED)"),
    ];
    for (name, change, wanted) in rows {
        let said = apply(kubectl, &pod(name, change)).expect_err(name);
        let denied = "admission webhook \"pods.krb-broker.test\" denied the request: ";
        assert!(said.contains(denied) && said.contains(wanted), "{name}: {said}");
        let namespace = if name == "nobodys" { name } else { "tsfoo" };
        assert_eq!(kubectl.get(namespace, "pod", name)?, None);
    }
    let log = webhook.log();
    let refusals: Vec<&str> = log.lines().filter(|l| l.contains("refused at admission")).collect();
    assert!(refusals.len() >= rows.len(), "{log}");
    for part in
        ["\"namespace\":\"tsfoo\"", "\"user\":\"admin\"", "\"name\":\"root\"", "RUN_AS_USER"]
    {
        assert!(refusals.iter().any(|line| line.contains(part)), "{part} in {refusals:?}");
    }
    Ok(())
}

#[test]
fn a_pod_that_is_there_keeps_what_it_asked_for_and_can_be_tended() -> Result<(), Failed> {
    let Some(world) = world("")? else { return Ok(()) };
    let World { api, webhook, .. } = &world;
    let kubectl = api.kubectl();
    apply(kubectl, &pod("web", |_| ()))?;
    let annotated =
        |what: &str| kubectl.run(&["-n", "tsfoo", "annotate", "--overwrite", "pod", "web", what]);
    let said = format!("{:?}", annotated("ts/services=nfs").expect_err("another ask"));
    assert!(said.contains("ASK_CHANGED") && said.contains("no effect"), "{said}");
    annotated("ts/runasusername=tsbar").expect_err("a lie");
    annotated("ts/services-").expect_err("the ask is taken away");
    annotated("kubernetes.io/config.mirror=x").expect_err("a mirror pod");
    annotated("example.com/note=x")?;

    let nothing =
        "entity_type: unix_role_account\nunix_login: tsbar\nunix_uid: 1235\nunix_gid: 1112\n";
    fs::write(webhook.dir.join("entitlements/all.yaml"), nothing)?;
    let refused = || Ok(apply(kubectl, &pod("late", |_| ())).is_err());
    until("the entitlement to be gone", refused)?;
    kubectl.run(&["-n", "tsfoo", "label", "pod", "web", "a=b"])?;
    let finalizers = r#"{"metadata":{"finalizers":["example.com/f"]}}"#;
    kubectl.run(&["-n", "tsfoo", "patch", "pod", "web", "-p", finalizers])?;
    kubectl.run(&[
        "-n",
        "tsfoo",
        "patch",
        "pod",
        "web",
        "-p",
        r#"{"metadata":{"finalizers":null}}"#,
    ])?;
    Ok(())
}

#[test]
fn an_ephemeral_container_of_1_20_has_no_user_of_its_own_and_may_be_added() -> Result<(), Failed> {
    let Some(world) = world("")? else { return Ok(()) };
    let kubectl = world.api.kubectl();
    apply(kubectl, &pod("web", |_| ()))?;
    let file = tempfile::NamedTempFile::new()?;
    let debug = |name: &str, security: Value| -> Result<String, Failed> {
        let containers = json!({
            "apiVersion": "v1", "kind": "EphemeralContainers",
            "metadata": {"name": "web", "namespace": "tsfoo"},
            "ephemeralContainers": [{"name": name, "image": "d:1", "imagePullPolicy": "Always",
                "terminationMessagePolicy": "File", "securityContext": security}],
        });
        fs::write(file.path(), containers.to_string())?;
        let path = "/api/v1/namespaces/tsfoo/pods/web/ephemeralcontainers";
        Ok(kubectl.run(&["replace", "--raw", path, "-f", &file.path().to_string_lossy()])?)
    };
    // the API server judges before the webhook does; where it lets this pass, the webhook does not
    debug("root", json!({"runAsUser": 0})).expect_err("root");
    debug("own", Value::Null)?;
    let made = kubectl.get("tsfoo", "pod", "web")?.ok_or("no pod")?;
    assert_eq!(made["spec"]["ephemeralContainers"][0]["name"], "own");
    Ok(())
}

#[test]
fn idle_connections_keep_nobody_out() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    certificate(dir.path())?;
    let webhook = Webhook::start(dir.path(), &files(dir.path(), ""))?;
    let connect = |_| std::net::TcpStream::connect(webhook.address);
    let idle: Vec<_> = (0..600).map(connect).collect::<Result<_, _>>()?;
    let ca = dir.path().join("ca.crt");
    let ca = ca.to_string_lossy();
    assert_eq!(webhook.ask("readyz", &["--cacert", &ca])?.0, 200, "beside {} others", idle.len());
    Ok(())
}

#[test]
fn what_is_no_question_is_answered_shortly_and_a_new_certificate_is_taken_over()
-> Result<(), Failed> {
    let Some(world) = world("")? else { return Ok(()) };
    let World { api, webhook, dir } = &world;
    let first = fs::read(dir.path().join("ca.crt"))?;
    let old = dir.path().join("old-ca.crt");
    fs::write(&old, first)?;
    let ca = old.to_string_lossy().into_owned();
    let trusting =
        |path: &str, more: &[&str]| webhook.ask(path, &[&["--cacert", ca.as_str()], more].concat());
    assert_eq!(trusting("healthz", &[])?.0, 200);
    assert_eq!(trusting("readyz", &["--http1.1"])?.0, 200);
    assert_eq!(trusting("mutate", &[])?.0, 405);
    assert_eq!(trusting("mutate", &["-d", "{"])?.0, 400);
    let large = dir.path().join("large");
    fs::write(&large, vec![b' '; 1024 * 1024 + 1])?;
    let large = format!("@{}", large.display());
    assert_eq!(trusting("validate", &["--data-binary", &large])?.0, 413);

    let renewed = certificate(dir.path())?;
    let changed = || Ok(trusting("readyz", &[]).is_err());
    until("the new certificate to be served", changed)?;
    let text = configurations(&webhook.url("mutate"), &webhook.url("validate"), Some(&renewed));
    api.kubectl().apply(&text)?;
    let served = || Ok(apply(api.kubectl(), &pod("after", |_| ())).is_ok());
    until("the API server to believe it", served)?;
    fs::write(dir.path().join("tls.crt"), "nonsense")?;
    until("it to be said", || Ok(webhook.log().contains("can't be served")))?;
    apply(api.kubectl(), &pod("still", |_| ()))?;
    Ok(())
}

#[test]
fn with_a_client_ca_only_its_certificates_are_answered() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    certificate(dir.path())?;
    let path = dir.path().display();
    let more = format!("client_ca = \"{path}/ca.crt\"\n");
    let webhook = Webhook::start(dir.path(), &files(dir.path(), &more))?;
    let (ca, certificate, key) =
        (format!("{path}/ca.crt"), format!("{path}/tls.crt"), format!("{path}/tls.key"));
    let plain = ["--cacert", ca.as_str()];
    let proved = ["--cacert", &ca, "--cert", &certificate, "--key", &key, "-d", "{}"];
    assert_eq!(webhook.ask("readyz", &plain)?.0, 200, "probes show no certificate");
    assert_eq!(webhook.ask("mutate", &[&plain[..], &["-d", "{}"]].concat())?.0, 403);
    assert_eq!(webhook.ask("mutate", &proved)?.0, 400, "it is read now, and is no question");
    let key = format!("{path}/other.key");
    let status = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", &key])
        .args(["-out", &format!("{path}/other.crt")])
        .output()?;
    assert!(status.status.success());
    let other = format!("{path}/other.crt");
    let stranger = ["--cacert", &ca, "--cert", &other, "--key", &key, "-d", "{}"];
    assert!(webhook.ask("mutate", &stranger).is_err(), "another CA's certificate");
    Ok(())
}
