use std::collections::BTreeMap;

use krb_proto::reason::Reason;

use super::{entitlements, rules, run_as};
use crate::{
    entitlement::{ask::Ask, foresee::foresee},
    pods::spec::Template,
};

fn reasons(uid: Option<u32>, options: &[(&str, &str)]) -> Vec<Reason> {
    foreseen(Template { run_as_users: vec![run_as("web", uid)], ..Template::default() }, options)
}

fn foreseen(pod: Template, options: &[(&str, &str)]) -> Vec<Reason> {
    let options: BTreeMap<String, String> =
        options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let ask = Ask::from_options(&options).unwrap();
    let namespace = "tsfoo".parse().unwrap();
    let entitlements = entitlements("instances: [service, pod]\n");
    let foreseen = foresee(&entitlements, &rules(), &namespace, &pod, &ask);
    foreseen.err().into_iter().flatten().map(|denial| denial.reason).collect()
}

#[test]
fn what_only_the_running_pod_can_tell_is_let_pass() {
    for ask in [
        "HTTP",
        "tsfoo",
        "HTTP/web.tsfoo.svc.cluster.local",
        "HTTP/web-0.tsfoo.cluster.local",
        "postgres/tsfoo.web.tsfoo.svc.cluster.local",
        "HTTP/a.example.com",
    ] {
        assert_eq!(reasons(Some(1234), &[("services", ask)]), [], "{ask}");
    }
}

#[test]
fn every_certain_denial_is_named_at_once() {
    use Reason::*;
    let all = [
        ("services", "ftp,HTTP/web.tsbar.svc.cluster.local,krbtgt,postgres"),
        ("prestashtkt", "root"),
        ("externalclusters", "b.example.com"),
        ("runasusername", "tsbar"),
    ];
    assert_eq!(
        reasons(Some(1234), &all),
        [
            AccountMismatch,
            HostNotEntitled,
            ServiceNotEntitled,
            HostNotEntitled,
            ServiceReserved,
            ServiceNotEntitled,
            TicketNotEntitled
        ]
    );
    assert_eq!(reasons(None, &[("services", "HTTP")]), [RunAsUser]);
    assert_eq!(reasons(Some(5), &[("services", "HTTP")]), [AccountMismatch]);
}

#[test]
fn a_group_that_is_not_the_accounts_is_named_beside_the_rest() {
    let template =
        Template { run_as_users: vec![run_as("web", Some(1234))], ..Template::default() };
    let denied =
        foreseen(Template { fs_group: Some(1112), ..template.clone() }, &[("services", "ftp")]);
    assert_eq!(denied, [Reason::RunAsGroup, Reason::ServiceNotEntitled]);
    let own = Template { fs_group: Some(1111), supplemental_groups: vec![1111], ..template };
    assert_eq!(foreseen(own, &[("services", "HTTP")]), []);
}
