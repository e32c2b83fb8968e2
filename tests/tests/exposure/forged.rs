//! Tickets that are forged with a dead node's key.

use krb_tests::handshakes::{Handshakes, single::Acceptor};

use super::{
    Attempts, SERVICE, Story, TSFOO, holder, options, refusal, settings, tgt, tried_until_its_end,
    world,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_forged_with_a_dead_node_s_key_is_accepted_by_nobody_after_its_exposure() -> Story
{
    let mut world = world(&["node-a", "node-b", "node-c"], options(1), settings())?;
    let dead = holder(&world, "web-0", "node-a")?;
    let living = [holder(&world, "web-1", "node-b")?, holder(&world, "web-2", "node-c")?];
    let load = Handshakes::start(&world, SERVICE, TSFOO.login, &living.each_ref())?;
    let operator = world.operator().await?;

    // Issues under the stolen key for ever, as the thief himself could.
    let forger = world.realm.stray_kdc()?;
    let ccache = tgt(&world, forger.profile_path(), "forger")?;
    let mut attempts = Vec::new();
    for (name, pod) in ["node-b", "node-c"].into_iter().zip(&living) {
        let mut attempt = Attempts::new(name, forger.profile_path(), Acceptor::of(&world, pod)?)?;
        assert!(attempt.with(&world, &ccache).await?.is_accepted(), "{}", pod.name);
        attempts.push(attempt);
    }

    world.node("node-a").kill_agent();
    tried_until_its_end(&world, &operator, &dead, &ccache, &mut attempts).await?;
    for attempt in &mut attempts {
        let said = refusal(attempt.with(&world, &ccache).await?)?;
        assert!(said.contains("acceptor") && said.contains("kvno 2 not found"), "{said}");
    }
    let enough = load.tally().done + 20;
    krb_tests::world::wait_for("more handshakes", || (load.tally().done > enough).then_some(()))?;
    assert_eq!(load.stop().failed, [""; 0], "\n{}", world.broker.audit());
    Ok(())
}
