//! What is refused, as `kubectl apply` and `kubectl describe pod` show it.
//!
//! The texts are for the owners of pods: one line, the field to change before the stable reason,
//! and not a word of other tenants.

use std::{error::Error, time::Duration};

use krb_tests::{cluster::wait, world::Account};
use serde_json::{Value, json};

use crate::{
    field::Field,
    pod::Pod,
    story::{Needs, Story, Told, World, story},
    tenant::{LAB, TENANTS, TSBAR, TSFOO, TSLAB, TSRAW, settle},
    workload::{Kind, Workload},
};

/// Told in this order.
pub const STORIES: &[Story] = &[
    story!(what_can_only_be_denied_is_refused_when_it_is_applied),
    story!(all_that_is_wrong_is_said_at_once),
    story!(the_refusal_of_a_deployments_pods_is_read_at_its_replica_set),
    story!(a_pod_that_asks_for_more_never_starts_and_its_owner_reads_why).needing(Needs::Machines),
    story!(what_only_the_cluster_can_tell_is_denied_at_the_mount).needing(Needs::Machines),
];

/// Namespaces of no account: one with the webhook, and one without.
const ORPHAN: Account = Account { login: "orphan", uid: 1800, more: "" };
const RAW_ORPHAN: Account = Account { login: "raworphan", uid: 1801, more: "" };

/// How long a mount may take to fail: a busy machine calls the driver late.
const FAILED: Duration = Duration::from_secs(150);

/// A workload that is refused, and what its owner reads.
struct Case {
    workload: Workload,
    says: &'static [&'static str],
    reason: &'static str,
}

impl Case {
    fn new(workload: Workload, says: &'static [&'static str], reason: &'static str) -> Self {
        Self { workload, says, reason }
    }

    /// Checks the one line that the owner reads.
    fn check(&self, line: &str) {
        let written = self.workload.manifest();
        for part in self.says {
            assert!(line.contains(part), "{part} is not in: {line}");
        }
        let end = format!("({})", self.reason);
        assert!(line.ends_with(&end), "{end} does not end: {line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        for other in TENANTS.iter().filter(|other| other.login != self.workload.namespace()) {
            let told = line.contains(other.login) && !written.contains(other.login);
            assert!(!told, "its owner learns of {}: {line}", other.login);
        }
    }
}

/// What the webhook answers to a workload that must not come to be.
fn refusal(field: &Field<'_>, workload: &Workload) -> Result<String, Box<dyn Error>> {
    let Err(error) = field.apply(workload) else {
        return Err(format!("this can be applied: {}", workload.manifest()).into());
    };
    let said = error.to_string();
    let (_, line) = said
        .split_once("denied the request: ")
        .ok_or_else(|| format!("the webhook does not say why: {said}\n{}", workload.manifest()))?;
    Ok(line.trim_end().to_owned())
}

fn security(user: Option<u32>, more: &Value) -> Value {
    let mut security = more.clone();
    if let Some(user) = user {
        security["runAsUser"] = user.into();
    }
    security
}

fn what_can_only_be_denied_is_refused_when_it_is_applied(world: &World<'_>) -> Told {
    let field = world.field()?;
    settle(&world.cluster.kubectl(), &ORPHAN, true)?;
    let cases = [asks(field), identities(field), volumes(field)];
    for case in cases.iter().flatten() {
        case.check(&refusal(field, &case.workload)?);
        assert!(field.pods_of(&case.workload)?.is_empty(), "a pod was made");
    }
    Ok(())
}

