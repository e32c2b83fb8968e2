use super::{entitlements, rules};
use crate::entitlement::acl;

#[test]
fn the_acl_has_a_line_for_each_service_and_account_and_none_that_is_too_wide() {
    let admin = "krb-broker/admin@EXAMPLE.COM".parse().unwrap();
    let mut rules = rules();
    rules.realm_wide_services.insert("host".parse().unwrap());
    let text = acl::text(&entitlements("reserved_services: [ldap]\n"), &rules, &admin);
    let wanted = "\
# For kadm5.acl of EXAMPLE.COM; kadmind reads it at its start only.
# Once, in kadmin, before the broker starts:
#   addpol -minlife \"3660 days\" krb-broker
#   modprinc -policy krb-broker krb-broker/admin@EXAMPLE.COM
# Principals whose keys the broker makes:
krb-broker/admin@EXAMPLE.COM admsi HTTP/*@EXAMPLE.COM -maxlife 4h -maxrenewlife 0 -policy krb-broker
krb-broker/admin@EXAMPLE.COM admsi ldap/*@EXAMPLE.COM -maxlife 4h -maxrenewlife 0 -policy krb-broker
krb-broker/admin@EXAMPLE.COM admsi nfs/*@EXAMPLE.COM -maxlife 4h -maxrenewlife 0 -policy krb-broker
krb-broker/admin@EXAMPLE.COM admsi postgres/*@EXAMPLE.COM -maxlife 4h -maxrenewlife 0 -policy krb-broker
krb-broker/admin@EXAMPLE.COM admsi tsbar/*@EXAMPLE.COM -maxlife 4h -maxrenewlife 0 -policy krb-broker
krb-broker/admin@EXAMPLE.COM admsi tsfoo/*@EXAMPLE.COM -maxlife 4h -maxrenewlife 0 -policy krb-broker
# Role accounts whose keytabs were handed over: looked at, never changed:
krb-broker/admin@EXAMPLE.COM i tsbar@EXAMPLE.COM
krb-broker/admin@EXAMPLE.COM i tsfoo@EXAMPLE.COM
";
    assert_eq!(text, wanted, "host is realm-wide only, and so has no line");
}

#[test]
fn a_managed_account_has_its_one_line_by_name_and_no_other() {
    let admin = "krb-broker/admin@EXAMPLE.COM".parse().unwrap();
    let text = acl::text(&entitlements("role_account: managed\n"), &rules(), &admin);
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(" tsfoo@")).collect();
    let wanted = "krb-broker/admin@EXAMPLE.COM admsi tsfoo@EXAMPLE.COM -maxlife 4h -maxrenewlife 0 \
                  -policy krb-broker";
    assert_eq!(lines, [wanted], "{text}");
    assert!(text.contains("krb-broker/admin@EXAMPLE.COM i tsbar@EXAMPLE.COM"), "{text}");
}

#[test]
fn a_service_named_like_the_brokers_own_principal_gets_no_line() {
    let admin = "nfs/admin@EXAMPLE.COM".parse().unwrap();
    let text = acl::text(&entitlements(""), &rules(), &admin);
    assert!(!text.contains("admsi nfs/*"), "{text}");
    assert!(text.contains("# left out: nfs/*@EXAMPLE.COM"), "{text}");
}
