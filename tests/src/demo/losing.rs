//! The steps of a bad day: a node dies, its keys are replaced, and the other node works on.

use std::{process::Output, time::Duration};

use krb_proto::v1::{Lease, LeaseState};

use super::{
    exchange,
    screen::Screen,
    stage::{
        DOOMED, SURVIVOR, Stage, clock_time, expect, exposure, kvnos, moment, now, wall_seconds,
    },
};
use crate::world::{WorldError, pause};

/// How long a lost node's keys may take until they are replaced.
const REVOKED_WITHIN: Duration = Duration::from_secs(25);
/// How long the old key's exposure may take to end.
const CLOSED_WITHIN: Duration = Duration::from_secs(40);

/// Kills the agent and watches its lease. How long it took to be revoked.
pub async fn agent(screen: &mut Screen, stage: &mut Stage) -> Result<Duration, WorldError> {
    screen.step(
        "node-a dies",
        "Its agent is killed without a word. Lost after 4 s (minutes in a cluster); then its keys are replaced.",
    )?;
    stage.copy_keytab(DOOMED, "stolen.keytab")?;
    screen.command_in(
        DOOMED,
        "cp .../keytabs/tsfoo stolen.keytab    # what a thief on this node would have",
    )?;
    let pid = stage.world.node(DOOMED).agent_pid().unwrap_or_default();
    screen.command_in(DOOMED, &format!("kill -9 {pid}    # krb-node-agent"))?;
    stage.world.node(DOOMED).kill_agent();
    let began = now();
    let mut last = String::new();
    loop {
        let lease = stage.lease(DOOMED).await?;
        let took = now().since(began);
        let state = words(&lease);
        if state != last {
            screen.output(format!("{:.1} s  lease of web-0: {state}", took.as_secs_f64()))?;
            last = state;
        }
        if lease.state() == LeaseState::Revoked {
            return Ok(took);
        }
        expect(took < REVOKED_WITHIN, "the lease to be revoked in time")?;
        moment().await;
    }
}

/// State, reason, kvnos and exposure of a lease, in a line.
fn words(lease: &Lease) -> String {
    let name = lease.state().as_str_name().trim_start_matches("LEASE_STATE_");
    let reason =
        if lease.reason.is_empty() { String::new() } else { format!(" ({})", lease.reason) };
    format!("{name}{reason}, exposed until: {}", exposure(lease))
}

/// Tries the old and the new key at the KDC.
pub fn old_key(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    screen.step(
        "The stolen key is worthless at the KDC",
        "`client: true` lets tsfoo log in as its service, so a thief could try the key that was on node-a.",
    )?;
    let stolen = kinit(screen, stage, "stolen.keytab")?;
    screen.output(&stolen.stderr)?;
    expect(!stolen.status.success(), "the KDC to refuse the old key")?;
    stage.copy_keytab(SURVIVOR, "current.keytab")?;
    screen.command_in(SURVIVOR, "cp .../keytabs/tsfoo current.keytab")?;
    let current = kinit(screen, stage, "current.keytab")?;
    screen.output(&current.stderr)?;
    expect(current.status.success(), "the KDC to take the new key")?;
    screen.seen("refused with the key that node-a had; granted with the one that node-b was given.")
}

fn kinit(screen: &mut Screen, stage: &Stage, keytab: &str) -> Result<Output, WorldError> {
    let principal = stage.principal();
    let script = format!("kinit -k -t {keytab} {principal}");
    screen.command(&format!("{script}; echo \"exit code $?\""))?;
    let path = stage.dir().join(keytab).display().to_string();
    let ccache = format!("FILE:{}.ccache", path);
    let tool = stage.world.realm.tool("kinit").map_err(|e| WorldError::new("kinit", e))?;
    let tool = tool.args(["-k", "-t", &path, &principal]).env("KRB5CCNAME", &ccache);
    let mut output = tool.into_command().output()?;
    let code = output.status.code().unwrap_or(-1);
    output.stderr.extend_from_slice(format!("exit code {code}\n").as_bytes());
    Ok(output)
}

/// The other pod has both keys and serves on.
pub fn survivor(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    screen.step(
        "web-1 works on",
        "It got the new key before the KDC used it, and keeps the old one until the last old ticket has ended.",
    )?;
    let keytab = stage.show(screen, SURVIVOR, "klist -k | uniq")?;
    expect(has(&keytab, 2) && has(&keytab, 3), "the old and the new key in the keytab")?;
    fresh_ticket(screen, stage)?;
    exchange::run(screen, stage, SURVIVOR, SURVIVOR)
}