/// Asks for what nobody, or not this account, may have, and asks that can't be read.
fn asks(field: &Field<'_>) -> Vec<Case> {
    let pod = || field.workload(Kind::Pod, &TSFOO, "asks");
    let other = |name, value| pod().services("HTTP").annotation(name, value);
    vec![
        Case::new(pod().services("imap"), &["ts/services", "imap"], "SERVICE_NOT_ENTITLED"),
        Case::new(pod().services("krbtgt"), &["ts/services", "reserved"], "SERVICE_RESERVED"),
        Case::new(
            other("ts/externalclusters", "other.example.com"),
            &["host names", "other.example.com"],
            "HOST_NOT_ENTITLED",
        ),
        Case::new(other("ts/prestashtkt", "tsbar"), &["ts/prestashtkt"], "TICKET_NOT_ENTITLED"),
        Case::new(pod().services("HTTP,,nfs"), &["ts/services", "empty"], "ASK_MALFORMED"),
        Case::new(pod().services("HTTP,HTTP"), &["ts/services", "twice"], "ASK_MALFORMED"),
        Case::new(pod().services("HT@TP"), &["ts/services", "HT@TP"], "ASK_MALFORMED"),
        Case::new(pod().services("HTTP\nnfs"), &["ts/services"], "ASK_MALFORMED"),
        Case::new(
            other("ts/userprefixedhostname", "perhaps"),
            &["ts/userprefixedhostname", "neither true nor false"],
            "ASK_MALFORMED",
        ),
        Case::new(other("ts/certs", "true"), &["ts/certs", "not supported"], "NOT_SUPPORTED"),
        Case::new(other("ts/krblocal", "true"), &["ts/krblocal"], "NOT_SUPPORTED"),
        Case::new(other("ts/token", "true"), &["ts/token"], "NOT_SUPPORTED"),
    ]
}

/// Pods that are not who their namespace's account is.
fn identities(field: &Field<'_>) -> Vec<Case> {
    let pod = || field.workload(Kind::Pod, &TSFOO, "identities").services("HTTP");
    let secure = |user, more| pod().set("securityContext", security(user, &more));
    let own = Some(TSFOO.uid);
    let foreign = TSBAR.uid + 1;
    vec![
        Case::new(secure(None, json!({})), &["runAsUser", "container main"], "RUN_AS_USER"),
        Case::new(
            secure(Some(4321), json!({})),
            &["runAsUser", "set runAsUser to 1234, not 4321"],
            "ACCOUNT_MISMATCH",
        ),
        Case::new(secure(Some(TSBAR.uid), json!({})), &["1234, not 1300"], "ACCOUNT_MISMATCH"),
        Case::new(
            pod().init("first", "true").container(
                "first",
                "securityContext",
                security(Some(0), &json!({})),
            ),
            &["runAsUser", "container first runs as root"],
            "RUN_AS_USER",
        ),
        Case::new(
            pod().beside("side", "true").container(
                "side",
                "securityContext",
                security(Some(4321), &json!({})),
            ),
            &["runAsUser", "different users", "side as 4321"],
            "RUN_AS_USER",
        ),
        Case::new(
            secure(own, json!({"runAsGroup": foreign})),
            &["runAsGroup 1301"],
            "RUN_AS_GROUP",
        ),
        Case::new(secure(own, json!({"fsGroup": foreign})), &["fsGroup 1301"], "RUN_AS_GROUP"),
        Case::new(
            secure(own, json!({"supplementalGroups": [TSFOO.uid + 1, foreign]})),
            &["supplementalGroups 1301"],
            "RUN_AS_GROUP",
        ),
        Case::new(
            pod().annotation("ts/runasusername", "tsbar"),
            &["ts/runasusername", "runs as tsfoo"],
            "ACCOUNT_MISMATCH",
        ),
        Case::new(
            pod().annotation("kubernetes.io/config.mirror", "x"),
            &["mirror pod"],
            "POD_NOT_ELIGIBLE",
        ),
        Case::new(
            pod().annotation("kubernetes.io/config.source", "file"),
            &["did not come from the API server"],
            "POD_NOT_ELIGIBLE",
        ),
        Case::new(
            field.workload(Kind::Pod, &ORPHAN, "orphan").services("HTTP"),
            &["namespace", "no role account has the namespace orphan"],
            "NAMESPACE_NOT_ENTITLED",
        ),
    ]
}

/// Volumes that owners wrote by hand.
fn volumes(field: &Field<'_>) -> Vec<Case> {
    let pod = || field.workload(Kind::Pod, &TSFOO, "volumes");
    let http = json!({"services": "HTTP"});
    let elsewhere = json!([{"name": "e", "mountPath": "/var/spool/keytabs/"}]);
    vec![
        Case::new(
            pod().volume("krb-credentials", &json!({"services": "imap"})),
            &["ts/services", "imap"],
            "SERVICE_NOT_ENTITLED",
        ),
        Case::new(
            pod().volume("own", &http).services("HTTP"),
            &["more than one volume"],
            "INVALID_ARGUMENT",
        ),
        Case::new(
            pod().volume("own", &http).annotation("ts/runasusername", "tsbar"),
            &["ts/runasusername"],
            "ACCOUNT_MISMATCH",
        ),
        Case::new(
            pod().volume("own", &json!({"service": "HTTP"})),
            &["\"service\" is not an option"],
            "ASK_MALFORMED",
        ),
        Case::new(pod().volume("own", &json!({})), &["asks for nothing"], "ASK_EMPTY"),
        Case::new(
            pod().empty_dir().container("main", "volumeMounts", elsewhere).services("HTTP"),
            &["container main", "/var/spool/keytabs"],
            "INVALID_ARGUMENT",
        ),
    ]
}

