//! A node that is taken over: root, and everything on its disk.
//!
//! It gains what was delivered to it, and nothing else: not by the agent's token, not by kubelet's
//! certificate, not by what kubelet may write into the API. What it tries is in the audit log.

use std::{error::Error, time::Duration};

use krb_proto::v1::{self, sync_response::Event};
use krb_tests::cluster::{Kubectl, Node, wait};
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    field::Field,
    install::{NAMESPACE, agent_pod},
    intruder::{Intruder, Refused, agent_token, generation},
    pod::Pod,
    story::{Needs, Story, Told, World, story},
    tenant::{LAB, TSBAR, TSFOO, TSLAB, TSRAW, host},
    workload::{Kind, Workload},
};

/// Told in this order.
pub const STORIES: &[Story] = &[
    story!(a_nodes_root_gets_nothing_of_pods_that_are_not_its_own).needing(Needs::Machines),
    story!(what_a_nodes_root_writes_into_the_api_gives_it_nothing).needing(Needs::Machines),
    story!(other_tokens_and_certificates_of_a_node_prove_nothing).needing(Needs::Machines),
    story!(a_stolen_token_ends_with_the_agents_pod).needing(Needs::Machines).long(),
    story!(the_webhook_tells_a_node_no_more_than_its_owner_reads).needing(Needs::Machines),
];

/// The node that is taken over.
const TAKEN: &str = "n2";
/// What the webhook calls the volume.
const VOLUME: &str = "krb-credentials";
/// A pod that there is not.
const NO_POD: &str = "6d5a8e0e-0000-4000-8000-000000000000";
/// How long the broker may take to hear of a change in the cluster.
const HEARD: Duration = Duration::from_secs(30);
/// How long an accepted token is remembered, and a little.
const FORGOTTEN: Duration = Duration::from_secs(150);

/// Everything that a node's root has.
struct Root<'a> {
    field: &'a Field<'a>,
    node: Node<'a>,
    broker: Intruder,
    generation: u64,
}

impl<'a> Root<'a> {
    fn of(field: &'a Field<'a>) -> Result<Self, Box<dyn Error>> {
        let node = field.cluster.node(TAKEN);
        let broker = Intruder::with_token(field, &agent_token(field, &node)?)?;
        let generation = generation(field, TAKEN)?;
        Ok(Self { field, node, broker, generation })
    }

    /// `kubectl` as kubelet.
    fn kubectl(&self) -> Kubectl {
        self.node.kubectl()
    }

    /// What the broker gives for a pod.
    fn issue(&self, pod: &str) -> Result<v1::IssueResponse, Refused> {
        self.broker.issue(self.generation, pod, VOLUME)
    }

    /// A pod's volume is refused with this reason, and that is in the audit log.
    fn is_denied(&self, pod: &str, volume: &str, reason: &str) -> String {
        let refused = self.broker.is_refused(self.generation, pod, volume);
        assert_eq!(refused.reason, reason, "{pod}: {}", refused.message);
        let tried = |line: &Value| {
            line["pod_uid"] == pod
                && line["reason"] == reason
                && line["actor"] == format!("node:{TAKEN}")
        };
        assert!(self.field.audited("lease.denied").iter().any(tried), "{pod} {reason}: no line");
        refused.message
    }

    /// Writes a pod by its status, as kubelet may for its own: `value` at `place` (RFC 6901).
    fn writes(&self, pod: &Pod<'_>, place: &str, value: Value) -> Result<String, Box<dyn Error>> {
        let mut object = pod.object()?;
        *object.pointer_mut(place).ok_or("the pod has no such place")? = value;
        let path = format!("/api/v1/namespaces/{}/pods/{}/status", pod.namespace(), pod.name);
        Ok(self.kubectl().raw("replace", &path, &object)?)
    }
}

fn is_active(pod: &Pod<'_>) -> Told {
    assert_eq!(pod.lease()?["state"], "LEASE_STATE_ACTIVE", "{}", pod.name);
    Ok(())
}

