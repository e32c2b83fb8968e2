//! Machines that lose their power or their cable.

use std::time::Duration;

use crate::{
    story::{Needs, Story, Told, World, story},
    tenant::{TSFOO, host},
};

/// Told in this order.
pub const STORIES: &[Story] =
    &[story!(a_node_that_dies_loses_its_leases_and_its_keys_are_replaced).needing(Needs::Power)];

/// How long a dead node's keys may take to be replaced: silence, loss, and the walks.
const REVOCATION: Duration = Duration::from_secs(180);

fn a_node_that_dies_loses_its_leases_and_its_keys_are_replaced(world: &World<'_>) -> Told {
    let field = world.field()?;
    let doomed = field.web("doomed", "n2")?;
    let held = doomed.held_kvno()?;
    let service = format!("HTTP/{}", host(&TSFOO));
    assert_eq!(field.kdc_kvno(&service)?, held);

    let node = world.cluster.node("n2");
    node.kill()?;
    let told = (|| -> Told {
        doomed.wait_lease("LEASE_STATE_REVOKED", REVOCATION)?;
        let shown = field.realm().kadmin_local(&["getprinc", &service])?;
        let stale = shown.lines().any(|line| line.contains(&format!("vno {held},")));
        assert!(!stale, "the KDC still has the dead node's key:\n{shown}");
        assert!(field.kdc_kvno(&service)? > held, "{shown}");
        // a successor elsewhere works with the new keys
        let successor = field.web("successor", "n1")?;
        assert!(successor.held_kvno()? > held);
        successor.authenticates()?;
        successor.end()
    })();
    node.boot()?; // for the stories that follow, whatever came of this one
    told?;
    doomed.delete()
}
