//! The last steps: what a crash of the broker keeps, how a pod ends, and what was seen.

use std::time::Duration;

use krb_proto::v1::{Lease, LeaseState, ListLeasesRequest};

use super::{
    screen::Screen,
    stage::{DOOMED, SURVIVOR, Stage, asked, expect, kvnos, moment, now},
    using,
};
use crate::world::{TSFOO, WorldError, pods::Pod};

/// How long the broker may take to note that a volume is gone.
const RELEASED_WITHIN: Duration = Duration::from_secs(10);

/// Kills the broker and starts it again.
pub async fn restart(screen: &mut Screen, stage: &mut Stage) -> Result<(), WorldError> {
    screen.step(
        "The broker crashes",
        "SIGKILL, then a start on the same store. Pods go on meanwhile; all leases and keys are there again.",
    )?;
    let before = all(stage).await?;
    let pid = stage.world.broker.pid().unwrap_or_default();
    screen.command(&format!("kill -9 {pid}; krb-broker serve --config broker.toml &"))?;
    stage.world.broker.kill();
    let began = now();
    stage.world.broker.restart()?;
    let took = now().since(began).as_millis();
    using::again(screen, stage)?;
    expect(all(stage).await? == before, "the same leases as before")?;
    screen.seen(&format!("it answered after {took} ms, with the same {} leases.", before.len()))
}

/// What identifies a lease, and what it holds.
async fn all(stage: &Stage) -> Result<Vec<(String, i32, String)>, WorldError> {
    let operator = stage.world.operator().await?;
    let leases = operator.list(ListLeasesRequest::default()).await.map_err(asked)?;
    let one = |lease: &Lease| (lease.lease_id.clone(), lease.state, kvnos(lease));
    Ok(leases.iter().map(one).collect())
}

/// Unmounts both volumes as kubelet does when pods end.
pub async fn unmount(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    screen.step(
        "The pods end",
        "Kubelet unmounts. The driver needs no agent for it, as on node-a; node-b's gives the lease back.",
    )?;
    for node in [DOOMED, SURVIVOR] {
        let pod = stage.pod(node);
        let place = format!("pods/{}/volumes/krb-broker~credentials/{}", pod.uid, Pod::VOLUME);
        screen.command_in(node, &format!("credentials unmount {place}"))?;
        let answer = stage.node(node).unmount(pod)?;
        screen.output(&answer.text)?;
        expect(answer.is_success(), "the driver to unmount the volume")?;
        screen.command_in(node, "grep -c krb-credentials /proc/self/mountinfo")?;
        let mut count = stage.node(node).command("grep");
        let count = count.args(["-c", "krb-credentials", "/proc/self/mountinfo"]).output()?;
        screen.output(&count.stdout)?;
        expect(count.stdout == b"0\n", "nothing to be mounted")?;
    }
    released(screen, stage).await
}

async fn released(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    let began = now();
    while stage.lease(SURVIVOR).await?.state() != LeaseState::Released {
        expect(now().since(began) < RELEASED_WITHIN, "the lease to be released")?;
        moment().await;
    }
    let took = now().since(began).as_millis();
    screen.seen(&format!(
        "the lease of web-1 is RELEASED, seen {took} ms later; that of web-0 stays REVOKED."
    ))
}

/// What was seen, in a few lines.
pub fn summary(
    screen: &mut Screen,
    stage: &Stage,
    lost: Duration,
    closed: String,
    handshakes: u64,
) -> Result<(), WorldError> {
    let requests = stage.world.realm.kdc_requests();
    screen.chapter("What you have seen")?;
    for line in [
        format!(
            "A pod with two annotations got a keytab and a ticket of {}, and used them.",
            TSFOO.login
        ),
        "Its node had no Kerberos trust, and learned nothing about others.".to_owned(),
        format!(
            "The node died: {:.1} s later its key was replaced, without a pause for the other pod.",
            lost.as_secs_f64()
        ),
        format!("What had been on it was worthless by {closed}: the broker knew, and said so."),
        format!("Its key was replaced under {handshakes} handshakes, and none of them failed."),
        "A crash of the broker lost nothing; every step is in the audit log.".to_owned(),
        format!(
            "The KDC saw {} requests, those of the pods and of this demo included.",
            requests.total()
        ),
    ] {
        screen.plain(&format!("  - {line}"))?;
    }
    screen.plain(
        "Where to read next: docs/architecture.md, docs/configuration.md, docs/entitlements.md.",
    )
}
