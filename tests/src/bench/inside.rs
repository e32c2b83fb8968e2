//! What runs inside the node: this program once more, in the node's mount namespace, where it
//! starts the driver as kubelet does, with nothing between.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    Failure,
    process::Call,
    stopwatch::{Spans, Stopwatch},
};

/// A volume, and how it is mounted and unmounted.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Volume {
    /// Kubelet's directory for it.
    pub target: PathBuf,
    /// The driver's call.
    pub mount: Call,
    /// The driver's other call.
    pub unmount: Call,
}

/// What to do.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Plan {
    /// Mounted one after another, in turn with the rivals.
    pub singles: Vec<Volume>,
    /// Mounted together, a round after another, in turn with the first rival.
    pub rounds: Vec<Vec<Volume>>,
    /// So many at once in a round.
    pub at_once: usize,
    /// The rivals.
    pub rivals: Vec<Call>,
    /// So many runs of the first rival in a round.
    pub rivals_runs: usize,
}

/// What was measured.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Measured {
    /// Of each single mount.
    pub mounts: Vec<Duration>,
    /// Of each single unmount.
    pub unmounts: Vec<Duration>,
    /// Of each rival's runs between them.
    pub rivals: Vec<Vec<Duration>>,
    /// Mounts a second, of each round.
    pub rates: Vec<f64>,
    /// Runs of the first rival a second, of each round.
    pub rivals_rates: Vec<f64>,
    /// How long a mount took in the rounds.
    pub crowded: Vec<Duration>,
}

/// Carries out the plan in this file; what was measured, as JSON.
///
/// # Errors
/// When a call fails.
pub fn run(plan: &Path) -> Result<String, Failure> {
    let plan: Plan = serde_json::from_slice(&fs::read(plan)?)?;
    let mut measured =
        Measured { rivals: vec![Vec::new(); plan.rivals.len()], ..Measured::default() };
    for volume in &plan.singles {
        fs::create_dir_all(&volume.target)?;
        measured.mounts.push(volume.mount.timed()?);
        for (rival, spans) in plan.rivals.iter().zip(&mut measured.rivals) {
            spans.push(rival.timed()?);
        }
    }
    for volume in &plan.singles {
        measured.unmounts.push(volume.unmount.timed()?);
    }
    for round in &plan.rounds {
        round.iter().try_for_each(|volume| fs::create_dir_all(&volume.target))?;
        let mounts: Vec<&Call> = round.iter().map(|volume| &volume.mount).collect();
        let (rate, spans) = together(&mounts, plan.at_once)?;
        measured.rates.push(rate);
        measured.crowded.extend(spans);
        if let Some(rival) = plan.rivals.first() {
            let (rate, _) = together(&vec![rival; plan.rivals_runs], plan.at_once)?;
            measured.rivals_rates.push(rate);
        }
        let unmounts: Vec<&Call> = round.iter().map(|volume| &volume.unmount).collect();
        together(&unmounts, plan.at_once)?;
    }
    Ok(serde_json::to_string(&measured)?)
}

/// Runs all calls, so many at once: how many a second, and how long each took.
fn together(calls: &[&Call], at_once: usize) -> Result<(f64, Vec<Duration>), Failure> {
    let next = AtomicUsize::new(0);
    let watch = Stopwatch::start();
    let work = || -> Result<Vec<Duration>, Failure> {
        let mut spans = Vec::new();
        while let Some(call) = calls.get(next.fetch_add(1, Ordering::Relaxed)) {
            spans.push(call.timed()?);
        }
        Ok(spans)
    };
    let done: Vec<Result<Vec<Duration>, Failure>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        let ended = threads.into_iter().map(thread::ScopedJoinHandle::join);
        ended.map(|end| end.unwrap_or_else(|_| Err("a thread panicked".into()))).collect()
    });
    let rate = calls.len() as f64 / watch.elapsed().as_secs_f64();
    let spans: Result<Vec<Vec<Duration>>, Failure> = done.into_iter().collect();
    Ok((rate, spans?.concat()))
}

impl Measured {
    /// The single mounts.
    pub fn singles(&self) -> Spans {
        self.mounts.iter().copied().collect()
    }
}
