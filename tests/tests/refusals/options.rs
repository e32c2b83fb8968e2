//! What a volume asks for: malformed, unknown, huge, forged, not entitled.

use krb_tests::world::{Account, TSFOO, pods::Pod};

use super::{Story, Table, changed, options, world};

const HERE: &str = "HTTP/web.tsfoo.svc.cluster.local";

#[tokio::test(flavor = "multi_thread")]
async fn an_ask_that_is_malformed_or_not_entitled_is_refused_with_its_reason() -> Story {
    let world = world()?;
    let long = "a".repeat(10_000);
    let many: Vec<String> = (0..65).map(|n| format!("svc{n}")).collect();
    let mut table = Table::default();
    let rows: &[(&str, &str, &str)] = &[
        ("services", "", "ASK_MALFORMED"),
        ("services", " , ", "ASK_MALFORMED"),
        ("services", "HTTP,,nfs", "ASK_MALFORMED"),
        ("services", "HTTP, HTTP", "ASK_MALFORMED"),
        ("services", "HTTP nfs", "ASK_MALFORMED"),
        ("services", "HTTP@TEST.EXAMPLE.COM", "ASK_MALFORMED"),
        ("services", "HTTP#1", "ASK_MALFORMED"),
        ("services", "HT\\TP", "ASK_MALFORMED"),
        ("services", "HT\u{0}TP", "ASK_MALFORMED"),
        ("services", "HTTP\nnfs", "ASK_MALFORMED"),
        ("services", "../HTTP", "ASK_MALFORMED"),
        ("services", "HTTP/a/b.c", "ASK_MALFORMED"),
        ("services", "HTTP/web", "ASK_MALFORMED"),
        ("services", "HTTP/..", "ASK_MALFORMED"),
        ("services", "K/M", "ASK_MALFORMED"),
        ("services", &format!("{HERE}@"), "ASK_MALFORMED"),
        ("services", &format!("{HERE}@A@B"), "ASK_MALFORMED"),
        ("services", &format!("{HERE}@../A"), "ASK_MALFORMED"),
        ("services", &format!("{HERE}@A\\B"), "ASK_MALFORMED"),
        ("services", &format!("{HERE}@A\u{0}"), "ASK_MALFORMED"),
        ("services", &format!("{HERE}@OTHER.EXAMPLE.COM"), "NOT_SUPPORTED"),
        ("services", &long, "ASK_MALFORMED"),
        ("services", &many.join(","), "ASK_MALFORMED"),
        ("services", "krbtgt", "SERVICE_RESERVED"),
        ("services", "KRBTGT", "SERVICE_RESERVED"),
        ("services", "kadmin/web.tsfoo.svc.cluster.local", "SERVICE_RESERVED"),
        ("services", "krb-broker", "SERVICE_RESERVED"),
        ("services", "HTTP,host", "SERVICE_RESERVED"),
        ("services", "ldap", "SERVICE_RESERVED"),
        ("services", "ftp", "SERVICE_NOT_ENTITLED"),
        ("services", "http", "SERVICE_NOT_ENTITLED"),
        ("services", "HTTP/web.example.com", "HOST_NOT_ENTITLED"),
        ("services", "HTTP/web.tsbar.svc.cluster.local", "HOST_NOT_ENTITLED"),
        ("prestashtkt", "TRUE", "ASK_MALFORMED"),
        ("prestashtkt", "tsbar,,", "ASK_MALFORMED"),
        ("prestashtkt", "root/admin", "ASK_MALFORMED"),
        ("prestashtkt", "tsbar", "TICKET_NOT_ENTITLED"),
        ("prestashtkt", "nobody", "TICKET_NOT_ENTITLED"),
        ("externalclusters", "", "ASK_MALFORMED"),
        ("externalclusters", "*.example.com", "ASK_MALFORMED"),
        ("externalclusters", "grid.example.com", "HOST_NOT_ENTITLED"),
        ("userprefixedhostname", "maybe", "ASK_MALFORMED"),
        ("runasusername", "tsbar", "ACCOUNT_MISMATCH"),
        ("runasusername", "../tsfoo", "ASK_MALFORMED"),
        ("certs", "true", "NOT_SUPPORTED"),
        ("krblocal", "", "NOT_SUPPORTED"),
        ("token", "x", "NOT_SUPPORTED"),
        ("keytab", "true", "ASK_MALFORMED"),
        ("ts/services", "HTTP", "ASK_MALFORMED"),
        (&long, "true", "ASK_MALFORMED"),
    ];
    for (index, (key, value, reason)) in rows.iter().enumerate() {
        let set = |pod: &mut serde_json::Value| options(pod)[*key] = (*value).into();
        let pod = changed(&world, &format!("bad-{index}"), set)?;
        let shown: String = format!("{key}={value}").chars().take(80).collect();
        table.note(&shown, world.refused(&pod, "node-a", reason).await);
        world.pods.delete(&pod)?;
    }
    table.note("after all that", world.serves_on("good", "node-a").await);
    table.verdict()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_asks_for_nothing_or_is_not_the_drivers_is_refused() -> Story {
    let world = world()?;
    let mut table = Table::default();
    type Change = fn(&mut serde_json::Value);
    let rows: [(&str, Change, &str); 5] = [
        ("no options", |pod| *options(pod) = serde_json::json!({}), "ASK_EMPTY"),
        (
            "a ticket refused by itself",
            |pod| *options(pod) = serde_json::json!({"prestashtkt": "false"}),
            "ASK_EMPTY",
        ),
        (
            "another driver",
            |pod| pod["spec"]["volumes"][0]["flexVolume"]["driver"] = "other/driver".into(),
            "VOLUME_UNKNOWN",
        ),
        ("no volume", |pod| pod["spec"]["volumes"] = serde_json::json!([]), "VOLUME_UNKNOWN"),
        (
            "the volume twice",
            |pod| {
                let volume = pod["spec"]["volumes"][0].clone();
                pod["spec"]["volumes"] = serde_json::json!([volume, volume]);
            },
            "VOLUME_UNKNOWN",
        ),
    ];
    for (row, change, reason) in rows {
        let pod = changed(&world, &row.replace(' ', "-"), change)?;
        table.note(row, world.refused(&pod, "node-a", reason).await);
    }
    table.note("after all that", world.serves_on("good", "node-a").await);
    table.verdict()
}

#[tokio::test(flavor = "multi_thread")]
async fn injection_refuses_at_once_what_would_be_denied_for_certain() -> Story {
    let world = world()?;
    let long = "x".repeat(10_000);
    let mut table = Table::default();
    for (annotation, value, reason) in [
        ("ts/services", "HTTP,,", "ASK_MALFORMED"),
        ("ts/services", "HTTP\u{0}", "ASK_MALFORMED"),
        ("ts/services", &long, "ASK_MALFORMED"),
        ("ts/services", "ftp", "SERVICE_NOT_ENTITLED"),
        ("ts/services", "krbtgt", "SERVICE_RESERVED"),
        ("ts/prestashtkt", "tsbar", "TICKET_NOT_ENTITLED"),
        ("ts/prestashtxt", "false", "ASK_MALFORMED"), // and prestashtkt says true
        ("ts/certs", "true", "NOT_SUPPORTED"),
        ("ts/krblocal", "true", "NOT_SUPPORTED"),
        ("ts/token", "true", "NOT_SUPPORTED"),
        ("ts/runasusername", "tsbar", "ACCOUNT_MISMATCH"),
    ] {
        let asked = [("ts/services", "HTTP"), ("ts/prestashtkt", "true"), (annotation, value)];
        let pod = Pod::new("bad", TSFOO.login, TSFOO.uid, "node-a").annotated(&asked);
        let shown: String = format!("{annotation}={value:?}").chars().take(80).collect();
        match world.apply(&pod) {
            Ok(_) => table.0.push(format!("{shown}: was injected")),
            Err(error) if error.to_string().contains(reason) => {}
            Err(error) => table.0.push(format!("{shown}: {error}")),
        }
    }
    table.verdict()
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_that_are_edited_later_give_nothing() -> Story {
    let world = world()?;
    let pod = changed(&world, "edited", |pod| {
        pod["metadata"]["annotations"]["ts/services"] = "HTTP,nfs".into();
        pod["metadata"]["annotations"]["ts/runasusername"] = "tsbar".into();
    })?;
    let node = &world.nodes[0];
    let answer = node.mount(&pod)?;
    assert!(answer.is_success(), "{answer:?}");
    let operator = world.operator().await?;
    let lease = operator.lease_of(&pod.uid).await?.expect("the pod has a lease");
    assert_eq!(lease.account, "tsfoo");
    let principals: Vec<&str> = lease.keytab.iter().map(|keys| keys.principal.as_str()).collect();
    assert_eq!(principals, [format!("{HERE}@TEST.EXAMPLE.COM")], "only what the spec asks for");
    assert!(node.unmount(&pod)?.is_success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_are_edited_give_no_more_than_the_entitlements_do() -> Story {
    let world = world()?;
    let pod = world.pod("held", "node-a")?;
    let node = &world.nodes[0];
    assert!(node.mount(&pod)?.is_success());
    // No API server lets this pass; whoever can write the objects' files can do it.
    let edited = pod.clone().changed(|pod| options(pod)["services"] = "HTTP,krbtgt".into());
    world.pods.apply(&edited)?;
    let elsewhere = world.pod("new", "node-a")?;
    assert!(node.mount(&elsewhere)?.is_success(), "others are served");
    let operator = world.operator().await?;
    let lease = operator.lease_of(&pod.uid).await?.expect("the pod has a lease");
    let principals: Vec<&str> = lease.keytab.iter().map(|keys| keys.principal.as_str()).collect();
    assert_eq!(principals, [format!("{HERE}@TEST.EXAMPLE.COM")]);
    assert!(node.unmount(&pod)?.is_success());
    world.refused(&edited, "node-a", "SERVICE_RESERVED").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_a_line_in_the_acl_is_refused_before_kadmin_is_asked() -> Story {
    let mut settings = krb_tests::world::broker::Settings::default();
    settings.entitlements += "acl_services = [\"HTTP\"]\n";
    let account = Account { more: "services: [HTTP, ftp]\n", ..TSFOO };
    let world =
        krb_tests::world::World::build(&["node-a"], &[account], Default::default(), settings)?;
    world.pods.service("tsfoo", "web")?;
    let pod = changed(&world, "no-line", |pod| options(pod)["services"] = "ftp".into())?;
    world.refused(&pod, "node-a", "SERVICE_NOT_IN_ACL").await?;
    world.serves_on("good", "node-a").await?;
    assert!(!world.realm.kadmin_requests().contains_key("ftp"));
    Ok(())
}
