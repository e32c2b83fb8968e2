use std::{fs, os::unix::fs::symlink};

use super::{TSBAR, TSFOO};
use crate::entitlement::{
    AccountMode, Login, Sharing, account::DEFAULT_LIMITS, load::Entitlements,
};

const DOCUMENT: &str = include_str!("../../../../docs/entitlements.md");

fn problems(files: &[(&str, &str)]) -> Vec<String> {
    Entitlements::read(files.iter().copied()).unwrap_err().lines().to_vec()
}

#[test]
fn the_example_of_the_documentation_is_read_with_every_field() {
    let example = DOCUMENT.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    let entitlements = Entitlements::read([("example.yaml", example.unwrap())]).unwrap();
    let login: Login = "tsfoo".parse().unwrap();
    let account = entitlements.account(&login).unwrap();
    assert_eq!((account.uid, account.gid, account.client), (1234, 1111, false));
    assert!(account.pod_instances);
    assert_eq!(account.reserved_services.len(), 1);
    assert_eq!(account.node_labels.len(), 1);
    assert_eq!((account.mode, account.sharing), (AccountMode::Keytab, Sharing::Node));
    assert_eq!(account.limits, DEFAULT_LIMITS, "the example shows the defaults");
    assert_eq!(entitlements.of_namespace(&"tsfoo".parse().unwrap()), Some(account));
}

#[test]
fn a_file_that_says_the_least_gets_the_defaults() {
    let text = "entity_type: unix_role_account\nunix_login: a\nunix_uid: 5\nunix_gid: 6\n";
    let entitlements = Entitlements::read([("a.yaml", text)]).unwrap();
    let account = entitlements.accounts()[0];
    assert_eq!(account.limits, DEFAULT_LIMITS);
    assert!(!account.pod_instances && !account.client && account.services.is_empty());
    assert_eq!((account.mode, account.sharing), (AccountMode::Keytab, Sharing::Principal));
}

#[test]
fn an_account_says_who_makes_its_keys_and_who_shares_its_ticket() {
    let labels = "node_labels: {node-restriction.kubernetes.io/zone: secure}\n";
    for (more, mode, sharing) in [
        (String::new(), AccountMode::Keytab, Sharing::Principal),
        ("role_account: managed\nsharing: pod\n".into(), AccountMode::Managed, Sharing::Pod),
        ("role_account: keytab\nsharing: node\n".into(), AccountMode::Keytab, Sharing::Node),
        (labels.to_owned(), AccountMode::Keytab, Sharing::Node),
        (format!("{labels}sharing: principal\n"), AccountMode::Keytab, Sharing::Principal),
    ] {
        let text = format!("{TSFOO}{more}");
        let entitlements =
            Entitlements::read([("a.yaml", text.as_str()), ("b.yaml", TSBAR)]).unwrap();
        let account = entitlements.account(&"tsfoo".parse().unwrap()).unwrap();
        assert_eq!((account.mode, account.sharing), (mode, sharing), "{more}");
    }
    let text = format!("{TSFOO}role_account: Managed\nsharing: [node]\n");
    let found = problems(&[("a.yaml", &text), ("b.yaml", TSBAR)]).join("\n");
    assert!(found.contains("role_account: \"Managed\" is not keytab or managed"), "{found}");
    assert!(found.contains("sharing: [\"node\"] is not a text"), "{found}");
}

#[test]
fn three_broken_files_report_all_their_problems_at_once() {
    let found = problems(&[
        (
            "a.yaml",
            "entity_type: unix_role_account\nunix_login: .a\nunix_gid: 1\nservices: [HTTP, krbtgt, HTTP]\nservice: x\n",
        ),
        (
            "b.yaml",
            "entity_type: person\nunix_login: b\nunix_uid: 0\nunix_gid: 4294967295\nnamespaces: [svc, A_]\nclient: maybe\nlimits: {leases: 0, lease: 1}\n",
        ),
        ("c.yaml", "unix_login: [1\n"),
    ]);
    let wanted = [
        "a.yaml: unix_login: \".a\" is not a login: 1 to 64 of A-Z a-z 0-9 . _ -, no leading dot",
        "a.yaml: unix_uid: is missing",
        "a.yaml: services: has \"HTTP\" twice",
        "a.yaml: service: is not a field",
        "a.yaml: services: krbtgt is reserved; see reserved_services",
        "b.yaml: entity_type: is not unix_role_account, the only kind there is",
        "b.yaml: unix_uid: is not a number from 1 to 4294967295",
        "b.yaml: namespaces: \"A_\" is not a DNS label: 1 to 63 of a-z 0-9 -",
        "b.yaml: client: is neither true nor false",
        "b.yaml: limits.leases: is not a number from 1 to 4294967295",
        "b.yaml: limits.lease: is not a field",
        "b.yaml: unix_gid: 4294967295 means nobody; it is no account's",
        "b.yaml: namespaces: svc can't be told from the \"svc\" of host names",
    ];
    assert_eq!(found[..wanted.len()], wanted);
    assert!(found[wanted.len()].starts_with("c.yaml: is no YAML: "), "{found:?}");
    assert_eq!(found.len(), wanted.len() + 1, "{found:?}");
}