/// A pod of the node that does what it does and has ended.
fn ended<'a>(field: &'a Field<'a>) -> Result<Pod<'a>, Box<dyn Error>> {
    let workload = field.workload(Kind::Pod, &TSFOO, "ended").services("HTTP").on(TAKEN);
    let workload = workload.set("restartPolicy", "Never".into()).script("true");
    field.apply(&workload)?;
    let pod = field.pod_of(&workload)?;
    wait::until("a pod to end", Duration::from_secs(120), || {
        let object = field.cluster.kubectl().get(pod.namespace(), "pod", &pod.name)?;
        Ok(object.filter(|object| object["status"]["phase"] == "Succeeded").map(drop))
    })?;
    Ok(pod)
}

fn a_nodes_root_gets_nothing_of_pods_that_are_not_its_own(world: &World<'_>) -> Told {
    let field = world.field()?;
    let kubectl = world.cluster.kubectl();
    let (victim, own) = (field.web("victim", "n1")?, field.web("own", TAKEN)?);
    let (done, forced) = (ended(field)?, field.web("forced", TAKEN)?);
    let root = Root::of(field)?;

    // its own pod it has anyway: what follows is no mistake of the intruder's
    let issued = root.issue(&own.uid).map_err(|refused| format!("{refused:?}"))?;
    assert_eq!(own.lease()?["leaseId"], issued.lease_id);

    // pods of other nodes, and none at all, are told with the same words
    let said = root.is_denied(&victim.uid, VOLUME, "POD_UNKNOWN");
    assert_eq!(said, root.is_denied(NO_POD, VOLUME, "POD_UNKNOWN"));
    root.is_denied(&own.uid, "other", "VOLUME_UNKNOWN");

    // pods that are over, whatever kubelet says of them later
    root.is_denied(&done.uid, VOLUME, "POD_FINISHED");
    root.writes(&done, "/status/phase", "Running".into())?;
    root.is_denied(&done.uid, VOLUME, "POD_FINISHED");
    let delete = ["-n", forced.namespace(), "delete", "pod", &forced.name];
    kubectl.run(&[&delete[..], &["--force", "--grace-period=0"]].concat())?;
    let mut refused = root.issue(&forced.uid);
    wait::until("the broker to hear of a pod that was deleted by force", HEARD, || {
        refused = root.issue(&forced.uid);
        Ok(refused.is_err().then_some(()))
    })?;
    assert_eq!(root.is_denied(&forced.uid, VOLUME, "POD_UNKNOWN"), said);

    // replays of another time
    for generation in [0, root.generation.saturating_sub(1), root.generation + 1] {
        if generation != root.generation {
            let refused = root.broker.is_refused(generation, &own.uid, VOLUME);
            assert_eq!(refused.reason, "FENCED", "{generation}");
        }
    }

    // the session and the leases of other nodes
    let lease = victim.lease()?["leaseId"].as_str().unwrap_or_default().to_owned();
    root.broker.release(root.generation, &lease).map_err(|refused| format!("{refused:?}"))?;
    is_active(&victim)?;
    claims(&root, &lease)?;
    is_active(&victim)?;
    victim.run("klist -s && klist -k")?;

    // the agent comes back by itself, and with it what is the node's
    wait::until("the agent to attach anew", HEARD, || Ok(root.issue(&own.uid).ok()))?;
    own.run("klist -s && klist -k")?;
    victim.end()?;
    own.end()?;
    done.delete()
}

