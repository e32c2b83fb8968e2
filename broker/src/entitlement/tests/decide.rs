use krb_proto::{NodeName, reason::Reason};
use proptest::prelude::*;

use super::{entitlements, pod, rules, run_as};
use crate::{
    entitlement::{
        AccountMode, Denial, Grant, Sharing, decide::decide, denial::POD_UNKNOWN,
        service::is_reserved,
    },
    pods::{Pod, RunAsGroup},
};

/// The decision on `pod`, by entitlements with these lines more.
fn decided(more: &str, pod: &Pod) -> Result<Grant, Denial> {
    let node: NodeName = "node-a".parse().unwrap();
    decide(&entitlements(more), &rules(), pod, &node, &"creds".parse().unwrap())
}

fn principals(more: &str, options: &[(&str, &str)]) -> Vec<String> {
    let grant = decided(more, &pod(options)).unwrap();
    grant.principals.iter().map(|p| p.principal.name()).collect()
}

fn reason(more: &str, options: &[(&str, &str)]) -> Reason {
    decided(more, &pod(options)).unwrap_err().reason
}

#[test]
fn a_pod_gets_its_services_on_its_host_names_and_the_ticket_of_its_account() {
    let mut asking = pod(&[("services", "nfs,HTTP"), ("prestashtkt", "true")]);
    asking.fs_group = Some(1111);
    let grant = decided("", &asking).unwrap();
    let names: Vec<String> = grant.principals.iter().map(|p| p.principal.to_string()).collect();
    assert_eq!(
        names,
        [
            "HTTP/web.tsfoo.svc.cluster.local@EXAMPLE.COM",
            "nfs/web.tsfoo.svc.cluster.local@EXAMPLE.COM"
        ]
    );
    assert_eq!(grant.tickets[0].client.to_string(), "tsfoo@EXAMPLE.COM");
    let terms = (grant.tickets[0].mode, grant.tickets[0].sharing);
    assert_eq!(terms, (AccountMode::Keytab, Sharing::Principal));
    let grant = decided("role_account: managed\nsharing: node\n", &asking).unwrap();
    let terms = (grant.tickets[0].mode, grant.tickets[0].sharing);
    assert_eq!(terms, (AccountMode::Managed, Sharing::Node));
    assert_eq!((grant.account.as_str(), grant.uid, grant.gid), ("tsfoo", 1234, 1111));
    assert_eq!(grant.keytab_gid, Some(1111));
    asking.fs_group = Some(1112);
    let grant = decided("member_of: [tsbar]\n", &asking).unwrap();
    assert_eq!(grant.keytab_gid, None, "another group never reads it");
}

#[test]
fn what_is_not_bound_to_the_calling_node_is_unknown_in_constant_words() {
    let mut elsewhere = pod(&[("services", "nonsense nonsense")]);
    elsewhere.node = "node-b".parse().unwrap();
    elsewhere.finished = true;
    let denial = decided("", &elsewhere).unwrap_err();
    assert_eq!(denial.reason, Reason::PodUnknown);
    assert_eq!(denial.message, POD_UNKNOWN);
    assert!(denial.rule.contains("node-b"), "the audit log gets the rule: {}", denial.rule);
}

#[test]
fn each_rule_denies_on_its_own_and_in_order() {
    type Change = fn(&mut Pod);
    let good = [("services", "HTTP"), ("runasusername", "tsfoo")];
    assert!(decided("", &pod(&good)).is_ok());
    let cases: [(Reason, Change); 16] = [
        (Reason::PodFinished, |pod| pod.finished = true),
        (Reason::PodNotEligible, |pod| pod.not_eligible = Some("it is a mirror pod")),
        (Reason::VolumeUnknown, |pod| pod.volumes.clear()),
        (Reason::VolumeUnknown, |pod| pod.volumes[0].driver = "example.com/other".to_owned()),
        (Reason::VolumeUnknown, |pod| pod.volumes.push(pod.volumes[0].clone())),
        (Reason::AskMalformed, |pod| drop(set(pod, "x", "y"))),
        (Reason::AskEmpty, |pod| drop(pod.volumes[0].options.remove("services"))),
        (Reason::NotSupported, |pod| drop(set(pod, "certs", "true"))),
        (Reason::RunAsUser, |pod| pod.run_as_users.clear()),
        (Reason::RunAsUser, |pod| pod.run_as_users[1].uid = None),
        (Reason::RunAsUser, |pod| pod.run_as_users.push(run_as("debug", Some(0)))),
        (Reason::RunAsUser, |pod| pod.run_as_users.push(run_as("debug", Some(7)))),
        (Reason::RunAsUser, |pod| pod.run_as_users = vec![run_as("web", Some(0))]),
        (Reason::NamespaceNotEntitled, |pod| pod.pod.namespace = "tsbar".parse().unwrap()),
        (Reason::AccountMismatch, |pod| pod.run_as_users = vec![run_as("web", Some(7))]),
        (Reason::RunAsGroup, |pod| pod.fs_group = Some(0)),
    ];
    let mut all = pod(&good);
    for (reason, change) in cases.iter().rev() {
        let mut one = pod(&good);
        change(&mut one);
        let denial = decided("", &one).unwrap_err();
        assert_eq!(denial.reason, *reason, "{denial}");
        assert!(!denial.message.contains('\n') && !denial.rule.is_empty());
        change(&mut all);
    }
    all.volumes.clear();
    assert_eq!(decided("", &all).unwrap_err().reason, Reason::PodFinished, "the first rule speaks");
}

