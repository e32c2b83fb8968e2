//! A tenant who may change pods and make Services in his own namespace, and wants more.
//!
//! Authority comes from a pod's immutable spec, from what its Services select, and from the uid of
//! its namespace. Nothing that `patch pods` and `create services` allow makes any of it grow.

use std::{error::Error, time::Duration};

use krb_tests::cluster::{Kubectl, wait};
use serde_json::{Value, json};

use crate::{
    field::Field,
    intruder::{Intruder, agent_token, generation},
    pod::Pod,
    story::{Needs, Story, Told, World, story},
    tenant::{SERVICE, TSBAR, TSFOO, TSNEW, TSRAW, settle},
    workload::Kind,
};

/// Told in this order.
pub const STORIES: &[Story] = &[
    story!(annotations_of_a_pod_that_is_there_give_it_nothing).needing(Needs::Machines),
    story!(an_ephemeral_container_is_no_way_into_a_pod).needing(Needs::Machines),
    story!(services_give_a_tenant_names_of_its_own_namespace_only).needing(Needs::Machines),
    story!(a_namespace_made_anew_has_nothing_until_an_operator_accepts_it),
];

/// The tenant.
const MALLORY: &str = "mallory";
/// The node of his pods.
const NODE: &str = "n2";
/// How long the broker may take to hear of a change in the cluster.
const HEARD: Duration = Duration::from_secs(30);
/// How long it has had to hear of what must change nothing.
const SETTLED: Duration = Duration::from_secs(3);
/// How long a mount may take to fail, or a namespace to go.
const PATIENCE: Duration = Duration::from_secs(180);

/// `kubectl` of somebody who may do this much in the namespaces of two tenants.
fn mallory(kubectl: &Kubectl) -> Result<Kubectl, Box<dyn Error>> {
    for namespace in [TSFOO.login, TSRAW.login] {
        let metadata = json!({"name": MALLORY, "namespace": namespace});
        let rule = |resources: &[&str], verbs: &[&str]| json!({"apiGroups": [""], "resources": resources, "verbs": verbs});
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata,
            "rules": [
                rule(&["pods"], &["get", "list", "create", "patch", "update"]),
                rule(&["pods/ephemeralcontainers"], &["get", "patch", "update"]),
                rule(&["services", "endpoints"], &["get", "create", "patch", "delete"]),
            ],
        });
        let group = "rbac.authorization.k8s.io";
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": MALLORY},
            "subjects": [{"apiGroup": group, "kind": "User", "name": MALLORY}],
        });
        kubectl.apply(&role.to_string())?;
        kubectl.apply(&binding.to_string())?;
    }
    Ok(kubectl.clone().acting_as(MALLORY))
}

/// What the broker gives for a pod's volume now: its principals, or why not.
struct Now {
    broker: Intruder,
    generation: u64,
}

impl Now {
    fn of(field: &Field<'_>) -> Result<Self, Box<dyn Error>> {
        let node = field.cluster.node(NODE);
        let broker = Intruder::with_token(field, &agent_token(field, &node)?)?;
        Ok(Self { broker, generation: generation(field, NODE)? })
    }

    /// The principals of the keytab, without their realm.
    fn principals(&self, pod: &Pod<'_>, volume: &str) -> Result<Vec<String>, String> {
        let issued = self.broker.issue(self.generation, &pod.uid, volume);
        let issued = issued.map_err(|refused| refused.reason)?;
        let keytab = issued.material.and_then(|material| material.keytab).unwrap_or_default();
        let names = keytab.principals.iter().map(|keys| keys.principal.split('@').next());
        Ok(names.flatten().map(str::to_owned).collect())
    }
}

/// A pod of TSRAW, where no webhook looks, with a volume that asks for HTTP. Its container says who
/// it runs as, and the pod does not.
fn raw<'a>(field: &'a Field<'a>, name: &str) -> Result<Pod<'a>, Box<dyn Error>> {
    let pod = field.workload(Kind::Pod, &TSRAW, name).set("securityContext", json!({})).on(NODE);
    let pod = pod.container("main", "securityContext", json!({"runAsUser": TSRAW.uid}));
    let mut pods = field.start(&pod.volume("own", &json!({"services": "HTTP"})))?;
    pods.pop().ok_or_else(|| "no pod was made".into())
}