/// Waits until a ticket that web-1 got under the old key has ended, and it has a new one.
fn fresh_ticket(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    let script = format!("kvno {}", stage.principal());
    for _ in 0..60 {
        let output = stage.inside(SURVIVOR, &script).output()?;
        if String::from_utf8_lossy(&output.stdout).contains("kvno = 3") {
            stage.show(screen, SURVIVOR, &script)?;
            return Ok(());
        }
        pause(Duration::from_millis(250));
    }
    Err(WorldError::new(script, "no ticket under the new key came"))
}

/// Whether `klist -k` lists this kvno.
fn has(keytab: &str, kvno: u32) -> bool {
    let kvno = kvno.to_string();
    keytab.lines().any(|line| line.split_whitespace().next() == Some(&kvno))
}

/// Waits until the old key is accepted nowhere. The time of day, when.
pub async fn closed(screen: &mut Screen, stage: &Stage) -> Result<String, WorldError> {
    screen.step(
        "The door closes",
        "A KDC can't recall a ticket, but the lease says until when what was on node-a can be misused.",
    )?;
    let began = now();
    let mut last = String::new();
    let lease = loop {
        let (lost, kept) = (stage.lease(DOOMED).await?, stage.lease(SURVIVOR).await?);
        let took = now().since(began);
        let state = format!("{}; web-1 has kvno {}", words(&lost), kvnos(&kept));
        if state != last {
            let at = clock_time(wall_seconds());
            screen.output(format!("{at}  lease of web-0: {state}"))?;
            last = state;
        }
        if !lost.exposure.as_ref().is_none_or(|exposure| exposure.open) {
            break lost;
        }
        expect(took < CLOSED_WITHIN, "the exposure to end in time")?;
        moment().await;
    };
    let keytab = stage.show(screen, SURVIVOR, "klist -k | uniq")?;
    expect(!has(&keytab, 2) && has(&keytab, 3), "the new key alone in the keytab")?;
    let until = exposure(&lease);
    too_late(screen, stage, &lease)?;
    Ok(until)
}

/// Waits for the end of the exposure, and tries what still lies on node-a.
fn too_late(screen: &mut Screen, stage: &Stage, lease: &Lease) -> Result<(), WorldError> {
    let until = lease.exposure.as_ref().and_then(|exposure| exposure.exposed_until);
    let until = until.map(|at| at.seconds).unwrap_or_default();
    let wait = u64::try_from(until + 1 - wall_seconds()).unwrap_or_default();
    screen.note(&format!("{wait} s later, with the ticket that still lies on node-a:"))?;
    pause(Duration::from_secs(wait));
    let script = format!("kvno {}", stage.principal());
    screen.command_in(&stage.pod(DOOMED).name, &script)?;
    let output = stage.inside(DOOMED, &script).output()?;
    screen.output(&output.stderr)?;
    expect(!output.status.success(), "the ticket of node-a to be over")?;
    screen.seen("its ticket has ended, and nobody accepts its key: what was on node-a opens nothing any more.")
}

/// The audit log's account of the key.
pub fn audit(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    screen.step(
        "What the auditor reads",
        "One JSON line for every grant, key and loss, on disk before anything leaves the broker.",
    )?;
    screen.command("grep -e '\"key\\.' -e 'node-a' audit.log    # of each line: time, event, kvnos, whose, why")?;
    let text = stage.world.broker.audit();
    let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    let lines: Vec<String> = lines.filter(is_shown).map(|line| short(&line)).collect();
    expect(lines.iter().any(|line| line.contains("key.pruned")), "the end of the old key")?;
    expect(lines.iter().any(|line| line.contains("lease.granted")), "the grant in the log")?;
    screen.output(lines.join("\n"))?;
    screen.seen("who had which key, from its making to its end; no line holds a key.")
}

/// Lines of the walk, and those of leases and sessions of the lost node.
fn is_shown(line: &serde_json::Value) -> bool {
    let event = line["event"].as_str().unwrap_or_default();
    event.starts_with("key.")
        || line["node"] == DOOMED && (event.starts_with("lease.") || event.starts_with("session."))
}

fn short(line: &serde_json::Value) -> String {
    let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let time = text("time");
    let time = time.get(11..23).unwrap_or_default();
    let kvnos = line["kvnos"]
        .as_array()
        .map(|kvnos| kvnos.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    let kvnos = kvnos.map(|kvnos| format!("kvno {kvnos}")).unwrap_or_default();
    let name = text("principal");
    let name = name.split('@').next().unwrap_or_default();
    let rest: Vec<String> =
        ["node", "reason"].map(text).into_iter().filter(|t| !t.is_empty()).collect();
    format!("{time} {:18} {kvnos:9} {name} {}", text("event"), rest.join(" ")).trim_end().to_owned()
}