/// An agent that says it holds another node's lease is told to wipe it, and that is all.
fn claims(root: &Root<'_>, lease: &str) -> Told {
    let boot_id = root.node.exec("cat /proc/sys/kernel/random/boot_id")?.trim().to_owned();
    let held = v1::InventoryItem { lease_id: lease.to_owned(), ..Default::default() };
    let told = root.broker.hello(v1::Hello {
        boot_id,
        instance: "intruder".to_owned(),
        generation: Some(root.generation),
        inventory: vec![held],
    });
    let told = told.map_err(|refused| format!("{refused:?}"))?;
    let is_wipe = |event: &Event| matches!(event, Event::Wipe(wipe) if wipe.lease_id == lease);
    assert!(told.iter().any(is_wipe), "{told:?}");
    let pushed = |event: &Event| matches!(event, Event::Push(push) if push.lease_id == lease);
    assert!(!told.iter().any(pushed), "another node's keys were pushed");
    Ok(())
}

fn what_a_nodes_root_writes_into_the_api_gives_it_nothing(world: &World<'_>) -> Told {
    let field = world.field()?;
    let own = field.web("written", TAKEN)?;
    let nameless =
        started_nowhere(field, field.workload(Kind::Pod, &TSFOO, "nameless").label("app", "none"))?;
    let lab = started_nowhere(field, field.workload(Kind::Pod, &TSLAB, "lab"))?;
    let root = Root::of(field)?;

    // annotations of its own pod: the ask is the volume's
    let place = "/metadata/annotations/ts~1services";
    root.writes(&own, place, "HTTP,nfs".into())?;
    assert_eq!(own.object()?.pointer(place), Some(&json!("HTTP,nfs")), "the API lets it");
    let issued = root.issue(&own.uid).map_err(|refused| format!("{refused:?}"))?;
    let keytab = issued.material.and_then(|material| material.keytab).unwrap_or_default();
    let principals: Vec<_> = keytab.principals.iter().map(|keys| &keys.principal).collect();
    let expected = format!("HTTP/{}@{}", host(&TSFOO), field.realm().name());
    assert_eq!(principals, [&expected]);

    // labels that a Service selects by, and labels of its own Node object
    let refused = root.writes(&nameless, "/metadata/labels/app", "web".into());
    let refused = refused.err().ok_or("a node labels pods")?;
    assert!(refused.to_string().contains("labels"), "{refused}");
    root.is_denied(&nameless.uid, VOLUME, "NO_HOST_NAME");
    let refused = root.kubectl().run(&["label", "node", TAKEN, LAB]).err();
    let refused = refused.ok_or("a node gives itself a label that is restricted")?;
    assert!(refused.to_string().contains("not allowed to modify labels"), "{refused}");
    root.kubectl().run(&["label", "node", TAKEN, "zone=lab", "--overwrite"])?;
    let said = root.is_denied(&lab.uid, VOLUME, "NODE_NOT_ALLOWED");
    assert!(said.contains(LAB), "{said}");

    mirrors(&root)?;
    own.end()?;
    nameless.delete()?;
    lab.delete()
}

/// A pod on the node that asks for HTTP, and that the broker denies that.
fn started_nowhere<'a>(
    field: &'a Field<'a>,
    workload: Workload,
) -> Result<Pod<'a>, Box<dyn Error>> {
    let workload = workload.services("HTTP").on(TAKEN);
    field.apply(&workload)?;
    field.pod_of(&workload)
}

