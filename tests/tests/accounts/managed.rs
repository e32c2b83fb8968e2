//! Accounts whose keys the broker makes.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use krb_broker::{
    clock::{SystemClock, SystemEntropy},
    entitlement::{AccountMode, GrantedTicket, Sharing},
    kdc::{AccountKeys, Kdc as _, KeyAdmin as _, contract, gate::Class},
    krb5::key::Keyset,
    lease::share::{Share, SharedTicket},
    tickets::{AccountKeyError, AccountKeySource, TicketTimes, Tickets},
};
use krb_proto::{
    Kvno,
    v1::{self, RotationKind},
};
use krb_tests::{
    adapters::{mit_admin, realm_client, wide_gate},
    realm::{Options, POLICY, Realm},
    world::{
        Account, container,
        see::{keytab_opens, principal_that},
        wait_for,
    },
};

use super::{Story, details, mounted, pod, world};

const MANAGED: Account =
    Account { login: "tsmanaged", uid: 61_300, more: "role_account: managed\n" };
const PRINCIPAL: &str = "tsmanaged@TEST.EXAMPLE.COM";

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_account_is_made_by_its_first_pod_and_no_keytab_ever_has_its_key() -> Story {
    let mut world = world(&["node-a"], &MANAGED, Options::default(), "")?;
    assert!(world.realm.kadmin_local(&["getprinc", "tsmanaged"]).is_err(), "nobody made it");
    let (first, _) = mounted(&world, &MANAGED, "web-0", "node-a")?;

    let seen = world.realm.kadmin_local(&["getprinc", "tsmanaged"])?;
    let line = |start: &str| seen.lines().find(|line| line.starts_with(start)).unwrap_or("");
    assert!(line("Attributes:").contains("REQUIRES_PRE_AUTH"), "{seen}");
    assert!(line("Attributes:").contains("DISALLOW_SVR"), "{seen}");
    assert_eq!(line("Policy:"), "Policy: krb-broker", "{seen}");
    assert!(line("Maximum renewable life:").ends_with("0 days 00:00:00"), "{seen}");
    assert!(line("Key: vno 2").contains("aes256"), "{seen}");
    assert!(world.broker.audited("key.delivered").is_empty());
    assert!(world.node("node-a").read(&first, "keytabs/tsmanaged").is_none());

    let tools = krb_tests::realm::packages::root().join("usr/bin").display().to_string();
    let script = "klist && kvno -q krbtgt/TEST.EXAMPLE.COM && ! kvno -q tsmanaged";
    let used = container::run(&world.nodes[0], &first, &tools, script)?;
    let text = String::from_utf8_lossy(&used.stdout).into_owned();
    assert!(used.status.success(), "{text}{}", String::from_utf8_lossy(&used.stderr));
    assert!(text.contains("Default principal: tsmanaged@TEST.EXAMPLE.COM"), "{text}");

    world.broker.kill();
    world.broker.restart()?;
    mounted(&world, &MANAGED, "web-1", "node-a")?;
    let after = world.realm.kadmin_local(&["getprinc", "tsmanaged"])?;
    assert!(after.contains("Key: vno 2"), "the same key is still used: {after}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_exists_already_is_not_taken_over_by_itself() -> Story {
    let world = world(&["node-a"], &MANAGED, Options::default(), "")?;
    world.realm.add_role_account("tsmanaged")?;
    let before = world.realm.kadmin_local(&["getprinc", "tsmanaged"])?;
    let pod = pod(&world, &MANAGED, "web-0", "node-a")?;
    let answer = world.nodes[0].mount(&pod)?;
    assert!(
        !answer.is_success() && answer.message.ends_with("(PRINCIPAL_NOT_MANAGED)"),
        "{answer:?}"
    );
    assert_eq!(world.realm.kadmin_local(&["getprinc", "tsmanaged"])?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_account_stays_one_and_its_next_key_is_above_the_one_it_had() -> Story {
    let world = world(&["node-a"], &MANAGED, Options::default(), "")?;
    let keytab = world.realm.add_role_account("tsmanaged")?;
    world.realm.kadmin_local(&["modprinc", "-policy", POLICY, "tsmanaged"])?;
    assert!(keytab_opens(&world, &keytab, PRINCIPAL)?);
    let operator = world.operator().await?;
    let asked = v1::AdoptPrincipalRequest {
        principal: PRINCIPAL.to_owned(),
        account: MANAGED.login.to_owned(),
        shared: false,
    };
    operator.principals().adopt_principal(asked).await?;
    mounted(&world, &MANAGED, "web-0", "node-a")?;
    let seen = world.realm.kadmin_local(&["getprinc", "tsmanaged"])?;
    for part in ["REQUIRES_PRE_AUTH", "DISALLOW_SVR", "Key: vno 3"] {
        assert!(seen.contains(part), "{part} in {seen}");
    }
    assert!(!keytab_opens(&world, &keytab, PRINCIPAL)?, "what was handed over is worthless");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_keytab_was_handed_over_is_not_adopted() -> Story {
    let handed_over = Account { more: "services: [HTTP]\n", ..MANAGED };
    let world = world(&[], &handed_over, Options::default(), "")?;
    world.realm.kadmin_local(&["modprinc", "-policy", POLICY, "tsmanaged"])?;
    let asked = v1::AdoptPrincipalRequest {
        principal: PRINCIPAL.to_owned(),
        account: MANAGED.login.to_owned(),
        shared: false,
    };
    let refused = world.operator().await?.principals().adopt_principal(asked).await.unwrap_err();
    assert!(refused.message().contains("role_account: managed"), "{refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_account_s_key_is_replaced_at_every_kdc_and_its_pods_get_tickets_on() -> Story {
    let options = Options { kdcs: 2, ..Options::default() };
    let world = world(&["node-a"], &MANAGED, options, "ticket_life = \"16s\"\n")?;
    let (first, ticket) = mounted(&world, &MANAGED, "web-0", "node-a")?;
    world.realm.propagate()?;
    let operator = world.operator().await?;
    assert_eq!(operator.rotate(PRINCIPAL, RotationKind::Overlap).await?, 2);
    // the primary has it, the replica does not: the walk waits, pods do not
    let replica = world.realm.kdc_addrs()[1].to_string();
    let lags = format!("{replica} still has kvno 2");
    principal_that(&operator, PRINCIPAL, |seen| seen.waits_for.contains(&lags)).await?;
    assert!(world.realm.kadmin_local(&["getprinc", "tsmanaged"])?.contains("Key: vno 3"));
    mounted(&world, &MANAGED, "web-1", "node-a")?;
    world.realm.propagate()?;
    principal_that(&operator, PRINCIPAL, |seen| {
        let current = seen.keysets.iter().find(|keyset| keyset.phase == "Current");
        current.is_some_and(|keyset| keyset.kvno == 3)
    })
    .await?;
    let node = &world.nodes[0];
    wait_for("a ticket that was fetched with the new key", || {
        (node.read(&first, "tickets/tsmanaged")? != ticket).then_some(())
    })?;
    assert!(world.broker.audited("key.distributing").is_empty(), "nobody holds its keys");
    assert_eq!(details(&world, "ticket.failed"), [""; 0]);
    Ok(())
}

/// The keysets that a walk has at the moment.
#[derive(Default)]
struct Walked(Mutex<Vec<Keyset>>);

#[async_trait]
impl AccountKeySource for Walked {
    async fn keys(&self, account: &GrantedTicket) -> Result<AccountKeys, AccountKeyError> {
        let keysets = self.0.lock().expect("no test panicked with the keys").clone();
        Ok(AccountKeys { client: account.client.clone(), keysets })
    }
}

#[tokio::test]
async fn tickets_are_had_all_through_a_rotation_also_of_a_kdc_that_lags() {
    let mut realm =
        Realm::with_options(Options { kdcs: 2, ..Options::default() }).expect("a realm");
    let gate = wide_gate();
    let (admin, kdc) = (mit_admin(&realm, &gate).unwrap(), realm_client(&realm, &gate));
    let walked = Arc::new(Walked::default());
    let times =
        TicketTimes { life: Duration::from_secs(3_600), retry_after: Duration::from_secs(1) };
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
    let tickets = Tickets::new(Arc::new(kdc.clone()), walked.clone(), times, clock, entropy);
    let account = GrantedTicket {
        login: "tsmanaged".parse().unwrap(),
        client: "tsmanaged@TEST.EXAMPLE.COM".parse().unwrap(),
        mode: AccountMode::Managed,
        sharing: Sharing::Principal,
    };
    let client = account.client.clone();
    let ticket = SharedTicket { account, share: Share::All };
    let fetch = || async {
        tickets.forget(&client);
        tickets.ticket(&ticket, Class::PodStart).await.map(drop)
    };
    let seen = |keysets: Vec<Keyset>| {
        let account = AccountKeys { client: client.clone(), keysets };
        let kdc = kdc.clone();
        async move {
            let seen = kdc.observe_account(&account).await;
            seen.into_iter().map(|seen| seen.kvno.unwrap()).collect::<Vec<_>>()
        }
    };

    let (old, new) = (contract::keys(2), contract::keys(3));
    admin.create(&client, &contract::ROLE_ACCOUNT).await.unwrap();
    admin.activate(&client, &old, &contract::ROLE_ACCOUNT).await.unwrap();
    realm.propagate().unwrap();
    *walked.0.lock().unwrap() = vec![old.clone()];
    fetch().await.unwrap();

    *walked.0.lock().unwrap() = vec![old.clone(), new.clone()]; // Activating, not set yet
    fetch().await.unwrap();
    admin.activate(&client, &new, &contract::ROLE_ACCOUNT).await.unwrap();
    fetch().await.unwrap();
    let both = vec![old.clone(), new.clone()];
    assert_eq!(seen(both.clone()).await, [Some(Kvno(3)), Some(Kvno(2))]);
    realm.stop_kdc();
    fetch().await.expect("the replica that lags still takes the old key");
    realm.start_kdc().unwrap();
    realm.propagate().unwrap();
    // a KDC that failed is left alone for a second
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(seen(both).await, [Some(Kvno(3)), Some(Kvno(3))]);
    *walked.0.lock().unwrap() = vec![new]; // Current
    fetch().await.unwrap();
    *walked.0.lock().unwrap() = vec![old];
    assert!(fetch().await.is_err(), "the old key opens nothing any more");
}