fn annotations_of_a_pod_that_is_there_give_it_nothing(world: &World<'_>) -> Told {
    let field = world.field()?;
    let mallory = mallory(&world.cluster.kubectl())?;
    let (seen, unseen) = (field.web("seen", NODE)?, raw(field, "unseen")?);
    let annotate = |pod: &Pod<'_>, what: &str| {
        mallory.run(&["-n", pod.namespace(), "annotate", "--overwrite", "pod", &pod.name, what])
    };
    for what in
        ["ts/services=HTTP,nfs", "ts/services-", "ts/prestashtkt=tsbar", "ts/runasusername=tsbar"]
    {
        let refused = annotate(&seen, what).err().ok_or("an ask is changed that is there")?;
        let said = refused.to_string();
        assert!(said.contains("make a new pod (ASK_CHANGED)"), "{what}: {said}");
    }
    annotate(&seen, "example.com/note=mine")?; // what is not ours is nobody's matter
    let becomes = annotate(&seen, "kubernetes.io/config.source=file");
    assert!(becomes.is_err(), "a pod that has credentials says it is no pod of the API");

    annotate(&unseen, "ts/services=HTTP,nfs")?;
    annotate(&unseen, "ts/runasusername=tsbar")?;
    let now = Now::of(field)?;
    let name = |tenant: &str| vec![format!("HTTP/{SERVICE}.{tenant}.svc.cluster.local")];
    assert_eq!(now.principals(&unseen, "own"), Ok(name(TSRAW.login)));
    assert_eq!(now.principals(&seen, "krb-credentials"), Ok(name(TSFOO.login)));
    seen.end()?;
    unseen.end()
}

fn an_ephemeral_container_is_no_way_into_a_pod(world: &World<'_>) -> Told {
    let field = world.field()?;
    let mallory = mallory(&world.cluster.kubectl())?;
    let (seen, unseen) = (field.web("debugged", NODE)?, raw(field, "debugged")?);
    let add = |pod: &Pod<'_>, name: &str, security: Value| -> Result<String, Box<dyn Error>> {
        let image = pod.object()?["spec"]["containers"][0]["image"].clone();
        let container = json!({"name": name, "image": image, "imagePullPolicy": "Never",
            "command": ["sleep", "100000"], "securityContext": security});
        let containers = json!({"apiVersion": "v1", "kind": "EphemeralContainers",
            "metadata": {"name": pod.name, "namespace": pod.namespace()},
            "ephemeralContainers": [container]});
        let path =
            format!("/api/v1/namespaces/{}/pods/{}/ephemeralcontainers", pod.namespace(), pod.name);
        Ok(mallory.raw("replace", &path, &containers)?)
    };
    for (security, reason) in [
        (json!({"runAsUser": 0}), "(RUN_AS_USER)"),
        (json!({"runAsUser": TSBAR.uid}), "(ACCOUNT_MISMATCH)"),
        (json!({"runAsUser": TSFOO.uid, "runAsGroup": TSBAR.uid}), "(RUN_AS_GROUP)"),
    ] {
        let refused = add(&seen, "intruder", security).err().ok_or("it is added")?.to_string();
        // up to 1.21 the API lets nobody say who an ephemeral container runs as
        let nobody_may = refused.contains("cannot be set for an Ephemeral Container");
        assert!(nobody_may || refused.contains(reason), "{reason}: {refused}");
    }
    let now = Now::of(field)?;
    add(&seen, "debugger", Value::Null)?; // the pod's own user may look
    let name = format!("HTTP/{SERVICE}.{}.svc.cluster.local", TSFOO.login);
    assert_eq!(now.principals(&seen, "krb-credentials"), Ok(vec![name]));

    // where only containers say who they run as, the new one is whoever its image says
    add(&unseen, "intruder", Value::Null)?;
    let mut denied = Ok(Vec::new());
    wait::until("the broker to see the container", HEARD, || {
        denied = now.principals(&unseen, "own");
        Ok(denied.is_err().then_some(()))
    })?;
    assert_eq!(denied, Err("RUN_AS_USER".to_owned()));
    seen.end()?;
    unseen.end()
}