/// The only pods that kubelet may make are mirrors of what it runs by itself.
fn mirrors(root: &Root<'_>) -> Told {
    let cluster = root.field.cluster;
    let node = cluster.kubectl().get("default", "node", TAKEN)?.ok_or("no node")?;
    let mirror = |namespace: &str, uid: u32| {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": TAKEN, "controller": true,
            "uid": node["metadata"]["uid"]});
        let mut pod = root
            .field
            .workload(Kind::Pod, &TSRAW, "mirror")
            .volume(VOLUME, &json!({"services": "HTTP"}));
        pod = pod.annotation("kubernetes.io/config.mirror", "intruder").on(TAKEN);
        pod = pod.set("securityContext", json!({"runAsUser": uid}));
        let mut pod: Value = serde_json::from_str(&pod.manifest()).unwrap_or_default();
        pod["metadata"]["namespace"] = namespace.into();
        pod["metadata"]["ownerReferences"] = json!([owner]);
        pod
    };
    root.node.stop_kubelet()?; // it deletes mirrors of what it does not run
    let told = (|| -> Told {
        let kubectl = root.kubectl();
        let pods = |namespace: &str| format!("/api/v1/namespaces/{namespace}/pods");
        let refused = kubectl.raw("create", &pods(TSBAR.login), &mirror(TSBAR.login, TSBAR.uid));
        let refused = refused.err().ok_or("the webhook lets a mirror pass")?.to_string();
        assert!(refused.contains("POD_NOT_ELIGIBLE"), "{refused}");
        let made = kubectl.raw("create", &pods(TSRAW.login), &mirror(TSRAW.login, TSRAW.uid))?;
        let made: Value = serde_json::from_str(&made)?;
        let uid = made["metadata"]["uid"].as_str().unwrap_or_default();
        let said = root.is_denied(uid, VOLUME, "POD_NOT_ELIGIBLE");
        assert!(said.contains("mirror pod"), "{said}");
        Ok(())
    })();
    root.node.start_kubelet()?;
    told
}

/// A token that kubelet may ask for: of a pod on its node.
fn token_of(
    kubectl: &Kubectl,
    (namespace, account): (&str, &str),
    pod: (&str, &str),
    audience: &str,
) -> Result<String, Box<dyn Error>> {
    let (name, uid) = pod;
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [audience], "expirationSeconds": 600, "boundObjectRef": bound}});
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let made: Value = serde_json::from_str(&kubectl.raw("create", &path, &request)?)?;
    Ok(made["status"]["token"].as_str().unwrap_or_default().to_owned())
}

fn other_tokens_and_certificates_of_a_node_prove_nothing(world: &World<'_>) -> Told {
    let field = world.field()?;
    let own = field.web("tokens", TAKEN)?;
    let root = Root::of(field)?;
    let kubectl = root.kubectl();
    let agent_of = |node: &str| -> Result<(String, String), Box<dyn Error>> {
        let name = agent_pod(field.cluster, node)?;
        let object = field.cluster.kubectl().get(NAMESPACE, "pod", &name)?.ok_or("no agent")?;
        Ok((name, object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()))
    };
    let agents = (NAMESPACE, "krb-node-agent");
    let (name, uid) = agent_of(TAKEN)?;
    let (agent, mine) = ((name.as_str(), uid.as_str()), (own.name.as_str(), own.uid.as_str()));

    let good = agent_token(field, &root.node)?;
    let (head, _) = good.rsplit_once('.').ok_or("no token")?;
    let forged = format!("{head}.{}", "A".repeat(342));
    let tenants = token_of(&kubectl, (TSFOO.login, "default"), mine, "krb-broker")?;
    let elsewhere = token_of(&kubectl, agents, agent, "another")?;
    for (token, why) in [
        (&tenants, "not of the agents' service account"),
        (&elsewhere, "another audience"),
        (&forged, "does not accept"),
    ] {
        let thief = Intruder::with_token(field, token)?;
        let refused = thief.is_refused(root.generation, &own.uid, VOLUME);
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::Unauthenticated, "UNAUTHENTICATED")
        );
        assert!(refused.message.contains(why), "{why}: {}", refused.message);
        let tried = |line: &Value| line["detail"].as_str().is_some_and(|said| said.contains(why));
        assert!(field.audited("call.denied").iter().any(tried), "{why}: no line");
    }
    // kubelet has no token made for another node's agent
    let (name, uid) = agent_of("n1")?;
    let refused = token_of(&kubectl, agents, (&name, &uid), "krb-broker").err();
    assert!(refused.is_some(), "a token of another node's agent");

    // what operators may do: not with a node's token, nor with kubelet's certificate
    for (call, answer) in root.broker.operates() {
        let refused = answer.err().ok_or_else(|| format!("a node may call {call}"))?;
        assert_eq!(refused.reason, "UNAUTHENTICATED", "{call}: {}", refused.message);
    }
    match Intruder::with_certificate(field, root.node.certificate()) {
        Err(error) => println!("cluster-test: kubelet's certificate: {error}"),
        Ok(kubelet) => {
            for (call, answer) in kubelet.operates() {
                assert!(answer.is_err(), "kubelet's certificate may call {call}");
            }
            let issued = kubelet.issue(root.generation, &own.uid, VOLUME);
            assert!(issued.is_err(), "no CA of nodes is configured");
        }
    }
    own.end()
}