fn set(pod: &mut Pod, key: &str, value: &str) -> Option<String> {
    pod.volumes[0].options.insert(key.to_owned(), value.to_owned())
}

#[test]
fn containers_run_with_the_accounts_group_and_files_may_be_of_its_memberships() {
    type Change = fn(&mut Pod);
    let group = |gid| RunAsGroup { container: "web".to_owned(), gid };
    let member = "member_of: [tsbar, nobody]\n";
    let own: [Change; 4] = [
        |_| (),
        |pod| pod.fs_group = Some(1111),
        |pod| pod.supplemental_groups = vec![1111],
        |pod| pod.run_as_groups = vec![RunAsGroup { container: "web".to_owned(), gid: 1111 }],
    ];
    let of_tsbar: [Change; 2] =
        [|pod| pod.fs_group = Some(1112), |pod| pod.supplemental_groups = vec![1111, 1112]];
    let never: [Change; 4] = [
        |pod| pod.fs_group = Some(0),
        |pod| pod.fs_group = Some(u32::MAX),
        |pod| pod.supplemental_groups = vec![1111, 0],
        |pod| pod.supplemental_groups = vec![5],
    ];
    let denied = |more: &str, change: Change| {
        let mut asking = pod(&[("services", "HTTP")]);
        change(&mut asking);
        decided(more, &asking).err().map(|denial| denial.reason)
    };
    for change in own {
        assert_eq!(denied("", change), None);
        assert_eq!(denied(member, change), None);
    }
    for change in of_tsbar {
        assert_eq!(denied("", change), Some(Reason::RunAsGroup));
        assert_eq!(denied(member, change), None);
    }
    for change in never {
        assert_eq!(denied(member, change), Some(Reason::RunAsGroup));
    }
    for gid in [0, 1112, u32::MAX] {
        let mut asking = pod(&[("services", "HTTP")]);
        asking.run_as_groups = vec![group(1111), group(gid)];
        let denial = decided(member, &asking).unwrap_err();
        assert_eq!(denial.reason, Reason::RunAsGroup, "no membership lets {gid} be run as");
        assert!(denial.message.contains("web sets runAsGroup"), "{denial}");
    }
}

#[test]
fn the_name_that_the_pod_gives_itself_is_compared_and_never_believed() {
    let lie = [("services", "HTTP"), ("runasusername", "tsbar")];
    assert_eq!(reason("", &lie), Reason::AccountMismatch);
}

#[test]
fn a_pod_runs_only_on_nodes_with_the_labels_of_its_account_and_of_the_tickets_it_asks_for() {
    let labels = "node_labels: {node-restriction.kubernetes.io/zone: secure}\n";
    let mut labelled = pod(&[("services", "HTTP")]);
    let key = "node-restriction.kubernetes.io/zone".to_owned();
    assert_eq!(decided(labels, &labelled).unwrap_err().reason, Reason::NodeNotAllowed);
    labelled.node_labels.insert(key.clone(), "public".to_owned());
    assert_eq!(decided(labels, &labelled).unwrap_err().reason, Reason::NodeNotAllowed);
    labelled.node_labels.insert(key, "secure".to_owned());
    assert!(decided(labels, &labelled).is_ok());

    let bar = format!("{}{labels}", super::TSBAR);
    let files = [("foo.yaml", super::TSFOO), ("bar.yaml", bar.as_str())];
    let entitlements = crate::entitlement::load::Entitlements::read(files).unwrap();
    let asking = pod(&[("prestashtkt", "tsbar")]);
    let decided = decide(&entitlements, &rules(), &asking, &asking.node, &"creds".parse().unwrap());
    assert_eq!(decided.unwrap_err().reason, Reason::NodeNotAllowed, "tsbar's ticket stays away");
}