fn all_that_is_wrong_is_said_at_once(world: &World<'_>) -> Told {
    let field = world.field()?;
    let wrong = field.workload(Kind::Pod, &TSFOO, "wrong").services("HTTP,imap");
    let security = json!({"runAsUser": TSFOO.uid, "runAsGroup": TSBAR.uid});
    let wrong = wrong.set("securityContext", security).annotation("ts/prestashtkt", "nobody");
    let line = refusal(field, &wrong)?;
    for reason in ["(RUN_AS_GROUP); ", "(SERVICE_NOT_ENTITLED); ", "(TICKET_NOT_ENTITLED)"] {
        assert!(line.contains(reason), "{reason}: {line}");
    }
    Ok(())
}

/// Nobody applies the pods of a Deployment: what they are refused for is an event of what makes them.
fn the_refusal_of_a_deployments_pods_is_read_at_its_replica_set(world: &World<'_>) -> Told {
    let field = world.field()?;
    let greedy = field.workload(Kind::Deployment, &TSFOO, "greedy").services("imap");
    field.apply(&greedy)?;
    let kubectl = world.cluster.kubectl();
    let selector = greedy.selector();
    let describe = ["-n", greedy.namespace(), "describe", "replicasets", "-l", &selector];
    let line = wait::until("the refusal at the ReplicaSet", FAILED, || {
        let said = kubectl.run(&describe)?;
        let line = said.lines().find(|line| line.contains("(SERVICE_NOT_ENTITLED)"));
        Ok(line.map(str::to_owned))
    })?;
    for part in ["FailedCreate", "ts/services", "imap"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    field.delete(&greedy)
}

/// Somebody who writes the volume by hand, where no webhook looks, meets the broker's own decision.
fn a_pod_that_asks_for_more_never_starts_and_its_owner_reads_why(world: &World<'_>) -> Told {
    let field = world.field()?;
    let kubectl = world.cluster.kubectl();
    settle(&kubectl, &RAW_ORPHAN, false)?;
    are_denied(field, &by_hand(field))?;

    // what `krb-broker inject` wrote is no more than a volume written by hand
    let forged = field.workload(Kind::Pod, &TSRAW, "forged").services("HTTP").on("n2");
    let injected = field.injected(&forged)?;
    let manifest = injected.replace("services: HTTP", "services: nfs");
    assert_ne!(manifest, injected);
    kubectl.apply(&manifest)?;
    let pod = field.pod_of(&forged)?;
    assert!(mount_failure(field, &pod)?.ends_with("(SERVICE_NOT_ENTITLED)"));
    pod.delete()
}

fn by_hand(field: &Field<'_>) -> Vec<Case> {
    let pod = |options: Value| {
        field.workload(Kind::Pod, &TSRAW, "by-hand").volume("by-hand", &options).on("n2")
    };
    let http = || json!({"services": "HTTP"});
    let secure = |user, more| pod(http()).set("securityContext", security(user, &more));
    let foreign = TSBAR.uid + 1;
    vec![
        Case::new(pod(json!({"services": "nfs"})), &["nfs"], "SERVICE_NOT_ENTITLED"),
        Case::new(pod(json!({"services": "host"})), &["host", "reserved"], "SERVICE_RESERVED"),
        Case::new(
            pod(json!({"services": "HTTP", "externalclusters": "other.example.com"})),
            &["other.example.com"],
            "HOST_NOT_ENTITLED",
        ),
        Case::new(pod(json!({"prestashtkt": "tsbar"})), &["tickets"], "TICKET_NOT_ENTITLED"),
        Case::new(pod(json!({"services": "HTTP,HTTP"})), &["twice"], "ASK_MALFORMED"),
        Case::new(pod(json!({"services": "HTTP", "certs": "true"})), &["certs"], "NOT_SUPPORTED"),
        Case::new(pod(json!({})), &["asks for nothing"], "ASK_EMPTY"),
        Case::new(
            pod(json!({"services": "HTTP", "runasusername": "tsbar"})),
            &["runasusername", "runs as tsraw"],
            "ACCOUNT_MISMATCH",
        ),
        Case::new(secure(None, json!({})), &["container main sets no runAsUser"], "RUN_AS_USER"),
        Case::new(secure(Some(0), json!({})), &["container main runs as root"], "RUN_AS_USER"),
        Case::new(secure(Some(TSBAR.uid), json!({})), &["1500, not 1300"], "ACCOUNT_MISMATCH"),
        Case::new(
            secure(Some(TSRAW.uid), json!({"supplementalGroups": [foreign]})),
            &["supplementalGroups 1301"],
            "RUN_AS_GROUP",
        ),
        Case::new(
            pod(http()).annotation("kubernetes.io/config.source", "file"),
            &["did not come from the API server"],
            "POD_NOT_ELIGIBLE",
        ),
        Case::new(
            field.workload(Kind::Pod, &RAW_ORPHAN, "orphan").volume("by-hand", &http()).on("n2"),
            &["no role account has the namespace raworphan"],
            "NAMESPACE_NOT_ENTITLED",
        ),
    ]
}

/// What hangs on Services, nodes and other pods can't be known when a pod is applied.
fn what_only_the_cluster_can_tell_is_denied_at_the_mount(world: &World<'_>) -> Told {
    let field = world.field()?;
    let kubectl = world.cluster.kubectl();
    kubectl.run(&["label", "node", "n1", LAB, "--overwrite"])?;
    let pod = |name: &str| field.workload(Kind::Pod, &TSLAB, name).services("HTTP");
    let first = field.start(&pod("first").on("n1"))?;
    let cases = [
        Case::new(pod("elsewhere").on("n2"), &["only on nodes with", LAB], "NODE_NOT_ALLOWED"),
        Case::new(pod("second").on("n1"), &["leases"], "LIMIT_REACHED"),
        Case::new(
            field
                .workload(Kind::Pod, &TSFOO, "nameless")
                .services("HTTP")
                .label("app", "none")
                .on("n2"),
            &["no Service selects the pod"],
            "NO_HOST_NAME",
        ),
    ];
    are_denied(field, &cases)?;
    first.iter().try_for_each(Pod::end)
}

/// Applies them all, and sees that none starts and that each owner reads why.
fn are_denied(field: &Field<'_>, cases: &[Case]) -> Told {
    for case in cases {
        field.apply(&case.workload)?;
    }
    for case in cases {
        let pod = field.pod_of(&case.workload)?;
        case.check(&mount_failure(field, &pod)?);
        assert_eq!(pod.object()?["status"]["phase"], "Pending");
        // between two tries nothing is mounted: kubelet would take what is left for a success
        pod.node().wait_unmounted(&pod.volumes())?;
        let leases = field.leases(&json!({ "podUid": pod.uid }))?;
        assert!(leases.is_empty(), "{leases:?}");
        let denied = |line: &Value| line["pod_uid"] == *pod.uid && line["reason"] == case.reason;
        assert!(
            field.audited("lease.denied").iter().any(denied),
            "{} in the audit log",
            case.reason
        );
        field.delete(&case.workload)?;
    }
    Ok(())
}

/// What kubelet's event of a mount that failed says, from the driver's own words on.
fn mount_failure(field: &Field<'_>, pod: &Pod<'_>) -> Result<String, Box<dyn Error>> {
    let kubectl = field.cluster.kubectl();
    let line = wait::until(&format!("a failed mount of {}", pod.name), FAILED, || {
        let said = kubectl.run(&["-n", pod.namespace(), "describe", "pod", &pod.name])?;
        let failed = said.lines().find(|line| line.contains("status: Failure, reason: "));
        Ok(failed.map(str::to_owned))
    })?;
    assert!(line.contains("FailedMount"), "{line}");
    let reason = line.split_once("reason: ").map(|(_, reason)| reason.to_owned());
    Ok(reason.unwrap_or_default())
}
