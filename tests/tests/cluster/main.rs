//! Stories on a real Kubernetes cluster: what an operator installs, and what tenants apply.
//!
//! This program brings the cluster up, starts itself again in the network where the KDC of the
//! stories lives, and takes everything down. Where there is nothing to bring a cluster up with, it
//! says `cluster-test: NOT RUN` and passes; where there is but does not work, it fails.
//!
//!     make cluster-test                            the stories for each day
//!     make cluster-test-full                       the long ones, too
//!     KRB_CLUSTER_KEEP=1 make cluster-test STORY=part_of_a_name
//!
//! With `KRB_CLUSTER_KEEP=1` the cluster, the realm's files and all that was installed stay; the
//! next such run takes them over, so that a story can be told again in seconds. Images are made
//! and loaded anew only when their programs were built anew, and then what runs them rolls. A run
//! without it takes down what was kept.
//!
//! A story is a function of `&World` and a line in its theme's `STORIES`; `World::field` installs
//! all that stories need when the first one asks. [`field::Field`] says what can be asked of it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the output of a test runner")]

mod agents;
mod api_away;
mod attack_node;
mod attack_tenant;
mod callouts;
mod calm;
mod field;
mod hindered;
mod images;
mod install;
mod intruder;
mod kinds;
mod many;
mod operator;
mod outside;
mod pod;
mod power;
mod programs;
mod propagation;
mod refusals;
mod stolen;
mod story;
mod tenant;
mod upgrade;
mod vanished;
mod workload;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use krb_tests::cluster::{Cluster, ClusterError, Found, Parts, server_net, wait};
use story::{Choice, Story, World};

/// The stories, by themes, in the order in which they run. They share one cluster.
const THEMES: &[&[Story]] = &[
    propagation::STORIES,
    kinds::STORIES,
    refusals::STORIES,
    attack_node::STORIES,
    attack_tenant::STORIES,
    callouts::STORIES,
    hindered::STORIES,
    api_away::STORIES,
    many::STORIES,
    power::STORIES,
    vanished::STORIES,
    upgrade::STORIES,
];

/// Tells the inner process where the cluster's state is.
const INNER: &str = "KRB_TEST_CLUSTER_DIR";
/// Keeps the cluster for the next run.
const KEEP: &str = "KRB_CLUSTER_KEEP";
/// Tells the long stories, too.
const EVERYTHING: &str = "KRB_CLUSTER_FULL";
/// How long the stories of each day may take together.
const LIMIT: Duration = Duration::from_secs(1_200);
/// How long all may take together.
const LIMIT_OF_ALL: Duration = Duration::from_secs(5_400);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        stories().for_each(|story| println!("{}: test", story.name));
        return ExitCode::SUCCESS;
    }
    let outcome = match env::var_os(INNER) {
        Some(dir) => inner(dir.into(), &arguments),
        None => outer(&arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cluster-test: {error}");
            println!("test result: FAILED. 0 passed; 1 failed; the cluster did not come up");
            ExitCode::FAILURE
        }
    }
}

fn stories() -> impl Iterator<Item = &'static Story> {
    THEMES.iter().copied().flatten()
}

/// Whether a variable says yes.
fn is_set(variable: &str) -> bool {
    env::var(variable).is_ok_and(|value| !matches!(value.as_str(), "" | "0"))
}

/// Brings the cluster up, has the stories told inside its network, and takes it down.
fn outer(arguments: &[String]) -> Result<bool, ClusterError> {
    let parts = match Parts::find()? {
        Found::All(parts) => parts,
        Found::Nothing(why) => {
            println!("cluster-test: NOT RUN (no CLUSTER scripts or binaries: {why})");
            return Ok(true);
        }
    };
    let started = wait::monotonic();
    programs::bring().map_err(|error| ClusterError::new("building what the stories run", error))?;
    println!(
        "cluster-test: programs and packages after {} s",
        (wait::monotonic() - started).as_secs()
    );
    let cluster = Cluster::up(parts, is_set(KEEP))?;
    println!("cluster-test: up after {} s", (wait::monotonic() - started).as_secs());
    let passed = run_inside(cluster.dir(), arguments);
    drop(cluster);
    println!("cluster-test: down, {} s in all", (wait::monotonic() - started).as_secs());
    passed
}

/// This program once more, in the servers' network. False when a story failed.
fn run_inside(dir: &Path, arguments: &[String]) -> Result<bool, ClusterError> {
    let failed = |error| ClusterError::new("starting the stories", error);
    let program = env::current_exe().map_err(failed)?;
    let mut command = server_net::command(&program);
    let limit = if is_set(EVERYTHING) { LIMIT_OF_ALL } else { LIMIT };
    let mut child = command.args(arguments).env(INNER, dir).spawn().map_err(failed)?;
    let status = wait::until("the stories to end", limit, || child.try_wait().map_err(failed));
    if status.is_err() {
        // it is our child, and what it started dies with it
        let _ = child.kill();
        let _ = child.wait();
    }
    Ok(status?.success())
}

/// Tells the stories whose names contain one of the arguments, or all.
fn inner(dir: PathBuf, arguments: &[String]) -> Result<bool, ClusterError> {
    let Found::All(parts) = Parts::find()? else {
        return Err(ClusterError::new("finding the cluster's scripts", "they were there before"));
    };
    let cluster = Cluster::of(parts, dir);
    let filters = arguments.iter().filter(|argument| !argument.starts_with('-'));
    let choice = Choice { filters: filters.cloned().collect(), everything: is_set(EVERYTHING) };
    Ok(story::tell(stories(), &World::new(&cluster), &choice))
}
