//! The driver as a process, beside two static C programs that only print: one as `cc -static`
//! makes it, which the budget names, and one without a C library, which nothing can beat.

use std::{path::Path, process::Command};

use super::{Budget, Failure, Report, process::Call, stopwatch::Spans};
use crate::world::programs::driver;

/// Runs of each.
const RUNS: usize = 1_000;
/// Runs before those that count.
const WARM_UP: usize = 50;

/// Starts all in turn.
pub fn measure() -> Result<Report, Failure> {
    let driver = Call::new(&driver()?, &["init"], "\"Success\"");
    let calls = [driver, printing()?, compiled("print_bare", &["-nostdlib"])?];
    let mut spans = [const { Spans::new() }; 3];
    for run in 0..RUNS + WARM_UP {
        for turn in 0..calls.len() {
            let which = (run + turn) % calls.len(); // each is first, second and third alike
            let span = calls[which].timed()?;
            if run >= WARM_UP {
                spans[which].push(span);
            }
        }
    }
    let [ours, print, bare] = spans;
    let times = ours.p50() / print.p50();
    let lines = vec![
        format!("{} init: {ours}", calls[0].program.display()),
        format!("static C that prints: {print}"),
        format!(
            "the same without a C library: {bare}, the driver {:.2} times",
            ours.p50() / bare.p50()
        ),
    ];
    let budget = Budget {
        name: "driver-start",
        met: times <= 1.5,
        figure: format!("{times:.2} times, p50 {:.2} ms", ours.p50()),
        budget: "1.5 times".to_owned(),
        rival: format!("static C {:.2} ms, without a C library {:.2} ms", print.p50(), bare.p50()),
    };
    Ok(Report { lines, budgets: vec![budget] })
}

/// The C program of the budget.
pub fn printing() -> Result<Call, Failure> {
    compiled("print", &[])
}

fn compiled(name: &str, more: &[&str]) -> Result<Call, Failure> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (source, dir) =
        (here.join("src/bench").join(format!("{name}.c")), here.join("../target/bench"));
    std::fs::create_dir_all(&dir)?;
    let program = dir.join(name);
    let mut compiler = Command::new("cc");
    compiler.args(["-static", "-O2"]).args(more).arg("-o").args([&program, &source]);
    let output = compiler.output()?;
    if !output.status.success() {
        return Err(format!("cc: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(Call::new(&program, &[], "\"Success\""))
}
