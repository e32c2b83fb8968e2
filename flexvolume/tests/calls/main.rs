//! The driver's calls, each answer and what it leaves on the node, against the real binary.
//!
//! Every story runs in a mount namespace of its own. That each answer is exactly one JSON
//! object, with nothing on stderr, is checked in all of them.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod answers;
mod mount;
mod races;
mod unmount;
mod world;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use krb_proto::driver::{Call, DIRECTORIES, Fill, Forget};
use world::{Act, KUBELET, POD, TARGET, UID, answer, options, story, story_without_noswap, until};

const AWAY: &str =
    "krb-broker's agent on this node does not answer; kubelet tries again (AGENT_UNAVAILABLE)";
const LINK: &str = "the volume's path has a link or a file in it (TARGET_REFUSED)";
const UNMOUNTED: &str = "the volume was unmounted while it was being mounted (UNMOUNTED)";

fn willing(_: &Call) -> Act {
    Act::Reply("")
}

/// The call for a volume that is mounted nowhere yet.
fn a_fill() -> Call {
    fill(true)
}

/// The call for the volume that is mounted on the target.
fn a_fill_in_place() -> Call {
    fill(false)
}

fn fill(detached: bool) -> Call {
    let (target, pod_uid, volume) = (TARGET.to_owned(), UID.to_owned(), "creds".to_owned());
    let (pod_namespace, pod_name) = (POD.0.to_owned(), POD.1.to_owned());
    Call::Fill(Fill { target, pod_uid, volume, detached, pod_namespace, pod_name })
}

fn a_forget() -> Call {
    Call::Forget(Forget { target: TARGET.to_owned() })
}
