//! Mounts as kubelet sees them: driver, agent and broker as processes, the ticket cached, each
//! lease durable and audited; beside `kinit -kt` and the C program that only prints.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use super::{
    Budget, Failure, Report,
    inside::{Measured, Plan, Volume},
    login,
    process::Call,
    scene, startup,
    stopwatch::{Spans, Stopwatch},
};
use crate::world::{World, node::Node, pods::Pod, programs::driver};

/// Mounts one after another.
const SINGLES: usize = 200;
/// Mounts before those that count.
const WARM_UP: usize = 20;
/// Rounds of mounts together.
const ROUNDS: usize = 5;
/// Mounts in a round.
const IN_A_ROUND: usize = 200;
/// So many at once.
const AT_ONCE: usize = 8;
/// Runs of kinit in a round.
const KINITS: usize = 100;

/// Builds a world, and has the plan carried out inside its node.
pub fn measure() -> Result<Report, Failure> {
    let mut world = scene::world(true)?;
    let ticket = [("ts/prestashtkt", "true")];
    let pods = scene::pods(&world, "mount", WARM_UP + SINGLES + ROUNDS * IN_A_ROUND, &ticket)?;
    let rivals = vec![login::kinit(&world.realm)?, startup::printing()?];
    let flush = flushes(world.dir())?;
    let before = world.realm.kdc_requests().total();
    let node = world.node(scene::NODE);
    let volumes = pods.iter().map(|pod| volume(node, pod)).collect::<Result<Vec<_>, _>>()?;
    let (singles, crowd) = volumes.split_at(WARM_UP + SINGLES);
    let plan = Plan {
        singles: singles.to_vec(),
        rounds: crowd.chunks(IN_A_ROUND).map(<[Volume]>::to_vec).collect(),
        at_once: AT_ONCE,
        rivals,
        rivals_runs: KINITS,
    };
    let measured = carry_out(&world, &plan)?;
    let asked = world.realm.kdc_requests().total() - before;
    Ok(report(&measured, &flush, asked))
}

fn volume(node: &Node, pod: &Pod) -> Result<Volume, Failure> {
    let (driver, target) = (driver()?, node.target(pod));
    let place = target.display().to_string();
    let call = |arguments: &[&str]| Call::new(&driver, arguments, "\"Success\"");
    Ok(Volume {
        mount: call(&["mount", &place, &Node::mount_options(pod)]),
        unmount: call(&["unmount", &place]),
        target,
    })
}

/// Runs this program inside the node.
fn carry_out(world: &World, plan: &Plan) -> Result<Measured, Failure> {
    let file = world.dir().join("plan.json");
    fs::write(&file, serde_json::to_vec(plan)?)?;
    let node = world.nodes.first().ok_or("the world has no node")?;
    let mut command: Command = node.command(std::env::current_exe()?);
    command.arg("inside").arg(&file).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("inside the node: {}\n{}", output.status, node.log()).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// How long this disk takes to make a small record durable.
fn flushes(dir: &Path) -> Result<Spans, Failure> {
    let mut file = fs::File::create(dir.join("flush"))?;
    let mut spans = Spans::default();
    for _ in 0..200 {
        file.write_all(&[1; 300])?;
        let watch = Stopwatch::start();
        file.sync_data()?;
        spans.push(watch.elapsed());
    }
    Ok(spans)
}

fn report(measured: &Measured, flush: &Spans, asked: u64) -> Report {
    let counting = |spans: &[Duration]| spans.iter().skip(WARM_UP).copied().collect::<Spans>();
    let (mounts, unmounts) = (counting(&measured.mounts), counting(&measured.unmounts));
    let kinit = counting(&measured.rivals[0]);
    let print = counting(&measured.rivals[1]);
    let (rate, rivals_rate) = (median(&measured.rates), median(&measured.rivals_rates));
    let crowded: Spans = measured.crowded.iter().copied().collect();
    let lines = vec![
        format!("one mount at a time: {mounts}"),
        format!("one unmount at a time: {unmounts}"),
        format!("kinit -kt in turn with them: {kinit}"),
        format!("static C that prints, in turn with them: {print}"),
        format!("a flush (fdatasync of 300 bytes) on the same disk: {flush}"),
        format!("{AT_ONCE} mounts at once: {crowded}, {rate:.0}/s, kinit {rivals_rate:.0}/s"),
        format!("KDC requests meanwhile, kinit's 2 each included: {asked}"),
    ];
    let rival = format!("kinit -kt p50 {:.2} ms, p99 {:.2} ms", kinit.p50(), kinit.p99());
    let p50 = Budget {
        name: "mount-p50",
        met: mounts.p50() <= 3.0,
        figure: format!("{:.2} ms", mounts.p50()),
        budget: "3 ms".to_owned(),
        rival: rival.clone(),
    };
    let p99 = Budget {
        name: "mount-p99",
        met: mounts.p99() <= 15.0,
        figure: format!("{:.2} ms", mounts.p99()),
        budget: "15 ms".to_owned(),
        rival,
    };
    let rate = Budget {
        name: "mount-rate",
        met: rate >= 1_200.0 && rate >= 5.0 * rivals_rate,
        figure: format!("{rate:.0}/s, {:.1} times", rate / rivals_rate),
        budget: "1200/s and 5 times".to_owned(),
        rival: format!("kinit -kt {rivals_rate:.0}/s"),
    };
    Report { lines, budgets: vec![p50, p99, rate] }
}

fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}
