//! What operators do: replace a key while clients work, and ask what a revocation would do.

use std::time::Duration;

use super::{
    screen::Screen,
    stage::{HOST, SURVIVOR, Stage, asked, expect, moment, now, succeeded},
};
use crate::{
    handshakes::Handshakes,
    world::{TSFOO, WorldError},
};

/// How often the key is replaced.
const ROTATIONS: u32 = 3;
/// How long one replacement may take.
const ROTATED_WITHIN: Duration = Duration::from_secs(20);

/// Replaces the key, again and again, while clients shake hands with the pod.
pub async fn keys(screen: &mut Screen, stage: &Stage) -> Result<u64, WorldError> {
    screen.step(
        "An operator replaces the key while clients work",
        "The C library shakes hands with web-1 all the time, with tickets that are new and tickets that were there before.",
    )?;
    let service = format!("HTTP@{HOST}");
    let pod = stage.pod(SURVIVOR);
    let load = Handshakes::start(&stage.world, &service, TSFOO.login, &[pod])?;
    for _ in 0..ROTATIONS {
        rotate(screen, stage).await?;
    }
    let tally = load.stop();
    expect(tally.failed.is_empty(), &format!("no handshake to fail: {:?}", tally.failed))?;
    let done = tally.done;
    screen.seen(&format!("{ROTATIONS} replacements, {done} handshakes meanwhile, 0 failed."))?;
    Ok(done)
}

async fn rotate(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    let principal = stage.principal();
    let request = format!("{{\"principal\": \"{principal}\", \"reason\": \"the demo\"}}");
    let method = "krb.broker.v1.PrincipalService/RotatePrincipal";
    screen.command(&format!(
        "leases.py ... call {method} '{{\"principal\": \"HTTP/...\", \"reason\": \"the demo\"}}'"
    ))?;
    let began = now();
    let before = newest(stage).await?;
    succeeded("leases.py call", &stage.python("operator", &["call", method, &request])?)?;
    loop {
        let (kvno, phases) = newest(stage).await?;
        if kvno > before.0 && phases.ends_with("Current") {
            let took = now().since(began).as_secs_f64();
            return screen.output(format!("{took:.1} s later: {phases}"));
        }
        expect(now().since(began) < ROTATED_WITHIN, "the key to be replaced in time")?;
        moment().await;
    }
}

/// The newest number of the principal, and all of its keysets in a line.
async fn newest(stage: &Stage) -> Result<(u32, String), WorldError> {
    let operator = stage.world.operator().await?;
    let request = krb_proto::v1::GetPrincipalRequest { principal: stage.principal() };
    let known = operator.principals().get_principal(request).await.map_err(asked)?.into_inner();
    let keysets = &known.keysets;
    let phases: Vec<String> =
        keysets.iter().map(|keyset| format!("kvno {} {}", keyset.kvno, keyset.phase)).collect();
    Ok((keysets.last().map_or(0, |keyset| keyset.kvno), phases.join(", ")))
}

/// Asks what taking a pod's leases away would do.
pub fn dry_run(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    screen.step(
        "What would a revocation break?",
        "A dry run: which leases end, who shares the keys, what breaks, until when what is outside stays usable.",
    )?;
    let uid = &stage.pod(SURVIVOR).uid;
    let method = "krb.broker.v1.LeaseService/RevokeLeases";
    let request =
        format!("{{\"pod_uid\": \"{uid}\", \"kind\": \"REVOCATION_KIND_NOW\", \"dry_run\": true}}");
    screen.command(&format!("leases.py ... call {method} '{request}'"))?;
    let output = stage.python("operator", &["call", method, &request])?;
    let text = succeeded("leases.py call", &output)?;
    screen.output(&text)?;
    expect(text.contains("burnt_kvnos") || text.contains("burntKvnos"), "a plan")?;
    screen.seen("nothing was done: without `dry_run` it would be.")
}
