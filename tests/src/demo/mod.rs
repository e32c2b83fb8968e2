//! The demo: a newcomer's first look. It runs the real programs against a real realm, one
//! numbered step after the other, and prints what they print.
//!
//! `shelter` keeps the run apart from the machine and cleans up behind it, `screen` prints,
//! `stage` holds the world and what the steps have in common; the steps themselves are in
//! `starting`, `using`, `losing`, `rotating` and `lasting`, in the order of the story.
//!
//! What always holds: each step checks what it shows, so a demo that ends well has seen all of
//! it. It fakes no output; it leaves lines out only where it says so.

mod exchange;
mod lasting;
mod losing;
mod rotating;
mod screen;
mod shelter;
mod stage;
mod starting;
mod using;

use std::process::ExitCode;

pub use shelter::{INSIDE, sheltered};

use self::{screen::Screen, stage::Stage};
use crate::world::WorldError;

/// Tells the story inside the shelter. Any failure is said, with the tail of the logs.
pub fn tell() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&mut Screen::new(), &error.into(), None),
    };
    let mut screen = Screen::new();
    let mut stage = None;
    match runtime.block_on(story(&mut screen, &mut stage)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&mut screen, &error, stage.as_ref()),
    }
}

/// The steps, in their order.
async fn story(screen: &mut Screen, place: &mut Option<Stage>) -> Result<(), WorldError> {
    screen.title()?;
    let stage = place.insert(starting::realm(screen)?);
    starting::broker(screen, stage)?;
    starting::manifest(screen, stage)?;
    starting::pods(screen, stage)?;
    starting::mount(screen, stage)?;

    using::files(screen, stage)?;
    using::klist(screen, stage)?;
    using::exchange(screen, stage)?;
    using::leases(screen, stage)?;
    using::refused(screen, stage)?;

    let lost = losing::agent(screen, stage).await?;
    losing::old_key(screen, stage)?;
    losing::survivor(screen, stage)?;
    let closed = losing::closed(screen, stage).await?;
    losing::audit(screen, stage)?;

    let handshakes = rotating::keys(screen, stage).await?;
    rotating::dry_run(screen, stage)?;

    lasting::restart(screen, stage).await?;
    lasting::unmount(screen, stage).await?;
    lasting::summary(screen, stage, lost, closed, handshakes)
}

fn failed(screen: &mut Screen, error: &WorldError, stage: Option<&Stage>) -> ExitCode {
    // where even this can't be printed, the exit code says it
    let _ = screen.failure(error, stage.map(Stage::logs).unwrap_or_default());
    ExitCode::FAILURE
}
