//! Stories on a real Kubernetes cluster: kubelet calls the driver, pods read the files.
//!
//! This program brings the cluster up, starts itself again in the network where the KDC and the
//! broker of the stories live, and takes everything down. Where there is nothing to bring a cluster
//! up with, it says `cluster: NOT RUN` and passes; where there is but does not work, it fails.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the output of a test runner")]

mod field;
mod objects;
mod programs;
mod propagation;
mod servers;
mod slice;
mod story;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use krb_tests::cluster::{Cluster, ClusterError, Found, Parts, server_net, wait};
use story::{Story, World};

/// The stories, in the order in which they run. They share one cluster, and the last one kills its
/// node.
const STORIES: &[Story] = &[
    Story {
        name: "a_volume_is_mounted_for_its_pod_and_gone_after_it",
        tell: propagation::a_volume_is_mounted_for_its_pod_and_gone_after_it,
    },
    Story {
        name: "an_agent_in_a_pod_fills_what_the_driver_mounted_on_the_node",
        tell: propagation::an_agent_in_a_pod_fills_what_the_driver_mounted_on_the_node,
    },
    Story {
        name: "a_pod_authenticates_with_what_its_annotations_asked_for",
        tell: slice::a_pod_authenticates_with_what_its_annotations_asked_for,
    },
    Story {
        name: "a_pod_that_asks_for_more_never_starts_and_its_owner_reads_why",
        tell: slice::a_pod_that_asks_for_more_never_starts_and_its_owner_reads_why,
    },
    Story {
        name: "a_new_agent_takes_over_the_volumes_of_the_one_before",
        tell: slice::a_new_agent_takes_over_the_volumes_of_the_one_before,
    },
    Story {
        name: "a_kubelet_that_starts_again_leaves_the_volumes_as_they_are",
        tell: slice::a_kubelet_that_starts_again_leaves_the_volumes_as_they_are,
    },
    Story {
        name: "a_node_that_dies_loses_its_leases_and_its_keys_are_replaced",
        tell: slice::a_node_that_dies_loses_its_leases_and_its_keys_are_replaced,
    },
];

/// Tells the inner process where the cluster's state is.
const INNER: &str = "KRB_TEST_CLUSTER_DIR";
/// How long all stories together may take.
const LIMIT: Duration = Duration::from_secs(1_200);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        STORIES.iter().for_each(|story| println!("{}: test", story.name));
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
            eprintln!("cluster: {error}");
            println!("test result: FAILED. 0 passed; 1 failed; the cluster did not come up");
            ExitCode::FAILURE
        }
    }
}

/// Brings the cluster up, has the stories told inside its network, and takes it down.
fn outer(arguments: &[String]) -> Result<bool, ClusterError> {
    let parts = match Parts::find()? {
        Found::All(parts) => parts,
        Found::Nothing(why) => {
            println!("cluster: NOT RUN (no CLUSTER scripts or binaries: {why})");
            return Ok(true);
        }
    };
    let started = wait::monotonic();
    programs::bring().map_err(|error| ClusterError::new("building what the stories run", error))?;
    println!("cluster: programs and packages after {} s", (wait::monotonic() - started).as_secs());
    let cluster = Cluster::up(parts)?;
    println!("cluster: up after {} s", (wait::monotonic() - started).as_secs());
    let passed = run_inside(cluster.dir(), arguments);
    drop(cluster);
    println!("cluster: down, {} s in all", (wait::monotonic() - started).as_secs());
    passed
}

/// This program once more, in the servers' network. False when a story failed.
fn run_inside(dir: &Path, arguments: &[String]) -> Result<bool, ClusterError> {
    let failed = |error| ClusterError::new("starting the stories", error);
    let program = env::current_exe().map_err(failed)?;
    let mut command = server_net::command(&program);
    let mut child = command.args(arguments).env(INNER, dir).spawn().map_err(failed)?;
    let status = wait::until("the stories to end", LIMIT, || child.try_wait().map_err(failed));
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
    Ok(story::tell(STORIES, &World::new(&cluster), arguments))
}
