//! The tenants of the stories: role accounts, each with the namespace of its name.

use krb_tests::{cluster::Kubectl, world::Account};

use crate::story::Told;

/// Web and file services of one team. Its principals may act as clients, so that a story can see
/// whether a key still opens anything.
pub const TSFOO: Account =
    Account { login: "tsfoo", uid: 1234, more: "services: [HTTP, nfs]\nclient: true\n" };
/// Another team, which may have nothing of the first.
pub const TSBAR: Account = Account { login: "tsbar", uid: 1300, more: "services: [HTTP]\n" };
/// A team whose pods have principals of their own: each costs the realm's administration something.
pub const TSMANY: Account = Account {
    login: "tsmany",
    uid: 1400,
    more: "services: [HTTP]\ninstances: [service, pod]\n\
           limits: {leases: 1000, principals: 1000, new_principals_per_hour: 1000}\n",
};

/// A team whose namespace is not opted in to admission: its volumes are written by hand or by
/// `krb-broker inject`, and the broker alone says what is refused.
pub const TSRAW: Account = Account { login: "tsraw", uid: 1500, more: "services: [HTTP]\n" };

/// A team that the administrator holds close: its pods run on labelled nodes only, one at a time.
pub const TSLAB: Account = Account {
    login: "tslab",
    uid: 1600,
    more: "services: [HTTP]\nlimits: {leases: 1}\n\
           node_labels: {node-restriction.kubernetes.io/zone: lab}\n",
};

/// The label of the nodes that the pods of [`TSLAB`] may run on.
pub const LAB: &str = "node-restriction.kubernetes.io/zone=lab";

/// A team whose namespace is deleted and made anew.
pub const TSNEW: Account = Account { login: "tsnew", uid: 1700, more: "services: [HTTP]\n" };

/// All of them.
pub const TENANTS: [Account; 6] = [TSFOO, TSBAR, TSMANY, TSRAW, TSLAB, TSNEW];

/// The Service that selects a tenant's pods, unless they say otherwise, by `app: web`.
pub const SERVICE: &str = "web";

/// The host name that the Service gives a tenant's pods.
pub fn host(tenant: &Account) -> String {
    format!("{SERVICE}.{}.svc.cluster.local", tenant.login)
}

/// Makes the tenants' namespaces, all but one opted in to admission, and a Service in each. What a
/// run before left there is deleted.
pub fn prepare(kubectl: &Kubectl) -> Told {
    for tenant in &TENANTS {
        settle(kubectl, tenant, tenant.login != TSRAW.login)?;
    }
    Ok(())
}

/// Makes the namespace of a tenant, opted in to admission or not, with a Service. What a run before
/// left there is deleted.
pub fn settle(kubectl: &Kubectl, tenant: &Account, enabled: bool) -> Told {
    let namespace = tenant.login;
    kubectl.apply(&format!(
        "apiVersion: v1\nkind: Namespace\n\
         metadata: {{name: {namespace}, labels: {{krb-broker/enabled: '{enabled}'}}}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: {SERVICE}, namespace: {namespace}}}\n\
         spec:\n  selector: {{app: {SERVICE}}}\n  ports: [{{port: 4444}}]\n"
    ))?;
    kubectl.wait_service_account(namespace)?;
    let kinds = "deployments,statefulsets,jobs,replicasets,pods";
    let delete = ["-n", namespace, "delete", kinds, "--all", "--wait=false"];
    Ok(kubectl.run(&[&delete[..], &["--force", "--grace-period=0"]].concat()).map(drop)?)
}
