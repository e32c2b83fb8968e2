//! Principals that are rotated, adopted, compared, and forgotten by everybody.

use std::{fs, time::Duration};

use krb_proto::v1::{self, LeaseState, RotationKind};
use krb_tests::{
    realm::Options,
    world::{
        TSFOO, World,
        api::reason,
        broker::Settings,
        see::{keytab_opens, kvnos, lease_in, lease_that, principal_that},
    },
};

use super::{SERVICE, Story, two_holders};

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_shown_step_by_step_and_an_emergency_drops_the_old_keys() -> Story {
    let (world, one, two) = two_holders()?;
    let api = world.operator().await?;
    assert_eq!(api.rotate(SERVICE, RotationKind::Overlap).await?, 2);
    for pod in [&one, &two] {
        lease_that(&api, &pod.uid, |lease| kvnos(lease) == [2, 3]).await?;
    }
    let shown = principal_that(&api, SERVICE, |p| {
        p.keysets.iter().map(|k| k.phase.as_str()).eq(["Retiring", "Current"])
    })
    .await?;
    assert_eq!((shown.high_water, shown.account.as_str(), shown.due.as_str()), (3, "tsfoo", ""));
    let nodes: Vec<_> = shown.keysets[1].delivered_to.iter().map(|to| to.node.clone()).collect();
    assert_eq!((nodes, shown.lease_ids.len()), (vec!["node-a".into(), "node-b".into()], 2));

    api.rotate(SERVICE, RotationKind::Emergency).await?;
    for pod in [&one, &two] {
        lease_that(&api, &pod.uid, |lease| kvnos(lease) == [4]).await?;
    }
    assert_eq!(world.broker.audited("key.asked").len(), 2);
    let unknown = api.rotate("HTTP/nobody@TEST.EXAMPLE.COM", RotationKind::Overlap).await;
    assert_eq!(reason(&unknown.expect_err("there is none")), "NOT_FOUND");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_somebody_else_set_is_found_and_replaced_above_its_number() -> Story {
    let mut settings = Settings::default();
    settings.realm = settings.realm.replace("kdc_propagation = \"5s\"", "kdc_propagation = \"1s\"");
    let mut world = World::build(&["node-a"], &[TSFOO], Options::default(), settings)?;
    world.pods.service("tsfoo", "web")?;
    let pod = world.pod("web-0", "node-a")?;
    assert!(world.node("node-a").mount(&pod)?.is_success());
    let api = world.operator().await?;
    let compare = || {
        let request = v1::ComparePrincipalRequest { principal: SERVICE.to_owned() };
        let mut principals = api.principals();
        async move { principals.compare_principal(request).await }
    };
    let mut settled = compare().await;
    while settled.as_ref().is_err_and(|status| reason(status) == "KEYS_NOT_READY") {
        tokio::time::sleep(Duration::from_millis(200)).await;
        settled = compare().await;
    }
    let settled = settled?.into_inner();
    assert!(!settled.drift && settled.kdcs.len() == 2, "kadmin and the KDC: {settled:?}");

    world.realm.kadmin_local(&["cpw", "-randkey", SERVICE])?;
    let found = compare().await?.into_inner();
    assert!(found.drift, "{found:?}");
    lease_that(&api, &pod.uid, |lease| kvnos(lease) == [4]).await?;
    assert_eq!(world.broker.audited("key.drift").len(), 1);
    let fresh = world.dir().join("fresh.keytab");
    fs::write(&fresh, world.node("node-a").read(&pod, "keytabs/tsfoo").expect("a keytab"))?;
    assert!(keytab_opens(&world, &fresh, SERVICE)?, "the KDC has the broker's key again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_that_an_administrator_made_is_the_broker_s_once_it_is_adopted() -> Story {
    let mut world = World::with_nodes(&["node-a"])?;
    world.pods.service("tsfoo", "web")?;
    world.realm.kadmin_local(&["addprinc", "-randkey", SERVICE])?;
    let pod = world.pod("web-0", "node-a")?;
    assert!(!world.node("node-a").mount(&pod)?.is_success(), "it is not the broker's");
    let api = world.operator().await?;
    let adopt = |account: &str| {
        let request = v1::AdoptPrincipalRequest {
            principal: SERVICE.to_owned(),
            account: account.to_owned(),
            shared: false,
        };
        let mut principals = api.principals();
        async move { principals.adopt_principal(request).await }
    };
    let refused = adopt("tsfoo").await.expect_err("it has no policy");
    assert_eq!(reason(&refused), "PRINCIPAL_NOT_MANAGED", "{refused:?}");
    assert_eq!(reason(&adopt("nobody").await.expect_err("no account")), "INVALID_ARGUMENT");

    world.realm.kadmin_local(&["modprinc", "-policy", "krb-broker", SERVICE])?;
    adopt("tsfoo").await?;
    let answer = world.node("node-a").mount(&pod)?;
    assert!(answer.is_success(), "{answer:?}");
    let lease = lease_in(&api, &pod.uid, LeaseState::Active).await?;
    assert_eq!(kvnos(&lease), [2], "above the one that the administrator's had");
    assert_eq!(reason(&adopt("tsfoo").await.expect_err("again")), "PRINCIPAL_TAKEN");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_that_nobody_holds_is_disabled_and_comes_back_above_its_numbers() -> Story {
    let mut settings = Settings::default();
    settings.keys += "idle_after = \"1s\"\n";
    let mut world = World::build(&["node-a"], &[TSFOO], Options::default(), settings)?;
    world.pods.service("tsfoo", "web")?;
    let pod = world.pod("web-0", "node-a")?;
    assert!(world.node("node-a").mount(&pod)?.is_success());
    let copy = world.dir().join("copy.keytab");
    fs::write(&copy, world.node("node-a").read(&pod, "keytabs/tsfoo").expect("a keytab"))?;
    assert!(world.node("node-a").unmount(&pod)?.is_success());
    let api = world.operator().await?;
    principal_that(&api, SERVICE, |p| p.standing == "disabled").await?;
    assert!(keytab_opens(&world, &copy, SERVICE).is_err(), "the KDC has it locked");

    let again = world.pod("web-1", "node-a")?;
    let answer = world.node("node-a").mount(&again)?;
    assert!(answer.is_success(), "{answer:?}");
    let lease = lease_in(&api, &again.uid, LeaseState::Active).await?;
    assert_eq!(kvnos(&lease), [3]);
    assert!(!keytab_opens(&world, &copy, SERVICE)?);
    Ok(())
}
