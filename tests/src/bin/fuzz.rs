//! Fuzzes what reads untrusted bytes. Ends with one line of numbers, and with 1 if a property
//! was broken.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use krb_tests::fuzz::{self, Limits};

#[derive(Parser)]
#[command(about = "Fuzzes the Kerberos parsers from recorded replies")]
struct Arguments {
    /// At most so many inputs
    #[arg(long, default_value_t = 200_000)]
    cases: u64,
    /// Decides all inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// At most so many seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where the recorded replies are
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus"))]
    corpus: PathBuf,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the report is what it is run for")]
fn main() -> ExitCode {
    let Arguments { cases, seed, seconds, corpus } = Arguments::parse();
    fuzz::count_panics();
    match fuzz::run(&corpus, Limits { cases, seed, time: Duration::from_secs(seconds) }) {
        Ok(report) => {
            println!("{report}");
            if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}