fn services_give_a_tenant_names_of_its_own_namespace_only(world: &World<'_>) -> Told {
    let field = world.field()?;
    let mallory = mallory(&world.cluster.kubectl())?;
    let now = Now::of(field)?;
    let workload = field.workload(Kind::Pod, &TSRAW, "hidden").label("app", "hidden").on(NODE);
    let workload = workload.volume("own", &json!({"services": "HTTP"}));
    field.apply(&workload)?;
    let hidden = field.pod_of(&workload)?;
    let service = |namespace: &str, name: &str, spec: &Value| {
        let metadata = json!({"name": name, "namespace": namespace});
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    };
    let ports = json!([{"port": 4444}]);
    let selects = json!({"selector": {"app": "hidden"}, "ports": ports});

    // another tenant's namespace is not his, and what selects there selects nothing here
    let foreign = service(TSBAR.login, "theirs", &selects).to_string();
    assert!(mallory.apply(&foreign).is_err(), "a Service in a namespace that is not his");
    world.cluster.kubectl().apply(&foreign)?;
    // names that lead elsewhere, and Services that select nothing
    let there = format!("{SERVICE}.{}.svc.cluster.local", TSBAR.login);
    let leads =
        json!({"type": "ExternalName", "externalName": there, "selector": {"app": "hidden"}});
    mallory.apply(&service(TSRAW.login, "leads", &leads).to_string())?;
    mallory.apply(&service(TSRAW.login, "free", &json!({"ports": ports})).to_string())?;
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "free", "namespace": TSRAW.login},
        "subsets": [{"addresses": [{"ip": "10.200.2.99"}], "ports": [{"port": 4444}]}]});
    mallory.apply(&endpoints.to_string())?;
    wait::pause(SETTLED);
    assert_eq!(now.principals(&hidden, "own"), Err("NO_HOST_NAME".to_owned()));

    // a Service that selects the pod gives a name of his own namespace, whatever it is called
    mallory.apply(&service(TSRAW.login, TSBAR.login, &selects).to_string())?;
    let mut given = Err(String::new());
    let outcome = wait::until("the name of the Service", HEARD, || {
        given = now.principals(&hidden, "own");
        Ok(given.is_ok().then_some(()))
    });
    outcome.map_err(|error| format!("{error}: {given:?}"))?;
    let name = format!("HTTP/{}.{}.svc.cluster.local", TSBAR.login, TSRAW.login);
    assert_eq!(given, Ok(vec![name]));

    // hosts of another tenant that he names outright, and his user before them
    for host in [there.clone(), format!("{}.{there}", TSRAW.login)] {
        let options = json!({"services": format!("HTTP/{host}")});
        let named = field.workload(Kind::Pod, &TSRAW, "named").volume("own", &options).on(NODE);
        field.apply(&named)?;
        let named = field.pod_of(&named)?;
        assert_eq!(now.principals(&named, "own"), Err("HOST_NOT_ENTITLED".to_owned()));
        named.delete()?;
    }
    for service in ["leads", "free", TSBAR.login] {
        mallory.run(&["-n", TSRAW.login, "delete", "service", service])?;
    }
    world.cluster.kubectl().run(&["-n", TSBAR.login, "delete", "service", "theirs"])?;
    hidden.end()
}

fn a_namespace_made_anew_has_nothing_until_an_operator_accepts_it(world: &World<'_>) -> Told {
    let field = world.field()?;
    let kubectl = world.cluster.kubectl();
    let asks = |name: &str| field.workload(Kind::Pod, &TSNEW, name).services("HTTP").on("n1");
    let first = field.start(&asks("first"))?;
    first.iter().try_for_each(Pod::end)?;

    let delete = ["delete", "namespace", TSNEW.login, "--wait=false"];
    kubectl.run(&delete)?;
    wait::until("the namespace to go", PATIENCE, || {
        Ok(kubectl.get("default", "namespace", TSNEW.login)?.is_none().then_some(()))
    })?;
    settle(&kubectl, &TSNEW, true)?;
    let second = asks("second");
    field.apply(&second)?;
    let pod = field.pod_of(&second)?;
    let line = pod.wait_described("(NAMESPACE_CHANGED)")?;
    assert!(line.contains("an operator must accept it"), "{line}");
    let denied =
        |line: &Value| line["pod_uid"] == *pod.uid && line["reason"] == "NAMESPACE_CHANGED";
    assert!(field.audited("lease.denied").iter().any(denied), "no line in the audit log");

    let namespace = kubectl.get("default", "namespace", TSNEW.login)?.ok_or("no namespace")?;
    let uid = &namespace["metadata"]["uid"];
    let accept = "krb.broker.v1.NamespaceService/AcceptNamespace";
    let other = json!({"namespace": TSNEW.login, "uid": "6d5a8e0e-0000-4000-8000-000000000000"});
    assert!(field.installed.operator.call(accept, &other).is_err(), "a uid that nobody has");
    field.installed.operator.call(accept, &json!({"namespace": TSNEW.login, "uid": uid}))?;
    field.wait_ready(&second, PATIENCE)?; // kubelet tries again by itself
    assert!(!field.audited("namespace.accepted").is_empty());
    pod.end()
}
