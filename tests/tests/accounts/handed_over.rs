//! Accounts whose keytabs were handed over: looked at, never changed.

use krb_proto::v1::LeaseState;
use krb_tests::{
    realm::{ADMIN, Options, POLICY},
    world::{TSFOO, see::lease_in, wait_for},
};

use super::{Story, details, mounted, world};

const LOOK: &str = "look_at_accounts_every = \"100ms\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_should_be_otherwise_is_said_until_it_is_mended_and_nothing_is_changed() -> Story {
    let world = world(&["node-a"], &TSFOO, Options::default(), LOOK)?;
    let said = |event: &str, count: usize| {
        wait_for(&format!("{count} {event}"), || {
            let details = details(&world, event);
            (details.len() >= count).then_some(details)
        })
    };
    // as the realm's administrator made it: only a policy is missing
    let found = said("account.unsafe", 1)?;
    assert!(found[0].contains("no policy") && !found[0].contains("preauth"), "{found:?}");
    world.realm.kadmin_local(&["modprinc", "-requires_preauth", "+allow_svr", "tsfoo"])?;
    let before = world.realm.kadmin_local(&["getprinc", "tsfoo"])?;
    let found = said("account.unsafe", 2)?;
    for part in ["requires_preauth", "allow_svr", "no policy"] {
        assert!(found[1].contains(part), "{part} in {found:?}");
    }
    assert_eq!(world.realm.kadmin_local(&["getprinc", "tsfoo"])?, before);
    let mend = ["modprinc", "+requires_preauth", "-allow_svr", "-policy", POLICY, "tsfoo"];
    world.realm.kadmin_local(&mend)?;
    said("account.mended", 1)?;
    assert_eq!(details(&world, "account.unsafe").len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_broker_may_not_look_it_says_nothing() -> Story {
    let realm = Options::default().name;
    let line = format!("{ADMIN}@{realm} admsi HTTP/*@{realm} -maxlife 4h -policy {POLICY}");
    let options = Options { acl: Some(vec![line]), ..Options::default() };
    let world = world(&["node-a"], &TSFOO, options, LOOK)?;
    let looks = || {
        let asked = world.realm.kadmin_requests();
        asked.get("kadm5_get_principal").copied().unwrap_or(0)
    };
    wait_for("some looks", || (looks() > 5).then_some(()))?;
    assert!(world.broker.audited("account.unsafe").is_empty());
    assert!(!world.broker.log().contains("not as it should be"), "{}", world.broker.log());
    mounted(&world, &TSFOO, "web-0", "node-a")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_account_s_pods_keep_their_tickets_and_no_further_pod_gets_one() -> Story {
    let world = world(&["node-a"], &TSFOO, Options::default(), "ticket_life = \"16s\"\n")?;
    let (first, ticket) = mounted(&world, &TSFOO, "web-0", "node-a")?;
    world.realm.kadmin_local(&["modprinc", "-allow_tix", "tsfoo"])?;
    let disabled = wait_for("kadmin to be asked", || details(&world, "account.disabled").pop())?;
    assert!(disabled.contains("tsfoo"), "{disabled}");
    assert_eq!(world.nodes[0].read(&first, "tickets/tsfoo"), Some(ticket));
    let operator = world.operator().await?;
    lease_in(&operator, &first.uid, LeaseState::Active).await?;
    let refused = mounted(&world, &TSFOO, "web-1", "node-a");
    let refused = refused.expect_err("no ticket for a new pod").to_string();
    assert!(refused.contains("(ACCOUNT_DISABLED)"), "{refused}");
    Ok(())
}
