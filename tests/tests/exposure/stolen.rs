//! Tickets that were taken from a dead node.

use std::fs;

use krb_tests::{handshakes::single::Acceptor, realm::packages, world::container};

use super::{
    Attempts, Story, ccache, holder, mounted, node, options, refusal, settings, taken,
    tried_until_its_end, world,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_taken_from_a_dead_node_is_worthless_after_its_exposure() -> Story {
    let mut short = settings();
    short.realm += "ticket_life = \"15s\"\n";
    let mut world = world(&["node-a", "node-b"], options(1), short)?;
    let asked = [("ts/services", "HTTP"), ("ts/prestashtkt", "true")];
    let dead = mounted(&world, "web-0", "node-a", &asked)?;
    let living = holder(&world, "web-1", "node-b")?;
    let tgt_alone = taken(&world, &dead, "tickets/tsfoo")?;

    // What its application has fetched lies in the same file.
    let tools = packages::root().join("usr/bin").display().to_string();
    let fetch = "kvno -q HTTP/web.tsfoo.svc.cluster.local";
    let fetched = container::run(node(&world, "node-a")?, &dead, &tools, fetch)?;
    assert!(fetched.status.success(), "{fetched:?}");
    let with_service = world.dir().join("with-service.ccache");
    fs::write(&with_service, node(&world, "node-a")?.read(&dead, "tickets/tsfoo").ok_or("gone")?)?;
    assert!(fs::read(&with_service)?.len() > fs::read(&tgt_alone)?.len());

    let profile = world.realm.profile_path();
    let mut thief = [Attempts::new("thief", &profile, Acceptor::of(&world, &living)?)?];
    assert!(thief[0].with(&world, &with_service).await?.is_accepted());
    world.node("node-a").kill_agent();
    let operator = world.operator().await?;
    ccache::pretend_it_lives(&tgt_alone)?;
    ccache::pretend_it_lives(&with_service)?;
    tried_until_its_end(&world, &operator, &dead, &tgt_alone, &mut thief).await?;

    let by_kdc = refusal(thief[0].with(&world, &tgt_alone).await?)?;
    assert!(by_kdc.contains("initiator") && by_kdc.contains("expired"), "{by_kdc}");
    let (_, last) = thief[0].last.clone().ok_or("it never succeeded")?;
    ccache::pretend_it_lives(&last)?;
    let by_server = refusal(thief[0].with(&world, &last).await?)?;
    assert!(by_server.contains("acceptor") && by_server.contains("expired"), "{by_server}");
    let by_server = refusal(thief[0].with(&world, &with_service).await?)?;
    assert!(by_server.contains("acceptor"), "{by_server}");
    Ok(())
}
