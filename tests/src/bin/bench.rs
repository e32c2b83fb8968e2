//! Measures the budgets. Ends with one line for each; with 1 only when it could not measure.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use krb_tests::bench::{self, Failure, echo, inside};

#[derive(Parser)]
#[command(about = "Measures the budgets, each beside a rival")]
struct Arguments {
    /// Only these parts
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is when it has started itself.
#[derive(Subcommand)]
enum Role {
    /// Inside a node: carries out a plan
    #[command(hide = true)]
    Inside {
        /// The plan's file
        plan: PathBuf,
    },
    /// The rival of the broker's API
    #[command(hide = true)]
    Echo(echo::Settings),
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the report is what it is run for")]
#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { only, role } = Arguments::parse();
    let outcome = match role {
        None => measure_all(&only).await,
        Some(Role::Inside { plan }) => inside::run(&plan).map(|measured| println!("{measured}")),
        Some(Role::Echo(settings)) => echo::serve(settings).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures the parts in turn; what they found of budgets comes last, whatever failed.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the report is what it is run for")]
async fn measure_all(only: &[String]) -> Result<(), Failure> {
    let all: Vec<String> = bench::PARTS.iter().map(|&part| part.to_owned()).collect();
    let (mut budgets, mut failed) = (Vec::new(), Vec::new());
    for part in if only.is_empty() { &all } else { only } {
        match bench::measure(part).await {
            Ok(report) => {
                report.lines.iter().for_each(|line| println!("{part}: {line}"));
                budgets.extend(report.budgets);
            }
            Err(error) => {
                eprintln!("{part}: could not be measured: {error}");
                failed.push(part.clone());
            }
        }
    }
    budgets.iter().for_each(|budget| println!("{budget}"));
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("not measured: {}", failed.join(", ")).into())
    }
}
