//! A world for load: spans as in production, and many pods of one account.

use krb_broker::yaml;

use super::Failure;
use crate::{
    realm,
    world::{TSFOO, World, broker::Settings, pods::Pod},
};

/// The node that all pods are bound to.
pub const NODE: &str = "node-bench";

/// A world with the default spans of sessions, so that a busy machine makes nobody silent.
///
/// With `agent`, an agent runs on [`NODE`]; without, the node has a certificate and no more.
pub fn world(agent: bool) -> Result<World, Failure> {
    let settings = Settings { sessions: String::new(), ..Settings::default() };
    let nodes: &[&str] = if agent { &[NODE] } else { &[] };
    let options = realm::Options::default();
    let world = World::build(nodes, &[TSFOO], options, settings)?;
    world.pods.service(TSFOO.login, "web")?;
    Ok(world)
}

/// Makes `count` pods known that ask for what the annotations say. All are in one file: what
/// a source of pods costs is not what is measured.
pub fn pods(
    world: &World,
    name: &str,
    count: usize,
    annotations: &[(&str, &str)],
) -> Result<Vec<Pod>, Failure> {
    let new = |number: usize| {
        Pod::new(&format!("{name}-{number}"), TSFOO.login, TSFOO.uid, NODE).annotated(annotations)
    };
    let entitlements = world.dir().join("entitlements");
    let first = new(0).injected(&entitlements, world.realm.name())?;
    let alike = |number: usize| {
        let pod = new(number);
        let metadata = pod.object["metadata"].clone();
        let mut object = first.object.clone();
        for field in ["name", "uid"] {
            object["metadata"][field] = metadata[field].clone();
        }
        Pod { object, ..pod }
    };
    let pods: Vec<Pod> = (1..=count).map(alike).collect();
    let objects: Vec<_> = pods.iter().map(|pod| pod.object.clone()).collect();
    let (path, new) = (format!("{name}.yaml"), format!("{name}.new"));
    let directory = world.pods.dir();
    std::fs::write(directory.join(&new), yaml::text(&objects)?)?;
    std::fs::rename(directory.join(&new), directory.join(path))?;
    Ok(pods)
}
