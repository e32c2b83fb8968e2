//! The API server is away, or answers from an empty store.

use std::{error::Error, time::Duration};

use krb_tests::cluster::{Part, wait};

use crate::{
    pod::Pod,
    story::{Needs, Story, Told, World, story},
};

/// Told in this order.
pub const STORIES: &[Story] =
    &[story!(holders_go_on_while_the_api_server_is_away).needing(Needs::ApiControl)];

/// How long a ticket may take to be replaced: more than half its life.
const REFRESH: Duration = Duration::from_secs(90);

/// The sum of a file of a pod's volume, as its node sees it: `kubectl exec` needs the API server.
fn sum_on_node(pod: &Pod<'_>, file: &str) -> Result<String, Box<dyn Error>> {
    Ok(pod.node().exec(&format!("cat {}/*/{file} | sha256sum", pod.volumes()))?)
}

fn holders_go_on_while_the_api_server_is_away(world: &World<'_>) -> Told {
    let pod = world.field()?.web("held", "n2")?;
    let lease = pod.lease()?["leaseId"].clone();
    let keytab = sum_on_node(&pod, "keytabs/tsfoo")?;

    world.cluster.stop(Part::ApiServer)?;
    let told = (|| -> Told {
        let ticket = sum_on_node(&pod, "tickets/tsfoo")?;
        wait::until("a fresh ticket without an API server", REFRESH, || {
            Ok(sum_on_node(&pod, "tickets/tsfoo").is_ok_and(|now| now != ticket).then_some(()))
        })?;
        assert_eq!(sum_on_node(&pod, "keytabs/tsfoo")?, keytab, "the keytab is as it was");
        // the operator's API does not need the API server
        let seen = pod.lease()?;
        assert_eq!((&seen["leaseId"], &seen["state"]), (&lease, &"LEASE_STATE_ACTIVE".into()));
        Ok(())
    })();
    world.cluster.start(Part::ApiServer)?; // for the stories that follow, whatever came of this one
    told?;
    let seen = pod.lease()?;
    assert_eq!((&seen["leaseId"], &seen["state"]), (&lease, &"LEASE_STATE_ACTIVE".into()));
    pod.authenticates()?;
    pod.end()
}
