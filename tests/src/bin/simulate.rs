//! Takes keys and leases through histories in virtual time. Ends with one line of numbers, and
//! with 1 if a rule was broken.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use krb_broker::clock::{Clock, SystemClock};
use krb_tests::simulate::{self, Limits, day};

#[derive(Parser)]
#[command(about = "Simulates keys and leases in virtual time")]
struct Arguments {
    /// At most so many histories
    #[arg(long, default_value_t = 1_000_000)]
    histories: u64,
    /// At most so many seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Decides all histories
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave out the day on which 300 nodes are lost
    #[arg(long)]
    no_day: bool,
    /// Stop after so many that broke a rule
    #[arg(long, default_value_t = 3)]
    violations: usize,
    /// Run only this one, and tell what happens
    #[arg(long)]
    history: Option<u64>,
}

#[expect(clippy::print_stdout, reason = "the report is what it is run for")]
fn main() -> ExitCode {
    let Arguments { histories, seconds, seed, violations, no_day, history } = Arguments::parse();
    if let Some(history) = history {
        let outcome = simulate::replay(seed, history, None, true);
        outcome.trace.iter().for_each(|line| println!("{line}"));
        let broken = u64::from(outcome.violation.is_some());
        println!("simulate: histories=1 violations={broken}");
        return if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let began = SystemClock.now().boot;
    let day = (!no_day).then(day::run);
    day.iter().for_each(|day| println!("{day}"));
    let time = Duration::from_secs(seconds).saturating_sub(SystemClock.now().boot.since(began));
    let mut report = simulate::run(Limits { histories, violations, seed, time, sabotage: None });
    report.day_broke_a_rule = day.is_some_and(|day| day.violation.is_some());
    println!("{report}");
    if report.violations() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
