//! A node under load: pods come and go on it, and its agent has accidents.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use krb_broker::clock::{Boottime, Clock as _, SystemClock};
use rustix::process::Signal;

use super::{
    chance::Chance,
    check::{Has, Volume},
};
use crate::world::{WorldError, node::Node, pause, pods::Pod};

/// More than three agents a minute under one name are made to wait.
const BETWEEN_RESTARTS: Duration = Duration::from_secs(25);

/// The leases that were acknowledged to a kubelet and not given back: by the uid of the pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Acknowledged(Arc<Mutex<BTreeMap<String, String>>>);

impl Acknowledged {
    /// All of this moment.
    pub(super) fn all(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, pod: &Pod, lease: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(pod.uid.clone(), lease);
    }

    fn remove(&self, pod: &Pod) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&pod.uid);
    }
}

/// A pod of the node, and what its volume has.
struct Slot {
    pod: Pod,
    has: Has,
}

/// What happened on a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) mounts: u64,
    pub(super) unmounts: u64,
    pub(super) accidents: u64,
    pub(super) revocations: u64,
    /// Mounts that were refused, by what the pod's owner would read.
    pub(super) refused: BTreeMap<String, u64>,
}

impl Counts {
    /// Adds what happened on another.
    pub(super) fn add(&mut self, other: &Self) {
        self.mounts += other.mounts;
        self.unmounts += other.unmounts;
        self.accidents += other.accidents;
        self.revocations += other.revocations;
        for (said, times) in &other.refused {
            *self.refused.entry(said.clone()).or_default() += times;
        }
    }
}

/// A node, its pods, and what happens to them.
pub(super) struct Place {
    pub(super) node: Node,
    slots: Vec<Slot>,
    pub(super) counts: Counts,
    acknowledged: Acknowledged,
    chance: Chance,
    restarted_at: Boottime,
}

impl Place {
    /// A node with these pods, none of them mounted.
    pub(super) fn new(
        node: Node,
        pods: Vec<Pod>,
        chance: Chance,
        acknowledged: Acknowledged,
    ) -> Self {
        let slots = pods.into_iter().map(|pod| Slot { pod, has: Has::Nothing }).collect();
        let (counts, restarted_at) = (Counts::default(), SystemClock.now().boot);
        Self { node, slots, counts, acknowledged, chance, restarted_at }
    }

    /// One thing happens, and is over when this returns: the agent runs.
    pub(super) fn act(&mut self) -> Result<(), WorldError> {
        match self.chance.below(100) {
            0..2 => self.stun(),
            2..4 => self.restart_agent(),
            _ => self.turn_over(),
        }
    }

    /// One of its pods that has a lease, if there is any. To be told of the lease's end with
    /// [`Self::revoked`].
    pub(super) fn any_holder(&self, chance: &Chance) -> Option<&str> {
        let has_lease = |slot: &&Slot| slot.has == Has::Lease;
        let holders: Vec<&Slot> = self.slots.iter().filter(has_lease).collect();
        let number = chance.below(holders.len().max(1));
        holders.get(number).map(|slot| slot.pod.uid.as_str())
    }

    /// An operator has taken the lease of this pod away.
    pub(super) fn revoked(&mut self, pod_uid: &str) {
        self.counts.revocations += 1;
        let slot = self.slots.iter_mut().find(|slot| slot.pod.uid == pod_uid);
        if let Some(slot) = slot {
            slot.has = Has::MayBeRevoked;
        }
    }

    /// Its volumes.
    pub(super) fn volumes(&self) -> impl Iterator<Item = Volume<'_>> {
        let node = &self.node;
        self.slots.iter().map(move |slot| Volume { node, pod: &slot.pod, has: slot.has })
    }

    /// How long nothing happens then.
    pub(super) fn rest(&self) -> Duration {
        self.chance.span(5, 80)
    }

    /// A pod starts or ends. More of them run than not.
    fn turn_over(&mut self) -> Result<(), WorldError> {
        let number = self.chance.below(self.slots.len());
        if self.slots[number].has == Has::Nothing {
            self.mount(number)
        } else if self.chance.happens(35) {
            self.unmount(number)
        } else {
            Ok(())
        }
    }

    fn mount(&mut self, number: usize) -> Result<(), WorldError> {
        let slot = &mut self.slots[number];
        let answer = self.node.mount(&slot.pod)?;
        if answer.is_success() {
            slot.has = Has::Lease;
            self.counts.mounts += 1;
            if let Some(lease) = lease_on(&self.node, &slot.pod) {
                self.acknowledged.add(&slot.pod, lease);
            }
            return Ok(());
        }
        *self.counts.refused.entry(answer.message).or_default() += 1;
        // kubelet clears up, and would try again
        self.unmount(number)
    }

    fn unmount(&mut self, number: usize) -> Result<(), WorldError> {
        let slot = &mut self.slots[number];
        self.acknowledged.remove(&slot.pod);
        slot.has = Has::Nothing;
        self.counts.unmounts += 1;
        let answer = self.node.unmount(&slot.pod)?;
        if answer.is_success() {
            return Ok(());
        }
        Err(WorldError::new(format!("unmounting {}", slot.pod.name), answer.text))
    }

    /// The agent stops in its tracks, for so long that the node may be silent, or lost.
    fn stun(&mut self) -> Result<(), WorldError> {
        self.counts.accidents += 1;
        self.node.signal_agent(Signal::STOP);
        pause(self.chance.span(50, 3_000));
        self.node.signal_agent(Signal::CONT);
        Ok(())
    }

    fn restart_agent(&mut self) -> Result<(), WorldError> {
        let now = SystemClock.now().boot;
        if now.since(self.restarted_at) < BETWEEN_RESTARTS {
            return Ok(());
        }
        self.counts.accidents += 1;
        self.restarted_at = now;
        self.node.kill_agent();
        pause(self.chance.span(1, 500));
        self.node.restart_agent()
    }
}

/// The lease that a mounted volume names.
fn lease_on(node: &Node, pod: &Pod) -> Option<String> {
    let note: serde_json::Value =
        serde_json::from_slice(&node.read(pod, "conf/lease.json")?).ok()?;
    note["lease"].as_str().map(str::to_owned)
}
