//! `unmount`: nothing is mounted any more, whoever is away.
//!
//! The files go first, so that a container which still runs loses them. Kubelet shows a failed
//! unmount to nobody and keeps the pod, so only what really stays mounted is a failure; the
//! rest is logged. The directory itself is kubelet's to remove.

use std::time::Duration;

use crate::{
    agent, clock::Deadline, failure::Failure, layers::Layers, lock::Lock, log, target::Target,
};

/// How long a mount in progress has to undo itself. It looks ten times a second; one that does
/// not is stopped or stuck, and undoes itself when it goes on.
const LOCK_LIMIT: Duration = Duration::from_secs(10);

/// Empties the volume, tells the agent, and takes all layers off.
///
/// # Errors
/// [`Failure::Link`] when the path has a link in it; [`Failure::System`] when a layer stays.
pub fn unmount(target: &Target) -> Result<(), Failure> {
    let _lock = Lock::for_unmount(target, &Deadline::after(LOCK_LIMIT))
        .map_err(|errno| note(target, "going on without the lock", &errno));
    let layers = match Layers::find(target) {
        Err(Failure::NoDirectory) => {
            agent::forget(target);
            return Ok(());
        }
        found => found?,
    };
    if let Err(trouble) = layers.empty() {
        note(target, "going on with files", &trouble);
    }
    agent::forget(target);
    layers.take_off() // and empties again: the agent may have been writing
}

fn note(target: &Target, what: &str, trouble: &dyn std::fmt::Display) {
    log::note(&format!("unmount {target}, {what}"), trouble);
}