fn a_stolen_token_ends_with_the_agents_pod(world: &World<'_>) -> Told {
    let field = world.field()?;
    let own = field.web("stolen", TAKEN)?;
    let root = Root::of(field)?;
    root.issue(&own.uid).map_err(|refused| format!("{refused:?}"))?;
    let agent = agent_pod(field.cluster, TAKEN)?;
    world.cluster.kubectl().run(&["-n", NAMESPACE, "delete", "pod", &agent])?;
    assert_ne!(agent_pod(field.cluster, TAKEN)?, agent);

    let mut last = None;
    wait::until("the stolen token to be refused", FORGOTTEN, || {
        last = root.issue(&own.uid).err().filter(|refused| refused.code == Code::Unauthenticated);
        if last.is_none() {
            wait::pause(Duration::from_secs(2));
        }
        Ok(last.as_ref().map(drop))
    })?;
    assert_eq!(last.map(|refused| refused.reason).as_deref(), Some("UNAUTHENTICATED"));
    own.run("klist -s && klist -k")?; // the new agent serves on
    own.end()
}

/// Whoever reaches the webhook can ask it; it knows entitlements, and no key.
fn the_webhook_tells_a_node_no_more_than_its_owner_reads(world: &World<'_>) -> Told {
    let field = world.field()?;
    let node = world.cluster.node(TAKEN);
    let service = world.cluster.kubectl().get(NAMESPACE, "service", "krb-broker-admission")?;
    let service = service.ok_or("no Service of the webhook")?;
    let address = service["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    let before = field.realm().kadmin_local(&["listprincs"])?;

    let ask = |namespace: &str, services: &str| -> Result<Value, Box<dyn Error>> {
        let pod = field.workload(Kind::Pod, &TSBAR, "oracle").services(services);
        let pod: Value = serde_json::from_str(&pod.manifest())?;
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {"uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "namespace": namespace, "operation": "CREATE", "object": pod}});
        let file = world.cluster.dir().join("oracle.json");
        std::fs::write(&file, review.to_string())?;
        let said = node.exec(&format!(
            "curl -sk --max-time 20 --data-binary @{} https://{address}/mutate",
            file.display()
        ))?;
        Ok(serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?)
    };
    for (namespace, services) in [(TSBAR.login, "nfs"), ("nobodys", "HTTP"), (TSFOO.login, "HTTP")]
    {
        let answer = ask(namespace, services)?;
        assert_eq!(answer["response"]["allowed"], false, "{answer}");
        let said = answer["response"]["status"]["message"].as_str().unwrap_or_default();
        let others = [TSFOO.login, TSBAR.login, TSRAW.login, TSLAB.login];
        for other in others.iter().filter(|other| **other != namespace) {
            assert!(!said.contains(other), "it tells of {other}: {said}");
        }
    }
    let much = node.exec(&format!(
        "head -c 1200000 /dev/zero | curl -sk --max-time 20 -o /dev/null -w '%{{http_code}}' \
         --data-binary @- https://{address}/validate"
    ))?;
    assert_eq!(much, "413");
    assert_eq!(field.realm().kadmin_local(&["listprincs"])?, before, "nothing was made");
    Ok(())
}
