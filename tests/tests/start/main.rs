//! What the broker refuses to start with, and that it says so.

mod configuration;
mod entitlements;
mod files;
mod realm;

use krb_tests::world::{TSFOO, World, WorldError, broker::Settings};

type Story = Result<(), Box<dyn std::error::Error>>;

/// A world of node-a whose broker has been stopped.
fn stopped() -> Result<World, WorldError> {
    let mut world =
        World::build(&["node-a"], &[TSFOO], Default::default(), Settings::default())?;
    world.pods.service("tsfoo", "web")?;
    world.broker.stop()?;
    Ok(world)
}

/// The broker is started, and ends by itself with words that contain all of these.
fn refuses(world: &mut World, words: &[&str]) -> Result<String, WorldError> {
    let before = world.broker.log().len();
    world.broker.launch()?;
    let said = world.broker.ended()?.split_off(before);
    match words.iter().find(|word| !said.contains(**word)) {
        Some(word) => Err(WorldError::new("refusing to start", format!("no {word:?} in {said}"))),
        None if said.contains("panicked") => Err(WorldError::new("the broker panicked", said)),
        None => Ok(said),
    }
}

/// The broker starts and serves a pod.
async fn runs(world: &mut World, pod: &str) -> Result<(), WorldError> {
    world.broker.restart()?;
    world.serves_on(pod, "node-a").await?;
    world.broker.stop()
}
