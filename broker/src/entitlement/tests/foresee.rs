use std::collections::BTreeMap;

use krb_proto::reason::Reason;

use super::{entitlements, rules, run_as};
use crate::entitlement::{ask::Ask, foresee::foresee};

fn reasons(uid: Option<u32>, options: &[(&str, &str)]) -> Vec<Reason> {
    let options: BTreeMap<String, String> =
        options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let ask = Ask::from_options(&options).unwrap();
    let namespace = "tsfoo".parse().unwrap();
    let users = [run_as("web", uid)];
    let entitlements = entitlements("instances: [service, pod]\n");
    let foreseen = foresee(&entitlements, &rules(), &namespace, &users, &ask);
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
