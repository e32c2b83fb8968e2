//! The part of an installation that is the site's: `deploy/kustomize/example`, filled in.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use krb_tests::world::pki;

use crate::{images::Images, outside::Outside, programs, story::Told};

/// The most requests a second that the realm's administrator lets the broker make of the KDC.
pub const KDC_PER_SECOND: u64 = 100;
/// The same for kadmin.
pub const KADMIN_PER_SECOND: u64 = 50;
/// How many may be unanswered.
pub const IN_FLIGHT: u64 = 8;
/// A node is lost after 40 s of silence: longer than a busy machine pauses an agent, or a reboot takes.
const SESSIONS: &str = "heartbeat = \"1s\"\nsilent_after = \"10s\"\nlost_after = \"30s\"\n\
                        lease_ttl = \"2m\"\nunclaimed_after = \"30s\"\n\
                        brake = { sessions = 2, pods = 10, window = \"1m\" }\n";
/// Tickets so short that stories see them replaced, at half their life.
const REALM: &str = "ticket_life = \"90s\"\nservice_max_life = \"1m\"\nclock_skew = \"5s\"\n\
                     acknowledge_within = \"5s\"\nkdc_propagation = \"5s\"\n";

/// Writes the site's directory beside a copy of this tree's `deploy/kustomize`; where.
pub fn write(dir: &Path, outside: &Outside, images: &Images) -> Result<PathBuf, Box<dyn Error>> {
    let copy = dir.join("kustomize");
    let _ = fs::remove_dir_all(&copy);
    copy_tree(&programs::repository().join("deploy/kustomize"), &copy)?;
    let site = copy.join("site");
    for part in ["broker", "admission", "node-agent", "ca", "entitlements"] {
        fs::create_dir_all(site.join(part))?;
    }
    fs::write(site.join("broker/broker.toml"), broker(outside))?;
    fs::write(site.join("admission/admission.toml"), admission(outside))?;
    fs::write(site.join("node-agent/agent.toml"), agent())?;
    fs::copy(outside.pki.ca("broker"), site.join("node-agent/ca.pem"))?;
    fs::copy(outside.pki.ca("operator"), site.join("ca/operators.crt"))?;
    fs::copy(outside.pki.ca("viewer"), site.join("ca/viewers.crt"))?;
    let mut entitlements = Vec::new();
    for entry in fs::read_dir(outside.dir.join("entitlements"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        fs::copy(entry.path(), site.join("entitlements").join(&name))?;
        entitlements.push(format!("entitlements/{name}"));
    }
    entitlements.sort();
    for patch in ["up-to-1.20/seccomp.yaml", "up-to-1.20/priority.yaml"] {
        let name = Path::new(patch).file_name().unwrap_or_default();
        fs::copy(copy.join(patch), site.join(name))?;
    }
    fs::write(site.join("kustomization.yaml"), kustomization(&entitlements, images))?;
    Ok(site)
}

fn kustomization(entitlements: &[String], images: &Images) -> String {
    let image = |name: &str, image: &krb_tests::cluster::Image| {
        format!("- name: {name}\n  newName: {}\n  newTag: {:?}\n", image.repository(), image.tag())
    };
    format!(
        "bases: [../up-to-1.20]
generatorOptions: {{disableNameSuffixHash: true}}
configMapGenerator:
- {{name: krb-broker-config, namespace: krb-broker, files: [broker/broker.toml]}}
- {{name: krb-broker-ca, namespace: krb-broker, files: [ca/operators.crt, ca/viewers.crt]}}
- {{name: krb-broker-entitlements, namespace: krb-broker, files: [{entitlements}]}}
- {{name: krb-admission-config, namespace: krb-broker, files: [admission/admission.toml]}}
- {{name: krb-node-agent-config, namespace: krb-broker, files: [node-agent/agent.toml, node-agent/ca.pem]}}
images:
{broker}{agent}",
        entitlements = entitlements.join(", "),
        broker = image("krb-broker", &images.broker),
        agent = image("krb-node-agent", &images.agent),
    )
}

fn broker(outside: &Outside) -> String {
    let kdcs: Vec<_> = outside.realm.kdc_addrs().iter().map(|a| format!("\"{a}\"")).collect();
    format!(
        r#"
cluster = "test"
listen = "0.0.0.0:8443"
run_dir = "/run/krb-broker/own"
[tls]
certificate = "/etc/krb-broker/tls/tls.crt"
key = "/etc/krb-broker/tls/tls.key"
operator_ca = "/etc/krb-broker/ca/operators.crt"
viewer_ca = "/etc/krb-broker/ca/viewers.crt"
viewer_namespaces = {{ victor = ["tsbar"] }}
[realm]
name = "{realm}"
kdcs = [{kdcs}]
kadmin = "{kadmin}"
admin_keytab = "/etc/krb-broker/realm/admin.keytab"
accounts = "/etc/krb-broker/realm/accounts"
{REALM}[keys]
rekey_min_interval = "1s"
[gate]
kdc = {{ per_second = {KDC_PER_SECOND}, in_flight = {IN_FLIGHT} }}
kadmin = {{ per_second = {KADMIN_PER_SECOND}, in_flight = 2 }}
[entitlements]
dir = "/etc/krb-broker/entitlements"
reload_every = "1s"
[pods]
source = "kubernetes"
gone_after = "5s"
[kubernetes]
[node_tokens]
audience = "krb-broker"
service_account = "krb-broker/krb-node-agent"
[store]
dir = "/var/lib/krb-broker/store"
master_key = "/etc/krb-broker/realm/master.key"
mark_file = "/var/log/krb-broker/mark"
[audit]
file = "/var/log/krb-broker/audit.log"
[sessions]
{SESSIONS}"#,
        realm = outside.realm.name(),
        kdcs = kdcs.join(", "),
        kadmin = outside.realm.kadmin_addr(),
    )
}

fn admission(outside: &Outside) -> String {
    format!(
        r#"
listen = "0.0.0.0:8443"
realm = "{realm}"
[tls]
[tls.self_made]
namespace = "krb-broker"
secret = "krb-broker-admission-ca"
names = ["krb-broker-admission.krb-broker.svc"]
mutating = "krb-broker"
validating = "krb-broker"
[entitlements]
dir = "/etc/krb-broker/entitlements"
reload_every = "1s"
[kubernetes]
"#,
        realm = outside.realm.name(),
    )
}

fn agent() -> String {
    format!(
        "broker_name = \"{}\"\nca = \"/etc/krb-broker/ca.pem\"\n\
         token_file = \"/var/run/secrets/krb-broker/token\"\n",
        pki::BROKER,
    )
}

fn copy_tree(from: &Path, to: &Path) -> Told {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
