//! `make torture`: kills the broker under load on a real realm. Ends with one line of numbers,
//! and with 1 if anything was lost or differed.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use krb_tests::torture::{self, Plan};

#[derive(Parser)]
#[command(about = "Kills the broker under load, and looks whether anything was lost")]
struct Arguments {
    /// At most so many kills
    #[arg(long, default_value_t = 30)]
    kills: u32,
    /// Decides what is asked for, and when the broker is killed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// No more kills after so many seconds
    #[arg(long, default_value_t = 7_200)]
    seconds: u64,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the report is what it is run for")]
fn main() -> ExitCode {
    let Arguments { kills, seed, seconds } = Arguments::parse();
    let plan = Plan { kills, seed, time: Duration::from_secs(seconds) };
    match torture::run(plan, &mut |line| println!("{line}")) {
        Ok(verdict) => {
            println!("{}", verdict.load());
            println!("{verdict}");
            if verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("torture: {error}");
            ExitCode::FAILURE
        }
    }
}
