//! The throw-away realm itself: that it is real, private, and gone afterwards.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use krb_tests::realm::{Options, Realm};

#[test]
fn a_role_account_gets_a_ticket_and_both_logs_count_what_was_asked() {
    let realm = Realm::start().unwrap();
    let keytab = realm.add_role_account("tsfoo").unwrap();
    let ccache = realm.dir().join("cc");
    let kinit = realm.tool("kinit").unwrap().args(["-k", "-t"]).args([&keytab]).args(["tsfoo"]);
    kinit.env("KRB5CCNAME", &ccache).run().unwrap();
    let listed = realm.tool("klist").unwrap().env("KRB5CCNAME", &ccache).run().unwrap();
    assert!(listed.contains("krbtgt/TEST.EXAMPLE.COM@TEST.EXAMPLE.COM"), "{listed}");
    let asked = realm.kdc_requests();
    assert_eq!((asked.as_requests, asked.preauth_needed, asked.as_issued), (2, 1, 1));
}

#[test]
fn the_broker_may_make_a_service_of_its_acl_and_no_other() {
    let realm = Realm::start().unwrap();
    let admin = |query: &str| {
        let kadmin = realm.tool("kadmin").unwrap().args(["-k", "-t"]).args([realm.admin_keytab()]);
        kadmin.args(["-p", &realm.admin_principal(), "-q", query]).run()
    };
    let made = admin("addprinc -nokey HTTP/web.example.com").unwrap();
    assert!(made.contains("created"), "{made}");
    let listed = realm.kadmin_local(&["getprinc", "HTTP/web.example.com"]).unwrap();
    assert!(listed.contains("Policy: krb-broker"), "the ACL's restriction: {listed}");
    let _ = admin("addprinc -nokey host/web.example.com");
    assert!(realm.kadmin_local(&["getprinc", "host/web.example.com"]).is_err());
    assert_eq!(realm.kadmin_requests().get("kadm5_create_principal"), Some(&2));
}

#[test]
fn a_replica_is_stale_until_it_is_propagated_to() {
    let options = Options { kdcs: 2, ..Options::default() };
    let mut realm = Realm::with_options(options).unwrap();
    let keytab = realm.add_role_account("tsbar").unwrap();
    realm.stop_kdc();
    let kinit = || {
        let tool = realm.tool("kinit").unwrap().args(["-k", "-t"]).args([&keytab]);
        tool.args(["tsbar"]).env("KRB5CCNAME", realm.dir().join("cc")).run()
    };
    let refused = kinit().unwrap_err().to_string();
    assert!(refused.contains("not found in Kerberos database"), "{refused}");
    realm.propagate().unwrap();
    kinit().unwrap();
}

#[test]
fn daemons_stop_and_start_where_they_were_and_are_gone_with_the_realm() {
    let mut realm = Realm::start().unwrap();
    let dir = realm.dir().to_owned();
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let before = realm.pids();
    realm.pause_kadmind();
    realm.stop_kadmind();
    realm.stop_kdc();
    assert!(realm.pids().is_empty());
    realm.start_kdc().unwrap();
    realm.start_kadmind().unwrap();
    let after = realm.pids();
    drop(realm);
    for pid in before.into_iter().chain(after) {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} still runs");
    }
    assert!(!dir.exists());
}