#[test]
fn every_rule_of_one_document_is_checked() {
    for (more, wanted) in [
        ("reserved_services: [krbtgt]", "reserved_services: krbtgt is not one of host, ldap"),
        ("reserved_services: [HTTP]", "reserved_services: HTTP is not one of host, ldap"),
        ("instances: [pod]", "instances: lacks service"),
        ("instances: [service, node]", "instances: \"node\" is neither service nor pod"),
        ("node_labels: {zone: secure}", "node_labels: \"zone\" is not under node-restriction."),
        ("node_labels: {node-restriction.kubernetes.io/: x}", "is not under node-restriction."),
        ("node_labels: {node-restriction.kubernetes.io/z: 1}", "is not a text: quote it"),
        ("node_labels: [a]", "node_labels: is not a mapping of texts to texts"),
        ("tickets_for: [nobody]", "tickets_for: there is no account nobody"),
        ("tickets_for: tsbar", "tickets_for: is a text, not a list"),
        ("member_of: [0123]", "is not a text: quote it"),
        ("limits: 5", "limits: is a number, not a mapping"),
    ] {
        let text = format!("{TSFOO}{more}\n");
        let found = problems(&[("f.yaml", &text), ("b.yaml", TSBAR)]);
        assert!(found.len() == 1 && found[0].contains(wanted), "{more}: {found:?}");
    }
    for (login, wanted) in [("HOST", "reserved service"), ("krb-broker", "reserved service")] {
        let text = TSFOO.replace("unix_login: tsfoo", &format!("unix_login: {login}"));
        let found = problems(&[("f.yaml", &text)]);
        assert!(found.len() == 1 && found[0].contains(wanted), "{login}: {found:?}");
    }
    let hosts = TSFOO.replace("a.example.com", "localhost, A.example.com, grid.example.com");
    let found = problems(&[("f.yaml", &hosts)]);
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn nothing_that_gives_authority_belongs_to_two_accounts() {
    let other = |login: &str, more: &str| {
        let uid = if login == "uid" { 1234 } else { 99 };
        format!(
            "entity_type: unix_role_account\nunix_login: {login}\nunix_uid: {uid}\nunix_gid: 9\n{more}\n"
        )
    };
    for (text, wanted) in [
        (other("TSFOO", ""), "b.yaml: unix_login: tsfoo is in a.yaml already"),
        (other("uid", ""), "b.yaml: unix_uid: 1234 is in a.yaml already"),
        (other("b", "namespaces: [tsfoo]"), "b.yaml: namespaces: tsfoo is in a.yaml already"),
        (
            other("b", "logical_hosts: [a.example.com]"),
            "a.example.com is in a.yaml too, and not shared",
        ),
        (other("b", "shared_logical_hosts: [a.example.com]"), "a.example.com is in a.yaml too"),
        (other("b", "logical_hosts: [grid.example.com]"), "grid.example.com is in a.yaml too"),
        (
            other("b", "logical_hosts: [tsfoo.a.example.com]"),
            "is the user-prefixed form of a host in a.yaml",
        ),
    ] {
        let found = problems(&[("a.yaml", TSFOO), ("b.yaml", &text)]);
        assert!(found.iter().any(|line| line.contains(wanted)), "{text}: {found:?}");
    }
    let named_alike = other("b", "namespaces: [tsbar]");
    let found = problems(&[("a.yaml", &named_alike), ("b.yaml", TSBAR), ("f.yaml", TSFOO)]);
    assert_eq!(found, ["a.yaml: namespaces: tsbar is the login of another account"]);
}

#[test]
fn a_mounted_configmap_is_read_once_and_what_is_no_file_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::create_dir(path.join("..2026_01")).unwrap();
    fs::write(path.join("..2026_01/foo.yaml"), format!("{TSFOO}---{TSBAR}")).unwrap();
    symlink("..2026_01", path.join("..data")).unwrap();
    symlink("..data/foo.yaml", path.join("foo.yaml")).unwrap();
    fs::write(path.join("README"), "not read").unwrap();
    assert_eq!(Entitlements::load(path).unwrap().accounts().len(), 2);

    fs::create_dir(path.join("x.yaml")).unwrap();
    symlink("nowhere", path.join("y.yml")).unwrap();
    fs::write(path.join("z.yaml"), vec![b' '; 1024 * 1024 + 1]).unwrap();
    fs::write(path.join("bin.yaml"), [0xff, 0xfe]).unwrap();
    let found = Entitlements::load(path).unwrap_err().lines().to_vec();
    assert_eq!(found.len(), 4, "{found:?}");
    assert_eq!(found[0], "bin.yaml: is not UTF-8");
    assert_eq!(found[1], "x.yaml: is not a file");
    assert!(found[2].starts_with("y.yml: can't be read: "), "{found:?}");
    assert_eq!(found[3], "z.yaml: is longer than 1048576 bytes");
}

#[test]
fn no_directory_or_no_file_is_a_problem_and_not_an_empty_list() {
    let directory = tempfile::tempdir().unwrap();
    let empty = Entitlements::load(directory.path()).unwrap_err();
    assert!(empty.to_string().ends_with("has no *.yaml file"), "{empty}");
    let missing = Entitlements::load(&directory.path().join("x")).unwrap_err();
    assert!(missing.to_string().contains("can't be listed"), "{missing}");
}
