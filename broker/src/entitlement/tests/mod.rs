//! Stories of entitlements, asks and decisions.

mod acl;
mod ask;
mod decide;
mod foresee;
mod load;

use std::collections::BTreeMap;

use super::{load::Entitlements, rules::Rules};
use crate::pods::{CredentialVolume, Pod, RunAsUser};

/// Two accounts: `tsfoo` with most of what there is, `tsbar` with little.
pub(crate) const TSFOO: &str = "
entity_type: unix_role_account
unix_login: tsfoo
unix_uid: 1234
unix_gid: 1111
namespaces: [tsfoo]
services: [HTTP, nfs]
logical_hosts: [a.example.com, inside.cluster.local]
shared_logical_hosts: [grid.example.com]
";

pub(crate) const TSBAR: &str = "
entity_type: unix_role_account
unix_login: tsbar
unix_uid: 1235
unix_gid: 1112
shared_logical_hosts: [grid.example.com]
tickets_for: [tsfoo]
";

/// `TSFOO` with more lines, and `TSBAR`.
pub(crate) fn entitlements(more: &str) -> Entitlements {
    let tsfoo = format!("{TSFOO}{more}");
    Entitlements::read([("foo.yaml", tsfoo.as_str()), ("bar.yaml", TSBAR)]).unwrap()
}

pub(crate) fn rules() -> Rules {
    let realm = "EXAMPLE.COM".parse().unwrap();
    let mut rules = Rules::new(realm, "cluster.local".parse().unwrap());
    rules.realm_wide_services = ["postgres".parse().unwrap()].into();
    rules
}

/// Pod `web-0` of `tsfoo` on `node-a`, selected by the Service `web`, whose volume `creds`
/// has these options.
pub(crate) fn pod(options: &[(&str, &str)]) -> Pod {
    let options =
        options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Pod {
        pod: krb_proto::PodRef {
            cluster: "c1".into(),
            namespace: "tsfoo".parse().unwrap(),
            name: "web-0".parse().unwrap(),
            uid: "uid-0".parse().unwrap(),
        },
        namespace_uid: "ns-uid".to_owned(),
        node: "node-a".parse().unwrap(),
        finished: false,
        not_eligible: None,
        run_as_users: vec![run_as("init", Some(1234)), run_as("web", Some(1234))],
        run_as_groups: Vec::new(),
        supplemental_groups: Vec::new(),
        fs_group: None,
        volumes: vec![CredentialVolume {
            name: "creds".parse().unwrap(),
            driver: rules().driver,
            options,
        }],
        services: vec!["web".to_owned()],
        node_labels: BTreeMap::new(),
    }
}

pub(crate) fn run_as(container: &str, uid: Option<u32>) -> RunAsUser {
    RunAsUser { container: container.to_owned(), uid }
}
