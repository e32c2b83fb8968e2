//! `mount`: the volume is there and filled, or nothing is there and a reason is given.
//!
//! Kubelet takes any mount that it finds, at a retry or after its own restart, for a success
//! and starts the containers. So the volume is made where nobody sees it, filled there, and put
//! in its place as the last step; whatever goes wrong takes everything off before the answer
//! is given.
//!
//! On kernels that can't do that, before 5.2, nothing is mounted before the agent takes the
//! connection, and it comes off when the agent goes away in the middle. A driver that is killed
//! there leaves an empty volume mounted.

use std::time::Duration;

use rustix::io::Errno;

use crate::{
    agent::{self, Agent, Filled},
    clock::{Deadline, Waits},
    detached::Detached,
    failure::Failure,
    layers::Layers,
    lock::Lock,
    log,
    options::PodNames,
    target::Target,
};

const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Mounts the volume and has the agent fill it. A volume that is there already, since another
/// driver was quicker, is filled again: the agent gives the same lease.
///
/// # Errors
/// Every [`Failure`] but those of the command line.
pub fn mount(target: &Target, names: &PodNames, deadline: &Deadline) -> Result<(), Failure> {
    let locked = Lock::for_mount(target, deadline);
    if locked.as_ref().is_err_and(|errno| *errno == Errno::WOULDBLOCK) {
        return Err(Failure::Busy); // what is mounted is the other call's to answer for
    }
    let layers = Layers::find(target)?;
    let undo = Undo { target, layers: &layers };
    let lock = locked.map_err(Failure::system("locking the volume"))?;
    let was_there = layers.is_tmpfs()?;

    let volume = Volume { target, names, layers: &layers, lock: &lock };
    let filled = fill(&volume, deadline);
    let outcome = if lock.is_marked() { Err(Failure::Unmounted) } else { filled };
    let Err(failure) = outcome else {
        undo.not_needed();
        return Ok(());
    };
    drop(undo);
    if may_hold_a_lease(&failure, was_there) {
        agent::forget(target);
    }
    Err(failure)
}

/// The volume that is to be filled.
struct Volume<'a> {
    target: &'a Target,
    names: &'a PodNames,
    layers: &'a Layers,
    lock: &'a Lock,
}

/// Tries as long as the agent is away.
fn fill(volume: &Volume<'_>, deadline: &Deadline) -> Result<(), Failure> {
    let mut waits = Waits::between(FIRST_WAIT, LONGEST_WAIT);
    loop {
        match fill_once(volume, deadline) {
            Err(Failure::AgentAway) if !volume.lock.is_marked() && waits.wait(deadline) => {}
            outcome => return outcome,
        }
    }
}

fn fill_once(volume: &Volume<'_>, deadline: &Deadline) -> Result<(), Failure> {
    let Volume { target, names, layers, lock } = volume;
    let agent = Agent::connect()?;
    let give_up = || lock.is_marked();
    if !layers.is_tmpfs()? {
        layers.take_off()?; // nothing, or what is not ours
        if let Some(volume) = Detached::make()? {
            let filled = agent.fill(target, names, Some(&volume), deadline, &give_up)?;
            return put(layers, &volume, &filled, lock);
        }
        layers.mount_tmpfs()?;
    }
    layers.make_directories()?;
    let filled = agent.fill(target, names, None, deadline, &give_up).map(drop);
    if filled == Err(Failure::AgentAway) {
        layers.take_off()?;
    }
    filled
}

/// Puts a filled volume in its place, unless it is no longer wanted there. An agent that hung
/// up meanwhile has forgotten it: nobody would renew or wipe what is on it.
fn put(layers: &Layers, volume: &Detached, filled: &Filled, lock: &Lock) -> Result<(), Failure> {
    if lock.is_marked() {
        return Err(Failure::Unmounted);
    }
    if !filled.is_known() {
        return Err(Failure::AgentAway);
    }
    layers.put(volume)?;
    if filled.is_known() {
        return Ok(());
    }
    layers.take_off()?;
    Err(Failure::AgentAway)
}

/// Whether the agent may hold a lease for a volume that could not be mounted.
fn may_hold_a_lease(failure: &Failure, was_there: bool) -> bool {
    match failure {
        Failure::AgentAway => false, // nobody to tell
        Failure::Refused(_) => was_there,
        _ => true,
    }
}

/// Takes everything off when it is dropped, by a failure as by a panic.
struct Undo<'a> {
    target: &'a Target,
    layers: &'a Layers,
}

impl Undo<'_> {
    /// The volume stays.
    fn not_needed(self) {
        std::mem::forget(self);
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Err(trouble) = self.layers.take_off() {
            log::note(&format!("mount {}, undoing it", self.target), &trouble);
        }
    }
}
