//! What is refused, why, and that a refusal costs nothing else.
//!
//! Pods, Services, entitlements and namespaces with something wrong meet a real broker, agent
//! and driver. [`World::refused`] holds what all refusals have in common: the text ends with
//! the reason, is the same twice, is in the audit log with its rule, and leaves nothing behind.

mod limits;
mod namespaces;
mod options;
mod pods;
mod principals;

use krb_tests::world::{Account, TSFOO, World, WorldError, broker::Settings, pods::Pod};
use serde_json::Value;

type Story = Result<(), Box<dyn std::error::Error>>;

/// Another account.
pub const TSBAR: Account =
    Account { login: "tsbar", uid: 61_300, more: "services: [HTTP]\nclient: true\n" };

/// A world of node-a and node-b, two accounts, and the Service `web` of the first.
fn world() -> Result<World, WorldError> {
    let (options, settings) = (Default::default(), Settings::default());
    let world = World::build(&["node-a", "node-b"], &[TSFOO, TSBAR], options, settings)?;
    world.pods.service("tsfoo", "web")?;
    Ok(world)
}

/// A good pod of node-a after `change`, known to the broker.
fn changed(world: &World, name: &str, change: impl FnOnce(&mut Value)) -> Result<Pod, WorldError> {
    let pod = world.pod(name, "node-a")?.changed(change);
    world.pods.apply(&pod)?;
    Ok(pod)
}

/// The options of the pod's volume.
fn options(pod: &mut Value) -> &mut Value {
    &mut pod["spec"]["volumes"][0]["flexVolume"]["options"]
}

/// Collects what went wrong with the rows of a table, so that one run tells it all.
#[derive(Default)]
struct Table(Vec<String>);

impl Table {
    fn note<T>(&mut self, row: &str, outcome: Result<T, WorldError>) -> Option<T> {
        outcome.map_err(|error| self.0.push(format!("{row}: {error}"))).ok()
    }

    fn verdict(self) -> Story {
        if self.0.is_empty() { Ok(()) } else { Err(self.0.join("\n").into()) }
    }
}
