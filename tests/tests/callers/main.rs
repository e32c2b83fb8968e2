//! Who may call what, and that whoever may not gets nothing and costs nothing.
//!
//! Callers here are not agents: they speak the API themselves, as somebody would who has
//! taken a node, or who has no certificate at all.

mod certificates;
mod connections;
mod nodes;
mod roles;
mod viewers;

use krb_tests::world::{Account, TSFOO, World, WorldError, broker::Settings};

type Story = Result<(), Box<dyn std::error::Error>>;

/// A world of these nodes, with the accounts tsfoo and tsbar and a Service `web` of each.
fn world(nodes: &[&str]) -> Result<World, WorldError> {
    let tsbar = Account { login: "tsbar", uid: 61_300, more: "services: [HTTP]\n" };
    let (options, settings) = (Default::default(), Settings::default());
    let world = World::build(nodes, &[TSFOO, tsbar], options, settings)?;
    world.pods.service("tsfoo", "web")?;
    world.pods.service("tsbar", "web")?;
    Ok(world)
}
