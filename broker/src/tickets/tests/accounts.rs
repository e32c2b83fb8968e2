//! Accounts that are disabled, or not as they should be.

use krb_proto::Realm;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    entitlement::{Grant, Limits, policy::Policy, rules::Rules},
    lease::Holder,
    material::Pusher,
    session::{StreamId, attach::Hello, hub::Hub},
    tickets::{refresh::Refresher, watch::AccountWatch},
};

/// What a pod of the first account is granted that asks for these tickets.
pub(super) fn grant(tickets: &[&GrantedTicket]) -> Grant {
    Grant {
        account: tickets[0].login.clone(),
        uid: 1,
        gid: 1,
        keytab_gid: None,
        principals: Vec::new(),
        tickets: tickets.iter().map(|&ticket| ticket.clone()).collect(),
        limits: Limits { leases: 9, principals: 9, new_principals_per_hour: 9, weight: 1 },
    }
}

/// A pod on node-a has a live lease with the account's ticket.
fn lease(world: &World) -> LeaseId {
    let node: NodeName = "node-a".parse().unwrap();
    let pod = krb_proto::PodRef {
        cluster: "test".into(),
        namespace: "tsfoo".parse().unwrap(),
        name: "web-0".parse().unwrap(),
        uid: "uid-0".parse().unwrap(),
    };
    let holder = Holder { node: node.clone(), pod, volume: "v".parse().unwrap() };
    let hello = Hello {
        boot_id: "b".into(),
        instance: "i".into(),
        generation: None,
        key: None,
        node_uid: None,
    };
    let id = LeaseId::from_random([1; 16]);
    world.book.note(|ledger, now| {
        ledger.attach(&node, &hello, StreamId(1), now);
        let grant = grant(&[&world.account.account]);
        ledger.admit(id, holder, Generation(1), &grant, now.wall).unwrap();
        ledger.deliver(&id).unwrap();
    });
    id
}

fn refresher(world: &World) -> Refresher {
    let realm: Realm = "EXAMPLE.COM".parse().unwrap();
    let hub = Arc::new(Hub::default());
    Refresher {
        tickets: world.tickets.clone(),
        admin: world.realm.clone(),
        book: world.book.clone(),
        pusher: Pusher::new(world.book.clone(), hub, world.tickets.clone(), realm),
        every: Duration::from_millis(5),
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it was never so that {what}");
}

fn count(world: &World, event: Event) -> usize {
    world.audit.events().into_iter().filter(|seen| *seen == event).count()
}

#[tokio::test]
async fn a_disabled_account_counts_as_such_once_kadmin_says_so_and_nothing_is_taken_from_pods() {
    let world = world();
    let id = lease(&world);
    let first = world.ticket(&world.account).await.unwrap();
    let client = &world.account.account.client;
    world.realm.administrator_disables(client, true);
    world.realm.set_kadmin_down(true);
    let stop = CancellationToken::new();
    let running = tokio::spawn(refresher(&world).run(stop.clone()));

    world.clock.advance(LIFE / 2 + Duration::from_secs(1));
    until("the refresh failed", || count(&world, Event::TicketFailed) > 0).await;
    assert_eq!(count(&world, Event::AccountDisabled), 0, "the KDC's word is anybody's");
    assert_eq!(world.tickets.kept(&world.account).unwrap().ticket, first.ticket);

    world.realm.set_kadmin_down(false);
    world.clock.advance(Duration::from_secs(11));
    until("kadmin was believed", || count(&world, Event::AccountDisabled) == 1).await;
    assert!(world.tickets.kept(&world.account).is_none(), "no further pod gets it");
    assert!(world.book.read(|ledger| ledger.is_active(&id)), "the pod that has it keeps it");

    world.realm.administrator_disables(client, false);
    world.clock.advance(Duration::from_secs(61));
    until("a new one is there", || world.tickets.kept(&world.account).is_some()).await;
    assert_eq!(count(&world, Event::AccountDisabled), 1);
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn an_account_that_was_handed_over_unsafe_is_named_once_and_again_when_that_changes() {
    let world = world();
    let client: Principal = "tsbar@EXAMPLE.COM".parse().unwrap();
    let entitlements = world.dir.path().join("entitlements");
    fs::create_dir(&entitlements).unwrap();
    let text = "entity_type: unix_role_account\nunix_login: tsbar\nunix_uid: 7\nunix_gid: 7\n";
    fs::write(entitlements.join("tsbar.yaml"), text).unwrap();
    let rules = Rules::new("EXAMPLE.COM".parse().unwrap(), "cluster.local".parse().unwrap());
    let policy = Policy::load(entitlements, rules, world.clock.clone()).unwrap();
    let watch = AccountWatch {
        admin: world.realm.clone(),
        policy: Arc::new(policy),
        book: world.book.clone(),
        every: Duration::from_millis(5),
    };
    let stop = CancellationToken::new();
    world.realm.add_foreign(&client, contract::keys(2)); // no preauthentication, takes tickets
    let running = tokio::spawn(watch.run(stop.clone()));
    until("it was named", || count(&world, Event::AccountUnsafe) == 1).await;
    let looks = || world.realm.asked(Class::Housekeeping);
    let seen = looks();
    until("it was looked at again", || looks() > seen + 5).await;
    assert_eq!(count(&world, Event::AccountUnsafe), 1);

    world.realm.add_account(&client, contract::keys(2)); // only the policy is missing now
    until("the change was named", || count(&world, Event::AccountUnsafe) == 2).await;
    world.realm.add_managed_account(&client, contract::keys(2));
    until("it was mended", || count(&world, Event::AccountMended) == 1).await;
    stop.cancel();
    running.await.unwrap();
}
