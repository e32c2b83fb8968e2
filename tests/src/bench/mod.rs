//! The budgets, measured: each beside a rival, in the same run, taking turns with it.
//!
//! A part builds what it needs of real parts, measures for a bounded number of rounds, and
//! gives a [`Budget`] for each promise of the design, and lines that say more. It judges
//! nothing but whether the figure is within the budget: a missed one is a result, not an error.
//!
//! All figures are wall-clock times of this machine, with the load and what is measured on the
//! same cores. Ratios say more than rates.

mod budget;
mod crowd;
pub mod echo;
pub mod inside;
mod issues;
mod login;
mod mounts;
mod node_client;
mod principals;
mod process;
mod scene;
mod startup;
mod stopwatch;

pub use budget::{Budget, Report};

/// What a part may fail with: it could not measure.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The parts, in the order in which they run.
pub const PARTS: &[&str] = &["startup", "login", "mounts", "crowd", "issues", "principals"];

/// Measures one of [`PARTS`].
///
/// # Errors
/// When something that is needed can't be had, or failed while it was measured.
pub async fn measure(part: &str) -> Result<Report, Failure> {
    match part {
        "startup" => startup::measure(),
        "login" => login::measure().await,
        "mounts" => mounts::measure(),
        "crowd" => crowd::measure().await,
        "issues" => issues::measure().await,
        "principals" => principals::measure().await,
        unknown => {
            Err(format!("there is no part {unknown}; there are {}", PARTS.join(", ")).into())
        }
    }
}