#[test]
fn services_are_granted_where_listed_where_they_are_the_login_and_realm_wide_on_the_users_host() {
    let own = "web.tsfoo.svc.cluster.local";
    assert_eq!(principals("", &[("services", "tsfoo")]), [format!("tsfoo/{own}")]);
    let prefixed = format!("tsfoo.{own}");
    assert_eq!(
        principals("", &[("services", "HTTP"), ("userprefixedhostname", "true")]),
        [format!("HTTP/{prefixed}"), format!("HTTP/{own}")]
    );
    let realm_wide = format!("postgres/{prefixed}");
    assert_eq!(principals("", &[("services", &realm_wide)]), std::slice::from_ref(&realm_wide));
    let denial = decided("", &pod(&[("services", "postgres"), ("userprefixedhostname", "true")]));
    let denial = denial.unwrap_err();
    assert_eq!(denial.reason, Reason::ServiceNotEntitled, "the bare name means every host");
    assert!(denial.message.contains("postgres/tsfoo.<host>"), "{denial}");
    assert_eq!(reason("", &[("services", "ftp")]), Reason::ServiceNotEntitled);
    assert_eq!(reason("", &[("services", "http")]), Reason::ServiceNotEntitled, "case matters");
    let logical = [("services", "postgres/tsfoo.a.example.com")];
    assert_eq!(reason("", &logical), Reason::ServiceNotEntitled, "not on a logical host");
    let elsewhere = [("services", "HTTP/web.tsfoo.svc.cluster.local@OTHER.COM")];
    assert_eq!(reason("", &elsewhere), Reason::NotSupported);
}

#[test]
fn reserved_services_are_granted_by_name_only_and_in_the_case_that_was_named() {
    for service in ["host", "Host", "krbtgt", "K", "cifs", "KADMIN", "krb-broker"] {
        assert_eq!(reason("", &[("services", service)]), Reason::ServiceReserved, "{service}");
    }
    let named = "reserved_services: [host]\n";
    assert_eq!(principals(named, &[("services", "host")]).len(), 1);
    assert_eq!(reason(named, &[("services", "HOST")]), Reason::ServiceReserved);
    assert_eq!(reason(named, &[("services", "krbtgt")]), Reason::ServiceReserved);
}

#[test]
fn a_service_without_a_line_in_the_acl_is_denied() {
    let mut rules = rules();
    rules.acl_services = Some(["nfs".parse().unwrap()].into());
    let asked = |service: &str| {
        let pod = pod(&[("services", service)]);
        decide(&entitlements(""), &rules, &pod, &pod.node, &"creds".parse().unwrap())
    };
    assert!(asked("nfs").is_ok());
    assert_eq!(asked("HTTP").unwrap_err().reason, Reason::ServiceNotInAcl);
}

#[test]
fn host_names_come_from_services_the_pod_and_logical_hosts_and_from_nothing_else() {
    let instances = "instances: [service, pod]\n";
    let asks = [("services", "HTTP")];
    assert_eq!(
        principals(instances, &asks),
        ["HTTP/web-0.tsfoo.cluster.local", "HTTP/web.tsfoo.svc.cluster.local"]
    );
    let mut lonely = pod(&asks);
    lonely.services.clear();
    assert_eq!(decided("", &lonely).unwrap_err().reason, Reason::NoHostName);
    assert_eq!(decided(instances, &lonely).unwrap().principals.len(), 1);
    lonely.pod.name = "web.0".parse().unwrap();
    assert_eq!(decided(instances, &lonely).unwrap_err().reason, Reason::NoHostName, "a dot");

    let logical = [("services", "HTTP"), ("externalclusters", "A.example.com,grid.example.com")];
    let grant = decided("", &pod(&logical)).unwrap();
    let shared: Vec<_> =
        grant.principals.iter().map(|p| (p.principal.components()[1].as_str(), p.shared)).collect();
    assert_eq!(
        shared,
        [
            ("a.example.com", false),
            ("grid.example.com", true),
            ("web.tsfoo.svc.cluster.local", false)
        ]
    );
    for host in ["b.example.com", "inside.cluster.local", "web.tsfoo.svc.cluster.local"] {
        let asks = [("services", "HTTP"), ("externalclusters", host)];
        assert_eq!(reason("", &asks), Reason::HostNotEntitled, "{host}");
    }
    let others = [("services", "HTTP/web.tsbar.svc.cluster.local")];
    assert_eq!(reason("", &others), Reason::HostNotEntitled);
    assert_eq!(principals("", &[("services", "HTTP/a.example.com")]), ["HTTP/a.example.com"]);
}

