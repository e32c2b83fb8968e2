//! Who has the same ticket.

use krb_proto::v1::LeaseState;
use krb_tests::{
    realm::Options,
    world::{Account, TSFOO, see::lease_in, wait_for},
};

use super::{Story, mounted, world};

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_one_node_share_a_ticket_also_when_it_is_fetched_anew() -> Story {
    let account = Account { more: "sharing: node\n", ..TSFOO };
    let nodes = ["node-a", "node-b"];
    let world = world(&nodes, &account, Options::default(), "ticket_life = \"16s\"\n")?;
    let mut pods = Vec::new();
    for (name, node) in [("web-0", 0), ("web-1", 0), ("web-2", 1)] {
        let (pod, ticket) = mounted(&world, &account, name, nodes[node])?;
        pods.push((pod, ticket, node));
    }
    assert_eq!(pods[0].1, pods[1].1, "one node, one ticket");
    assert_ne!(pods[0].1, pods[2].1, "two nodes, two tickets");
    assert_eq!(world.realm.tgts_issued_to("tsfoo"), 2);

    let now = || -> Vec<_> {
        let read = |(pod, _, node): &(_, _, usize)| world.nodes[*node].read(pod, "tickets/tsfoo");
        pods.iter().map(read).map(Option::unwrap_or_default).collect()
    };
    let fresh = wait_for("new tickets", || {
        let now = now();
        let is_new = |(now, (_, old, _)): (&Vec<u8>, &(_, Vec<u8>, _))| now != old;
        now.iter().zip(&pods).all(is_new).then_some(now)
    })?;
    assert_eq!(fresh[0], fresh[1]);
    assert_ne!(fresh[0], fresh[2]);
    assert_eq!(world.realm.tgts_issued_to("tsfoo"), 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pod_has_a_ticket_of_its_own_where_the_account_says_so() -> Story {
    let account = Account { more: "sharing: pod\n", ..TSFOO };
    let world = world(&["node-a"], &account, Options::default(), "")?;
    let (first, ticket) = mounted(&world, &account, "web-0", "node-a")?;
    let (_, other) = mounted(&world, &account, "web-1", "node-a")?;
    assert_ne!(ticket, other);
    assert_eq!(world.realm.tgts_issued_to("tsfoo"), 2);
    // the same holder, asking again, has the ticket that is its own
    assert!(world.nodes[0].mount(&first)?.is_success());
    assert_eq!(world.nodes[0].read(&first, "tickets/tsfoo"), Some(ticket));
    assert_eq!(world.realm.tgts_issued_to("tsfoo"), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ticket_that_a_lost_node_had_is_given_to_no_further_pod() -> Story {
    let nodes = ["node-a", "node-b"];
    let mut world = world(&nodes, &TSFOO, Options::default(), "")?;
    let (lost, ticket) = mounted(&world, &TSFOO, "web-0", "node-a")?;
    let (_, same) = mounted(&world, &TSFOO, "web-1", "node-b")?;
    assert_eq!(ticket, same);
    world.node("node-a").kill_agent();
    let operator = world.operator().await?;
    lease_in(&operator, &lost.uid, LeaseState::Revoked).await?;
    let (_, other) = mounted(&world, &TSFOO, "web-2", "node-b")?;
    assert_ne!(ticket, other);
    Ok(())
}
