//! The driver as a process, beside a static C program that only prints.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{Budget, Failure, Report, process::Call, stopwatch::Spans};
use crate::world::programs::driver;

/// Runs of each.
const RUNS: usize = 1_000;
/// Runs before those that count.
const WARM_UP: usize = 50;

/// Starts both in turn.
pub fn measure() -> Result<Report, Failure> {
    let driver = driver()?;
    let init = Call::new(&driver, &["init"], "Success");
    let print = printing()?;
    let (mut ours, mut rivals) = (Spans::default(), Spans::default());
    for run in 0..RUNS + WARM_UP {
        // by turns first: the second of two may find the machine warmer
        let (our, rival) = if run % 2 == 0 {
            (init.timed()?, print.timed()?)
        } else {
            let rival = print.timed()?;
            (init.timed()?, rival)
        };
        if run >= WARM_UP {
            ours.push(our);
            rivals.push(rival);
        }
    }
    let times = ours.p50() / rivals.p50();
    let lines = vec![
        format!("{} init: {ours}", driver.display()),
        format!("static C that prints: {rivals}"),
    ];
    let budget = Budget {
        name: "driver-start",
        met: times <= 1.5,
        figure: format!("{times:.2} times, p50 {:.2} ms", ours.p50()),
        budget: "1.5 times".to_owned(),
        rival: format!("{:.2} ms", rivals.p50()),
    };
    Ok(Report { lines, budgets: vec![budget] })
}

/// The C program, compiled.
pub fn printing() -> Result<Call, Failure> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (source, dir) = (here.join("src/bench/print.c"), here.join("../target/bench"));
    std::fs::create_dir_all(&dir)?;
    let program: PathBuf = dir.join("print");
    let mut compiler = Command::new("cc");
    let output = compiler.args(["-static", "-O2", "-o"]).args([&program, &source]).output()?;
    if !output.status.success() {
        return Err(format!("cc: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(Call::new(&program, &[], "Success"))
}