#[test]
fn only_the_logical_hosts_that_are_asked_for_are_prefixed() {
    let more = "instances: [service]\n";
    let asks = [
        ("services", "nfs"),
        ("externalclusters", "a.example.com"),
        ("userprefixedhostname", "true"),
    ];
    let hosts = principals(more, &asks);
    assert_eq!(
        hosts,
        [
            "nfs/a.example.com",
            "nfs/tsfoo.a.example.com",
            "nfs/tsfoo.web.tsfoo.svc.cluster.local",
            "nfs/web.tsfoo.svc.cluster.local"
        ]
    );
}

#[test]
fn a_login_that_cant_stand_in_a_host_name_is_not_left_out_silently() {
    let odd = super::TSFOO.replace("unix_login: tsfoo", "unix_login: ts_foo");
    let entitlements = crate::entitlement::load::Entitlements::read([("f.yaml", odd.as_str())]);
    let entitlements = entitlements.unwrap();
    let asking = pod(&[("services", "HTTP"), ("userprefixedhostname", "true")]);
    let denial = decide(&entitlements, &rules(), &asking, &asking.node, &"creds".parse().unwrap());
    let denial = denial.unwrap_err();
    assert_eq!(denial.reason, Reason::HostNotEntitled);
    assert!(denial.message.starts_with("ts_foo.a.example.com is not a host name"), "{denial}");
}

#[test]
fn tickets_of_others_are_granted_where_they_list_the_account() {
    let grant = decided("", &pod(&[("prestashtkt", "tsfoo,tsbar")])).unwrap();
    let logins: Vec<&str> = grant.tickets.iter().map(|ticket| ticket.login.as_str()).collect();
    assert_eq!(logins, ["tsbar", "tsfoo"]);
    assert!(grant.principals.is_empty());
    let nobody = decided("", &pod(&[("prestashtkt", "nobody")])).unwrap_err();
    assert_eq!(nobody.reason, Reason::TicketNotEntitled);
    let files = [("f.yaml", super::TSFOO), ("b.yaml", &*super::TSBAR.replace("[tsfoo]", "[]"))];
    let entitlements = crate::entitlement::load::Entitlements::read(files).unwrap();
    let asking = pod(&[("prestashtkt", "tsbar")]);
    let denial = decide(&entitlements, &rules(), &asking, &asking.node, &"creds".parse().unwrap());
    let denial = denial.unwrap_err();
    assert_eq!(denial.message.replace("tsbar", "nobody"), nobody.message, "no telling who exists");
}

#[test]
fn a_volume_has_only_so_many_principals() {
    let mut crowded = pod(&[("services", "HTTP,nfs")]);
    crowded.services = (0..32).map(|i| format!("s{i}")).collect();
    assert_eq!(decided("", &crowded).unwrap().principals.len(), 64);
    crowded.services.push("more".to_owned());
    assert_eq!(decided("", &crowded).unwrap_err().reason, Reason::LimitReached);
}

proptest! {
    #[test]
    fn no_principal_is_granted_whose_service_or_host_is_not_entitled(
        services in prop::collection::vec(
            "(HTTP|nfs|tsfoo|tsbar|host|krbtgt|postgres|[a-zA-Z]{1,4})(/(tsfoo\\.|)(web\\.tsfoo\\.svc\\.cluster\\.local|a\\.example\\.com|grid\\.example\\.com|[a-c]\\.[a-c]))?",
            1..4,
        ),
        hosts in prop::sample::subsequence(vec!["a.example.com", "grid.example.com", "inside.cluster.local"], 0..2),
        prefixed in prop::bool::ANY,
    ) {
        let services = services.join(",");
        let hosts = hosts.join(",");
        let mut options = vec![("services", services.as_str())];
        if !hosts.is_empty() {
            options.push(("externalclusters", &hosts));
        }
        if prefixed {
            options.push(("userprefixedhostname", "true"));
        }
        if let Ok(grant) = decided("", &pod(&options)) {
            for granted in grant.principals {
                let service = granted.principal.primary();
                let host = &granted.principal.components()[1];
                let prefix = host.strip_prefix("tsfoo.");
                let base = prefix.unwrap_or(host);
                let own = base == "web.tsfoo.svc.cluster.local";
                prop_assert!(own || base == "a.example.com" || base == "grid.example.com", "{}", host);
                let listed = matches!(service, "HTTP" | "nfs" | "tsfoo");
                prop_assert!(listed || service == "postgres" && own && prefix.is_some(), "{}", service);
                prop_assert!(!is_reserved(service));
            }
        }
    }
}
